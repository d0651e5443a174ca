"""What long work says that it does now, in words, to whoever waits for it: as in "golden case 2 of 3"."""

from __future__ import annotations

from collections.abc import Callable

Told = Callable[[str], None]


def nobody(doing: str) -> None:
    """Nobody waits."""
