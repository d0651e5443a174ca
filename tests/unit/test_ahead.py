"""What is done while a series settles: the job finds it done, and nothing shows when it was for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from dicomnode.domain.completeness import Policy
from dicomnode.domain.job import JobState
from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.errors import EngineUnavailable
from dicomnode.imaging.headers import Instance, read_instances
from dicomnode.ports import JobView
from dicomnode.stages.ahead import Ahead
from dicomnode.stages.complete import Completer
from dicomnode.stages.deliver import DeliverStage
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.headers import Headers
from dicomnode.stages.infer import InferStage
from dicomnode.stages.route import RouteStage
from dicomnode.stages.work import Work
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_sink import FakeSink
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import instance
from tests.made_results import CARD
from tests.made_series import classic, write

RULE = {"name": "torso", "when": {"Modality": "CT"}, "model": CARD.name}


class Node:
    """Everything between reception and delivery, over fakes."""

    def __init__(self, root: Path) -> None:
        self.store, self.clock, self.engine = FakeInstanceStore(root), FakeClock(), FakeEngine((-800.0, -600.0))
        self.state = FakeState(self.clock)
        self.state.add_model(CARD, "ab" * 32, root)
        self.state.add_rule("torso", RULE)
        self.busy = False
        infer = InferStage(self.store, self.engine, self.clock, 60.0, keep_s=60.0)
        route = RouteStage(self.state, self.store, self.clock)
        self.ahead = Ahead(self.state, route, infer, self.clock, lambda: self.busy)
        self.completer = Completer(self.state, route, self.clock, Policy(), expecting=self.ahead)
        encode = EncodeStage(self.store, self.clock, device_serial_number="NODE")
        self.work = Work(infer, encode, DeliverStage(FakeSink(), self.store))

    def receive(self, images: Sequence[Dataset], number: int = 1, *, released: bool = True) -> None:
        """By an association that is released afterwards, or not yet."""
        folder, association = f"in{number}", f"r/1/{number}"
        write(images, self.store.root / folder)
        study, series = str(images[0].StudyInstanceUID), str(images[0].SeriesInstanceUID)
        self.state.record_instances(
            [
                replace(
                    instance(int(d.InstanceNumber), series),
                    sop_instance_uid=str(d.SOPInstanceUID),
                    study_instance_uid=study,
                    path=f"{folder}/{k:03d}.dcm",
                    association=association,
                    plane="0.00/0.00/1.00",
                    position_mm=float(d.ImagePositionPatient[2]),
                )
                for k, d in enumerate(images)
            ]
        )
        self.clock.advance(0.1)
        if released:
            self.state.association_ended(association, "released")

    def sweep(self, after_s: float) -> int:
        self.clock.advance(after_s)
        closed = self.completer.sweep()
        self.ahead.wait()
        return closed

    def run(self) -> JobView:
        (queued,) = [job for job in self.state.jobs() if job.state is JobState.QUEUED]
        work = self.state.start_job(queued.job_id)
        assert work is not None
        self.state.finish_job(queued.job_id, self.work.perform(work), work.attempt)
        return self.state.job(queued.job_id)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_model_has_run_when_the_job_begins(node: Node) -> None:
    node.receive(classic(6))
    assert node.sweep(0.05) == 0
    assert node.engine.runs == [CARD.name], "while the series settles"
    assert node.state.jobs() == []
    assert node.sweep(0.6) == 1
    job = node.run()
    assert (job.state, job.details["inferred_before"]) == (JobState.SUCCEEDED, True)
    assert node.engine.runs == [CARD.name]


def test_more_images_make_it_void(node: Node) -> None:
    images = classic(8)
    node.receive(images[:5])
    node.sweep(0.05)
    node.receive(images[5:], 2)
    node.sweep(0.05)
    while not node.sweep(0.3):
        pass
    job = node.run()
    assert job.state is JobState.SUCCEEDED
    seg = pydicom.dcmread(next(node.store.path(r.path) for r in job.results if r.kind == "SEG"))
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 8
    assert node.engine.runs == [CARD.name] * 2, "once for nothing, once ahead of its job"


def test_nothing_is_done_twice_for_the_same_images(node: Node) -> None:
    node.receive(classic(6))
    for _ in range(5):
        node.sweep(0.02)
    assert node.engine.runs == [CARD.name]


def test_two_series_that_settle_at_once_are_each_begun_once(node: Node) -> None:
    other = classic(6)
    for number, image in enumerate(other):
        image.SeriesInstanceUID, image.SOPInstanceUID = "2.25.77", f"2.25.77.{number}"
    node.receive(classic(6))
    node.receive(other, 2)
    for _ in range(8):
        node.sweep(0.01)
    assert node.engine.runs == [CARD.name] * 2


def test_jobs_come_first(node: Node) -> None:
    node.busy = True
    node.receive(classic(6))
    node.sweep(0.05)
    assert node.engine.runs == []


@pytest.mark.parametrize(
    "rule",
    [RULE | {"state": "shadow"}, RULE | {"schedule": "00:00-00:01"}, RULE | {"when": {"Modality": "MR"}}],
    ids=["shadow", "scheduled", "another modality"],
)
def test_what_will_not_run_now_is_not_begun(node: Node, rule: dict[str, object]) -> None:
    node.state.add_rule("torso", rule)
    node.receive(classic(6))
    node.sweep(0.05)
    assert node.engine.runs == []


def test_a_stack_with_a_gap_is_not_begun(node: Node) -> None:
    images = classic(8)
    node.receive([*images[:3], *images[4:]])
    node.sweep(0.05)
    assert node.engine.runs == []


def test_a_failure_is_left_to_the_job(node: Node) -> None:
    node.engine.failures = [EngineUnavailable("not yet")]
    node.receive(classic(6))
    node.sweep(0.05)
    assert node.state.jobs() == []
    node.sweep(0.6)
    job = node.run()
    assert (job.state, job.details["inferred_before"]) == (JobState.SUCCEEDED, False)


def test_a_series_that_the_model_refuses_is_refused_by_the_job_alone(node: Node) -> None:
    document = card_document(CARD)
    large = parse_model_card(
        document | {"version": "2", "input": {**document["input"], "minimum_extent_mm": [0, 0, 9000]}}
    )
    node.state.add_model(large, "cd" * 32, node.store.root)
    node.receive(classic(6))
    node.sweep(0.05)
    node.sweep(0.6)
    assert node.run().state is JobState.REFUSED


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers the inference stage read, as often as it did."""
    names: list[str] = []

    def noted(paths: Sequence[Path]) -> list[Instance]:
        names.extend(path.name for path in paths)
        return read_instances(paths)

    monkeypatch.setattr("dicomnode.stages.headers.read_instances", noted)
    return names


