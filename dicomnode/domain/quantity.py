"""How many there are of something, in words: one of it is not several."""

from __future__ import annotations


def quantity(number: int, one: str, several: str = "") -> str:
    """As in "1 instance", "3 instances", "2 studies"; `several` where it is not `one` with an s."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"
