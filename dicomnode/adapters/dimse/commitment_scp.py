"""Storage Commitment where the peer asks or reports: our receiver hears both (PS3.4 J.3.2 and J.3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import PresentationContext

from dicomnode.adapters.dimse import commitment
from dicomnode.adapters.dimse.refusals import Refusal
from dicomnode.domain.proof import ProofAnswer


class Commitments(Protocol):
    """What is done with it; stages.commit.CommitStage does it.

    Each returns when it is in the database, and raises ReceiveError with the status to answer.
    """

    def reported(self, calling_ae_title: str, transaction_uid: str, answer: ProofAnswer) -> None: ...


class CommitmentService:
    """One association's N-EVENT-REPORTs; `attempt` gives the refusal that answers what its argument raised."""

    def __init__(
        self, commitments: Commitments, attempt: Callable[[Association, str, Callable[[], None]], Refusal | None]
    ) -> None:
        self._commitments, self._attempt = commitments, attempt

    def bind(self, association: Association) -> None:
        association.bind(evt.EVT_N_EVENT_REPORT, self.n_event_report)

    def n_event_report(self, event: evt.Event) -> tuple[Dataset, None]:
        """A peer says what it commits to, on an association of its own (PS3.4 J.3.3)."""
        request = cast(N_EVENT_REPORT, event.request)
        calling = event.assoc.requestor.ae_title.strip()

        def work() -> None:
            data_set = commitment.decoded(request.EventInformation, event.context.transfer_syntax)
            self._commitments.reported(calling, *commitment.read_report(data_set))

        return commitment.status_of(self._attempt(event.assoc, "a commitment report", work)), None


def both_roles(context: PresentationContext) -> PresentationContext:
    """Who reports proposes itself as SCP (PS3.4 J.3.3, PS3.7 D.3.3.4), who asks as SCU, as by default."""
    context.scu_role = context.scp_role = True
    return context
