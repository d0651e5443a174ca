"""Times on the command line: how long ago, or when."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

_AGE = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EXAMPLES = "write how long ago, as in 30m, 2h, 30d or 8w, or when, as in 2026-01-31 or 2026-01-31T14:30"

Since = Annotated[
    str, typer.Option("--since", metavar="WHEN", help="Not before: 30m, 2h, 30d or 8w ago, or 2026-01-31T14:30.")
]
Until = Annotated[str, typer.Option("--until", metavar="WHEN", help="Before; written as --since.")]


def now() -> datetime:
    """UTC, aware."""
    return datetime.now(UTC)


def age(text: str, option: str = "--since") -> timedelta:
    """What "12h", "30d" or "8w" says; raises BadParameter."""
    match = _AGE.fullmatch(text)
    if not match:
        raise typer.BadParameter(f"{text!r} is no time such as 12h, 30d or 8w", param_hint=option)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def moment(text: str, option: str, at: datetime | None = None) -> datetime | None:
    """The moment that is meant, None for an empty text; without a zone it is in this host's. Raises BadParameter.

    `at` is now.
    """
    if not text:
        return None
    if _AGE.fullmatch(text):
        return (at or now()) - age(text, option)
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time; {_EXAMPLES}", param_hint=option) from None


def span(since: str, until: str) -> tuple[datetime | None, datetime | None]:
    """From when until when; raises BadParameter, with both moments as they were read, when nothing lies between."""
    at = now()
    first, last = moment(since, "--since", at), moment(until, "--until", at)
    if first is not None and last is not None and first >= last:
        words = f"--since {since} is {_read(first)}, which is not before --until {until}, {_read(last)}"
        raise typer.BadParameter(f"{words}; nothing lies between", param_hint="--since")
    return first, last


def _read(when: datetime) -> str:
    """In this host's zone."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")
