"""The Storage SCP: C-STORE and C-ECHO from anyone who may (PS3.4 Annex B, A.4); announcement_scp is beside it."""

from __future__ import annotations

import itertools
import logging
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from pydicom._uid_dict import UID_dictionary
from pynetdicom import AE, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import AssociationServer, RequestHandler

from dicomnode.adapters.dimse import announcement_scp, commitment
from dicomnode.adapters.dimse.announcement_scp import Announcements, AnnouncementService
from dicomnode.adapters.dimse.commitment_scp import Commitments, CommitmentService, set_roles, wants_to_report
from dicomnode.adapters.dimse.reactor import PollSocket, SteppedAssociation, StoreRequest, longest_pdu_bytes
from dicomnode.adapters.dimse.refusals import BROKEN, COMMENT_MOST, Refusal, refusal_of
from dicomnode.domain.quantity import quantity
from dicomnode.domain.source import Source
from dicomnode.encoding.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, TRANSFER_SYNTAXES
from dicomnode.encoding.uid_names import SOP_CLASS, name_of
from dicomnode.errors import CannotUnderstand, DicomNodeError, NotAuthorised, SopClassRefused, trace_of
from dicomnode.stages.index import AssociationEnd
from dicomnode.stages.receive import ReceivedDataSet
from dicomnode.stages.rejections import Rejection

log = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"  # PS3.4 A.4
SUCCESS = 0x0000  # PS3.7 C.1
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_STORAGE_NAMES = (" Storage", " Storage SOP Class", " Storage - Trial")  # of those outside of it
_BACKLOG = 128
# of an A-ASSOCIATE-RJ the source and reason (PS3.8 Table 9-21)
_CALLING_UNKNOWN, _CALLED_UNKNOWN, _LIMIT = (1, 3), (1, 7), (3, 2)


class Receiver(Protocol):
    """What is done with what comes; stages.receive.ReceiveStage does it."""

    def accept(self, raw: ReceivedDataSet) -> None:
        """Returns when the instance is safe; raises ReceiveError with the status to answer."""

    def association_ended(self, end: AssociationEnd) -> None: ...

    def turned_away(self, rejection: Rejection) -> None: ...


class Sources(Protocol):
    """What senders may send; stages.sources.KnownSources knows it."""

    def of(self, ae_title: str) -> Source: ...


class Everybody:
    """Sources without settings."""

    def of(self, ae_title: str) -> Source:
        return Source(ae_title.strip())


def acceptable_contexts(
    proposed: Iterable[PresentationContext],
    source: Source,
    announcements: bool = False,
    commitments: bool = False,
    reports: bool = False,
) -> list[PresentationContext]:
    """What we support of what is proposed: Verification, announcements, commitments, and what this source may store.

    That is each storage SOP class of the standard and each UID that is not known to be something else: new ones,
    retired ones, private ones. Of the transfer syntaxes the requestor's order is kept; a context left without any
    is answered with that reason (PS3.8 Table 9-18). `reports`: the requestor asks for the role in which it says what
    it commits to itself, which is heard of everybody.
    """
    commitments = commitments and (source.commitment or reports)
    syntaxes: dict[str, dict[str, None]] = {}
    for context in proposed:
        if (supported := _supported(context, source, announcements, commitments)) is not None:
            syntaxes.setdefault(str(context.abstract_syntax), {}).update(dict.fromkeys(supported))
    built = [build_context(abstract, list(transfer)) for abstract, transfer in syntaxes.items()]
    for context in built:
        if context.abstract_syntax == commitment.SOP_CLASS:
            set_roles(context, scu=source.commitment)
    return built


def _supported(
    context: PresentationContext, source: Source, announcements: bool, commitments: bool
) -> list[str] | None:
    """Of its transfer syntaxes those that we take; None when its abstract syntax is not supported."""
    abstract, proposed = str(context.abstract_syntax), map(str, context.transfer_syntax)
    if announcements and abstract in announcement_scp.SOP_CLASSES:
        return [uid for uid in proposed if uid in announcement_scp.TRANSFER_SYNTAXES]
    if commitments and abstract == commitment.SOP_CLASS:
        return [uid for uid in proposed if uid in commitment.TRANSFER_SYNTAXES]
    if abstract == VERIFICATION:
        return [uid for uid in proposed if uid in TRANSFER_SYNTAXES]
    if not is_storable(abstract) or not source.may_send(abstract):
        return None
    return [uid for uid in proposed if uid in TRANSFER_SYNTAXES and source.may_send_in(uid)]


