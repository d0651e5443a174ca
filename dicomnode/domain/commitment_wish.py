"""What a sender asks us to commit to, and what we can say of it (PS3.4 J.3.2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dicomnode.domain.destination import DimseAddress
from dicomnode.domain.proof import NO_SUCH_OBJECT, Reference

CLASS_INSTANCE_CONFLICT = 0x0119
# What came just now may not have its place yet: nothing counts as missing before
SETTLED_AFTER_S = 60.0
# The association of the request has the first chance to hear the answer
TOLD_ELSEWHERE_AFTER_S = 10.0
TOLD_MOST_S = 72 * 3600.0
_PAUSE_FIRST_S, _PAUSE_MOST_S = 30.0, 3600.0


@dataclass(frozen=True, slots=True)
class CommitmentWish:
    calling_ae_title: str
    called_ae_title: str
    transaction_uid: str
    references: tuple[Reference, ...]
    asked_at: datetime
    tries: int = 0
    address: DimseAddress | None = None  # where its sender takes the answer; None: nobody told us


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    kept: tuple[Reference, ...] = ()
    failed: Mapping[Reference, int] = field(default_factory=dict)


def settle(wish: CommitmentWish, there: Mapping[str, str], age_s: float) -> CommitmentResult | None:
    """What is answered, or None while some of it may only not be filed yet.

    `there`: SOP Instance UID → SOP Class UID of what lies in the store and is indexed.
    """
    kept = tuple(r for r in wish.references if _is_same(r, there))
    failed = {r: _reason(r, there) for r in wish.references if not _is_same(r, there)}
    if age_s < SETTLED_AFTER_S and NO_SUCH_OBJECT in failed.values():
        return None
    return CommitmentResult(kept, failed)


def _is_same(reference: Reference, there: Mapping[str, str]) -> bool:
    return there.get(reference.sop_instance_uid) == reference.sop_class_uid


def _reason(reference: Reference, there: Collection[str]) -> int:
    return CLASS_INSTANCE_CONFLICT if reference.sop_instance_uid in there else NO_SUCH_OBJECT


def tell_pause_s(tries: int, age_s: float) -> float | None:
    """Seconds until its sender is tried again; None when it is time to give up."""
    return None if age_s >= TOLD_MOST_S else min(_PAUSE_FIRST_S * 2.0 ** min(tries, 30), _PAUSE_MOST_S)


def result_words(result: CommitmentResult) -> str:
    """As in "committed to 12, not to 1"."""
    return f"committed to {len(result.kept)}" + (f", not to {len(result.failed)}" if result.failed else "")
