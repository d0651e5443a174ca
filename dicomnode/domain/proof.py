"""When a destination is asked whether it keeps what it was sent, and what its answer means.

C-STORE's Success says that the object was stored; who may delete the last other copy wants more: Storage Commitment
(PS3.4 J), by which the peer takes the responsibility, or at least a query that finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PROOF_FIRST_S = 1.0  # results of one job are asked for together
PROOF_GIVE_UP_AFTER_S = 72 * 3600.0
PROOF_UNSUPPORTED_S = 24 * 3600.0  # so long a destination that cannot prove is not asked again
LOST_MOST = 3  # so often an object that is not kept is sent again
_PAUSES_S: dict[str, tuple[float, float]] = {"dimse": (600.0, 6 * 3600.0), "stow": (5.0, 3600.0)}  # first, most
# A search may lag behind the storing, by minutes in large archives: so often "not found" is only early (20 min)
NOT_FOUND_YET_MOST = 8


class Shortfall(StrEnum):
    """What is done about an object that is not proven."""

    ASK_AGAIN = "ask-again"
    SEND_AGAIN = "send-again"
    TELL = "tell"


# Failure Reason (0008,1197) of a commitment (PS3.3 C.14.1.1)
NO_SUCH_OBJECT = 0x0112
_REASONS: dict[int, tuple[Shortfall, str]] = {
    0x0110: (Shortfall.ASK_AGAIN, "processing failure"),
    NO_SUCH_OBJECT: (Shortfall.SEND_AGAIN, "no such object instance"),
    0x0213: (Shortfall.ASK_AGAIN, "resource limitation"),
    0x0122: (Shortfall.TELL, "referenced SOP class not supported"),
    0x0119: (Shortfall.TELL, "class/instance conflict"),
    0x0131: (Shortfall.ASK_AGAIN, "duplicate transaction UID"),
}


def commitment_shortfall(reason: int) -> tuple[Shortfall, str]:
    """What follows from a failure reason, and the reason in words."""
    shortfall, words = _REASONS.get(reason, (Shortfall.TELL, "a reason that the standard does not know"))
    return shortfall, f"0x{reason:04X} {words}"


def search_shortfall(asks: int) -> Shortfall:
    """Of an object that a search does not find, after so many."""
    return Shortfall.ASK_AGAIN if asks < NOT_FOUND_YET_MOST else Shortfall.SEND_AGAIN


def ask_pause_s(kind: str, asks: int, age_s: float) -> float | None:
    """Seconds until it is asked again after so many times; None when it is time to give up.

    Archives commit when they have written to their long-term store, which may be at night: 10 minutes to 6 hours.
    """
    if age_s >= PROOF_GIVE_UP_AFTER_S:
        return None
    first_s, most_s = _PAUSES_S[kind]
    return min(first_s * 2.0 ** min(asks - 1, 30), most_s)


@dataclass(frozen=True, slots=True)
class Reference:
    """An object whose keeping is asked about."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str = ""
    study_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class ProofAnswer:
    """What a destination said; of what it left out it may still speak. Failures: SOP Instance UID → reason."""

    proven: frozenset[str] = frozenset()
    failed: Mapping[str, int] = field(default_factory=dict)
    committed: bool = True  # False: only found by a search
    words: str = ""