def turned_away(proposed: Iterable[PresentationContext], source: Source) -> list[str]:
    """What is not accepted for this source's settings alone, in words, sorted."""
    words: set[str] = set()
    for context in proposed:
        abstract = str(context.abstract_syntax)
        if not is_storable(abstract):
            continue
        if not source.may_send(abstract):
            words.add(name_of(abstract))
            continue
        known = [str(uid) for uid in context.transfer_syntax if uid in TRANSFER_SYNTAXES]
        if known and not any(map(source.may_send_in, known)):
            words.add(f"{name_of(abstract)} in {' or '.join(map(name_of, known))}")
    return sorted(words)


def is_storable(sop_class_uid: str) -> bool:
    """Storage SOP classes of the standard, retired ones too, and UIDs that it does not know: new and private ones.

    Of retired classes pynetdicom knows no service: PS3.6 Annex A names them all, and storage by name or by root.
    """
    service, known = uid_to_service_class(sop_class_uid), UID_dictionary.get(sop_class_uid)
    if service is StorageServiceClass:
        return True
    if service is not ServiceClass or sop_class_uid == _MEDIA_STORAGE_DIRECTORY:
        return False
    if known is None:
        return True
    name, kind = known[:2]
    return kind == SOP_CLASS and (sop_class_uid.startswith(_STORAGE_ROOT) or name.endswith(_STORAGE_NAMES))


def response_to(request: StoreRequest, status: int, comment: str = "", offending: Sequence[int] = ()) -> bytes:
    """The command set of a C-STORE-RSP (PS3.7 9.3.1.2), implicit VR little endian (PS3.7 6.3.1).

    Written here rather than by pydicom: nine elements, which were a fifth of what an instance costs.
    """
    elements = [
        _element(0x0002, _uid(request.sop_class_uid)),
        _element(0x0100, struct.pack("<H", 0x8001)),  # Command Field: C-STORE-RSP
        _element(0x0120, struct.pack("<H", request.message_id or 0)),  # Message ID Being Responded To
        _element(0x0800, struct.pack("<H", 0x0101)),  # Command Data Set Type: none
        _element(0x0900, struct.pack("<H", status)),
        _element(0x0901, b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in offending)),
        _element(0x0902, _even(comment.encode("ascii", "replace")[:COMMENT_MOST], b" ")),
        _element(0x1000, _uid(request.sop_instance_uid)),
    ]
    body = b"".join(elements)
    return _element(0x0000, struct.pack("<L", len(body))) + body


def _element(element: int, value: bytes) -> bytes:
    """Of group 0; nothing when it is empty: all that may be empty here is optional."""
    return struct.pack("<HHL", 0x0000, element, len(value)) + value if value else b""


def _uid(value: str) -> bytes:
    return _even(value.encode("ascii", "replace"), b"\0")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value


class StorageSCP:
    """Listens from `start` to `stop`; with `reuse_port` several processes may share one port (SO_REUSEPORT)."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        announcements: Announcements | None = None,
        commitments: Commitments | None = None,
        sources: Sources | None = None,
        name: str = "",
        host: str,
        port: int,
        ae_title: str,
        check_called_ae_title: bool = False,
        allowed_calling_ae_titles: Sequence[str] = (),
        max_pdu_bytes: int = 131072,
        max_associations: int = 64,
        reuse_port: bool = False,
        idle_timeout_s: float = 60.0,
        grace_s: float = 30.0,
    ) -> None:
        """`name` begins the names of its associations: RECEIVER/PROCESS, unique among all that share a database."""
        self._receiver, self._announcements, self._sources = receiver, announcements, sources or Everybody()
        self._commitments = commitments
        self._name = name or f"{threading.get_native_id()}"
        self._grace_s = grace_s
        self._address = (host, port)
        self._reuse_port = reuse_port
        self._ae = _application_entity(ae_title, check_called_ae_title, allowed_calling_ae_titles)
        self._ae.maximum_pdu_size = max_pdu_bytes
        self._ae.maximum_associations = max_associations
        self._ae.network_timeout = idle_timeout_s
        self._numbers = itertools.count(1)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The one that is bound, also when 0 was asked for."""
        return int(self._server.server_address[1]) if self._server else self._address[1]

    def start(self) -> None:
        """Returns when connections are accepted; raises OSError when the port is taken."""
        server = self._ae.make_server(
            self._address, server_class=_Server, request_handler=_Connection, owner=self, reuse_port=self._reuse_port
        )
        assert isinstance(server, _Server)
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom-listener")
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """Takes no new associations, lets the running ones end for so long, then cuts them off.

        The receiver has been told of the end of each of them when this returns.
        """
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        end = time.monotonic() + (self._grace_s if timeout_s is None else timeout_s)
        for association in self._associations():
            association.join(max(0.0, end - time.monotonic()))
        for association in self._associations():
            association.disconnect()
            association.join(1.0)
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def _associations(self) -> list[SteppedAssociation]:
        return [a for a in self._ae.active_associations if isinstance(a, SteppedAssociation)]

    def new_association(self) -> SteppedAssociation:
        name = f"{self._name}/{next(self._numbers)}"
        services = (self._announcements is not None, self._commitments is not None)
        served = _Served(self._receiver, self._sources, name, *services)
        association = SteppedAssociation(self._ae, served.c_store, served.ended)
        association.bind(evt.EVT_REQUESTED, served.requested)
        association.bind(evt.EVT_REJECTED, served.rejected)
        if self._announcements is not None:
            AnnouncementService(self._announcements, served.attempt).bind(association)
        if self._commitments is not None:
            service = CommitmentService(self._commitments, served.attempt, self._sources)
            service.bind(association)
            association.on_idle = service.when_idle
        return association


