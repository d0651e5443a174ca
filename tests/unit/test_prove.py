"""Asking for proof: a destination that hangs holds up no other, and none is asked twice at once."""

from __future__ import annotations

import threading

from dicomnode.domain.job import DeliveryState
from dicomnode.domain.proof import ProofAnswer
from dicomnode.ports import Delivered, DeliveryFilter, ProofWork
from dicomnode.stages.prove import ProofStage
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import ARCHIVE, WEB, succeeded


class Archive:
    """Commits to all."""

    def prove(self, work: ProofWork) -> ProofAnswer:
        uids = frozenset(reference.sop_instance_uid for reference in work.references)
        return ProofAnswer(uids, words="committed")


class Hanging:
    def __init__(self) -> None:
        self.over = threading.Event()
        self.asked = 0

    def prove(self, work: ProofWork) -> ProofAnswer:
        self.asked += 1
        self.over.wait(20)
        return ProofAnswer(words="nothing yet")


def test_a_destination_that_hangs_holds_up_no_other_and_is_asked_once() -> None:
    state = FakeState()
    state.add_destination(ARCHIVE)
    state.add_destination(WEB)
    for delivery in state.job(succeeded(state, destinations=("archive", "web"))).deliveries:
        state.start_delivery(delivery.delivery_id)
        state.finish_delivery(delivery.delivery_id, Delivered("stored"))
    state.clock.advance(5)
    archive, web, stop = Hanging(), Archive(), threading.Event()
    stage = ProofStage(state, {"dimse": archive, "stow": web})
    thread = threading.Thread(target=stage.run, args=(stop,))
    thread.start()

    def of(destination: str) -> set[DeliveryState]:
        return {view.state for view in state.deliveries(DeliveryFilter(destination=destination))}

    for _ in range(100):
        if of("web") == {DeliveryState.COMMITTED}:
            break
        stop.wait(0.1)
    assert of("web") == {DeliveryState.COMMITTED}
    assert of("archive") == {DeliveryState.SENT}
    state.clock.advance(86_400)  # due again, and still being asked
    stop.wait(2.5)
    stop.set()
    thread.join(5)
    assert not thread.is_alive(), "who hangs keeps nobody from stopping"
    assert archive.asked == 1
    archive.over.set()
