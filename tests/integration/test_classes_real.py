"""Reports of classes on real images are clean under dciodvfy, whatever the images are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicomnode.domain.classification import runs
from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.encoding.results import encode_class_results
from dicomnode.imaging.headers import read_instances
from dicomnode.imaging.images import ImagesPlan, plan_images
from tests.class_models import document
from tests.integration.test_conformance import complaints
from tests.made_results import MADE

DATA = Path(__file__).parents[3] / "shared" / "data"
SERIES = {
    "CT": "ct/lidc-0002-part",
    "CT head, tilted": "ct/ge-head-tilt18-variable-spacing",
    "CT in three planes": "ct/nysbu-A002304-mixed-planes/A002304",
    "CT, two frames": "enhanced/ect-2frame",
    "CR": "planar/cr-chest",
    "MR, knee": "enhanced/moveknee",
    "mammography": "planar/mg",
}

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here"),
    pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed"),
]


def card(**output: object) -> ModelCard:
    return parse_model_card(document("regions", certain_from=0.5, **output))  # type: ignore[arg-type]


def plans(name: str) -> list[ImagesPlan]:
    """Of every series in a folder."""
    files = sorted(path for path in (DATA / SERIES[name]).rglob("*") if path.is_file())
    instances = read_instances([f for f in files if f.suffix not in (".txt", ".md", ".json")])
    by_series: dict[str, list[object]] = {}
    for instance in instances:
        by_series.setdefault(str(instance.header.SeriesInstanceUID), []).append(instance.header)
    return [plan_images(headers) for headers in by_series.values()]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SERIES)
def test_a_report_of_classes_is_clean(name: str, tmp_path: Path) -> None:
    for plan in plans(name):
        scores = [[0.9, 0.06, 0.04], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3]]
        found = runs([scores[(k // 2) % 3] for k in range(len(plan.frames))], card().classification)  # type: ignore[arg-type]
        (result,) = encode_class_results(found, plan, card(), MADE)
        file = tmp_path / "SR.dcm"
        file.write_bytes(result.content)
        assert complaints(file) == []
