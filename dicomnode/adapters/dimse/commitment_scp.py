"""Storage Commitment where the peer asks or reports: our receiver hears both (PS3.4 J.3.2 and J.3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicomnode.adapters.dimse import commitment
from dicomnode.adapters.dimse.refusals import Refusal
from dicomnode.domain.commitment_wish import CommitmentResult
from dicomnode.domain.proof import ProofAnswer, Reference
from dicomnode.domain.source import Source
from dicomnode.errors import DatabaseAway, InvalidArgumentValue, NotAuthorised

log = logging.getLogger(__name__)

NO_SUCH_ACTION = 0x0123  # PS3.7 C.5


class Commitments(Protocol):
    """What is done with it; stages.commit.CommitStage does it.

    Each returns when it is in the database, and raises ReceiveError with the status to answer.
    """

    def reported(self, calling_ae_title: str, transaction_uid: str, answer: ProofAnswer) -> None: ...

    def asked(
        self, calling_ae_title: str, called_ae_title: str, transaction_uid: str, references: Sequence[Reference]
    ) -> None: ...

    def result(self, calling_ae_title: str, transaction_uid: str) -> CommitmentResult | None: ...

    def told(self, calling_ae_title: str, transaction_uid: str, result: CommitmentResult) -> None: ...


class Sources(Protocol):
    """What senders may ask; stages.sources.KnownSources knows it."""

    def of(self, ae_title: str) -> Source: ...


class CommitmentService:
    """One association's requests and reports; `attempt` gives the refusal that answers what its argument raised."""

    def __init__(
        self,
        commitments: Commitments,
        attempt: Callable[[Association, str, Callable[[], None]], Refusal | None],
        sources: Sources,
    ) -> None:
        self._commitments, self._attempt, self._sources = commitments, attempt, sources
        self._untold: list[str] = []  # Transaction UIDs
        self._message_id = 0

    def bind(self, association: Association) -> None:
        association.bind(evt.EVT_N_EVENT_REPORT, self.n_event_report)
        association.bind(evt.EVT_N_ACTION, self.n_action)

    def n_event_report(self, event: evt.Event) -> tuple[Dataset, None]:
        """A peer says what it commits to, on an association of its own (PS3.4 J.3.3)."""
        request = cast(N_EVENT_REPORT, event.request)
        calling = event.assoc.requestor.ae_title.strip()

        def work() -> None:
            data_set = commitment.decoded(request.EventInformation, event.context.transfer_syntax)
            self._commitments.reported(calling, *commitment.read_report(data_set))

        return commitment.status_of(self._attempt(event.assoc, "a commitment report", work)), None

    def n_action(self, event: evt.Event) -> tuple[Dataset, None]:
        """A sender asks us to commit to what it sent (PS3.4 J.3.2)."""
        request = cast(N_ACTION, event.request)
        calling = event.assoc.requestor.ae_title.strip()
        primitive = event.assoc.requestor.primitive
        called = (primitive.called_ae_title or "").strip() if primitive else ""

        def work() -> None:
            if not self._sources.of(calling).commitment:  # the context is one for reports, or older than the setting
                raise NotAuthorised("commitment requests of this AE title are switched off")
            if request.RequestedSOPInstanceUID != commitment.SOP_INSTANCE:
                raise InvalidArgumentValue("Storage Commitment has one well-known SOP instance")
            data_set = commitment.decoded(request.ActionInformation, event.context.transfer_syntax)
            transaction_uid, references = commitment.read_request(data_set)
            self._commitments.asked(calling, called, transaction_uid, references)
            self._untold.append(transaction_uid)

        if request.ActionTypeID != commitment.REQUEST:
            return commitment.status_of(Refusal(NO_SUCH_ACTION, "there is action 1 alone")), None
        return commitment.status_of(self._attempt(event.assoc, "a commitment request", work)), None

    def when_idle(self, association: Association) -> None:
        """Tells what can be told by now, on the association of the request; in the association's own thread."""
        calling = association.requestor.ae_title.strip()
        for transaction_uid in list(self._untold):
            try:
                self._tell(association, calling, transaction_uid)
            except DatabaseAway as error:
                log.warning("what is kept cannot be said now: %s", error)
                return

    def _tell(self, association: Association, calling: str, transaction_uid: str) -> None:
        result = self._commitments.result(calling, transaction_uid)
        if result is None or not association.is_established:
            return
        self._untold.remove(transaction_uid)  # once: should it fail, the sender is told on another association
        self._message_id = self._message_id % 0xFFFF + 1
        event_type, data_set = commitment.report(transaction_uid, result.kept, result.failed)
        association._is_paused = True  # it is our own thread that sends
        try:
            status, _ = association.send_n_event_report(
                data_set, event_type, commitment.SOP_CLASS, commitment.SOP_INSTANCE, msg_id=self._message_id
            )
        finally:
            association._is_paused = False
        if status.get("Status") == 0x0000:
            self._commitments.told(calling, transaction_uid, result)


def set_roles(context: PresentationContext, *, scu: bool) -> None:
    """Who reports proposes itself as SCP (PS3.4 J.3.3, PS3.7 D.3.3.4), who asks as SCU, as by default."""
    context.scu_role, context.scp_role = scu, True


def wants_to_report(request: A_ASSOCIATE) -> bool:
    """Whether the requestor proposes to be SCP."""
    roles = [item for item in request.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    return any(role.sop_class_uid == commitment.SOP_CLASS and role.scp_role for role in roles)
