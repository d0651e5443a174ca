"""Images of a series one by one: no place in the patient needed, any size, and bright where it looks bright."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydicom import Dataset

from dicomnode.domain.model_output import Classification, ClassSpec, Code
from dicomnode.errors import NotAVolume
from dicomnode.imaging.classify import centred, fitting, image_inputs, probabilities
from dicomnode.imaging.decode import read_frames
from dicomnode.imaging.headers import read_instances
from dicomnode.imaging.images import ImagesPlan, plan_images
from dicomnode.imaging.resample import Intensity
from tests.made_series import CORONAL, classic, enhanced, pixels, write

AS_IT_IS = Intensity(1.0, 0.0, None, 0.0)


def without_place(series: Sequence[Dataset]) -> list[Dataset]:
    """As projection radiographs are."""
    for d in series:
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"):
            delattr(d, keyword)
    return list(series)


def read_all(series: Sequence[Dataset], folder: Path) -> tuple[ImagesPlan, list[npt.NDArray[np.float64]]]:
    """The plan, and each stack's images in modality units."""
    instances = read_instances(write(series, folder))
    plan = plan_images([instance.header for instance in instances])
    read = []
    for stack in plan.stacks:
        out = np.full(stack.shape, 12345, np.int16)
        read_frames(stack, instances, out)
        read.append(out * stack.rescale.slope + stack.rescale.intercept)
    return plan, read


def test_images_without_a_place_come_by_number(tmp_path: Path) -> None:
    series = without_place(classic(4))
    plan, (read,) = read_all([series[k] for k in (2, 0, 3, 1)], tmp_path)
    assert [f.sop_instance_uid for f in plan.frames] == [d.SOPInstanceUID for d in series]
    np.testing.assert_array_equal(read, pixels((4, 12, 16)) - 1000.0)


def test_images_with_places_come_along_the_patient(tmp_path: Path) -> None:
    series = classic(4)
    for d in series:
        d.InstanceNumber = 9 - d.InstanceNumber
    plan, _ = read_all(series, tmp_path)
    assert [f.sop_instance_uid for f in plan.frames] == [d.SOPInstanceUID for d in series]


def test_one_image_is_enough_and_planes_may_cross(tmp_path: Path) -> None:
    plan, _ = read_all(classic(1), tmp_path)
    assert len(plan.frames) == 1
    crossing = [*classic(2), *classic(2, orientation=CORONAL, series="c")]
    for number, d in enumerate(crossing, 1):
        d.SeriesInstanceUID, d.InstanceNumber = crossing[0].SeriesInstanceUID, number
    assert len(plan_images(crossing).frames) == 4


def test_images_of_several_sizes_are_several_stacks(tmp_path: Path) -> None:
    series = [*classic(2), *classic(1, rows=20, columns=8, series="b")]
    for number, d in enumerate(without_place(series)):
        d.SeriesInstanceUID, d.InstanceNumber = series[0].SeriesInstanceUID, (1, 3, 2)[number]
    plan, read = read_all(series, tmp_path)
    assert [(s.shape, s.indices) for s in plan.stacks] == [((2, 12, 16), (0, 2)), ((1, 20, 8), (1,))]
    np.testing.assert_array_equal(read[0], pixels((2, 12, 16)) - 1000.0)
    np.testing.assert_array_equal(read[1], pixels((1, 20, 8)) - 1000.0)


@pytest.mark.parametrize(("bits", "signed"), [(12, False), (16, False), (16, True)])
def test_what_is_shown_inverted_is_inverted(bits: int, signed: bool, tmp_path: Path) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    dtype = np.int16 if signed else np.uint16
    values = np.linspace(low, high, 2 * 12 * 16).round().astype(dtype).reshape(2, 12, 16)
    shown = (low + high - values.astype(np.int64)).astype(dtype)
    changes: dict[str, Any] = {"BitsStored": bits, "HighBit": bits - 1}
    _, (normal,) = read_all(classic(2, values=values, **changes), tmp_path / "2")
    _, (inverted,) = read_all(
        classic(2, values=shown, PhotometricInterpretation="MONOCHROME1", **changes), tmp_path / "1"
    )
    np.testing.assert_allclose(inverted, normal, atol=1e-6)


