"""Why a request is refused, as an answer can say it (PS3.7 Annex C)."""

from __future__ import annotations

from dataclasses import dataclass

from dicomnode.errors import DicomNodeError, ReceiveError

PROCESSING_FAILURE = 0x0110  # PS3.7 C.5
COMMENT_MOST = 64  # characters: Error Comment (0000,0902) is an LO


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    reason: str
    offending_elements: tuple[int, ...] = ()
    error_id: int | None = None

    @property
    def comment(self) -> str:
        return self.reason.encode("ascii", "replace").decode()[:COMMENT_MOST]


def refusal_of(error: DicomNodeError) -> Refusal:
    if isinstance(error, ReceiveError):
        return Refusal(error.dimse_status, str(error), error.offending_elements, error.error_id)
    return Refusal(PROCESSING_FAILURE, _AGAIN if error.retryable else _BROKEN)


_AGAIN = "the node cannot keep it now; try again later"
_BROKEN = "the node failed; its log says why"
BROKEN = Refusal(PROCESSING_FAILURE, _BROKEN)
