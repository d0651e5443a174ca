"""Numbers, boxes, maps and masks that overlap or have probabilities are clean under dicom3tools' dciodvfy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from dicomnode.encoding.results import (
    EncodedResult,
    encode_box_results,
    encode_map_results,
    encode_measured_results,
    encode_results,
)
from dicomnode.imaging.images import plan_images
from dicomnode.imaging.measure import measure_masks
from dicomnode.imaging.volume import plan_volume
from tests.every_result import WITH, each
from tests.integration.test_conformance import DCIODVFY, complaints
from tests.made_outputs import (
    BOTH,
    BOXES,
    BOXES_IMAGES,
    MAP,
    MEASURED,
    MEASURED_IMAGES,
    OVERLAP,
    exclusive,
    on_image,
    overlapping,
    radiographs,
    twice,
    values,
)
from tests.made_results import MADE
from tests.made_series import classic, pixels
from tests.unit.test_sr_boxes import SOURCES

pytestmark = pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (Debian: dicom3tools) is not installed")


def clean(results: tuple[EncodedResult, ...], folder: Path) -> None:
    for result in results:
        file = folder / f"{result.kind}.dcm"
        file.write_bytes(result.content)
        assert complaints(file) == [], result.kind


@pytest.mark.parametrize("source", SOURCES)
def test_on_volumes(source: str, tmp_path: Path) -> None:
    plan = plan_volume(SOURCES[source]())
    shape, further = plan.geometry.shape, {"pet": plan_volume(classic(4, modality="PT", series="pet", Units="BQML"))}
    clean(encode_measured_results([[1.5, 2.5]], plan, MEASURED, MADE, further), tmp_path)
    clean(encode_box_results(twice(plan.geometry), plan, BOXES, MADE, further), tmp_path)
    clean(encode_map_results(values(shape), plan, MAP, MADE, further), tmp_path)
    for masks, card in ((overlapping(shape), OVERLAP), (exclusive(shape), BOTH)):
        statistics = measure_masks(masks, pixels(shape), plan.geometry, plan.rescale, [1, 2])
        clean(encode_results(masks, statistics, plan, card, MADE, further), tmp_path)


NOTHING: Mapping[str, Callable[[], tuple[EncodedResult, ...]]] = {
    "no box": lambda: encode_box_results([], plan_volume(classic(4)), BOXES, MADE),
    "no number": lambda: encode_measured_results([[np.nan, 1.0]], plan_volume(classic(4)), MEASURED, MADE),
    "no box on a radiograph": lambda: encode_box_results([], plan_images(radiographs()), BOXES_IMAGES, MADE),
}


@pytest.mark.parametrize("what", NOTHING)
def test_of_nothing(what: str, tmp_path: Path) -> None:
    clean(NOTHING[what](), tmp_path)


@pytest.mark.parametrize("factor", [1e-4, 0])
def test_maps_of_little(factor: float, tmp_path: Path) -> None:
    plan = plan_volume(classic(4))
    clean(encode_map_results(values(plan.geometry.shape) * np.float32(factor), plan, MAP, MADE), tmp_path)


@pytest.mark.parametrize("spacing", [True, False])
def test_on_radiographs(spacing: bool, tmp_path: Path) -> None:
    plan = plan_images(radiographs(2, spacing=spacing))
    clean(encode_box_results([on_image(1), on_image(0, number=1)], plan, BOXES_IMAGES, MADE), tmp_path)
    clean(encode_measured_results([[1.0, 2.0], [3.0, 20000.0]], plan, MEASURED_IMAGES, MADE), tmp_path)


def test_with_all_that_there_is_to_be_said(tmp_path: Path) -> None:
    """One of every object, each superseding another, of a model that came after another."""
    for _, _, result in each(WITH):
        if result.kind != "SEG-LABELMAP":  # dciodvfy of 2022 does not know its IOD
            clean((result,), tmp_path)
