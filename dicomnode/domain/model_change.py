"""What happened to the versions of a model, and to which version a rollback goes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ModelChangeKind(StrEnum):
    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"
    ROLLED_BACK = "rolled back"  # to the version that it names
    SHADOWED = "shadowed"
    UNSHADOWED = "unshadowed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class ModelChange:
    kind: ModelChangeKind
    name: str
    version: str
    at: datetime
    author: str = ""
    reason: str = ""


def active_before(changes: Iterable[ModelChange]) -> str:
    """The version that was active before what is now; "" when there was none. `changes` oldest first.

    A second rollback goes one further back and does not undo the first. One after a deactivation undoes that.
    """
    line: list[str] = []  # versions as they became active; "" while none was; the last one is now
    for change in changes:
        match change.kind:
            case ModelChangeKind.ACTIVATED:
                line.append(change.version)
            case ModelChangeKind.DEACTIVATED:
                line.append("")
            case ModelChangeKind.ROLLED_BACK:
                line = _back(line)
    back = _back(line)
    return back[-1] if back else ""


def _back(line: list[str]) -> list[str]:
    """Up to the last version before what is now that is another one."""
    now = line[-1] if line else ""
    end = len(line) - 1
    while end > 0 and line[end - 1] in ("", now):
        end -= 1
    return line[: max(end, 0)]
