"""Sends result objects by C-STORE and asks peers by C-ECHO (PS3.4 B and A, PS3.7 9.1.1 and 9.1.5).

A file goes out byte for byte when the peer takes its transfer syntax: decoding and encoding a structured report
of 300 kB again takes half a second. Otherwise a copy is encoded in one that the peer takes; UIDs stay.

pynetdicom does the protocol. What is added: words for every way in which it can end, TCP_NODELAY (50 ms an
object on some peers), and a limit on a peer that stops reading, at which pynetdicom would wait for ever.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicomnode.adapters.dimse.answers import leave_answers_to_the_caller
from dicomnode.adapters.dimse.peer_words import abort_words, context_words, no_connection_words, rejection_words
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.destination import Destination, DimseAddress
from dicomnode.domain.result import StoredResult
from dicomnode.domain.store_status import Verdict, store_status
from dicomnode.encoding.transfer import encoded_as, proposed, read_header
from dicomnode.errors import DestinationRefused, DestinationUnavailable

# A path given to send_c_store is sent as it lies in the file, and not read into a data set
_config.STORE_SEND_CHUNKED_DATASET = True

Pace = Callable[[int], None]  # returns when so many bytes may leave


def unhindered(count_bytes: int) -> None:
    """There is no limit."""


def no_pace(destination: Destination) -> Pace:
    return unhindered


Handler = tuple[evt.EventType, Callable[..., Any]] | tuple[evt.EventType, Callable[..., Any], list[Any]]


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect_s: float = 10.0
    association_s: float = 30.0
    """For the answer to an association or release request (the ARTIM timer, PS3.8 9.1.5)."""
    response_s: float = 60.0
    """For the C-STORE or C-ECHO response, once everything is sent."""
    stall_s: float = 60.0
    """How long the peer may take nothing off the connection while we send."""
    slowest_bytes_per_s: float = 100_000.0
    """Below this the transfer of an object is given up."""

    def for_object(self, size_bytes: int, most_bytes_per_s: float = 0.0) -> float:
        """Seconds from the request to the response: pynetdicom's clock runs while the object is being sent."""
        slowest = min(self.slowest_bytes_per_s, most_bytes_per_s / 2 or self.slowest_bytes_per_s)
        return self.response_s + size_bytes / slowest


