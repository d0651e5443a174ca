"""A Triton model directory as people have it, no ZIP, through a whole node: added, activated, routed to, sent."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import yaml
from pydicom import Dataset

from dicomnode.adapters.triton.installation import find_server
from tests.e2e.running_node import RunningNode, storescu
from tests.made_series import classic, write
from tests.servers import Orthanc
from tests.triton_directories import python_model
from tests.triton_models import document

RULE = "name: thresholds\nwhen: {Modality: CT}\nmodel: thresholds\nresults: [SEG]\ndestinations: [pacs]\n"
SHAPE = (16, 40, 40)
BRIGHT = (slice(4, 12), slice(8, 30), slice(10, 32))

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.dcmtk,
    pytest.mark.triton,
    pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here"),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[RunningNode]:
    """Its model is a program of Triton's Python backend, which only Triton runs: above 53.5 HU is class 1."""
    folder = tmp_path_factory.mktemp("given")
    said = ("manufacturer", "intended_use", "limits", "input", "output")
    whole = document("x", 1, spacing_mm=[0.8, 0.8, 2.5])
    (folder / "card.yaml").write_text(yaml.safe_dump({key: whole[key] for key in said}))
    (folder / "rule.yaml").write_text(RULE)
    node = RunningNode(tmp_path_factory.mktemp("node") / "home", receivers=1)
    directory = python_model(folder / "thresholds")
    node.prepare(
        ("destinations", "add", "pacs", "--dimse", pacs.dimse),
        ("models", "add", directory, "--card", folder / "card.yaml", "--no-activate"),
        ("rules", "add", folder / "rule.yaml"),
    )
    with node:
        yield node


def series() -> list[Dataset]:
    """-200 HU, and 120 HU in a box."""
    values = np.full(SHAPE, 800, np.int16)
    values[BRIGHT] = 1120
    return classic(SHAPE[0], rows=SHAPE[1], columns=SHAPE[2], values=values)


def test_its_segmentation_reaches_the_archive(node: RunningNode, pacs: Orthanc, tmp_path: Path) -> None:
    (model,) = node.look("models", "list")
    assert (model["name"], model["version"], model["active"]) == ("thresholds", "1", False)
    activated = node.json("models", "activate", "thresholds", "1")  # in the node that runs
    assert activated["active"]
    images = series()
    write(images, tmp_path / "in")
    assert storescu(node.port, tmp_path / "in") == 0
    (uid,) = pacs.wait_for(1, 120, StudyInstanceUID=str(images[0].StudyInstanceUID))
    found = pydicom.dcmread(BytesIO(pacs.file(uid)))
    assert found.Modality == "SEG"
    labels = hd.seg.Segmentation.from_dataset(found).get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images], assert_missing_frames_are_empty=True
    )[..., 0]
    expected = np.zeros(SHAPE, bool)
    expected[BRIGHT] = True
    np.testing.assert_array_equal(labels.astype(bool), expected)
    node.wait_idle()
    (job,) = node.look("jobs", "list")
    assert node.look("jobs", "show", job["job_id"])["details"]["engine"]["engine"] == "Triton python"
