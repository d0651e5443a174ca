"""pynetdicom's upper layer, driven by events instead of by polling, for associations that we accept.

pynetdicom 3.0 serves an association with two threads that look at each other's queues and sleep a millisecond
in between, and copies each PDU several times. Here one thread an association waits in poll() for the peer, walks
the same state machine (PS3.8 9.2), and hands a data set on in the pieces in which it came.

This leans on private names of pynetdicom; tests/contract/test_pynetdicom_internals.py holds them to what is
assumed here, so that an upgrade that changes them is noticed.
"""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicomnode.errors import trace_of

log = logging.getLogger(__name__)

TICK_S = 0.5  # how often timers, and what other threads ask for, are looked at while the peer is silent
_RESPONSE_S = 30.0  # for the response to a request of ours
_P_DATA_TF = 0x04  # PS3.8 9.3.5
_COMMAND, _LAST = 0x01, 0x02  # bits of the message control header, PS3.8 E.2
_COMMAND_LAST_FRAGMENT = bytes([_COMMAND | _LAST])
_COMMAND_MOST_BYTES = 1 << 16
_C_STORE_RQ = b"\x01\x00"  # Command Field, PS3.7 E.1
_NO_DATA_SET = b"\x01\x01"  # Command Data Set Type, PS3.7 E.1
_CONTROL_PDU_MOST_BYTES = 1 << 20  # an A-ASSOCIATE-RQ may be longer than a P-DATA-TF
_UNLIMITED_PDU_MOST_BYTES = 1 << 28


def longest_pdu_bytes(announced: int) -> int:
    """The longest PDU that is read at all, when so much was announced (0: no limit; PS3.8 D.1)."""
    return max(announced, _CONTROL_PDU_MOST_BYTES) if announced else _UNLIMITED_PDU_MOST_BYTES


class PollSocket(AssociationSocket):
    """Waits for the peer without sleeping, and reads a PDU into one buffer."""

    longest_pdu_bytes = _UNLIMITED_PDU_MOST_BYTES

    def wait(self, timeout_s: float) -> bool:
        """Whether the peer has sent something, or has gone."""
        if self.socket is None:
            return False
        try:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            return bool(poll.poll(timeout_s * 1000))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False

    @property
    def ready(self) -> bool:
        return self.wait(0)

    def recv(self, nr_bytes: int) -> bytearray:
        """All of it, or less when the peer has gone; raises OSError for more than we said we would take."""
        if nr_bytes > self.longest_pdu_bytes:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than what was agreed")
        if self.socket is None:
            raise OSError("the connection is closed")
        buffer = bytearray(nr_bytes)
        filled = 0
        with memoryview(buffer) as view:
            while filled < nr_bytes and (count := self.socket.recv_into(view[filled:])):
                filled += count
        return buffer if filled == nr_bytes else buffer[:filled]


class PDataPdu:
    """A P-DATA-TF PDU whose values are views of what was received (PS3.8 9.3.5.1)."""

    def __init__(self, pdu: memoryview) -> None:
        self._values: list[tuple[int, Any]] = []  # presentation context ID, memoryview
        offset = 6
        while offset < len(pdu):
            end = offset + 4 + int.from_bytes(pdu[offset : offset + 4], "big")
            if end < offset + 6 or end > len(pdu):
                raise ValueError("a presentation data value is longer than its PDU or empty")
            self._values.append((pdu[offset + 4], pdu[offset + 5 : end]))
            offset = end

    def to_primitive(self) -> P_DATA:
        primitive = P_DATA()
        primitive.presentation_data_value_list.extend(self._values)
        return primitive


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 9.3.1.1) as it came: what its parameters are worth is decided later."""

    message_id: int | None
    sop_class_uid: str
    sop_instance_uid: str
    chunks: list[memoryview] = field(default_factory=list)


def command_elements(command_set: bytes) -> dict[int, bytes]:
    """Group 0's values by element number (PS3.7 6.3.1: implicit VR little endian); raises ValueError."""
    elements: dict[int, bytes] = {}
    offset = 0
    while offset < len(command_set):
        if len(command_set) < offset + 8:
            raise ValueError("the command set ends within an element")
        group, number, length = struct.unpack_from("<HHL", command_set, offset)
        offset += 8 + length
        if group != 0 or offset > len(command_set):
            raise ValueError("the command set has an element that is none of its own, or a longer one than fits")
        elements[number] = command_set[offset - length : offset]
    return elements


