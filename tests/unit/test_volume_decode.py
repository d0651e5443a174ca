"""Pixels decoded into a given volume: every way they are stored gives the values they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode.errors import CannotDecode
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.headers import read_instances
from tests.made_series import OBLIQUE, classic, enhanced, pixels, read, write

SHAPE = (5, 12, 16)


def real(plan: Any, volume: np.ndarray) -> np.ndarray:
    return volume * plan.rescale.slope + plan.rescale.intercept


def set_syntax(d: Dataset, syntax: str) -> None:
    d.file_meta.TransferSyntaxUID = UID(syntax)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE])
def test_native_pixels_come_as_they_are(tmp_path: Path, reverse: bool, orientation: tuple[float, ...]) -> None:
    series = classic(5, orientation=orientation)
    plan, _, volume = read(write(series[::-1] if reverse else series, tmp_path))

    np.testing.assert_array_equal(volume, pixels(SHAPE))
    assert (plan.rescale.slope, plan.rescale.intercept) == (1, -1000)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]
)
def test_every_syntax_gives_the_same_values(tmp_path: Path, syntax: str) -> None:
    values = pixels((5, 64, 70))
    series = classic(5, values=values)
    for d in series:
        if UID(syntax).is_compressed and syntax != DeflatedExplicitVRLittleEndian:
            d.compress(syntax, generate_instance_uid=False)
        set_syntax(d, syntax)

    _, _, volume = read(write(series, tmp_path))

    np.testing.assert_array_equal(volume, values)


def test_big_endian(tmp_path: Path) -> None:
    series = classic(5)
    for d, plane in zip(series, pixels(SHAPE), strict=True):
        set_syntax(d, ExplicitVRBigEndian)
        d.PixelData = plane.astype(">i2").tobytes()

    np.testing.assert_array_equal(read(write(series, tmp_path))[2], pixels(SHAPE))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_unsigned_values_of_16_bits_keep_their_meaning(tmp_path: Path, syntax: str) -> None:
    values = np.linspace(0, 65535, np.prod(SHAPE)).astype(np.uint16).reshape(SHAPE)
    series = classic(5, values=values)
    for d, plane in zip(series, values, strict=True):
        set_syntax(d, syntax)
        if syntax == ExplicitVRBigEndian:
            d.PixelData = plane.astype(">u2").tobytes()

    plan, _, volume = read(write(series, tmp_path))

    np.testing.assert_array_equal(real(plan, volume), values.astype(float) - 1000)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(("signed", "high_bit"), [(False, 11), (True, 11), (False, 13), (True, 15)])
def test_bits_beyond_bits_stored_are_nothing(tmp_path: Path, signed: bool, high_bit: int, native: bool) -> None:
    """PS3.5 8.1.1: overlays in unused bits, and signed values without a sign in them."""
    rng = np.random.default_rng(5)
    values = rng.integers(-2048 if signed else 0, 2048 if signed else 4096, SHAPE)
    below = high_bit - 11
    stored = ((values & 0xFFF) << below) | (rng.integers(0, 16, SHAPE) << 12 << below)
    stored |= rng.integers(0, 1 << below, SHAPE) if below else 0
    series = classic(5, values=(stored & 0xFFFF).astype(np.uint16))
    for d, plane in zip(series, (stored & 0xFFFF).astype(np.uint16), strict=True):
        d.BitsStored, d.HighBit, d.PixelRepresentation = 12, high_bit, int(signed)
        if not native:
            set_syntax(d, ExplicitVRBigEndian)
            d.PixelData = plane.astype(">u2").tobytes()

    np.testing.assert_array_equal(read(write(series, tmp_path))[2], values)


def test_8_bits(tmp_path: Path) -> None:
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint8)
    series = classic(5, values=values)
    for d in series:
        d.BitsAllocated, d.BitsStored, d.HighBit = 8, 8, 7

    np.testing.assert_array_equal(read(write(series, tmp_path))[2], values)


@pytest.mark.parametrize("padding", [-2000, -2000 % 65536])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_padding_becomes_air_in_ct(tmp_path: Path, padding: int, syntax: str) -> None:
    values = pixels(SHAPE)
    values[:, :2] = -2000
    series = classic(5, values=values)
    for d in series:
        if syntax == RLELossless:
            d.compress(syntax, generate_instance_uid=False)
        set_syntax(d, syntax)
        d.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)

    plan, _, volume = read(write(series, tmp_path))

    assert np.unique(real(plan, volume)[:, :2]) == [-1024]
    np.testing.assert_array_equal(volume[:, 2:], values[:, 2:])


def test_padding_ranges_become_nothing_in_mr(tmp_path: Path) -> None:
    values = pixels(SHAPE)
    series = classic(5, modality="MR", values=values, PixelPaddingValue=-50, PixelPaddingRangeLimit=-40)
    for d in series:
        d["PixelPaddingValue"].VR = d["PixelPaddingRangeLimit"].VR = "SS"

    _, _, volume = read(write(series, tmp_path))

    expected = np.where((values >= -50) & (values <= -40), 0, values)
    np.testing.assert_array_equal(volume, expected)


def test_slices_with_their_own_rescale_share_one(tmp_path: Path) -> None:
    """PET: half a step of the coarsest slice is the most that a value may be off."""
    values = np.abs(pixels(SHAPE)) * 40
    slopes = [0.5, 1.25, 3.0, 0.1, 2.0]
    series = classic(5, modality="PT", values=values, RescaleIntercept=0)
    for d, slope in zip(series, slopes, strict=True):
        d.RescaleSlope = slope

    plan, _, volume = read(write(series, tmp_path))

    expected = values * np.array(slopes)[:, None, None]
    assert plan.rescale.slope == pytest.approx(3.0)
    assert np.abs(real(plan, volume) - expected).max() <= 1.5
    np.testing.assert_array_equal(volume[2], values[2])


def test_slices_with_their_own_intercept_share_one(tmp_path: Path) -> None:
    values = np.abs(pixels(SHAPE)).astype(np.uint16)
    series = classic(5, values=values)
    for k, d in enumerate(series):
        d.BitsStored, d.HighBit, d.RescaleIntercept = 12, 11, -1000 - 24 * k

    plan, _, volume = read(write(series, tmp_path))

    expected = values - 1000.0 - 24 * np.arange(5)[:, None, None]
    assert np.abs(real(plan, volume) - expected).max() <= plan.rescale.slope / 2 + 1e-9
    assert plan.rescale.slope < 0.1


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_frames_of_an_enhanced_instance_go_to_their_slices(tmp_path: Path, syntax: str) -> None:
    made = enhanced(5, order=[3, 0, 4, 1, 2])
    if syntax == RLELossless:
        made.compress(syntax, generate_instance_uid=False)
    set_syntax(made, syntax)

    np.testing.assert_array_equal(read(write([made], tmp_path))[2], pixels(SHAPE))


def test_several_enhanced_instances(tmp_path: Path) -> None:
    values = pixels((7, 12, 16))
    series = [enhanced(4, name="1", first=3, values=values[3:]), enhanced(3, name="0", values=values[:3])]

    np.testing.assert_array_equal(read(write(series, tmp_path))[2], values)


def test_repeats_with_equal_bytes_are_left_out(tmp_path: Path) -> None:
    series = classic(5) + classic(5, series="b")
    for d in series:
        d.SeriesInstanceUID = "1.2.3"
    plan, _, volume = read(write(series, tmp_path))

    assert "5 images left out" in plan.notes[0]
    np.testing.assert_array_equal(volume, pixels(SHAPE))


def test_a_file_that_ends_early_is_found_before_memory_is_taken(tmp_path: Path) -> None:
    series = classic(5)
    paths = write(series, tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:-40])

    with pytest.raises(
        CannotDecode, match=f"{series[3].SOPInstanceUID} in Explicit VR Little Endian.*ends before"
    ) as e:
        plan_instances(read_instances(paths))
    assert not e.value.retryable


def test_pixel_data_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    series = classic(5)
    series[2].PixelData = series[2].PixelData[:-40]
    series[2].add_new("DataSetTrailingPadding", "OB", b"\0" * 64)
    instances = read_instances(write(series, tmp_path))
    plan = plan_instances(instances)

    with pytest.raises(CannotDecode, match=f"{series[2].SOPInstanceUID} .*344 bytes of pixel data where 384"):
        read_volume(plan, instances, np.empty(SHAPE, np.int16))


@pytest.mark.parametrize("spoil", ["no pixel data", "corrupt"])
def test_what_cannot_be_decoded_is_named(tmp_path: Path, spoil: str) -> None:
    series = classic(5)
    for d in series:
        d.compress(RLELossless, generate_instance_uid=False)
    if spoil == "no pixel data":
        del series[1].PixelData
    else:
        series[1].PixelData = series[1].PixelData[:100] + b"\xff" * 100
    instances = read_instances(write(series, tmp_path))
    plan = plan_instances(instances)

    with pytest.raises(
        CannotDecode, match=rf"instance {series[1].SOPInstanceUID} in RLE Lossless \(1.2.840.10008.1.2.5\)"
    ):
        read_volume(plan, instances, np.empty(SHAPE, np.int16))


def test_a_file_that_is_not_dicom_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_text("no")
    with pytest.raises(CannotDecode, match=r"x\.dcm"):
        read_instances([tmp_path / "x.dcm"])


def test_the_volume_must_fit(tmp_path: Path) -> None:
    plan, instances, _ = read(write(classic(5), tmp_path))
    with pytest.raises(ValueError, match="int16"):
        read_volume(plan, instances, np.empty((4, 12, 16), np.int16))


DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


@pytest.mark.real_data
@needs_data
def test_a_real_slice_is_the_same_in_every_lossless_syntax(tmp_path: Path) -> None:
    """Each encoding of one real slice, laid beside two made ones so that there is a volume."""
    folder = DATA / "compressed" / "ctimage-all-syntaxes"
    reference: np.ndarray | None = None
    undecodable = []
    for path in sorted(folder.glob("*.dcm")):
        series = beside(path)
        paths = write(series, tmp_path / path.stem)
        try:
            plan, _, volume = read(paths)
        except CannotDecode as error:
            undecodable.append((str(series[0].file_meta.TransferSyntaxUID), series[0].SOPInstanceUID in str(error)))
            continue
        hu = real(plan, volume)[0]
        if series[0].file_meta.TransferSyntaxUID in _LOSSLESS:
            reference = hu if reference is None else reference
            np.testing.assert_array_equal(hu, reference, err_msg=path.name)
    assert reference is not None
    assert sorted(undecodable) == [("1.2.840.10008.1.2.4.53", True), ("1.2.840.10008.1.2.4.55", True)]


_LOSSLESS = frozenset(
    {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.5",
    }
)


def beside(path: Path) -> list[Dataset]:
    series = []
    for k in range(3):
        d = dcmread(path)
        x, y, z = (float(v) for v in d.ImagePositionPatient)
        d.ImagePositionPatient = [x, y, z + 2 * k]
        d.SOPInstanceUID = f"{d.SOPInstanceUID[:50]}.{k}"
        series.append(d)
    return series
