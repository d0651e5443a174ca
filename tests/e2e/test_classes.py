"""Two models on one real CT, one that classifies and one that outlines where it saw a chest: SEG and SRs arrive."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from tests.e2e.running_node import RunningNode, storescu
from tests.servers import Orthanc

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
CT, HEAD = DATA / "ct" / "crlm-1004", DATA / "ct" / "ge-head-tilt18-variable-spacing"
MODELS, RULES = ROOT / "sample_data" / "models", ROOT / "sample_data" / "rules"

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.dcmtk,
    pytest.mark.real_data,
    pytest.mark.skipif(not CT.is_dir(), reason="../shared/data is absent"),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path_factory.mktemp("node") / "home", receivers=1)
    node.prepare(
        *(("models", "add", MODELS / name) for name in ("torso-ct", "slice-ct-region")),
        *(("rules", "add", RULES / f"{name}.yaml") for name in ("torso-ct-chest", "slice-ct-region")),
        ("destinations", "add", "pacs", "--dimse", pacs.dimse),
    )
    with node:
        yield node


def classes(node: RunningNode, study: str) -> list[tuple[str, int]]:
    (job,) = [
        node.look("jobs", "show", job["job_id"])
        for job in node.look("jobs", "list")
        if job["study_instance_uid"] == study and "slice-ct-region" in job["model"]
    ]
    assert job["state"] == "succeeded", job
    return [(row["class"], row["images"]) for row in job["details"]["classes"]]


def test_a_volume_is_outlined_and_its_images_are_classified(node: RunningNode, pacs: Orthanc) -> None:
    study = str(pydicom.dcmread(next(CT.glob("*.dcm"))).StudyInstanceUID)
    assert storescu(node.port, CT) == 0
    found = [pydicom.dcmread(BytesIO(pacs.file(uid))) for uid in pacs.wait_for(3, 120, StudyInstanceUID=study)]
    assert sorted(d.Modality for d in found) == ["SEG", "SR", "SR"]
    (report,) = [d for d in found if d.Modality == "SR" and d.ManufacturerModelName == "slice-ct-region"]
    assert (
        len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence)
        == 41
    )
    shares = dict(classes(node, study))
    assert shares["Abdomen"] > 25
    assert shares["Chest"] >= 6
    (explained,) = node.look("rules", "explain", "torso-ct-chest", study)["answers"]
    assert "Class(slice-ct-region) is 'Abdomen\\Chest'" in explained["why"]
    story = [event["kind"] for event in node.look("studies", "why", study)["story"]]
    assert story.count("series.classified") == 1
    # once more: the same report under the same UIDs
    assert storescu(node.port, CT) == 0
    node.wait_idle()
    assert pacs.count() == 3


def test_images_that_are_no_volume_are_classified_all_the_same(node: RunningNode, pacs: Orthanc) -> None:
    study = str(pydicom.dcmread(next(HEAD.glob("*.dcm"))).StudyInstanceUID)
    assert storescu(node.port, HEAD) == 0
    (uid,) = pacs.wait_for(1, 120, StudyInstanceUID=study)
    assert pydicom.dcmread(BytesIO(pacs.file(uid))).ManufacturerModelName == "slice-ct-region"
    assert dict(classes(node, study)).get("Head", 0) >= 26
    node.wait_idle()
    (series,) = node.look("studies", "show", study)["series"]
    assert "torso-ct-chest did not match: Class(slice-ct-region) is 'Head" in series["why"]
    assert [job["model"] for job in node.look("jobs", "list") if job["study_instance_uid"] == study] == [
        "slice-ct-region 1.0.0"
    ]
