"""Late images, with a real Orthanc: what they change supersedes what was sent; what they do not is not sent again.

The node's own receiver and worker run here, in threads; only the network of the model is a threshold.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from dicomnode import bootstrap
from dicomnode.adapters.db.repositories import SqlState
from dicomnode.config import Settings
from dicomnode.domain.job import DeliveryState, JobState
from dicomnode.node import roles
from dicomnode.ports import DeliveryView, JobFilter, JobView
from dicomnode.stages import complete
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.state_material import model_card
from tests.e2e.running_node import storescu
from tests.made_series import classic, write
from tests.server_fixtures import require_dcmtk, require_orthanc
from tests.servers import Orthanc

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]

TIMEOUT_S = 60.0
RULE = {"name": "torso", "when": {"Modality": "CT"}, "model": "torso-ct", "destinations": ["pacs"]}


class Node:
    """The receiver and the worker of a node, and its state."""

    def __init__(self, settings: Settings, state: SqlState, pacs: Orthanc) -> None:
        self.settings, self.state, self.pacs = settings, state, pacs
        ready = settings.run_folder / "receiver-1.json"
        self.port = int(json.loads(ready.read_text())["dicom_port"])

    def send(self, images: list[Dataset], folder: Path) -> None:
        write(images, folder)
        assert storescu(self.port, folder) == 0

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not happened():
            assert time.monotonic() < end, [event.message for _, event in self.state.events_after(0, 1000)]
            time.sleep(0.05)

    def jobs(self) -> list[JobView]:
        """The oldest first."""
        return self.state.jobs(JobFilter(rule="torso"))[::-1]

    def deliveries(self) -> list[DeliveryView]:
        return [delivery for job in self.jobs() for delivery in job.deliveries]

    def wait_done(self, jobs: int) -> None:
        """Until so many jobs are done and all that was to be sent is."""
        open_states = (DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.WAITING)

        def is_done() -> bool:
            done = sum(job.state is JobState.SUCCEEDED for job in self.jobs())
            return done == jobs and not any(delivery.state in open_states for delivery in self.deliveries())

        self.wait_until(is_done)

    def in_pacs(self, study: str) -> dict[str, Dataset]:
        """SOP Instance UID → object, as QIDO-RS lists them."""
        uids = self.pacs.instances(StudyInstanceUID=study)
        return {uid: pydicom.dcmread(BytesIO(self.pacs.file(uid))) for uid in uids}

    def kinds(self, study: str) -> list[str]:
        return [event.kind for event in self.state.events(study)]


@contextlib.contextmanager
def running(role: Callable[[Settings, str, threading.Event], None], settings: Settings, name: str) -> Iterator[None]:
    """A role in a thread, from when it is ready until it was told to stop."""
    stop, failed = threading.Event(), []

    def run() -> None:
        try:
            role(settings, name, stop)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + TIMEOUT_S
        while not (settings.run_folder / f"{name}.json").exists():
            assert not failed, failed
            assert time.monotonic() < end
            time.sleep(0.05)
        yield
    finally:
        stop.set()
        thread.join(TIMEOUT_S)


@pytest.fixture
def node(tmp_path: Path, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    require_orthanc()
    require_dcmtk("storescu")
    monkeypatch.setattr(complete, "LEFTOVERS_EVERY_S", 0.5)
    monkeypatch.setattr(bootstrap, "inference_engine", lambda settings: contextlib.nullcontext(FakeEngine((-300.0,))))
    settings = Settings(home=tmp_path / "home", dicom_host="127.0.0.1", dicom_port=0, quiet_period_s=0.5)
    with bootstrap.state(settings) as state:
        state.add_model(model_card(), "0" * 64, tmp_path)
        state.add_rule("torso", RULE)
        state.add_destination(orthanc.dimse_destination("pacs"))
        with running(roles.worker, settings, "worker-1"), running(roles.receiver, settings, "receiver-1"):
            yield Node(settings, state, orthanc)


def of(objects: dict[str, Dataset], modality: str) -> Dataset:
    (found,) = (dataset for dataset in objects.values() if dataset.Modality == modality)
    return found


def test_late_images_supersede_what_was_sent_once_and_the_same_again_changes_nothing(
    node: Node, tmp_path: Path
) -> None:
    images = classic(12, rows=24, columns=24)
    study = str(images[0].StudyInstanceUID)
    node.send(images[:8], tmp_path / "first")
    node.wait_done(jobs=1)
    first = node.in_pacs(study)
    assert {dataset.Modality for dataset in first.values()} == {"SEG", "SR"}

    node.send(images[8:], tmp_path / "late")
    node.wait_done(jobs=2)
    both = node.in_pacs(study)
    late = {uid: dataset for uid, dataset in both.items() if uid not in first}
    assert both.keys() >= first.keys(), "what was sent stays in the archive"
    assert {dataset.Modality for dataset in late.values()} == {"SEG", "SR"}
    assert len(late) == 2, "superseded once"
    old_segmentation, segmentation = of(first, "SEG"), of(late, "SEG")
    assert {dataset.StudyInstanceUID for dataset in both.values()} == {study}
    assert len(segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 12
    assert len(old_segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 8
    (predecessors,) = of(late, "SR").PredecessorDocumentsSequence
    (named,) = predecessors.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == of(first, "SR").SOPInstanceUID
    old, new = node.jobs()
    assert set(old.superseded) == first.keys()
    assert set(old.superseded.values()) == {new.job_id}
    assert not new.superseded

    # The same images once more, all of them: nothing is done again
    told = len(node.kinds(study))
    node.send(images, tmp_path / "again")
    node.wait_until(lambda: "association.released" in node.kinds(study)[told:])
    time.sleep(2 * node.settings.quiet_period_s)
    node.wait_done(jobs=2)
    assert len(node.jobs()) == 2
    assert node.in_pacs(study) == both

    # Done again as the administrator asks, it comes out the same, and is not sent
    node.state.rerun_study(study)
    node.wait_done(jobs=3)
    assert node.in_pacs(study) == both
    assert node.kinds(study).count("delivery.kept") == 2
    assert node.kinds(study).count("delivery.sent") == 4
    old, new, same = node.jobs()
    assert (same.results, same.deliveries) == ((), ())
    assert set(old.superseded.values()) == {new.job_id}
    assert not new.superseded


def test_what_never_reached_the_archive_is_not_sent_once_it_is_superseded(node: Node, tmp_path: Path) -> None:
    """The archive is away while the first images are worked on, and comes back for the late ones."""
    images = classic(12, rows=24, columns=24)
    study = str(images[0].StudyInstanceUID)
    node.pacs.stop()
    node.send(images[:8], tmp_path / "first")
    node.wait_until(lambda: {delivery.state for delivery in node.deliveries()} == {DeliveryState.WAITING})
    assert len(node.deliveries()) == 2
    node.send(images[8:], tmp_path / "late")
    node.wait_until(lambda: sum(job.state is JobState.SUCCEEDED for job in node.jobs()) == 2)
    node.pacs.start()
    node.wait_done(jobs=2)
    old, new = node.jobs()
    assert {delivery.state for delivery in old.deliveries} == {DeliveryState.CANCELLED}
    assert all("supersedes it" in delivery.reason for delivery in old.deliveries)
    assert node.in_pacs(study).keys() == {result.sop_instance_uid for result in new.results}
    (predecessors,) = of(node.in_pacs(study), "SR").PredecessorDocumentsSequence
    assert predecessors.StudyInstanceUID == study
