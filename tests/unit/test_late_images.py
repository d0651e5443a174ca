"""Late images, from the files to the deliveries: what comes out the same stays, what is new takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from dicomnode.domain.job import DeliveryState, JobState, Priority
from dicomnode.ports import JobView, NewJob
from dicomnode.stages.deliver import DeliverStage
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.infer import InferStage
from dicomnode.stages.work import Work
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_sink import FakeSink
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import ARCHIVE, instance
from tests.made_results import CARD
from tests.made_series import classic, write


class Node:
    """Receiving, routing by one rule, and the job's stages, over fakes."""

    def __init__(self, root: Path, thresholds: Sequence[float] = (-800.0, -600.0)) -> None:
        self.store, clock = FakeInstanceStore(root), FakeClock()
        self.state = FakeState(clock)
        self.state.add_destination(ARCHIVE)
        self._rule = self.state.add_rule("torso", {"name": "torso"})
        self._model = self.state.add_model(CARD, "ab" * 32, root)
        encode = EncodeStage(self.store, clock, device_serial_number="NODE")
        infer = InferStage(self.store, FakeEngine(thresholds), clock, 60.0)
        self._work, self._clock, self._batch = Work(infer, encode, DeliverStage(FakeSink(), self.store)), clock, 0

    def receive(self, images: Sequence[Dataset]) -> JobView:
        """Files the images, finds the series complete, and runs its job."""
        self._clock.advance(60.0)
        self._batch += 1
        folder = f"in{self._batch}"
        write(images, self.store.root / folder)
        study, series = str(images[0].StudyInstanceUID), str(images[0].SeriesInstanceUID)
        received = [
            replace(
                instance(int(d.InstanceNumber), series),
                sop_instance_uid=str(d.SOPInstanceUID),
                study_instance_uid=study,
                path=f"{folder}/{k:03d}.dcm",
            )
            for k, d in enumerate(images)
        ]
        self.state.record_instances(received)
        return self.run(series)

    def run(self, series: str) -> JobView:
        found = self.state.complete_series(series, 0)
        assert found is not None
        wanted = NewJob(self._rule, self._model, Priority.ROUTINE, ("archive",))
        (job_id,) = self.state.record_routing(found, [wanted], "so", {})
        work = self.state.start_job(job_id)
        assert work is not None
        self.state.finish_job(job_id, self._work.perform(work), work.attempt)
        job = self.state.job(job_id)
        assert job.state is JobState.SUCCEEDED, job.reason
        return job

    def files(self, job: JobView) -> dict[str, Dataset]:
        return {r.kind: pydicom.dcmread(self.store.path(r.path)) for r in job.results}

    def deliveries(self) -> list[DeliveryState]:
        return sorted(d.state for job in self.state.jobs() for d in job.deliveries)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def images_in(report: Dataset) -> int:
    """How many images are its evidence."""
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    return sum(len(series.ReferencedSOPSequence) for series in study.ReferencedSeriesSequence)


def localizer() -> Dataset:
    (image, *_) = classic(1)
    image.SOPInstanceUID, image.InstanceNumber = "2.25.424242", 99
    image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return image


def test_a_late_image_that_the_volume_leaves_out_changes_nothing(node: Node) -> None:
    first = node.receive(classic(6))
    before = {r.path: node.store.path(r.path).read_bytes() for r in first.results}
    second = node.receive([localizer()])
    assert second.reason == f"unchanged: the same results as job {first.job_id}"
    assert second.details["notes"] == ["1 localizer image left out"]
    again = node.state.job(first.job_id)
    assert (again.results, again.superseded) == (first.results, {})
    assert {path: node.store.path(path).read_bytes() for path in before} == before
    assert node.deliveries() == [DeliveryState.QUEUED] * 2


def test_a_late_slice_gives_new_results_that_name_the_report_before(node: Node) -> None:
    images = classic(8)
    first = node.receive(images[:6])
    old = node.files(first)
    second = node.receive(images[6:])
    new = node.files(second)
    assert second.reason == ""
    assert {kind: d.StudyInstanceUID for kind, d in new.items()} == {k: d.StudyInstanceUID for k, d in old.items()}
    for kind in ("SEG", "SR"):
        assert new[kind].SOPInstanceUID != old[kind].SOPInstanceUID
    [study] = new["SR"].PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == [old["SR"].SOPInstanceUID]
    assert node.state.job(first.job_id).superseded == {r.sop_instance_uid: second.job_id for r in first.results}
    assert node.deliveries() == [DeliveryState.CANCELLED] * 2 + [DeliveryState.QUEUED] * 2
    third = node.receive([localizer()])  # and the same as the second then, which is not replaced
    assert third.reason == f"unchanged: the same results as job {second.job_id}"
    assert node.deliveries() == [DeliveryState.CANCELLED] * 2 + [DeliveryState.QUEUED] * 2


def test_nothing_found_in_more_images_is_a_new_report(tmp_path: Path) -> None:
    """The masks are as empty as before; the report is of other images."""
    node, images = Node(tmp_path, (5000.0,)), classic(8)
    first = node.receive(images[:6])
    second = node.receive(images[6:])
    old, new = (node.files(job) for job in (first, second))
    assert list(old) == list(new) == ["SR"]
    assert [images_in(files["SR"]) for files in (old, new)] == [6, 8]
    assert node.state.job(first.job_id).superseded == {first.results[0].sop_instance_uid: second.job_id}