def store_request(elements: dict[int, bytes]) -> StoreRequest:
    message_id = elements.get(0x0110, b"")
    return StoreRequest(
        message_id=int.from_bytes(message_id, "little") if len(message_id) == 2 else None,
        sop_class_uid=_uid(elements.get(0x0002, b"")),
        sop_instance_uid=_uid(elements.get(0x1000, b"")),
    )


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").rstrip("\0 ")


class PiecewiseDimse(DIMSEServiceProvider):
    """Takes C-STORE requests itself, their data sets in pieces; every other message is pynetdicom's."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self._command = bytearray()
        self._storing: StoreRequest | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        try:
            for context_id, value in primitive.presentation_data_value_list:
                self._take(context_id, value[0], memoryview(value)[1:])
        except ValueError as error:
            log.warning("%s sent an invalid message: %s", self.assoc.requestor.ae_title, error)
            self.dul.event_queue.put("Evt19")  # unrecognised or invalid PDU: A-ABORT

    def get_msg(self, block: bool = False) -> Any:
        """Of the association's own thread, which nobody else serves: what comes while a response is waited for."""
        if not block or threading.current_thread() is not self.assoc:
            return super().get_msg(block)
        end = time.monotonic() + (self.dimse_timeout or _RESPONSE_S)
        while time.monotonic() < end and self.dul.is_alive() and self.dul.peek_next_pdu() is None:
            if self.msg_queue.empty():
                cast(SteppedDul, self.dul).step(TICK_S)
                continue
            context_id, message = super().get_msg()
            if not isinstance(message, StoreRequest):
                return context_id, message
            self.assoc._serve_request(cast("Any", message), cast(int, context_id))
        return None, None

    def _take(self, context_id: int, control: int, fragment: memoryview) -> None:
        if control & _COMMAND:
            self._take_command(context_id, control, fragment)
        elif self._storing is not None:
            self._storing.chunks.append(fragment)
            if control & _LAST:
                self._finish(context_id)
        else:
            self._pass_on(context_id, bytes([control]) + fragment)

    def _take_command(self, context_id: int, control: int, fragment: memoryview) -> None:
        self._command += fragment
        if len(self._command) > _COMMAND_MOST_BYTES:
            raise ValueError("the command set does not end")
        if control & _LAST:
            command, self._command = bytes(self._command), bytearray()
            self._begin(context_id, command)

    def _begin(self, context_id: int, command: bytes) -> None:
        elements = command_elements(command)
        if elements.get(0x0100) != _C_STORE_RQ:
            self._pass_on(context_id, _COMMAND_LAST_FRAGMENT + command)
            return
        self._storing = store_request(elements)
        if elements.get(0x0800) == _NO_DATA_SET:
            self._finish(context_id)

    def _finish(self, context_id: int) -> None:
        request, self._storing = self._storing, None
        self.msg_queue.put((context_id, cast("Any", request)))

    def _pass_on(self, context_id: int, value: bytes) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, value))
        super().receive_primitive(primitive)


class SteppedDul(DULServiceProvider):
    """The upper layer's state machine, walked by its association's thread; never started as a thread itself."""

    socket: PollSocket

    def start(self) -> None:
        self._idle_timer.start()
        self.assoc._dul_ready.set()

    def is_alive(self) -> bool:
        return not self._kill_thread

    def step(self, timeout_s: float) -> None:
        """Waits at most so long for something to happen, and does what follows from it."""
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        elif self.event_queue.empty() and not self._process_recv_primitive():
            self._take_from_peer(timeout_s)
        while not self.event_queue.empty() and self.is_alive():
            self.state_machine.do_action(self.event_queue.get(block=False))

    def _take_from_peer(self, timeout_s: float) -> None:
        if self.socket.socket is None:
            self.kill_dul()
        # Sta13 waits for the connection to be closed; pynetdicom then closes it when nothing more is there
        elif (
            self.state_machine.current_state == "Sta13" or self.socket.wait(timeout_s)
        ) and self._is_transport_event():
            self._idle_timer.restart()

    def send_pdu(self, primitive: Any) -> None:
        """Sends at once from the association's own thread; another thread's primitive goes with the next step."""
        super().send_pdu(primitive)
        while self._is_mine() and self.is_alive() and not self.to_provider_queue.empty():
            self.step(0)

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        while wait and self.is_alive() and self.to_user_queue.empty() and (end is None or time.monotonic() < end):
            self.step(TICK_S)
        return super().receive_pdu(wait=False)

    def stop_dul(self) -> bool:
        """One step towards the end of the connection; True when that is reached."""
        if self._is_mine() and self.state_machine.current_state != "Sta1":
            self.step(TICK_S)
        if self.state_machine.current_state == "Sta1":
            self.kill_dul()
        return not self.is_alive()

    def _is_mine(self) -> bool:
        return threading.current_thread() is self.assoc

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        if bytestream[0] == _P_DATA_TF:
            return PDataPdu(memoryview(bytestream)), "Evt10"
        decoded: tuple[Any, str] = super()._decode_pdu(bytestream)
        return decoded


