"""A CT with its PET from an archive that is asked: the study goes on its way when all that it has is here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydicom import Dataset
from pydicom.uid import generate_uid

from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.domain.job import JobState
from dicomnode.ports import Event
from tests.adapters.state_material import RecordingQueue
from tests.e2e.running_node import RunningNode, storescu
from tests.made_series import classic, write
from tests.server_fixtures import require_dcmtk, require_orthanc
from tests.servers import Orthanc
from tests.triton_models import Both, document, package, registered

SLICES, LATE = 24, 4
STUDY = str(classic(1)[0].StudyInstanceUID)
ALONE = f"{STUDY}.2"
NEVER_QUIET_S = 600.0
LATER_S = 3.0  # after which the archive sends the second series
RULE = {
    "name": "ct-pet",
    "when": {"Modality": "CT"},
    "roles": {"pet": {"when": {"Modality": "PT"}, "from": "study"}},
    "model": "both",
    "destinations": ["pacs"],
}

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]


def model_package(folder: Path) -> Path:
    """What is dense and hot: above 0 HU and above 500 of the PET."""
    pet = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 1000]}}
    package(folder, Both(), "both", 1)
    card: dict[str, Any] = dict(document("both", 1, inputs=[pet], spacing_mm=[2.0, 2.0, 3.0], window=[32, 32, 32]))
    card["input"]["intensity"] = {"from": [-200, 200]}
    registered(folder, card)
    return folder


def images(modality: str, slices: int, inside: int, outside: int) -> list[Dataset]:
    """A block in the middle of nothing, (slice, row, column) in stored values; 40 × 40 pixels of 2 mm."""
    values = np.full((slices, 40, 40), outside, dtype=np.int16)
    values[4:16, 10:30, 8:24] = inside
    attributes = {"Units": "CNTS", "RescaleSlope": 1, "RescaleIntercept": 0} if modality == "PT" else {}
    return classic(slices, rows=40, columns=40, modality=modality, values=values, spacing=(2.0, 2.0), step_mm=3.0,
                   series=modality, **attributes)  # fmt: skip


class Archive:
    """An Orthanc that has what it sends on."""

    def __init__(self, pacs: Orthanc, node: RunningNode, folder: Path) -> None:
        self.pacs, self._node, self._folder = pacs, node, folder

    def has(self, name: str, series: list[Dataset]) -> None:
        for path in write(series, self._folder / name):
            self.pacs.upload(path.read_bytes())

    def sends(self, name: str) -> None:
        assert storescu(self._node.port, self._folder / name) == 0


def told(state: SqlState, study: str, kind: str) -> list[Event]:
    return [event for event in state.events(study) if event.kind == kind]


def test_a_study_is_routed_when_all_that_its_archive_has_is_here(tmp_path: Path) -> None:
    require_orthanc()
    require_dcmtk("storescu")
    (tmp_path / "rule.yaml").write_text(yaml.safe_dump(RULE))
    node = RunningNode(tmp_path / "home", engine="in-process", receivers=1, study_quiet_period_s=NEVER_QUIET_S)
    with Orthanc(tmp_path / "pacs", options={"DicomAlwaysAllowFind": True}) as pacs:
        node.prepare(
            ("models", "add", model_package(tmp_path / "model")),
            ("destinations", "add", "pacs", "--dimse", pacs.dimse),
            ("sources", "add", "SENDER", "--query-dimse", pacs.dimse),
            ("rules", "add", tmp_path / "rule.yaml"),
        )
        with node, open_state(f"sqlite:///{node.home / 'dicomnode.db'}", RecordingQueue()) as state:
            archive = Archive(pacs, node, tmp_path)
            the_second_series_comes_later(node, state, archive)
            late_slices_come_when_results_are_there(node, state, archive)


def the_second_series_comes_later(node: RunningNode, state: SqlState, archive: Archive) -> None:
    """A study of which the archive has no more goes on its way meanwhile, by the same settings."""
    archive.has("ct", images("CT", SLICES, inside=1100, outside=0))
    archive.has("pet", images("PT", SLICES, inside=900, outside=0))
    alone = images("CT", SLICES, inside=1100, outside=0)
    for image in alone:
        image.StudyInstanceUID, image.SeriesInstanceUID = ALONE, f"{ALONE}.1"
        image.SOPInstanceUID, image.AccessionNumber = generate_uid(), "A-2"
    archive.has("alone", alone)
    archive.sends("ct")
    ct_came_s = time.monotonic()
    archive.sends("alone")
    node.wait_until(lambda: bool(told(state, ALONE, "study.complete")))
    time.sleep(max(0.0, LATER_S - (time.monotonic() - ct_came_s)))
    assert len(told(state, STUDY, "series.complete")) == 1
    assert told(state, STUDY, "study.complete") == []
    assert state.jobs() == []
    archive.sends("pet")
    archive.pacs.wait_for(2, 60, StudyInstanceUID=STUDY, Manufacturer="dicomnode")
    (complete,) = told(state, STUDY, "study.complete")
    assert complete.detail["signal"] == "counted"
    assert "says 48 instances in 2 series, and 48 in 2 series are here" in complete.message
    (job,) = state.jobs()
    assert job.state is JobState.SUCCEEDED


def late_slices_come_when_results_are_there(node: RunningNode, state: SqlState, archive: Archive) -> None:
    """The archive counts the first results with the study: they are known, and left out."""
    archive.has("late", images("CT", SLICES + LATE, inside=1100, outside=0)[-LATE:])
    archive.sends("late")
    archive.pacs.wait_for(4, 60, StudyInstanceUID=STUDY, Manufacturer="dicomnode")
    again = told(state, STUDY, "study.complete")[-1]
    assert again.detail["signal"] == "counted"
    assert "says 52 instances in 2 series besides 2 of own results, and 52 in 2" in again.message
    after, before = state.jobs()
    assert set(before.superseded.values()) == {after.job_id}
