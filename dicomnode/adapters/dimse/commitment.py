"""The data sets of Storage Commitment Push Model (PS3.4 J.3), as values of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO

from pydicom import Dataset
from pydicom import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import decode
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.adapters.dimse.refusals import Refusal
from dicomnode.domain.identifiers import is_uid
from dicomnode.domain.proof import ProofAnswer, Reference
from dicomnode.errors import InvalidAttribute
from dicomnode.imaging.headers import UNREADABLE, odd_values_accepted

SOP_CLASS = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known instance
REQUEST = 1  # Action Type ID of a Storage Commitment Request (PS3.4 J.3.2)
ALL_COMMITTED, FAILURES_EXIST = 1, 2  # Event Type IDs (PS3.4 J.3.3)
TRANSFER_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_REFERENCES_MOST = 100_000


def context() -> PresentationContext:
    return build_context(SOP_CLASS, list(TRANSFER_SYNTAXES))


def request(transaction_uid: str, references: Iterable[Reference]) -> Dataset:
    """The Action Information (PS3.4 Table J.3-1)."""
    data_set = Dataset()
    data_set.TransactionUID = transaction_uid
    data_set.ReferencedSOPSequence = Items(map(_item, references))
    return data_set


def report(transaction_uid: str, kept: Sequence[Reference], failed: Mapping[Reference, int]) -> tuple[int, Dataset]:
    """Event Type ID and Event Information (PS3.4 Table J.3-2)."""
    data_set = Dataset()
    data_set.TransactionUID = transaction_uid
    if kept:
        data_set.ReferencedSOPSequence = Items(map(_item, kept))
    if failed:
        data_set.FailedSOPSequence = Items(_failed_item(reference, reason) for reference, reason in failed.items())
    return (FAILURES_EXIST if failed else ALL_COMMITTED), data_set


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _failed_item(reference: Reference, reason: int) -> Dataset:
    item = _item(reference)
    item.FailureReason = reason
    return item


def decoded(encoded: BytesIO | None, transfer_syntax: str) -> Dataset:
    """Raises InvalidAttribute."""
    syntax = UID(transfer_syntax)
    try:
        with odd_values_accepted():
            return decode(encoded or BytesIO(), syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    except UNREADABLE as error:
        raise InvalidAttribute("the data set cannot be read in its transfer syntax") from error


def read_request(data_set: Dataset) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID and what is to be committed to. Raises InvalidAttribute."""
    references = tuple(_references(data_set, "ReferencedSOPSequence"))
    if not references:
        raise InvalidAttribute("there is no Referenced SOP Sequence (0008,1199), or no instance in it")
    return _transaction(data_set), references


def read_report(data_set: Dataset) -> tuple[str, ProofAnswer]:
    """Transaction UID and what is committed to and what is not, whatever the Event Type ID says.

    A failure without a reason counts as a processing failure. Raises InvalidAttribute.
    """
    committed = frozenset(r.sop_instance_uid for r in _references(data_set, "ReferencedSOPSequence"))
    failed = dict(_failures(data_set))
    words = "committed to keep it (Storage Commitment)"
    return _transaction(data_set), ProofAnswer(committed - failed.keys(), failed, committed=True, words=words)


def _transaction(data_set: Dataset) -> str:
    uid = str(data_set.get("TransactionUID", ""))
    if not is_uid(uid):
        raise InvalidAttribute("there is no valid Transaction UID (0008,1195)")
    return uid


def _references(data_set: Dataset, keyword: str) -> list[Reference]:
    found = []
    for item in (data_set.get(keyword) or [])[:_REFERENCES_MOST]:
        uid = str(item.get("ReferencedSOPInstanceUID", ""))
        if not is_uid(uid):
            raise InvalidAttribute("a Referenced SOP Instance UID (0008,1155) is no valid UID")
        found.append(Reference(str(item.get("ReferencedSOPClassUID", "")), uid))
    return found


def _failures(data_set: Dataset) -> Iterable[tuple[str, int]]:
    for item in data_set.get("FailedSOPSequence") or []:
        reason = item.get("FailureReason")
        yield str(item.get("ReferencedSOPInstanceUID", "")), reason if isinstance(reason, int) else 0x0110


def status_of(refusal: Refusal | None) -> Dataset:
    """PS3.7 Annex C: why, in Error Comment."""
    status = Dataset()
    status.Status = 0x0000 if refusal is None else refusal.status
    if refusal is not None:
        status.ErrorComment = refusal.comment
    return status
