"""Tells a sender on an association of ours what we keep of what it sent (PS3.4 J.3.3), as the SCP of it."""

from __future__ import annotations

import time

from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from dicomnode.adapters.dimse import commitment
from dicomnode.adapters.dimse.storage_scu import StorageScu, Timeouts
from dicomnode.domain.commitment_wish import CommitmentResult, CommitmentWish
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.errors import DestinationUnavailable


class CommitmentReporter:
    def __init__(self, ae_title: str, timeouts: Timeouts | None = None) -> None:
        self._peers = StorageScu(ae_title, timeouts)
        self._timeouts = timeouts or Timeouts()

    def report(self, wish: CommitmentWish, result: CommitmentResult) -> None:
        """Raises DestinationUnavailable, DestinationRefused."""
        assert wish.address is not None
        role = SCP_SCU_RoleSelectionNegotiation()  # PS3.7 D.3.3.4: we, who ask for it, are the SCP
        role.sop_class_uid = commitment.SOP_CLASS
        role.scu_role, role.scp_role = False, True
        event_type, data_set = commitment.report(wish.transaction_uid, result.kept, result.failed)
        with self._peers.associated(
            wish.address, [commitment.context()], self._timeouts.response_s, negotiation=[role]
        ) as call:
            started = time.monotonic()
            try:
                status, _ = call.association.send_n_event_report(
                    data_set, event_type, commitment.SOP_CLASS, commitment.SOP_INSTANCE
                )
            except RuntimeError as error:  # the peer ended the association before
                raise call.ended(started) from error
            code = status.get("Status")
            if not isinstance(code, int):
                raise call.ended(started)
        if code != 0x0000:
            raise DestinationUnavailable(
                f"{wish.address} answered our report with 0x{code:04X}; see its log", FailureKind.STATUS
            )