class _Served:
    """One association's requests, and what is said of it when it ends."""

    def __init__(
        self, receiver: Receiver, sources: Sources, name: str, announcements: bool, commitments: bool
    ) -> None:
        self._receiver, self._sources = receiver, sources
        self._name = name
        self._announcements, self._commitments = announcements, commitments
        self._refusals: Counter[str] = Counter()
        self._turned_away: tuple[str, ...] = ()

    def requested(self, event: evt.Event) -> None:
        """Supports, of what is proposed, what this sender may (PS3.8 7.1.1.13, 9.3.3.2)."""
        association = event.assoc
        if (request := association.requestor.primitive) is None:
            return
        proposed = request.presentation_context_definition_list
        source = self._sources.of(request.calling_ae_title or "")  # the requestor has its title only after this
        association.acceptor.supported_contexts = acceptable_contexts(
            proposed, source, self._announcements, self._commitments, wants_to_report(request)
        )
        self._turned_away = tuple(turned_away(proposed, source))
        if self._turned_away:
            words, more = ", ".join(self._turned_away[:5]), len(self._turned_away) - 5
            tail = f" and {more} more" if more > 0 else ""
            said = f"its settings (dicomnode sources show) keep it from sending {words}{tail}"
            self._receiver.turned_away(_rejection("context.rejected", association, said))

    def rejected(self, event: evt.Event) -> None:
        """What pynetdicom answered A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
        self._receiver.turned_away(_rejection("association.rejected", event.assoc, why_rejected(event.assoc)))

    def c_store(self, association: Association, request: StoreRequest, context_id: int) -> bytes:
        refusal = self.attempt(
            association, request.sop_instance_uid, lambda: self._accept(association, request, context_id)
        )
        if refusal is None:
            return response_to(request, SUCCESS)
        self._refusals[refusal.reason] += 1
        return response_to(request, refusal.status, refusal.reason, refusal.offending_elements)

    def attempt(self, association: Association, what: str, work: Callable[[], None]) -> Refusal | None:
        """Why it could not be done; whatever goes wrong, the association goes on."""
        calling = association.requestor.ae_title
        try:
            work()
            return None
        except DicomNodeError as error:
            refusal = refusal_of(error)
            log.warning("refused %s from %s with 0x%04X: %s", what, calling, refusal.status, error)
            return refusal
        except Exception as error:  # noqa: BLE001 the bug is this request's alone: docs/decisions/errors.md
            log.error("%s from %s failed: %s", what, calling, trace_of(error))
            return BROKEN

    def _accept(self, association: Association, request: StoreRequest, context_id: int) -> None:
        data_set = self._data_set(association, request, context_id)
        check_source(self._sources.of(data_set.calling_ae_title), data_set)
        self._receiver.accept(data_set)

    def _data_set(self, association: Association, request: StoreRequest, context_id: int) -> ReceivedDataSet:
        if not request.chunks:
            raise CannotUnderstand("there is no data set")
        return ReceivedDataSet(
            chunks=request.chunks,
            transfer_syntax_uid=str(association._accepted_cx[context_id].transfer_syntax[0]),
            affected_sop_class_uid=request.sop_class_uid,
            affected_sop_instance_uid=request.sop_instance_uid,
            calling_ae_title=association.requestor.ae_title.strip(),
            called_ae_title=_called(association),
            association=self._name,
        )

    def ended(self, association: Association) -> None:
        if association.requestor.primitive is None or association.is_rejected:
            return
        self._receiver.association_ended(
            AssociationEnd(
                association=self._name,
                calling_ae_title=association.requestor.ae_title.strip(),
                called_ae_title=_called(association),
                how="released" if association.is_released else "aborted",
                refusals=dict(self._refusals),
                turned_away=self._turned_away,
            )
        )


def check_source(source: Source, data_set: ReceivedDataSet) -> None:
    """What was negotiated may come under another name, or before the settings were as they are now.

    Raises SopClassRefused, NotAuthorised (PS3.7 9.1.1.1.9).
    """
    if not source.may_send(data_set.affected_sop_class_uid):
        raise SopClassRefused(f"{source.ae_title} may not send {name_of(data_set.affected_sop_class_uid)}")
    if not source.may_send_in(data_set.transfer_syntax_uid):
        raise NotAuthorised(f"{source.ae_title} may not send in {name_of(data_set.transfer_syntax_uid)}")


def _called(association: Association) -> str:
    """What the peer calls us, which may be another AE title than ours."""
    request = association.requestor.primitive
    return (request.called_ae_title or "").strip() if request else ""


def _rejection(kind: str, association: Association, words: str) -> Rejection:
    request = association.requestor.primitive
    calling = (request.calling_ae_title or "").strip() if request else ""
    return Rejection(kind, calling, association.requestor.address, words)


def why_rejected(association: Association) -> str:
    """In words, by the answer's source and reason (PS3.8 Table 9-21), naming the setting that says so."""
    answer = association.acceptor.primitive
    reason = (answer.result_source, answer.diagnostic) if answer else (0, 0)
    if reason == _CALLING_UNKNOWN:
        return "its AE title is not one of those that may send (setting allowed_calling_ae_titles)"
    if reason == _CALLED_UNKNOWN:
        us = association.acceptor.ae_title.strip()
        return f"it calls {_called(association) or 'nobody'}, and the node is {us} (setting check_called_ae_title)"
    if reason == _LIMIT:
        most = quantity(association.ae.maximum_associations, "association")
        return f"this receiver has {most} already (setting max_associations)"
    return f"association rejected with source {reason[0]} and reason {reason[1]} (PS3.8 9.3.4)"


