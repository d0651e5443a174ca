"""Receive: what a C-STORE brought is checked, made safe and then acknowledged; the index comes after that.

`ReceiveStage.accept` runs in the association and returns only when the instance survives a power cut
(PS3.4 B.2.2: by Success the SCP takes the responsibility). Giving it its place and telling the database is the
Indexer's work: a database that is down costs no image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicomnode.domain.identifiers import is_uid
from dicomnode.encoding.part10 import Chunk, Unreadable, file_meta_information
from dicomnode.errors import CannotUnderstand, DataSetMismatch, OutOfResources
from dicomnode.ports import Clock, InstanceStore, State
from dicomnode.stages.index import Arrival, AssociationEnd, Header, Indexer, read_header
from dicomnode.stages.rejections import Rejection, Rejections


@dataclass(frozen=True, slots=True)
class ReceivedDataSet:
    """A C-STORE request (PS3.7 9.1.1.1): the data set encoded as it came, in the pieces in which it came."""

    chunks: Sequence[Chunk]
    transfer_syntax_uid: str  # of the presentation context
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    calling_ae_title: str
    called_ae_title: str
    association: str  # which one: RECEIVER/PROCESS/NUMBER


class ReceiveStage:
    """Takes what associations bring; `indexer` is to be started, flushed and stopped beside it."""

    def __init__(self, store: InstanceStore, state: State, clock: Clock, *, min_free_bytes: int = 0) -> None:
        self._store = store
        self._min_free_bytes = min_free_bytes
        self.indexer = Indexer(store, state, clock)
        self._rejections = Rejections(self.indexer.tell, clock.monotonic)

    def accept(self, raw: ReceivedDataSet) -> None:
        """Returns when the instance is safe; raises ReceiveError, and then the sender keeps the responsibility."""
        header = header_of(raw)
        check(header, raw)
        if self._store.free_bytes() < self._min_free_bytes:
            raise OutOfResources("the disk has too little space left")
        spooled = self._store.spool(
            [_file_meta_information(raw), *raw.chunks],
            calling_ae_title=raw.calling_ae_title,
            called_ae_title=raw.called_ae_title,
        )
        self.indexer.put(Arrival(spooled, header, raw.association))

    def association_ended(self, end: AssociationEnd) -> None:
        self.indexer.put(end)

    def turned_away(self, rejection: Rejection) -> None:
        self._rejections.add(rejection)


def header_of(raw: ReceivedDataSet) -> Header:
    """Raises CannotUnderstand."""
    try:
        return read_header(raw.chunks, raw.transfer_syntax_uid)
    except Unreadable as error:
        raise CannotUnderstand(str(error)) from error


def check(header: Header, raw: ReceivedDataSet) -> None:
    """Whether the instance can be kept: it has a place, and it is what the command says that it is.

    Without valid UIDs there is neither a place in the store nor a row in the database, and a UID such as
    `../../etc` must never become a path. PS3.4 B.2.3 and Table B.2-1 give the statuses.
    """
    for name, tag, value in (
        ("SOP Class UID", 0x00080016, header.sop_class_uid),
        ("SOP Instance UID", 0x00080018, header.sop_instance_uid),
        ("Study Instance UID", 0x0020000D, header.study_instance_uid),
        ("Series Instance UID", 0x0020000E, header.series_instance_uid),
    ):
        if not is_uid(value):
            raise CannotUnderstand(f"{name} is {'no valid UID' if value else 'missing'}", (tag,))
    if header.sop_class_uid != raw.affected_sop_class_uid:
        raise DataSetMismatch("SOP Class UID is not the command's Affected SOP Class UID", (0x00080016,))
    if header.sop_instance_uid != raw.affected_sop_instance_uid:
        raise DataSetMismatch("SOP Instance UID is not the command's Affected one", (0x00080018,))


def _file_meta_information(raw: ReceivedDataSet) -> bytes:
    return file_meta_information(
        sop_class_uid=raw.affected_sop_class_uid,
        sop_instance_uid=raw.affected_sop_instance_uid,
        transfer_syntax_uid=raw.transfer_syntax_uid,
        calling_ae_title=raw.calling_ae_title,
        called_ae_title=raw.called_ae_title,
    )
