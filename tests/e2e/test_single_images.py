"""A model that marks single images, through a whole node: radiographs go in, SEGs and an SR reach the archive."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.e2e.running_node import RunningNode, storescu
from tests.made_images import image
from tests.made_series import write
from tests.output_cards import document, package, segment
from tests.servers import Orthanc
from tests.triton_models import Thresholds

MAMMOGRAM = Path(__file__).parents[3] / "shared" / "data" / "planar" / "mg"
RULE = """\
name: marker
when: {Modality: {one_of: [DX, MG]}}
model: marker
results: [SEG, SR, GSPS, SC]
destinations: [pacs]
"""

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[RunningNode]:
    """Its model marks what is brighter than 1000: segment 1 of made_images.planes and of the mammogram the tissue."""
    folder = tmp_path_factory.mktemp("model") / "marker"
    given = {"modality": ["DX", "MG"], "size": [256, 256], "intensity": {"from": [0, 2000], "to": [0, 1]}}
    card = document("marker", {"segments": [{**segment(1), "diameter": True}]}, of_images=True, input=given)
    package(folder, Thresholds(), {**card, "network": {"file": "model.ts", "restore": "scores"}})
    node = RunningNode(tmp_path_factory.mktemp("node") / "home", receivers=1)
    rule = folder.parent / "marker.yaml"
    rule.write_text(RULE)
    node.prepare(
        ("models", "add", folder),
        ("destinations", "add", "pacs", "--dimse", pacs.dimse),
        ("rules", "add", rule),
    )
    with node:
        yield node


def received(pacs: Orthanc, count: int, study: str) -> list[Dataset]:
    return [pydicom.dcmread(BytesIO(pacs.file(uid))) for uid in pacs.wait_for(count, 120, StudyInstanceUID=study)]


def is_where_it_is_bright(segmentation: Dataset, images: Sequence[Dataset]) -> float:
    """Dice of the SEG's mask and of what is brighter than 1000 in the image that it names."""
    read = hd.seg.Segmentation.from_dataset(segmentation)
    ((_, _, uid),) = read.get_source_image_uids()
    (source,) = [one for one in images if one.SOPInstanceUID == uid]
    mask = read.get_pixels_by_source_instance([uid])[0, ..., 0].astype(bool)
    bright = source.pixel_array > 1000
    return float(2 * (mask & bright).sum() / (mask.sum() + bright.sum()))


def check(results: Sequence[Dataset], folder: Path) -> None:
    """Nothing is wrong with them for dciodvfy, where it is installed."""
    if shutil.which("dciodvfy") is None:
        return
    for number, result in enumerate(results):
        file = folder / f"{number}.dcm"
        result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # dciodvfy reads no deflated one
        result.save_as(file)
        said = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
        lines = (said.stdout + said.stderr).splitlines()
        assert not [line for line in lines if line.startswith("Error")], result.Modality


def test_views_of_two_sizes(node: RunningNode, pacs: Orthanc, tmp_path: Path) -> None:
    """120 × 90 and 61 × 133 pixels; the second shows low values bright, which the network sees as any other."""
    images = [image(1, (120, 90)), image(2, (61, 133), PixelSpacing=[0.2, 0.2])]
    folder = tmp_path / "in"
    write(images, folder)
    assert storescu(node.port, folder) == 0
    found = received(pacs, 7, str(images[0].StudyInstanceUID))
    assert sorted(d.Modality for d in found) == ["OT", "OT", "PR", "PR", "SEG", "SEG", "SR"]
    segmentations = [d for d in found if d.Modality == "SEG"]
    assert {(d.Rows, d.Columns) for d in segmentations} == {(120, 90), (61, 133)}
    assert min(is_where_it_is_bright(d, images) for d in segmentations) > 0.97
    check(found, tmp_path)
    (job,) = [node.look("jobs", "show", one["job_id"]) for one in node.look("jobs", "list")]
    assert [(row["image"], row["area_mm2"] is None) for row in job["details"]["measurements"]] == [
        (1, True),
        (2, False),
    ]
    # once more: the same objects under the same UIDs
    assert storescu(node.port, folder) == 0
    node.wait_idle()
    assert pacs.count() == 7


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not MAMMOGRAM.is_dir(), reason="../shared/data is absent")
def test_a_mammogram(node: RunningNode, pacs: Orthanc, tmp_path: Path) -> None:
    (source,) = [pydicom.dcmread(path) for path in MAMMOGRAM.rglob("*.dcm")]
    assert storescu(node.port, MAMMOGRAM, options=["--propose-lossless"]) == 0
    found = received(pacs, 4, str(source.StudyInstanceUID))
    (segmentation,) = [d for d in found if d.Modality == "SEG"]
    assert is_where_it_is_bright(segmentation, [source]) > 0.85  # of tissue a network of 256 pixels sees the outline
    assert (segmentation.Rows, segmentation.Columns) == (3062, 2394)
    assert (list(segmentation.PatientOrientation), segmentation.ImageLaterality) == (["P", "FL"], "R")
    check(found, tmp_path)
    assert {d.StudyInstanceUID for d in found} == {source.StudyInstanceUID}
