"""The SCP of MPPS (PS3.4 Annex F) and of Instance Availability Notification (PS3.4 Annex R).

pynetdicom's service classes call these handlers; their answers go the way its associations have for them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Protocol, cast

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.dsutils import decode

from dicomnode.adapters.dimse.refusals import Refusal
from dicomnode.domain.identifiers import is_uid
from dicomnode.encoding.dicom_json import dicom_json
from dicomnode.errors import InvalidAttribute
from dicomnode.imaging.headers import UNREADABLE, odd_values_accepted

MPPS = "1.2.840.10008.3.1.2.3.3"  # PS3.4 F.7.1
IAN = "1.2.840.10008.5.1.4.33"  # PS3.4 R.3.1
SOP_CLASSES = frozenset({MPPS, IAN})
# There are no pixels in them: the encodings that compress pixels mean nothing here
TRANSFER_SYNTAXES = frozenset(
    {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)


class Announcements(Protocol):
    """What is done with announcements; stages.announce.AnnounceStage does it.

    Each returns when the announcement is in the database, and raises ReceiveError with the status to answer.
    """

    def create_mpps(self, sop_instance_uid: str, calling_ae_title: str, document: Mapping[str, Any]) -> None: ...

    def update_mpps(self, sop_instance_uid: str, changes: Mapping[str, Any]) -> None: ...

    def create_ian(self, sop_instance_uid: str, calling_ae_title: str, document: Mapping[str, Any]) -> None: ...


class AnnouncementService:
    """One association's N-CREATEs and N-SETs; `attempt` gives the refusal that answers what its argument raised."""

    def __init__(
        self, announcements: Announcements, attempt: Callable[[Association, str, Callable[[], None]], Refusal | None]
    ) -> None:
        self._announcements, self._attempt = announcements, attempt

    def bind(self, association: Association) -> None:
        association.bind(evt.EVT_N_CREATE, self.n_create)
        association.bind(evt.EVT_N_SET, self.n_set)

    def n_create(self, event: evt.Event) -> tuple[Dataset, Dataset]:
        """PS3.4 F.7.2.1 and R.3.2; without an Affected SOP Instance UID it gets one (PS3.7 10.1.5.1.4)."""
        request = cast(N_CREATE, event.request)
        uid = str(request.AffectedSOPInstanceUID or generate_uid(prefix=None))
        create = self._announcements.create_mpps
        if request.AffectedSOPClassUID == IAN:
            create = self._announcements.create_ian
        calling = event.assoc.requestor.ae_title.strip()

        def work() -> None:
            create(_checked(uid), calling, _document(request.AttributeList, event.context.transfer_syntax))

        answer = Dataset()
        if request.AffectedSOPInstanceUID is None:
            answer.AffectedSOPInstanceUID = uid
        return _status(self._attempt(event.assoc, f"N-CREATE of {uid}", work)), answer

    def n_set(self, event: evt.Event) -> tuple[Dataset, None]:
        """PS3.4 F.7.2.2."""
        request = cast(N_SET, event.request)
        uid = str(request.RequestedSOPInstanceUID)

        def work() -> None:
            changes = _document(request.ModificationList, event.context.transfer_syntax)
            self._announcements.update_mpps(_checked(uid), changes)

        return _status(self._attempt(event.assoc, f"N-SET of {uid}", work)), None


def _checked(uid: str) -> str:
    if not is_uid(uid):
        raise InvalidAttribute("the SOP Instance UID is no valid UID")
    return uid


def _document(encoded: BytesIO | None, transfer_syntax: str) -> dict[str, Any]:
    """Raises InvalidAttribute."""
    syntax = UID(transfer_syntax)
    try:
        with odd_values_accepted():
            data_set = decode(
                encoded or BytesIO(), syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
            )
            return dicom_json(data_set)
    except (*UNREADABLE, zlib.error) as error:
        raise InvalidAttribute("the data set cannot be read in its transfer syntax") from error


def _status(refusal: Refusal | None) -> Dataset:
    """PS3.7 10.1.5.1.5 and 10.1.3.1.6 with Annex C.4: why, in Error ID and Error Comment."""
    status = Dataset()
    status.Status = 0x0000 if refusal is None else refusal.status
    if refusal is not None:
        status.ErrorComment = refusal.comment
        if refusal.error_id is not None:
            status.ErrorID = refusal.error_id
    return status
