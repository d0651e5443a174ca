"""Asks a peer to commit to objects that it was sent (PS3.4 J.3.2), and hears what it says on that association.

What it says later, on an association of its own, the node's receiver takes (commitment_scp).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event

from dicomnode.adapters.dimse import commitment
from dicomnode.adapters.dimse.storage_scu import Call, StorageScu, Timeouts
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.destination import DimseAddress
from dicomnode.domain.proof import ProofAnswer
from dicomnode.errors import DestinationRefused, DestinationUnavailable, InvalidAttribute, ProofUnsupported
from dicomnode.ports import ProofWork

# So long the answer is waited for on the association of the request; most peers that use it answer at once
REPORT_WAIT_S = 5.0
_SUCCESS, _PROCESSING_FAILURE, _INVALID_ARGUMENT_VALUE = 0x0000, 0x0110, 0x0115  # PS3.7 C
# What N-ACTION may be answered (PS3.4 J.3.2.1, PS3.7 10.1.4.1.10): words, and whether asking again can help
_REFUSALS: dict[int, tuple[str, bool]] = {
    0x0110: ("processing failure", True),
    0x0112: ("no such SOP instance", False),
    0x0115: ("invalid argument value", True),
    0x0117: ("invalid object instance", False),
    0x0118: ("no such SOP class", False),
    0x0123: ("no such action", False),
    0x0124: ("not authorised: allow this node to ask for Storage Commitment at the peer", True),
    0x0131: ("duplicate transaction UID", True),
    0x0211: ("unrecognised operation", False),
    0x0213: ("resource limitation", True),
}


class CommitmentScu:
    """A `Prover` for destinations of kind "dimse". Each call is an association of its own."""

    def __init__(
        self, calling_ae_title: str, timeouts: Timeouts | None = None, report_wait_s: float = REPORT_WAIT_S
    ) -> None:
        self._peers = StorageScu(calling_ae_title, timeouts)
        self._timeouts = timeouts or Timeouts()
        self._report_wait_s = report_wait_s

    def prove(self, work: ProofWork) -> ProofAnswer:
        address = work.destination.address
        assert isinstance(address, DimseAddress), work.destination.kind
        heard = _Heard(work.transaction_uid)
        try:
            with self._peers.associated(
                address,
                [commitment.context()],
                self._timeouts.response_s,
                handlers=[(evt.EVT_N_EVENT_REPORT, heard.report)],
            ) as call:
                _ask(call, work)
                heard.wait(self._report_wait_s, lambda: call.association.is_established)
        except DestinationRefused as error:
            if error.failure == FailureKind.CONTEXT_NOT_ACCEPTED:
                raise ProofUnsupported(f"{address} does no Storage Commitment") from error
            raise
        return heard.answer or ProofAnswer(words=f"{address} was asked to commit to it and has not answered yet")


def _ask(call: Call, work: ProofWork) -> None:
    """Raises unless the peer takes the request."""
    started = time.monotonic()
    information = commitment.request(work.transaction_uid, work.references)
    try:
        status, _ = call.association.send_n_action(
            information, commitment.REQUEST, commitment.SOP_CLASS, commitment.SOP_INSTANCE
        )
    except RuntimeError as error:  # the peer ended the association before the request
        raise _unanswered(call, started) from error
    code = status.get("Status")
    if not isinstance(code, int):
        raise _unanswered(call, started)
    if code != _SUCCESS and not 0xB000 <= code <= 0xBFFF:
        words, again = _REFUSALS.get(code, ("see the peer's log", True))
        said = f"{call.peer} answered the commitment request with 0x{code:04X} {words}"
        raise DestinationUnavailable(said, FailureKind.STATUS) if again else ProofUnsupported(said)


def _unanswered(call: Call, started: float) -> DestinationUnavailable:
    """Orthanc, for one, aborts the association of those whose AE title it does not know."""
    ended, ours = call.ended(started), call.association.requestor.ae_title
    return DestinationUnavailable(f"{ended}; does it know {ours} as one that may ask for commitment?", ended.failure)


class _Heard:
    """What the peer reports on the association of the request."""

    def __init__(self, transaction_uid: str) -> None:
        self._transaction_uid = transaction_uid
        self._happened = threading.Event()
        self.answer: ProofAnswer | None = None

    def report(self, event: Event) -> tuple[Dataset | int, None]:
        """PS3.4 J.3.3; a report of another transaction is none of ours."""
        request = cast(N_EVENT_REPORT, event.request)
        try:
            uid, answer = commitment.read_report(
                commitment.decoded(request.EventInformation, event.context.transfer_syntax)
            )
        except InvalidAttribute:
            return _PROCESSING_FAILURE, None
        if uid != self._transaction_uid:
            return _INVALID_ARGUMENT_VALUE, None
        self.answer = answer
        self._happened.set()
        return _SUCCESS, None

    def wait(self, timeout_s: float, goes_on: Callable[[], bool]) -> None:
        """Until it was reported, the time is over, or the peer has ended the association."""
        end = time.monotonic() + timeout_s
        while not self._happened.wait(0.05) and time.monotonic() < end and goes_on():
            pass
        if self._happened.is_set():
            time.sleep(0.05)  # the response is on its way to the peer