def test_headers_are_read_while_images_still_come(node: Node, read: list[str]) -> None:
    images = classic(30)
    node.receive(images[:19], released=False)
    node.sweep(0.01)
    assert read == [], "too few to begin"
    node.receive(images[19:25], 2, released=False)
    for _ in range(3):
        node.sweep(0.01)
    assert len(read) == 25
    node.receive(images[25:], 3)
    for association in ("r/1/1", "r/1/2"):
        node.state.association_ended(association, "released")
    node.sweep(0.05)
    assert node.engine.runs == [CARD.name]
    assert len(read) == 30, "each of them once"
    while not node.sweep(0.3):
        pass
    assert node.run().state is JobState.SUCCEEDED
    assert len(read) == 30


@pytest.mark.parametrize("why", ["busy", "no rule wants it"])
def test_headers_are_not_read_for_nothing(node: Node, read: list[str], why: str) -> None:
    if why == "busy":
        node.busy = True
    else:
        node.state.add_rule("torso", RULE | {"when": {"Modality": "MR"}})
    node.receive(classic(30), released=False)
    node.sweep(0.01)
    assert read == []


def test_a_file_that_is_another_one_by_now_is_read_again(node: Node) -> None:
    """A study that was forgotten may come again, under the same paths."""
    images = classic(25)
    node.receive(images, released=False)
    series, headers = node.state.series(str(images[0].SeriesInstanceUID)), Headers(node.store)
    headers.read_ahead(series)
    path = node.store.root / "in1" / "003.dcm"
    again = pydicom.dcmread(path)
    again.PatientID = "ANOTHER"
    path.unlink()
    again.save_as(path)
    assert [i.header.PatientID for i in headers.read(series)].count("ANOTHER") == 1
