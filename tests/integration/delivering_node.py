"""A node that delivers to a destination and asks it for proof, without an engine: step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicomnode.adapters.dicomweb.qido_proof import QidoProver
from dicomnode.adapters.dicomweb.stow import StowRs
from dicomnode.adapters.dimse.commitment_scu import CommitmentScu
from dicomnode.adapters.dimse.storage_scu import StorageScu, Timeouts
from dicomnode.domain.destination import Destination
from dicomnode.domain.job import DeliveryState
from dicomnode.ports import DeliveryView, JobFinished
from dicomnode.stages.deliver import DeliverStage, DestinationSink
from dicomnode.stages.prove import ProofStage
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_state import FakeState
from tests.adapters.sample_results import sample_result
from tests.adapters.state_material import STUDY, routed

TIMEOUTS = Timeouts(connect_s=5, association_s=10, response_s=10, stall_s=10)


class Node:
    """Delivers to a destination and asks for proof, on a state in memory; its receiver listens."""

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        report_wait_s: float = 5.0,
        kinds: Sequence[str] = ("SEG", "SR"),
        timeouts: Timeouts = TIMEOUTS,
        payload_bytes: int = 0,
    ) -> None:
        self.state = FakeState()
        self.state.add_destination(destination)
        self.store = FakeInstanceStore(folder)
        self._results = tuple(
            sample_result(folder, kind, study_instance_uid=STUDY, payload_bytes=payload_bytes)[1] for kind in kinds
        )
        sinks = {"dimse": StorageScu("NODE", timeouts), "stow": StowRs(read_timeout_s=timeouts.response_s)}
        provers = {"dimse": CommitmentScu("NODE", timeouts, report_wait_s), "stow": QidoProver()}
        self._deliver = DeliverStage(DestinationSink(sinks), self.store, self.state)
        self._prove = ProofStage(self.state, provers)  # type: ignore[arg-type]

    def finish_a_job(self) -> None:
        job = routed(self.state, destinations=("pacs",))
        assert self.state.start_job(job) is not None
        self.state.finish_job(job, JobFinished(self._results))

    def send(self) -> None:
        for view in self.deliveries():
            if (work := self.state.start_delivery(view.delivery_id)) is not None:
                self.state.finish_delivery(view.delivery_id, self._deliver.deliver(work), work.attempt)

    def ask(self, after_s: float = 2.0) -> int:
        self.state.clock.advance(after_s)
        return self._prove.once()

    def deliveries(self) -> list[DeliveryView]:
        return sorted(self.state.deliveries(), key=lambda view: view.kind)

    def states(self) -> set[DeliveryState]:
        return {view.state for view in self.deliveries()}


def sent(folder: Path, destination: Destination, report_wait_s: float = 5.0) -> Node:
    node = Node(folder, destination, report_wait_s)
    node.finish_a_job()
    node.send()
    assert node.states() == {DeliveryState.SENT}, [view.reason for view in node.deliveries()]
    return node