class StorageScu:
    """A `ResultSink` for destinations of kind "dimse". Each call is an association of its own."""

    def __init__(
        self, calling_ae_title: str, timeouts: Timeouts | None = None, paces: Callable[[Destination], Pace] = no_pace
    ) -> None:
        """`paces` gives what a destination's limit on bytes makes of what is sent to it."""
        self._calling_ae_title = calling_ae_title
        self._timeouts = timeouts or Timeouts()
        self._paces = paces

    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        """C-STOREs the file; repeats are harmless, the SOP Instance UID being the same."""
        preferred = destination.options.syntaxes
        header = read_header(file, preferred)
        wanted = proposed(header, preferred)
        contexts = [build_context(header.sop_class_uid, syntax) for syntax in wanted]
        timeout_s = self._timeouts.for_object(header.size_bytes, destination.options.bytes_per_s)
        with self.associated(_address(destination), contexts, timeout_s, self._paces(destination)) as call:
            syntax = next((syntax for syntax in wanted if syntax in call.accepted), None)
            if syntax is None:
                words = f"{call.peer} {context_words(call.association.rejected_contexts)}"
                raise DestinationRefused(words, FailureKind.CONTEXT_NOT_ACCEPTED)
            with encoded_as(syntax, file, header) as encoded:
                code = call.store(encoded)
        return _answer(call.peer, code) + ("" if syntax == header.transfer_syntax_uid else f", as {syntax.name}")

    def echo(self, destination: Destination) -> str:
        contexts = [build_context(Verification)]
        with self.associated(_address(destination), contexts, self._timeouts.response_s) as call:
            started = time.monotonic()
            code = call.echo()
            took_ms = (time.monotonic() - started) * 1000
        if code != 0x0000:
            raise DestinationUnavailable(f"{call.peer} answered C-ECHO with {store_status(code).words}")
        return f"{call.peer} answered C-ECHO in {took_ms:.0f} ms"

    @contextmanager
    def associated(
        self,
        address: DimseAddress,
        contexts: Sequence[PresentationContext],
        response_timeout_s: float,
        pace: Pace = unhindered,
        handlers: Sequence[Handler] = (),
        negotiation: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> Iterator[Call]:
        """An association that is established, and released or aborted afterwards."""
        limits = self._timeouts
        ae = _Requestor(self._calling_ae_title, pace)
        ae.connection_timeout, ae.acse_timeout = limits.connect_s, limits.association_s
        ae.dimse_timeout, ae.network_timeout = response_timeout_s, None
        watch = _Watch(limits.stall_s)
        with closing(ae):
            started = time.monotonic()
            try:
                association = ae.associate(
                    address.host,
                    address.port,
                    contexts=list(contexts),
                    ae_title=address.ae_title,
                    evt_handlers=[*watch.handlers, *handlers],
                    ext_neg=list(negotiation) or None,
                )
            except OSError as error:  # the name did not resolve, or no socket was left
                words = f"{address}: {no_connection_words(error)}"
                raise DestinationUnavailable(words, FailureKind.NO_CONNECTION) from error
            if not association.is_established:
                _raise_not_established(address, association, watch, time.monotonic() - started, limits)
            leave_answers_to_the_caller(association)
            try:
                yield Call(str(address), association, watch, response_timeout_s)
            finally:
                association.release()


class _Requestor(AE):
    """An AE that closes what it opened: pynetdicom drops sockets unclosed when a connection fails or breaks.

    `_create_socket` is pynetdicom's own; were it gone, sockets would close when they are collected.
    """

    def __init__(self, ae_title: str, pace: Pace) -> None:
        super().__init__(ae_title)
        self._opened: list[socket.socket] = []
        self._pace = pace

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> AssociationSocket:
        made = super()._create_socket(assoc, address, tls_args)
        made.send = _paced(made.send, self._pace)  # type: ignore[method-assign,assignment]
        if made.socket is not None:
            made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._opened.append(made.socket)
        return made

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


def _paced(send: Callable[[bytes], None], pace: Pace) -> Callable[[bytes], None]:
    """What sends a PDU when it is its time."""

    def paced(pdu: bytes) -> None:
        pace(len(pdu))
        send(pdu)

    return paced


@dataclass
class _Watch:
    """What pynetdicom sees but does not hand back."""

    stall_s: float
    connected: bool = False
    abort: A_ABORT_RQ | None = None

    @property
    def handlers(self) -> list[Handler]:
        return [(evt.EVT_CONN_OPEN, self._opened), (evt.EVT_PDU_RECV, self._received)]

    def _opened(self, event: Event) -> None:
        self.connected = True
        connection = event.assoc.dul.socket
        if connection is not None and connection.socket is not None:
            connection.socket.settimeout(self.stall_s)

    def _received(self, event: Event) -> None:
        if isinstance(event.pdu, A_ABORT_RQ):
            self.abort = event.pdu


@dataclass(frozen=True)
class Call:
    """An established association with a peer."""

    peer: str
    association: Association
    watch: _Watch
    timeout_s: float

    @property
    def accepted(self) -> tuple[UID, ...]:
        """The transfer syntaxes that the peer took for what was proposed."""
        return tuple(context.transfer_syntax[0] for context in self.association.accepted_contexts)

    def store(self, file: Path) -> int:
        """The status of the C-STORE response; raises DestinationUnavailable when none comes."""
        started = time.monotonic()
        try:
            answer = self.association.send_c_store(file)
        except RuntimeError as error:  # the peer ended the association before the request
            raise self.ended(started) from error
        return self._status(answer.get("Status"), started)

    def echo(self) -> int:
        started = time.monotonic()
        try:
            answer = self.association.send_c_echo()
        except RuntimeError as error:
            raise self.ended(started) from error
        return self._status(answer.get("Status"), started)

    def _status(self, status: object, started: float) -> int:
        if not isinstance(status, int):
            raise self.ended(started)
        return status

    def ended(self, started: float) -> DestinationUnavailable:
        """The error that says how the association ended instead of the response, and of what kind that is."""
        silent = self.watch.abort is None and time.monotonic() - started >= self.timeout_s
        failure = FailureKind.NO_RESPONSE if silent else FailureKind.ASSOCIATION_ABORTED
        return DestinationUnavailable(f"{self.peer} {self.end_words(started)}", failure)

    def end_words(self, started: float) -> str:
        """How the association ended instead of the response to a request of that monotonic time."""
        if self.watch.abort is not None:
            return abort_words(self.watch.abort.source, self.watch.abort.reason_diagnostic)
        if time.monotonic() - started >= self.timeout_s:
            return f"gave no answer in {self.timeout_s:.0f} s; see the peer's log"
        return "closed the connection before it answered; see the peer's log"


def _address(destination: Destination) -> DimseAddress:
    assert isinstance(destination.address, DimseAddress), destination.kind
    return destination.address


def _answer(peer: str, code: int) -> str:
    """The words of a status that means stored; raises for one that does not (PS3.4 B.2.3)."""
    status = store_status(code)
    match status.verdict:
        case Verdict.STORED if code == 0x0000:
            return "stored"
        case Verdict.STORED | Verdict.WARNING:
            return f"stored, with {status.words}"
        case Verdict.TRY_AGAIN:
            raise DestinationUnavailable(f"{peer} answered {status.words}", FailureKind.STATUS)
        case Verdict.REFUSED:
            raise DestinationRefused(f"{peer} answered {status.words}", FailureKind.STATUS)


def _raise_not_established(
    address: DimseAddress, association: Association, watch: _Watch, elapsed_s: float, limits: Timeouts
) -> NoReturn:
    """Says why there is no association. What an administrator can mend at the peer is retryable."""
    if not watch.connected:
        words = f"{address}: {_why_not_connected(address, elapsed_s, limits.connect_s)}"
        raise DestinationUnavailable(words, FailureKind.NO_CONNECTION)
    if association.is_rejected and (answer := association.acceptor.primitive) is not None:
        words, retryable = rejection_words(answer.result_source, answer.diagnostic, association.requestor.ae_title)
        error = DestinationUnavailable if retryable else DestinationRefused
        raise error(f"{address} {words}", FailureKind.ASSOCIATION_REJECTED)
    if association.rejected_contexts:
        words = f"{address} {context_words(association.rejected_contexts)}"
        raise DestinationRefused(words, FailureKind.CONTEXT_NOT_ACCEPTED)
    if watch.abort is not None:
        words = abort_words(watch.abort.source, watch.abort.reason_diagnostic)
        raise DestinationUnavailable(f"{address} {words}", FailureKind.ASSOCIATION_ABORTED)
    if elapsed_s >= limits.association_s:
        words = f"took the connection and did not answer the association request in {limits.association_s:.0f} s"
        raise DestinationUnavailable(f"{address} {words}; is that port a DICOM port?", FailureKind.NO_ANSWER)
    words = f"{address} closed the connection; is that port a DICOM port?"
    raise DestinationUnavailable(words, FailureKind.NO_ANSWER)


def _why_not_connected(address: DimseAddress, elapsed_s: float, timeout_s: float) -> str:
    """pynetdicom logs the reason and drops it: one more try tells it."""
    if elapsed_s >= timeout_s:
        return no_connection_words(TimeoutError())
    try:
        socket.create_connection((address.host, address.port), timeout=min(timeout_s, 2.0)).close()
    except OSError as error:
        return no_connection_words(error)
    return "was not there a moment ago, and is now"
