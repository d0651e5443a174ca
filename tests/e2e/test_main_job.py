"""The main job on real input: dcmtk sends a real CT, SEG and SR arrive in a real Orthanc, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from sample_data.overlay import label_map, read_slices
from tests.e2e.running_node import RunningNode, storescu
from tests.servers import Orthanc

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
CT = DATA / "ct" / "crlm-1004"

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]


@pytest.fixture(scope="module")
def second_pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("second-pacs")) as server:
        yield server


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc, second_pacs: Orthanc) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path_factory.mktemp("node") / "home")
    node.run("models", "add", str(ROOT / "sample_data" / "models" / "torso-ct"))
    node.run("rules", "add", str(ROOT / "sample_data" / "rules" / "torso-ct.yaml"))
    node.run("destinations", "add", "dimse", "--dimse", pacs.dimse)
    node.run("destinations", "add", "web", "--stow", second_pacs.dicomweb_url)
    with node:
        yield node


def objects(server: Orthanc, study: str, timeout_s: float = 120) -> dict[str, pydicom.Dataset]:
    uids = server.wait_for(2, timeout_s, StudyInstanceUID=study)
    found = [pydicom.dcmread(BytesIO(server.file(uid))) for uid in uids]
    return {dataset.Modality: dataset for dataset in found}


@pytest.mark.real_data
def test_a_real_ct_comes_back_as_seg_and_sr_by_both_ways(
    node: RunningNode, pacs: Orthanc, second_pacs: Orthanc
) -> None:
    if not CT.is_dir():
        pytest.skip("../shared/data is absent")
    images = read_slices(sorted(CT.glob("*.dcm")))
    study = str(images[0].StudyInstanceUID)
    assert storescu(node.port, CT) == 0
    by_dimse, by_stow = objects(pacs, study), objects(second_pacs, study)
    assert set(by_dimse) == set(by_stow) == {"SEG", "SR"}
    for modality, dataset in by_dimse.items():
        assert dataset == by_stow[modality]
        assert dataset.PatientID == images[0].PatientID
    segmentation = by_dimse["SEG"]
    assert segmentation.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    labels = label_map(segmentation, images)
    body = np.stack([image.pixel_array * image.RescaleSlope + image.RescaleIntercept for image in images]) > -300
    # Most of what is denser than fat lies in the patient; the table and the clothes do not.
    assert body[labels > 0].mean() > 0.6
    assert (labels > 0)[body].mean() > 0.9
    shown = node.look("jobs", "list")
    assert [job["state"] for job in shown if job["study_instance_uid"] == study] == ["succeeded"]
    # sent once more, nothing new comes of it: the same objects, under the same UIDs
    assert storescu(node.port, CT) == 0
    node.wait_idle()
    assert pacs.count() == second_pacs.count() == 2


def test_the_synthetic_study_comes_back_too(node: RunningNode, pacs: Orthanc, tmp_path: Path) -> None:
    from sample_data.phantom import write_study

    study = write_study(tmp_path, "chest-abdomen", 5)
    assert storescu(node.port, tmp_path) == 0
    found = objects(pacs, study)
    assert set(found) == {"SEG", "SR"}
    story = node.run("studies", "why", study)
    assert "torso-ct" in story


def test_a_destination_gets_the_forms_it_asks_for(node: RunningNode, pacs: Orthanc, second_pacs: Orthanc) -> None:
    from sample_data.phantom import write_study

    node.run("destinations", "set", "web", "--results", "SEG,SR,SEG-LABELMAP,RTSTRUCT,GSPS,SC,PDF,KO")
    folder = node.home.parent / "forms"
    study = write_study(folder, "chest-abdomen", 6)
    assert storescu(node.port, folder) == 0
    own = objects(pacs, study)
    node.wait_idle()
    assert set(own) == {"SEG", "SR"}
    uids = second_pacs.wait_for(2, 60, StudyInstanceUID=study)
    found = [pydicom.dcmread(BytesIO(second_pacs.file(uid))) for uid in uids]
    assert {dataset.Modality for dataset in found} == {"SEG", "SR", "RTSTRUCT", "PR", "OT", "DOC", "KO"}
    assert sum(dataset.Modality == "SEG" for dataset in found) == 2
    assert len({dataset.SeriesInstanceUID for dataset in found}) == 8  # the pictures are one series
    assert {str(dataset.PatientID) for dataset in found} == {str(own["SEG"].PatientID)}


def test_a_study_nobody_routed_says_why(node: RunningNode, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("MR_small.dcm", download=False))
    dataset.StudyInstanceUID, dataset.AccessionNumber = "1.2.3.4.5.6", "ACC-77"
    dataset.save_as(tmp_path / "mr.dcm")
    assert storescu(node.port, tmp_path / "mr.dcm") == 0
    node.wait_until(lambda: "not-routed" in json.dumps(node.look("studies", "list")))
    for key in ("1.2.3.4.5.6", "ACC-77"):
        story = " ".join(node.run("studies", "why", key).split())
        assert "Modality is 'MR'" in story


def test_the_commands_of_a_running_node(node: RunningNode) -> None:
    status = node.json("status")
    assert status["running"]
    assert {process["name"] for process in status["processes"]} >= {"receiver-1", "worker-1"}
    findings = {finding["what"]: finding["verdict"] for finding in node.json("doctor")}
    assert "bad" not in findings.values()
    node.run("destinations", "echo", "dimse")
    node.run("destinations", "echo", "web")
    origins = {row["setting"]: row["origin"] for row in node.json("settings")}
    assert origins["home"] == "environment"
    assert origins["ae_title"] == "default"
    assert "already running" in _error_of(node, "up")


def _error_of(node: RunningNode, *arguments: str) -> str:
    import subprocess
    import sys

    command = [sys.executable, "-m", "dicomnode", *arguments]
    done = subprocess.run(command, env=node.environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    return done.stderr
