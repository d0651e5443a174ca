"""A real CT with its PET through a whole node: both reach the model, late slices supersede, repeats are not sent."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom import Dataset

from tests.e2e.running_node import RunningNode, storescu
from tests.server_fixtures import require_dcmtk, require_orthanc
from tests.servers import Orthanc
from tests.triton_models import Both, document, package, registered

STUDY = Path(__file__).parents[3] / "shared" / "data" / "multi" / "sts_002"
PET = {"role": "pet", "modality": ["PT"], "unit": "g/ml", "intensity": {"from": [0, 5]}}
RULE = {
    "name": "ct-pet",
    "when": {"Modality": "CT"},
    "roles": {"pet": {"when": {"Modality": "PT"}, "from": "study"}},
    "model": "both",
    "parameters": {"minimum_volume_ml": 1.0},
    "destinations": ["pacs"],
}
LATE = 6  # slices of the CT

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.dcmtk,
    pytest.mark.real_data,
    pytest.mark.skipif(not STUDY.is_dir(), reason="../shared/data is not there"),
]


def slices() -> list[Path]:
    """The CT, from one end to the other."""
    files = sorted((STUDY / "ct" / "image").glob("*.dcm"))
    return sorted(files, key=lambda p: float(pydicom.dcmread(p, stop_before_pixels=True).ImagePositionPatient[2]))


def model_package(folder: Path) -> Path:
    """What is dense and hot: above 0 HU and above an uptake value of 2.5."""
    package(folder, Both(), "both", 1)
    card: dict[str, Any] = dict(document("both", 1, inputs=[PET], spacing_mm=[2.0, 2.0, 3.0], window=[64, 64, 32]))
    card["input"]["intensity"] = {"from": [-200, 200]}
    registered(folder, card)
    return folder


def results(pacs: Orthanc, study: str, count: int) -> list[Dataset]:
    uids = pacs.wait_for(count, 120, StudyInstanceUID=study)
    return [pydicom.dcmread(BytesIO(pacs.file(uid))) for uid in uids]


def of_kind(found: list[Dataset], modality: str) -> dict[str, Dataset]:
    return {str(d.SOPInstanceUID): d for d in found if d.Modality == modality}


def test_ct_and_pet_become_one_result_which_late_slices_supersede(tmp_path: Path) -> None:
    require_orthanc()
    require_dcmtk("storescu")
    images = slices()
    study = str(pydicom.dcmread(images[0], stop_before_pixels=True).StudyInstanceUID)
    (tmp_path / "rule.yaml").write_text(yaml.safe_dump(RULE))
    node = RunningNode(tmp_path / "home", engine="in-process", receivers=1, study_quiet_period_s=2.0)
    with Orthanc(tmp_path / "pacs") as pacs:
        node.prepare(
            ("models", "add", model_package(tmp_path / "model")),
            ("destinations", "add", "pacs", "--dimse", pacs.dimse),
            ("rules", "add", tmp_path / "rule.yaml"),
        )
        with node:
            assert storescu(node.port, STUDY / "pet" / "image", *images[:-LATE]) == 0
            first = results(pacs, study, 2)
            assert storescu(node.port, *images[-LATE:]) == 0
            both = results(pacs, study, 4)
            node.wait_idle()
            assert_second_follows_first(first, both)
            node.run("studies", "rerun", study)
            node.wait_until(lambda: len(node.look("jobs", "list")) == 3)
            node.wait_idle()
            assert len(pacs.instances(StudyInstanceUID=study)) == 4
            third, second, before = node.look("jobs", "list")
    assert third["reason"] == f"unchanged: the same results as job {second['job_id']}"
    assert set(before["superseded"].values()) == {second["job_id"]}
    assert second["superseded"] == {}


def assert_second_follows_first(first: list[Dataset], both: list[Dataset]) -> None:
    old_seg, old_sr = (of_kind(first, kind) for kind in ("SEG", "SR"))
    (seg,) = (d for uid, d in of_kind(both, "SEG").items() if uid not in old_seg)
    (sr,) = (d for uid, d in of_kind(both, "SR").items() if uid not in old_sr)
    [study] = sr.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    assert {str(i.ReferencedSOPInstanceUID) for i in series.ReferencedSOPSequence} == set(old_sr)
    used = sorted(len(s.ReferencedInstanceSequence) for s in seg.ReferencedSeriesSequence)
    assert used == [48, 48]  # all of the CT now, and all of the PET
    before = sorted(len(s.ReferencedInstanceSequence) for d in old_seg.values() for s in d.ReferencedSeriesSequence)
    assert before == [48 - LATE, 48]