def test_frames_of_one_file_are_images(tmp_path: Path) -> None:
    plan, (read,) = read_all([enhanced(4)], tmp_path)
    assert [f.number for f in plan.frames] == [1, 2, 3, 4]
    np.testing.assert_array_equal(read, pixels((4, 12, 16)) - 1000.0)


def test_colour_is_refused_by_name() -> None:
    with pytest.raises(NotAVolume, match="1 image is RGB") as refused:
        plan_images([*classic(1), *classic(1, series="c", SeriesInstanceUID=classic(1)[0].SeriesInstanceUID,
                                           SamplesPerPixel=3, PhotometricInterpretation="RGB")])  # fmt: skip
    assert refused.value.reason == "not-monochrome"


def test_values_of_a_table_are_refused_by_name() -> None:
    with pytest.raises(NotAVolume) as refused:
        plan_images(classic(1, ModalityLUTSequence=[Dataset()]))
    assert refused.value.reason == "modality-lut"


def test_slices_tiled_into_one_image_are_refused_by_name() -> None:
    with pytest.raises(NotAVolume, match="2 images with many slices tiled into each") as refused:
        plan_images(classic(2, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]))
    assert refused.value.reason == "mosaic"


# ------------------------------------------------------------------------------------------------- the network's


def test_an_image_keeps_its_proportions() -> None:
    assert fitting((512, 512), (128, 128)) == (128, 128)
    assert fitting((2000, 1000), (128, 128)) == (128, 64)
    assert fitting((30, 60), (100, 100)) == (50, 100)
    images = torch.full((3, 40, 20), 7, dtype=torch.int16)
    made = image_inputs(images, (16, 16), AS_IT_IS, -1.0)
    assert made.shape == (3, 1, 16, 16)
    np.testing.assert_allclose(made[:, 0, :, 4:12], 7, atol=1e-5)
    np.testing.assert_array_equal(made[:, 0, :, :4], -1)
    np.testing.assert_array_equal(made[:, 0, :, 12:], -1)


def test_an_image_made_smaller_keeps_its_mean_and_no_stripes() -> None:
    stripes = torch.zeros((1, 64, 64), dtype=torch.int16)
    stripes[:, ::2] = 1000
    made = image_inputs(stripes, (16, 16), AS_IT_IS, 0.0)
    np.testing.assert_allclose(made[0, 0, 2:-2, 2:-2], 500, atol=60)


def test_a_volume_is_cut_and_padded_about_its_middle() -> None:
    volume = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(1, 1, 6, 3, 2)
    made = centred(volume, (4, 3, 4), -9.0)
    assert made.shape == (1, 1, 4, 3, 4)
    np.testing.assert_array_equal(made[0, 0, :, 0], [[-9, k, k, -9] for k in (1, 2, 3, 4)])


def spec(scores: str) -> Classification:
    code = Code("1", "X", "x")
    return Classification("image", code, (ClassSpec("a", code), ClassSpec("b", code)), scores)


def test_scores_become_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(probabilities(logits, spec("logits")), logits.softmax(1))
    given = torch.tensor([[0.25, 0.75]])
    np.testing.assert_array_equal(probabilities(given, spec("probabilities")), given)


@pytest.mark.parametrize(
    ("scores", "given", "words"),
    [
        ("probabilities", [[2.0, -1.0]], "add up to 1"),
        ("probabilities", [[0.2, 0.2]], "add up to 1"),
        ("logits", [[float("nan"), 0.0]], "no numbers"),
        ("logits", [[0.0, 0.0, 0.0]], "2 classes"),
    ],
)
def test_what_are_no_scores_is_refused(scores: str, given: list[list[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        probabilities(torch.tensor(given), spec(scores))
