"""Small parts of a segment are left out, whole, and nothing else is."""

import numpy as np
import pytest

from dicomnode.imaging.islands import drop_islands


def two_segments() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Segment 1: blocks of 60 and of 8 voxels; segment 2: a block of 27, which touches the first, and 2 voxels."""
    labels = np.zeros((10, 20, 20), dtype=np.uint8)
    labels[1:4, 1:5, 1:6] = 1
    labels[6:8, 10:12, 10:12] = 1
    labels[1:4, 5:8, 1:4] = 2
    labels[9, 19, 18:] = 2
    return labels


@pytest.mark.parametrize(
    ("minimum_ml", "left", "dropped"),
    [
        (0.0, {1: 68, 2: 29}, 0),
        (0.0041, {1: 68, 2: 27}, 1),  # 2 voxels of 2 mm³ are 0.004 mL
        (0.016, {1: 68, 2: 27}, 1),  # 8 voxels are 0.016 mL: not smaller
        (0.0161, {1: 60, 2: 27}, 2),
        (0.1, {1: 60, 2: 0}, 3),
        (1.0, {1: 0, 2: 0}, 4),
    ],
)
def test_parts_below_the_volume_go(minimum_ml: float, left: dict[int, int], dropped: int) -> None:
    before = two_segments()
    labels = before.copy()
    assert drop_islands(labels, 2.0, minimum_ml) == dropped
    assert {n: int((labels == n).sum()) for n in (1, 2)} == left
    changed = labels != before
    assert not labels[changed].any()


def test_voxels_that_touch_at_a_corner_are_one_part() -> None:
    labels = np.zeros((4, 4, 4), dtype=np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 2, 2] = 1
    assert drop_islands(labels, 1000.0, 3.0) == 0
    labels[1, 1, 1] = 0
    assert drop_islands(labels, 1000.0, 3.0) == 2


def test_an_empty_mask_stays_empty() -> None:
    labels = np.zeros((3, 3, 3), dtype=np.uint8)
    assert drop_islands(labels, 1.0, 5.0) == 0
    assert not labels.any()
