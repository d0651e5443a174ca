"""Boxes of voxels: around what was found, with a margin in millimetres, and where they lie in the patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.imaging.box import Box, found, geometry_of_part, put_back, with_margin
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.volume import plan_volume
from tests.made_series import CORONAL, OBLIQUE, SAGITTAL, classic, f_mask

SHAPES = st.tuples(*[st.integers(1, 7)] * 3)


@st.composite
def geometries(draw: st.DrawFn) -> VolumeGeometry:
    """Turned, sheared, mirrored, with any spacing: whatever is a grid."""
    turn, _ = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(size=(3, 3)))
    spacing = [draw(st.floats(0.4, 6.0)) for _ in range(3)]
    signs = [draw(st.sampled_from([1.0, -1.0])) for _ in range(3)]
    shear = np.eye(3)
    shear[1:, 0] = draw(st.floats(-0.8, 0.8)), draw(st.floats(-0.8, 0.8))
    affine = np.eye(4)
    affine[:3, :3] = turn @ shear @ np.diag(np.multiply(spacing, signs))
    affine[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
    return VolumeGeometry(draw(SHAPES), affine)


def marked(shape: tuple[int, int, int], seed: int) -> npt.NDArray[np.uint8]:
    """Labels 0 to 3, few of them."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.1, rng.integers(1, 4, shape), 0).astype(np.uint8)


@settings(deadline=None)
@given(SHAPES, st.integers(0, 999), st.sets(st.integers(1, 3), min_size=1))
def test_a_box_holds_all_of_its_labels_and_touches_them_on_every_side(
    shape: tuple[int, int, int], seed: int, numbers: set[int]
) -> None:
    labels = marked(shape, seed)
    mask = np.isin(labels, list(numbers))
    seen = found(labels, numbers)
    assert seen.voxels == mask.sum()
    if seen.box is None:
        assert not mask.any()
        return
    assert mask[seen.box.slices].sum() == mask.sum()
    inside = mask[seen.box.slices]
    for axis in range(3):
        assert np.take(inside, 0, axis).any()
        assert np.take(inside, -1, axis).any()


@settings(deadline=None)
@given(geometries(), st.integers(0, 999), st.floats(0, 12))
def test_what_lies_within_the_margin_is_in_the_box(geometry: VolumeGeometry, seed: int, margin_mm: float) -> None:
    labels = marked(geometry.shape, seed)
    box = found(labels, {1, 2, 3}).box
    if box is None:
        return
    wide = with_margin(box, margin_mm, geometry)
    places = np.indices(geometry.shape).reshape(3, -1)
    points = geometry.affine[:3, :3] @ places
    of_labels = points[:, labels.reshape(-1) > 0]
    away = np.linalg.norm(points[:, :, None] - of_labels[:, None, :], axis=0).min(1)
    inside = np.zeros(geometry.shape, dtype=bool)
    inside[wide.slices] = True
    assert inside.reshape(-1)[away <= margin_mm].all()
    if margin_mm == 0:
        assert wide == box


@settings(deadline=None)
@given(geometries(), st.data())
def test_a_part_lies_where_it_lies_in_the_whole(geometry: VolumeGeometry, data: st.DataObject) -> None:
    start = [data.draw(st.integers(0, size - 1)) for size in geometry.shape]
    stop = [data.draw(st.integers(first + 1, size)) for first, size in zip(start, geometry.shape, strict=True)]
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    part = geometry_of_part(geometry, box)
    assert part.shape == box.shape
    inside = np.array([data.draw(st.integers(0, size - 1)) for size in part.shape])
    np.testing.assert_allclose(
        part.affine @ [*inside, 1], geometry.affine @ [*(inside + box.start), 1], rtol=0, atol=1e-9
    )
    labels = np.random.default_rng(0).integers(1, 9, box.shape).astype(np.uint8)
    whole = put_back(labels, box, geometry.shape)
    np.testing.assert_array_equal(whole[box.slices], labels)
    assert np.count_nonzero(whole) == labels.size


@pytest.mark.parametrize("orientation", [OBLIQUE, CORONAL, SAGITTAL])
@pytest.mark.parametrize("reversed_order", [False, True])
@pytest.mark.parametrize("tilt", [0.0, 18.0])
def test_of_a_real_stack_the_first_voxel_has_the_position_of_its_image(
    orientation: tuple[float, ...], reversed_order: bool, tilt: float
) -> None:
    series = classic(6, orientation=orientation, tilt_degrees=tilt, step_mm=3.0, spacing=(0.7, 0.9))
    plan = plan_volume(series[::-1] if reversed_order else series)
    box = found(f_mask(plan.geometry.shape), {1}).box
    assert box == Box((0, 1, 2), (5, 11, 15)), "the F reaches so far"
    part = geometry_of_part(plan.geometry, Box((2, 0, 0), (5, 12, 16)))
    np.testing.assert_allclose(part.affine[:3, 3], plan.frames[2].position_mm, rtol=0, atol=1e-4)


def test_a_margin_in_millimetres_is_more_voxels_along_the_finer_axes_and_ends_at_the_volumes_border() -> None:
    affine = np.diag([5.0, 0.5, 2.0, 1.0])
    geometry = VolumeGeometry((10, 100, 20), affine)
    box = with_margin(Box((4, 50, 1), (5, 51, 3)), 5.0, geometry)
    assert box == Box((3, 40, 0), (6, 61, 6))


def test_a_tilted_stack_needs_more_slices_for_the_same_margin() -> None:
    affine = np.diag([5.0, 1.0, 1.0, 1.0])
    affine[1, 0] = 5.0  # 45 degrees: slices are 5 mm apart all the same, rows are nearer than their step
    geometry = VolumeGeometry((10, 30, 30), affine)
    assert with_margin(Box((5, 15, 15), (6, 16, 16)), 5.0, geometry) == Box((4, 7, 10), (7, 24, 21))


def test_whole_slices_lie_one_after_the_other() -> None:
    shape = (9, 8, 7)
    assert Box((2, 0, 0), (5, 8, 7)).is_whole_slices_of(shape)
    assert not Box((2, 0, 0), (5, 8, 6)).is_whole_slices_of(shape)
    assert not Box((2, 1, 0), (5, 8, 7)).is_whole_slices_of(shape)


@pytest.mark.parametrize("ends", [((0, 0, 0), (0, 1, 1)), ((-1, 0, 0), (1, 1, 1)), ((3, 0, 0), (2, 1, 1))])
def test_an_empty_box_is_none(ends: tuple[tuple[int, int, int], tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="no box of voxels"):
        Box(*ends)
