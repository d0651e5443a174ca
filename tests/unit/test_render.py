"""Pictures of slices: the right grey, the right colour, the patient's proportions."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset

from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.render import Window, key_slices, picture, shown_size, spread, window_of

HU = Rescale(1.0, -1024.0)


def test_a_segment_has_a_line_in_its_colour_and_lets_the_image_through() -> None:
    plane = np.full((512, 512), 1024, np.int16)  # 0 HU
    labels = np.zeros((512, 512), np.uint8)
    labels[100:200, 300:400] = 2
    shown = picture(plane, labels, HU, Window(0, 100), {1: (255, 0, 0), 2: (0, 255, 0)}, (1, 1))
    assert shown[0, 0].tolist() == [127, 127, 127]
    assert shown[100, 350].tolist() == [0, 255, 0]
    assert shown[150, 350].tolist() == [82, 171, 82]
    assert shown[150, 250].tolist() == [127, 127, 127]


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [((512, 512), (0.7, 0.7), (512, 512)), ((64, 128), (1, 1), (256, 512)), ((100, 100), (2, 1), (512, 256))],
)
def test_the_patient_keeps_its_proportions(
    shape: tuple[int, int], spacing: tuple[float, float], expected: tuple[int, int]
) -> None:
    assert shown_size(shape, spacing) == expected


def test_a_huge_image_is_made_smaller() -> None:
    assert shown_size((4000, 3000), (0.1, 0.1)) == (1024, 768)


def test_the_window_is_the_series_own_or_a_fitting_one() -> None:
    header, volume = Dataset(), np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    assert window_of(header, volume, HU, "CT") == Window(40, 400)
    found = window_of(header, volume, Rescale(2.0, 0.0), "MR")
    assert 800 < found.centre < 1200
    assert found.width > 1500
    header.WindowCenter, header.WindowWidth = [50, 400], [350, 2000]
    assert window_of(header, volume, HU, "CT").centre == 50


def test_the_slice_to_look_at_is_where_a_segment_is_largest() -> None:
    labels = np.zeros((7, 4, 4), np.uint8)
    labels[1:6, 0, 0], labels[2, 1:, 1:] = 1, 2
    assert key_slices(labels, [1, 2, 3]) == {1: 3, 2: 2}


def test_some_slices_evenly_and_those_that_matter() -> None:
    assert spread(range(5), 10) == [0, 1, 2, 3, 4]
    assert spread(range(100), 4, [7]) == [0, 7, 50, 99]
    assert 7 in spread(range(100), 3, [7])
    assert spread(range(10), 2, [3, 4, 5]) == [3, 4]
