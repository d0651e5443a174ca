"""What of a study or a job lies in quarantine, out of its story."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from dicomnode.ports import QUARANTINED, Event

_BEGINNINGS = ("job.started", "job.retried")


def quarantined(story: Iterable[Event]) -> list[Event]:
    """Of each job what its last attempt gave, in the order in which it was told."""
    found: dict[str, list[Event]] = {}
    for event in story:
        if event.kind in _BEGINNINGS:
            found.pop(event.job_id, None)
        elif event.kind == QUARANTINED:
            found.setdefault(event.job_id, []).append(event)
    return [event for events in found.values() for event in events]


def of_job(story: Iterable[Event], job_id: str) -> list[Event]:
    return [event for event in quarantined(story) if event.job_id == job_id]


def lines(events: Iterable[Event], *, with_job: bool) -> Iterator[tuple[Text, Text]]:
    """A label and words each: the kind and the reason, and below them where it lies."""
    for number, event in enumerate(events):
        text = Text(f"{event.detail['result']}: {event.detail['reason']}")
        below = f"job {event.job_id}, " if with_job else ""
        text.append(f"\n{below}{event.detail['place'] or 'it could not be kept'}", style="dim")
        yield Text("" if number else "in quarantine", style="bold red"), text


def rows(events: Iterable[Event]) -> list[dict[str, str]]:
    """For JSON."""
    return [{"job_id": event.job_id, **event.detail} for event in events]
