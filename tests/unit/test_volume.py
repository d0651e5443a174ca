"""What is one volume and what is refused, by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage, MRSpectroscopyStorage, SegmentationStorage

from dicomnode.errors import NotAVolume
from dicomnode.imaging.volume import REASONS, VolumePlan, plan_volume
from tests.made_series import AXIAL, CORONAL, OBLIQUE, SAGITTAL, classic, enhanced, positions


def refused(series: list[Dataset]) -> NotAVolume:
    with pytest.raises(NotAVolume) as caught:
        plan_volume(series)
    assert caught.value.reason in REASONS
    return caught.value


def places(plan: VolumePlan) -> np.ndarray:
    return np.array([frame.position_mm for frame in plan.frames])


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("shuffle", [False, True])
def test_slices_in_any_order_are_put_along_the_normal(orientation: tuple[float, ...], shuffle: bool) -> None:
    series = classic(7, orientation=orientation, spacing=(0.5, 0.9))
    expected = np.array(positions(7, orientation=orientation))
    random.Random(4).shuffle(series) if shuffle else series.reverse()

    plan = plan_volume(series)

    np.testing.assert_allclose(places(plan), expected)
    affine = plan.geometry.affine
    for index in ((0, 0, 0), (6, 11, 15), (3, 5, 2)):
        along_row, down_column = np.array(orientation[:3]), np.array(orientation[3:])
        where = expected[index[0]] + index[1] * 0.5 * down_column + index[2] * 0.9 * along_row
        np.testing.assert_allclose((affine @ (*index, 1))[:3], where, atol=1e-5)


def test_gantry_tilt_shears_the_grid() -> None:
    plan = plan_volume(classic(6, tilt_degrees=18.5, step_mm=4))

    assert plan.geometry.tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert plan.geometry.affine[:3, 0] == pytest.approx([0, 4 * np.tan(np.radians(18.5)), 4], abs=1e-5)
    assert plan.geometry.voxel_volume_mm3 == pytest.approx(0.8 * 0.8 * 4)


def test_a_shear_that_no_gantry_makes_is_refused() -> None:
    assert refused(classic(6, tilt_degrees=50)).reason == "misaligned-slices"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-0.0499, 0.0499), min_size=5, max_size=20), st.floats(0.6, 10))
def test_positions_rounded_to_a_tenth_of_a_millimetre_are_one_volume(noise: list[float], step: float) -> None:
    series = headers_at([k * step + off for k, off in enumerate(noise)])

    assert plan_volume(series).geometry.shape[0] == len(noise)


@settings(deadline=None, max_examples=40)
@given(st.integers(5, 40), st.data())
def test_any_slice_taken_out_is_missed(count: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(1, count - 2))
    series = headers_at([2.0 * k for k in range(count)])
    del series[gone]

    error = refused(series)

    assert error.reason == "missing-slices"
    assert f"4.00 mm between slices {gone} and {gone + 1}" in str(error)


def headers_at(along: list[float]) -> list[Dataset]:
    [template, *_] = classic(1)
    series = []
    for k, z in enumerate(along):
        d = deepcopy(template)
        d.SOPInstanceUID, d.ImagePositionPatient = f"1.2.{k}", [0, 0, round(z, 6)]
        series.append(d)
    return series


def changed(which: int, **attributes: object) -> Callable[[], list[Dataset]]:
    def series() -> list[Dataset]:
        made = classic(6)
        for keyword, value in attributes.items():
            if value is None:
                delattr(made[which], keyword)
            else:
                setattr(made[which], keyword, value)
        return made

    return series


def without_place(made: Dataset) -> Dataset:
    del made.ImagePositionPatient, made.ImageOrientationPatient
    return made


def report() -> list[Dataset]:
    d = Dataset()
    d.SOPClassUID, d.Modality = GrayscaleSoftcopyPresentationStateStorage, "PR"
    return [d]


def segmentation() -> list[Dataset]:
    made = enhanced(6)
    made.SOPClassUID, made.Modality = SegmentationStorage, "SEG"
    return [made]


def two_phases() -> list[Dataset]:
    return classic(5, TemporalPositionIdentifier=1) + classic(5, series="b", TemporalPositionIdentifier=2)


def in_one_series(series: list[Dataset]) -> list[Dataset]:
    for d in series:
        d.SeriesInstanceUID = series[0].SeriesInstanceUID
    return series


def all_with(**attributes: object) -> Callable[[], list[Dataset]]:
    return lambda: classic(6, **attributes)


def lut() -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType, item.LUTData = [256, 0, 16], "US", b"\0" * 512
    return item


@pytest.mark.parametrize(
    ("reason", "make", "words"),
    [
        ("no-images", list, "0 instances"),
        ("no-images", report, "PR"),
        ("no-images", all_with(SOPClassUID=MRSpectroscopyStorage, Modality="MR"), "6 instances (MR), none"),
        ("segmentation", segmentation, ""),
        ("mixed-series", lambda: classic(3) + classic(3, series="b"), "2 series"),
        ("localizer", all_with(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "6 localizer"),
        ("mosaic", all_with(ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]), "6 images with many slices"),
        ("mosaic", lambda: classic(1, ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"]), "1 image with many slices"),
        ("single-slice", lambda: classic(1), ""),
        ("too-few", lambda: classic(2), "2 slices"),
        # two radiographs are no slices
        ("no-geometry", lambda: [without_place(d) for d in classic(2)], "ImagePositionPatient"),
        ("not-monochrome", changed(2, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "RGB"),
        ("not-monochrome", all_with(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR"),
        ("pixel-format", all_with(BitsAllocated=32, BitsStored=32, HighBit=31), "32 bits"),
        ("pixel-format", all_with(RescaleSlope=0), "Rescale Slope of 0"),
        ("modality-lut", lambda: classic(6, ModalityLUTSequence=[lut()]), "Modality LUT"),
        ("too-large", all_with(Rows=65535, Columns=65535), "voxels"),
        ("mixed-matrix-size", changed(2, Rows=10), "10 × 16 (1 image)"),
        ("no-geometry", changed(3, ImagePositionPatient=None), "ImagePositionPatient"),
        ("no-geometry", changed(3, ImageOrientationPatient=None), "ImageOrientationPatient"),
        ("no-geometry", changed(3, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "unit vectors"),
        ("no-geometry", changed(3, ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "unit vectors"),
        ("no-geometry", changed(3, PixelSpacing=[0, 0]), "above zero"),
        ("no-geometry", changed(3, PixelSpacing=[1]), "PixelSpacing"),
        ("no-geometry", all_with(FrameOfReferenceUID=""), "Frame of Reference"),
        ("mixed-frame-of-reference", changed(3, FrameOfReferenceUID="1.2.3"), "2 frames of reference"),
        ("mixed-pixel-spacing", changed(3, PixelSpacing=[0.8, 0.9]), "2 pixel spacings"),
        (
            "mixed-orientations",
            lambda: in_one_series(classic(4) + classic(3, series="b", orientation=SAGITTAL)),
            "4 axial, 3 sagittal",
        ),
        ("mixed-orientations", changed(3, ImageOrientationPatient=list(OBLIQUE)), "5 axial, 1 axial"),
        (
            "4d",
            lambda: in_one_series(two_phases()),
            "2 images at each of 5 positions; they differ in TemporalPositionIdentifier (2 values)",
        ),
        (
            "duplicate-positions",
            lambda: in_one_series(classic(5) + classic(2, series="b")),
            "7 images at 5 positions, several at 2",
        ),
        ("missing-slices", lambda: [d for k, d in enumerate(classic(9)) if k not in (3, 4)], "2 slices are missing"),
        ("uneven-spacing", lambda: headers_at([0, 4, 8, 12, 19, 26]), "3 × 4 mm, 2 × 7 mm"),
        ("misaligned-slices", changed(3, ImagePositionPatient=[-97.0, -80.5, 37.75]), "slice 4 lies 3.00 mm beside"),
    ],
)
def test_refused_by_name(reason: str, make: Callable[[], list[Dataset]], words: str) -> None:
    error = refused(make())

    assert error.reason == reason
    assert words in str(error)


def test_every_reason_is_tried() -> None:
    [mark] = [m for m in test_refused_by_name.pytestmark if m.name == "parametrize"]
    assert {case[0] for case in mark.args[1]} == set(REASONS)


def test_localizers_beside_a_stack_are_left_out() -> None:
    localizers = classic(2, series="b", orientation=CORONAL, rows=30, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    plan = plan_volume(in_one_series(classic(5) + localizers))

    assert plan.geometry.shape == (5, 12, 16)
    assert {frame.instance for frame in plan.frames} == {0, 1, 2, 3, 4}
    assert plan.notes == ("2 localizer images left out",)


def test_the_same_instance_twice_is_used_once() -> None:
    series = classic(5)
    plan = plan_volume([series[2], *series])

    assert plan.geometry.shape[0] == 5
    assert "already there" in plan.notes[0]


def test_repeats_of_equal_pixels_are_left_out_if_somebody_can_tell() -> None:
    series = in_one_series(classic(5) + classic(5, series="b"))

    plan = plan_volume(series, same_pixels=lambda one, other: one.position_mm == other.position_mm)

    assert plan.geometry.shape[0] == 5
    assert "5 images left out that repeat" in plan.notes[0]
    with pytest.raises(NotAVolume):
        plan_volume(series, same_pixels=lambda one, other: False)


def test_presentation_states_beside_images_are_left_out() -> None:
    [extra] = report()
    assert plan_volume([extra, *classic(4)]).notes == ("1 instance without pixels left out",)


def test_cosines_that_differ_by_rounding_are_one_orientation() -> None:
    series = classic(6, orientation=OBLIQUE)
    series[2].ImageOrientationPatient = [round(v, 4) for v in OBLIQUE]

    assert plan_volume(series).geometry.shape[0] == 6


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_an_enhanced_instance_is_a_volume_whatever_the_order_of_its_frames(modality: str) -> None:
    plan = plan_volume([enhanced(5, modality=modality, orientation=OBLIQUE, order=[3, 0, 4, 1, 2])])

    assert [frame.number for frame in plan.frames] == [2, 4, 5, 1, 3]
    np.testing.assert_allclose(places(plan), positions(5, orientation=OBLIQUE))
    assert plan.rescale.intercept == -1000


def test_several_enhanced_instances_make_one_volume() -> None:
    plan = plan_volume([enhanced(4, name="1", first=3), enhanced(3, name="0")])

    assert [(frame.instance, frame.number) for frame in plan.frames] == [
        (1, 1), (1, 2), (1, 3), (0, 1), (0, 2), (0, 3), (0, 4),
    ]  # fmt: skip


def test_an_enhanced_instance_with_frames_in_time_is_4d() -> None:
    made = enhanced(5, order=[0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].TemporalPositionIndex = 1 + number // 5

    error = refused([made])

    assert error.reason == "4d"
    assert "2 images at each of 5 positions; they differ in TemporalPositionIndex (2 values)" in str(error)


def test_frames_without_functional_groups_have_no_place() -> None:
    made = enhanced(5)
    del made.PerFrameFunctionalGroupsSequence

    assert refused([made]).reason == "no-geometry"


@pytest.mark.parametrize(
    ("modality", "attributes", "unit"),
    [
        ("CT", {}, "[hnsf'U]"),
        ("CT", {"RescaleType": "HU"}, "[hnsf'U]"),
        ("CT", {"RescaleType": "US"}, "1"),
        ("PT", {"Units": "BQML"}, "Bq/ml"),
        ("PT", {"Units": "GML"}, "g/ml"),
        ("PT", {}, "1"),
        ("MR", {}, "1"),
    ],
)
def test_units(modality: str, attributes: dict[str, str], unit: str) -> None:
    assert plan_volume(classic(4, modality=modality, **attributes)).unit == unit