class SteppedAssociation(Association):
    """An accepted association in one thread. `on_c_store` gives the command set that answers a C-STORE request."""

    def __init__(
        self,
        ae: ApplicationEntity,
        on_c_store: Callable[[Association, StoreRequest, int], bytes],
        on_end: Callable[[Association], None],
    ) -> None:
        super().__init__(ae, "acceptor")
        self._on_c_store, self._on_end = on_c_store, on_end
        self.on_idle: Callable[[Association], None] | None = None  # before it waits for the peer, each time
        self.dul: SteppedDul = SteppedDul(self)
        self.dimse = PiecewiseDimse(self)
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout  # they set the dul's timers

    def _bind_defaults(self) -> None:
        """Without the handlers that log each PDU and message: they take a lock that all associations share."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 of any type: docs/decisions/errors.md
            sender = self.requestor.ae_title
            log.error("an association with %s failed; its connection is closed: %s", sender, trace_of(error))
            self.is_aborted = True
        finally:
            self.is_established = False
            if self.dul.socket.socket is not None:
                self.dul.socket._shutdown_socket()
            self.dul.kill_dul()
            self._on_end(self)

    def _run_reactor(self) -> None:
        while self._served():
            pass

    def _served(self) -> bool:
        """One round of an established association; False when it has ended."""
        if not self.dimse.msg_queue.empty():
            context_id, message = self.dimse.get_msg(block=False)
            if message and context_id is not None:
                self._serve_request(message, context_id)
        elif self.is_established and self.acse.is_release_requested():
            self._answer_release()
            return False
        elif self.acse.is_aborted():
            self._end(evt.EVT_ABORTED)
            return False
        elif not self.dul.is_alive():
            self.kill()
            return False
        elif self.dul.idle_timer_expired():
            log.warning("%s was silent for too long; its association is aborted", self.requestor.ae_title)
            self.is_aborted = True
            self.abort()
            return False
        else:
            if self.on_idle is not None:
                self.on_idle(self)
            self.dul.step(TICK_S)
        return True

    def _answer_release(self) -> None:
        self.acse.send_release(is_response=True)
        self.is_released = True
        self._end(evt.EVT_RELEASED)

    def _end(self, event: evt.NotificationEvent) -> None:
        self.is_aborted = event is evt.EVT_ABORTED
        self.is_established = False
        evt.trigger(self, event, {})
        self.kill()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """C-STORE goes straight to its handler, also when its SOP class is private or a parameter is wrong.

        Every other request goes pynetdicom's way to what is bound to its event, in this association's thread.
        """
        if threading.current_thread() is not self:  # as pynetdicom does with an N-EVENT-REPORT
            self.dimse.msg_queue.put((context_id, msg))
        elif not isinstance(msg, StoreRequest):
            super()._serve_request(msg, context_id)
        elif context_id not in self._accepted_cx or msg.message_id is None:
            log.warning("%s sent a C-STORE that cannot be answered", self.requestor.ae_title)
            self.is_aborted = True
            self.abort()
        else:
            answer = P_DATA()
            answer.presentation_data_value_list.append(
                (context_id, _COMMAND_LAST_FRAGMENT + self._on_c_store(self, msg, context_id))
            )
            self.dul.send_pdu(answer)

    def disconnect(self) -> None:
        """From any thread: ends it at once, without a word; the peer sees a closed connection."""
        if (connection := self.dul.socket.socket) is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