def _application_entity(ae_title: str, check_called: bool, allowed_calling: Sequence[str]) -> ApplicationEntity:
    """A called or calling AE title that may not is answered A-ASSOCIATE-RJ with that reason (PS3.8 9.3.4)."""
    ae = AE(ae_title=ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.require_called_aet = check_called
    ae.require_calling_aet = list(allowed_calling)
    ae.add_supported_context(VERIFICATION)
    return ae


class _Connection(RequestHandler):
    """A connection that was accepted becomes an association."""

    server: _Server

    def handle(self) -> None:
        association = self.server.owner.new_association()
        association._server = self.server
        association.name = f"association-{self.client_address[0]}:{self.client_address[1]}"
        peer = PollSocket(association, client_socket=self.request)
        peer.longest_pdu_bytes = longest_pdu_bytes(self.ae.maximum_pdu_size)
        association.set_socket(peer)
        us = association.acceptor
        us.maximum_length = self.ae.maximum_pdu_size
        us.ae_title = self.server.ae_title
        us.address_info = self.local
        us.implementation_class_uid = self.ae.implementation_class_uid
        us.implementation_version_name = self.ae.implementation_version_name
        us.supported_contexts = []
        association.requestor.address_info = self.remote
        association.start()


class _Server(AssociationServer):
    request_queue_size = _BACKLOG

    def __init__(self, *args: Any, owner: StorageSCP, reuse_port: bool, **kwargs: Any) -> None:
        self.owner = owner
        self._share_port = reuse_port
        super().__init__(*args, **kwargs)

    def server_bind(self) -> None:
        if self._share_port and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Small answers leave at once; a peer that stops in the middle of a PDU is not waited for for ever."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def service_actions(self) -> None:
        """Python's own garbage collector is enough here."""

    def shutdown(self) -> None:
        super(AssociationServer, self).shutdown()
        self.server_close()
