"""A storage SCP that also commits, on its good and bad days (PS3.4 J)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicomnode.domain.destination import Destination, DimseAddress
from sample_data.pacs import DemoPacs

INSTANCE = "1.2.840.10008.1.20.1.1"
Reporter = Callable[["CommittingPacs", Association, Dataset], None]


class CommittingPacs(DemoPacs):
    """What it does with a request, once it has answered it, is `reporter`'s business: see the functions below."""

    def __init__(self, folder: Path, reporter: Reporter, *, answer: int = 0x0000, report_to: int = 0) -> None:
        super().__init__(folder, ae_title="COMMITS")
        self.reporter, self.answer, self.report_to = reporter, answer, report_to
        self.ae.add_supported_context(StorageCommitmentPushModel)
        self.requests: list[Dataset] = []
        self.answers: list[int] = []  # what the node answered to reports
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> CommittingPacs:
        super().__enter__()
        assert self._server is not None
        self._server.bind(evt.EVT_N_ACTION, self.asked)
        return self

    def __exit__(self, *about: object) -> None:
        for thread in self._threads:
            thread.join(10)
        super().__exit__(*about)

    def destination(self, name: str = "pacs", **options: Any) -> Destination:
        return Destination(name, DimseAddress("COMMITS", "127.0.0.1", self.port), **options)

    def asked(self, event: Event) -> tuple[int, None]:
        request = event.action_information
        self.requests.append(request)
        if self.answer == 0x0000:
            thread = threading.Thread(target=self.reporter, args=(self, event.assoc, request))
            self._threads.append(thread)
            thread.start()
        return self.answer, None

    def references(self, request: Dataset) -> list[Dataset]:
        return list(request.ReferencedSOPSequence)


def report(request: Dataset, failed: Sequence[Dataset] = (), reason: int = 0x0112, uid: str = "") -> Dataset:
    """All that was asked for is committed to but the failed."""
    data_set = Dataset()
    data_set.TransactionUID = uid or request.TransactionUID
    names = {item.ReferencedSOPInstanceUID for item in failed}
    kept = [item for item in request.ReferencedSOPSequence if item.ReferencedSOPInstanceUID not in names]
    if kept:
        data_set.ReferencedSOPSequence = kept
    if failed:
        data_set.FailedSOPSequence = [_failed(item, reason) for item in failed]
    return data_set


def _failed(item: Dataset, reason: int) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID = item.ReferencedSOPClassUID
    made.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
    made.FailureReason = reason
    return made


def say(peer: CommittingPacs, association: Association, data_set: Dataset) -> None:
    event_type = 2 if "FailedSOPSequence" in data_set else 1
    status, _ = association.send_n_event_report(data_set, event_type, StorageCommitmentPushModel, INSTANCE)
    peer.answers.append(status.get("Status", -1))


def same_association(peer: CommittingPacs, association: Association, request: Dataset) -> None:
    say(peer, association, report(request))


def first_is_lost(peer: CommittingPacs, association: Association, request: Dataset) -> None:
    say(peer, association, report(request, peer.references(request)[:1]))


def another_transaction(peer: CommittingPacs, association: Association, request: Dataset) -> None:
    say(peer, association, report(request, uid="2.25.4711"))


def silence(peer: CommittingPacs, association: Association, request: Dataset) -> None:
    pass


def new_association(peer: CommittingPacs, association: Association, request: Dataset) -> None:
    """With role selection: it asks to be the SCP of this association (PS3.7 D.3.3.4)."""
    with_data_set(peer, report(request), role=True)


def with_data_set(peer: CommittingPacs, data_set: Dataset, *, role: bool) -> None:
    """On an association of its own to `report_to`."""
    ae = AE("COMMITS")
    negotiation = SCP_SCU_RoleSelectionNegotiation()
    negotiation.sop_class_uid = StorageCommitmentPushModel
    negotiation.scu_role, negotiation.scp_role = False, True
    contexts = [build_context(StorageCommitmentPushModel)]
    association = ae.associate(
        "127.0.0.1", peer.report_to, contexts=contexts, ext_neg=[negotiation] if role else None, ae_title="NODE"
    )
    assert association.is_established
    try:
        say(peer, association, data_set)
    finally:
        association.release()
