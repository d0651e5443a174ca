"""An answer is for whoever asked for it, and a request of the peer for the thread that serves the association."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.sop_class import Verification

from dicomnode.adapters.dimse.storage_scu import Call, StorageScu
from dicomnode.domain.destination import DimseAddress


@contextmanager
def peer() -> Iterator[DimseAddress]:
    ae = AE("PEER")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda event: 0x0000)])
    try:
        yield DimseAddress("PEER", "127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()


@contextmanager
def call() -> Iterator[Call]:
    with peer() as address, StorageScu("NODE").associated(address, [build_context(Verification)], 30.0) as made:
        yield made


def ask(association: Association) -> None:
    """As send_c_echo does, but the association's own thread does not pause."""
    request = C_ECHO()
    request.MessageID, request.AffectedSOPClassUID = 7, Verification
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)


def until_something_is_there(association: Association) -> None:
    deadline = time.monotonic() + 30
    while association.dimse.msg_queue.empty():
        assert time.monotonic() < deadline, "no answer came"
        time.sleep(0.001)


def test_the_thread_of_the_association_takes_no_answer() -> None:
    with call() as made:
        ask(made.association)
        until_something_is_there(made.association)
        assert made.association.dimse.get_msg(block=False) == (None, None)  # what that thread calls all the time
        _, answer = made.association.dimse.get_msg(block=True)
        assert (answer.MessageIDBeingRespondedTo, answer.Status) == (7, 0x0000)
        assert [made.echo() for _ in range(20)] == [0x0000] * 20


def test_what_the_peer_asks_is_still_served(monkeypatch: pytest.MonkeyPatch) -> None:
    with call() as made:
        served, association = threading.Event(), made.association
        monkeypatch.setattr(association, "_serve_request", lambda message, context_id: served.set())
        request = C_ECHO()
        request.MessageID, request.AffectedSOPClassUID = 1, Verification
        association.dimse.msg_queue.put((association.accepted_contexts[0].context_id, request))
        assert served.wait(30)


def test_who_waits_for_an_answer_is_told_of_an_abort_and_nobody_else() -> None:
    with call() as made:
        made.association.dimse.msg_queue.put((None, None))  # as pynetdicom does then
        assert made.association.dimse.get_msg(block=False) == (None, None)
        assert not made.association.dimse.msg_queue.empty()
