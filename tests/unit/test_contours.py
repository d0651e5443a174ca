"""An outline says which pixels are inside, whoever fills it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path
from scipy import ndimage

from dicomnode.imaging.contours import outlines, with_keyholes

Mask = npt.NDArray[np.bool_]


def filled(mask: Mask) -> Mask:
    """The pixels whose centres lie inside of the lines, by matplotlib's own test."""
    centres = np.stack(np.indices(mask.shape), -1).reshape(-1, 2)
    inside = np.zeros(mask.shape, bool)
    for outline in outlines(mask):
        line = with_keyholes(outline)
        inside ^= Path(np.vstack([line, line[:1]]), closed=True).contains_points(centres).reshape(mask.shape)
    return inside


@given(st.integers(0, 1 << 30), st.floats(0.3, 3), st.sampled_from([0.45, 0.5, 0.55]))
def test_the_mask_can_be_had_back(seed: int, smooth: float, level: float) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).random((24, 31)), smooth) > level
    np.testing.assert_array_equal(filled(mask), mask)


@pytest.mark.parametrize("mask", [np.ones((4, 5), bool), np.eye(5, dtype=bool), np.zeros((3, 3), bool)])
def test_masks_that_reach_the_border_touch_at_corners_or_are_empty(mask: Mask) -> None:
    np.testing.assert_array_equal(filled(mask), mask)


def test_a_ring_is_one_outline_with_a_hole() -> None:
    mask = np.ones((9, 9), bool)
    mask[3:6, 3:6] = False
    [outline] = outlines(mask)
    assert len(outline.holes) == 1
    assert len(outline.outer) == 8  # the corners are cut: half way between a pixel and its two neighbours outside


def test_points_on_a_straight_line_are_left_out() -> None:
    [outline] = outlines(np.ones((100, 200), bool))
    assert len(outline.outer) == 8
