"""What a peer's answer to a stored object means, and whether sending it again can help.

C-STORE statuses (PS3.4 Table B.2-1, PS3.7 Annex C) and STOW-RS failure and warning reasons (PS3.18 I.2,
PS3.3 C.12.1.1.9) are the same numbers.

What is tried again: whatever may heal without a new object. That is more than the standard's Refused: Out of
Resources (0xA7xx): many archives answer 0x0110 or 0xCxxx to any trouble of their own, a full disk or a database
that is down included, and a peer that does not authorise us is mended at the peer while the result waits.
What is refused for good: the object itself, or its SOP class.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    STORED = "stored"
    WARNING = "warning"  # stored, with something to know
    TRY_AGAIN = "try-again"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StoreStatus:
    code: int
    verdict: Verdict
    meaning: str
    advice: str = ""

    @property
    def words(self) -> str:
        """As in "0xA700 out of resources: free space at the peer"."""
        named = f"0x{self.code:04X} {self.meaning}"
        return f"{named}: {self.advice}" if self.advice else named


_V = Verdict
_EXACT: dict[int, tuple[Verdict, str, str]] = {
    0x0000: (_V.STORED, "success", ""),
    0x0001: (_V.WARNING, "requested optional attributes are not supported", ""),
    0x0107: (_V.WARNING, "attribute list error", ""),
    0x0116: (_V.WARNING, "attribute value out of range", ""),
    0xB000: (_V.WARNING, "coercion of data elements", "the peer changed attributes of the object"),
    0xB006: (_V.WARNING, "elements discarded", "the peer left attributes of the object out"),
    0xB007: (_V.WARNING, "data set does not match SOP class", "the peer kept it all the same"),
    0x0110: (_V.TRY_AGAIN, "processing failure", "see the peer's log"),
    # our UIDs follow from the content, so the object that is there is this one
    0x0111: (_V.STORED, "duplicate SOP instance", "it was there already"),
    0x0117: (_V.REFUSED, "invalid SOP instance", "see the peer's log"),
    0x0122: (_V.REFUSED, "SOP class not supported", "the peer does not store this kind of object"),
    0x0124: (_V.TRY_AGAIN, "not authorised", "allow this node to store at the peer"),
    0x0210: (_V.TRY_AGAIN, "duplicate invocation", ""),
    0xC122: (_V.TRY_AGAIN, "transfer syntax not supported", "enable it at the peer or offer it another"),
    0x0213: (_V.TRY_AGAIN, "resource limitation", "see the peer's log"),
}
_OUT_OF_RESOURCES = (_V.TRY_AGAIN, "out of resources", "free space at the peer")
_MISMATCH = (_V.REFUSED, "data set does not match SOP class", "the peer finds the object not conformant")
_CANNOT_UNDERSTAND = (_V.TRY_AGAIN, "cannot understand", "see the peer's log, it answers this to any trouble")
_FAILURE = (_V.REFUSED, "failure", "see the peer's log")
_UNKNOWN = (_V.TRY_AGAIN, "a status that the standard does not know", "see the peer's log")


def store_status(code: int) -> StoreStatus:
    """The meaning of a status or a reason."""
    return StoreStatus(code, *(_EXACT.get(code) or _in_a_range(code)))


def _in_a_range(code: int) -> tuple[Verdict, str, str]:
    """PS3.7 C: 01xx and 02xx are failures, Axxx and Cxxx the service's own, Bxxx its warnings."""
    if 0xA700 <= code <= 0xA7FF:
        return _OUT_OF_RESOURCES
    if 0xA900 <= code <= 0xA9FF:
        return _MISMATCH
    if 0xC000 <= code <= 0xCFFF:
        return _CANNOT_UNDERSTAND
    if 0xB000 <= code <= 0xBFFF:
        return (_V.WARNING, "warning", "see the peer's log")
    return _FAILURE if 0x0100 <= code <= 0x02FF else _UNKNOWN
