"""What adapters/dimse/reactor.py assumes of pynetdicom's and pydicom's private parts.

When an upgrade breaks one of these, read reactor.py beside the new version before mending the test.
"""

from __future__ import annotations

import inspect

import pynetdicom
from pydicom._uid_dict import UID_dictionary
from pynetdicom import AE, evt, fsm
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.status import PROCEDURE_STEP_STATUS
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from dicomnode.adapters.dimse import announcement_scp, commitment
from dicomnode.encoding.part10 import TRANSFER_SYNTAXES


def test_the_version_is_the_one_that_was_read() -> None:
    assert pynetdicom.__version__.split(".")[:2] == ["3", "0"]


def test_the_upper_layer_has_the_parts_that_are_stepped() -> None:
    dul = Association(AE(), "acceptor").dul
    for name in ("event_queue", "to_provider_queue", "to_user_queue", "_recv_pdu", "artim_timer", "_idle_timer"):
        assert hasattr(dul, name), name
    assert dul._kill_thread is False
    assert dul.state_machine.current_state == "Sta1"
    for name in ("_process_recv_primitive", "_is_transport_event", "_read_pdu_data", "_decode_pdu", "kill_dul"):
        assert callable(getattr(DULServiceProvider, name)), name
    assert list(inspect.signature(DULServiceProvider.receive_pdu).parameters) == ["self", "wait", "timeout"]


def test_the_dul_sleeps_only_in_what_is_replaced() -> None:
    """A new sleep or thread in what we still use would bring the polling back."""
    for method in ("_process_recv_primitive", "_is_transport_event", "_read_pdu_data", "_send", "send_pdu"):
        assert "sleep" not in inspect.getsource(getattr(DULServiceProvider, method)), method


def test_a_pdu_comes_from_two_reads_of_the_socket_and_goes_to_decode_pdu() -> None:
    source = inspect.getsource(DULServiceProvider._read_pdu_data)
    assert source.count("self.socket.recv(") == 2
    assert "self._decode_pdu(bytestream)" in source


def test_the_association_has_the_parts_that_are_replaced() -> None:
    association = Association(AE(), "acceptor")
    assert not association._dul_ready.is_set()
    assert association._accepted_cx == {}
    assert association._server is None
    for name in ("_bind_defaults", "_run_reactor", "_serve_request", "run_reactor", "kill", "abort"):
        assert callable(getattr(Association, name)), name
    assert "self._run_reactor()" in inspect.getsource(Association.run_reactor)
    assert all(callable(evt.get_default_handler(event)) for event in evt._INTERVENTION_EVENTS)


def test_messages_come_through_receive_primitive_and_leave_through_the_queue() -> None:
    assert "dul.assoc.dimse.receive_primitive(" in inspect.getsource(fsm.DT_2)
    assert DIMSEServiceProvider(Association(AE(), "acceptor")).msg_queue.empty()
    assert "self.msg_queue.get(" in inspect.getsource(DIMSEServiceProvider.get_msg)


def test_requests_other_than_c_store_go_to_what_is_bound_to_their_event() -> None:
    assert "service_class.SCP(msg, context)" in inspect.getsource(Association._serve_request)
    assert "self.assoc._serve_request" in inspect.getsource(DIMSEServiceProvider.receive_primitive)  # in a thread
    for uid in announcement_scp.SOP_CLASSES:
        service = uid_to_service_class(uid)(Association(AE(), "acceptor"))
        assert "_n_create_scp" in inspect.getsource(service.SCP)
    for status in (0x0106, 0x0110, 0x0111, 0x0112, 0x0120, 0x0121):
        assert status in PROCEDURE_STEP_STATUS


def test_the_socket_and_the_server_have_the_parts_that_are_replaced() -> None:
    assert isinstance(AssociationSocket.ready, property)
    for name in ("recv", "_shutdown_socket"):
        assert callable(getattr(AssociationSocket, name)), name
    for name in ("server_bind", "get_request", "service_actions", "shutdown", "server_close"):
        assert callable(getattr(AssociationServer, name)), name
    assert "_create_association" in inspect.getsource(RequestHandler.handle)


def test_reports_of_commitment_go_the_way_that_is_assumed() -> None:
    """An acceptor sends one from its own thread: it must look as paused, and its response comes by get_msg."""
    source = inspect.getsource(Association.send_n_event_report)
    assert "while not self._is_paused" in source
    assert "self.dimse.get_msg(block=True)" in source
    assert Association(AE(), "acceptor").dul.peek_next_pdu() is None
    service = uid_to_service_class(commitment.SOP_CLASS)(Association(AE(), "acceptor"))
    assert {"_n_event_report_scp", "_n_action_scp"} <= set(
        inspect.getsource(service.SCP).replace("(", ".").split(".")
    )


def test_each_pdu_leaves_by_the_send_of_the_socket_that_a_requestor_makes() -> None:
    assert "self.socket.send(" in inspect.getsource(DULServiceProvider._send)
    assert "self._create_socket(" in inspect.getsource(ApplicationEntity.associate)
    assert callable(AssociationSocket.send)


def test_every_transfer_syntax_that_pydicom_can_name_is_there() -> None:
    named = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    assert len(named & TRANSFER_SYNTAXES) >= 50
    for uid in (
        "",
        ".1",
        ".1.99",
        ".2",
        ".4.50",
        ".4.70",
        ".4.80",
        ".4.90",
        ".4.201",
        ".4.110",
        ".4.107",
        ".5",
        ".8.1",
    ):
        assert f"1.2.840.10008.1.2{uid}" in TRANSFER_SYNTAXES
    assert not any("1.2.840.10008.1.2.7" in uid for uid in TRANSFER_SYNTAXES)
