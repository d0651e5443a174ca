"""The model's grid and back, against MONAI's transforms."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.inference import intensity, label_map, model_input
from dicomnode.imaging.resample import model_grid, oriented_axes, straighten, to_source
from tests.monai_reference import Reference, spec
from tests.triton_models import axial

nibabel = pytest.importorskip("nibabel", reason="MONAI's Orientation needs nibabel")


def aligned(rng: np.random.Generator, shape: tuple[int, int, int]) -> VolumeGeometry:
    """Slices, rows and columns along the patient's axes in any order and sense; spacings of real scanners."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    affine[:3, :3] *= rng.choice([0.683594, 0.75, 0.796875, 1.0, 1.25, 2.5, 3.0, 5.0], 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3).round(3)
    return VolumeGeometry(shape, affine)


def oblique(rng: np.random.Generator, shape: tuple[int, int, int]) -> VolumeGeometry:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.6, 4.0, 3)  # spacings without ties
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return VolumeGeometry(shape, affine)


ORIENTATIONS = ["RAS", "LPS", "SAL", "IRP", "PIR"]


@pytest.mark.parametrize("make", [aligned, oblique])
@pytest.mark.parametrize("seed", range(12))
def test_volume_and_labels_are_those_of_monai(make: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = (int(n) for n in rng.integers(4, 40, 3))
    geometry = make(rng, (a, b, c))
    wanted = spec(ORIENTATIONS[seed % 5], tuple(rng.choice([1.0, 1.5, 2.0, 3.0], 3).tolist()))
    stored = rng.integers(-1000, 3000, (a, b, c)).astype(np.int16)
    reference = Reference(wanted)
    expected = reference.prepare(stored * np.float32(0.5) - np.float32(200), geometry)
    grid = model_grid(geometry, wanted.orientation, wanted.spacing_mm)
    image = model_input(torch.from_numpy(stored), grid, intensity(wanted, 0.5, -200.0), threads=3)
    assert tuple(image.shape[2:]) == grid.shape == tuple(expected.shape[1:])
    assert float((image[0] - expected).abs().max()) < 1e-5
    labels = torch.from_numpy(rng.integers(0, 5, grid.shape).astype(np.uint8))
    back = np.empty(stored.shape, dtype=np.uint8)
    to_source(labels.numpy(), grid, back, threads=3)
    np.testing.assert_array_equal(back, reference.restore(labels))


@pytest.mark.parametrize("shape", [(1, 20, 30), (7, 1, 9), (2, 2, 2)])
def test_thin_volumes_are_those_of_monai(shape: tuple[int, int, int]) -> None:
    geometry, wanted = axial(shape, (5.0, 0.75, 0.75)), spec("RAS", (1.5, 1.5, 2.0))
    stored = np.random.default_rng(0).integers(-60, 170, shape).astype(np.int16)
    expected = Reference(wanted).prepare(stored, geometry)
    grid = model_grid(geometry, "RAS", wanted.spacing_mm)
    image = model_input(torch.from_numpy(stored), grid, intensity(wanted, 1.0, 0.0), threads=4)
    torch.testing.assert_close(image[0], expected, atol=1e-5, rtol=0)


def test_a_tie_between_two_slices_falls_as_in_monai() -> None:
    """5 mm slices in a 2 mm grid: every other slice lies half way, and rounding noise decides."""
    geometry, wanted = axial((41, 8, 8), (5.0, 0.796875, 0.796875)), spec("RAS", (1.5, 1.5, 2.0))
    reference = Reference(wanted)
    reference.prepare(np.zeros((41, 8, 8)), geometry)
    grid = model_grid(geometry, "RAS", (1.5, 1.5, 2.0))
    levels = torch.arange(grid.shape[2], dtype=torch.uint8).expand(grid.shape)
    back = np.empty(geometry.shape, dtype=np.uint8)
    to_source(levels.numpy(), grid, back)
    np.testing.assert_array_equal(back, reference.restore(levels))
    assert set(np.abs(back[:, 0, 0] - np.arange(41) * 2.5)) == {0.0, 0.5}


@pytest.mark.parametrize("seed", range(50))
def test_axes_are_named_as_nibabel_names_them(seed: int) -> None:
    geometry = oblique(np.random.default_rng(seed), (3, 4, 5))
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine
    order, signs = oriented_axes(geometry, "RAS")
    expected = nibabel.io_orientation(ras)
    assert [(order.index(axis), signs[order.index(axis)]) for axis in range(3)] == [tuple(row) for row in expected]


@pytest.mark.parametrize("letters", ["".join(p) for p in itertools.permutations("RAS")])
def test_letters_give_the_order_of_the_axes(letters: str) -> None:
    order, signs = oriented_axes(axial((3, 4, 5), (1.0, 1.0, 1.0)), letters)
    assert order == tuple({"R": 2, "A": 1, "S": 0}[letter] for letter in letters)
    assert signs == tuple({"R": -1, "A": -1, "S": 1}[letter] for letter in letters)


def test_a_spacing_that_is_right_already_leaves_every_value_as_it_is() -> None:
    geometry = axial((5, 6, 7), (2.0, 1.5, 1.5))
    stored = np.random.default_rng(0).integers(-57, 164, (5, 6, 7)).astype(np.int16)
    grid = model_grid(geometry, "SPL", (2.0, 1.5, 1.5))
    image = model_input(torch.from_numpy(stored), grid, intensity(spec("SPL", (2.0, 1.5, 1.5)), 1.0, 0.0))
    assert torch.equal(torch.round(image[0, 0] * 221 - 57).to(torch.int16), torch.from_numpy(stored))


def test_label_map_is_argmax() -> None:
    scores = torch.randint(0, 4, (1, 5, 6, 7, 8), generator=torch.Generator().manual_seed(0)).float()  # many equals
    assert torch.equal(label_map(scores), scores.argmax(1)[0].to(torch.uint8))


# ------------------------------------------------------------------------------------------------- gantry tilt


def tilted(shape: tuple[int, int, int], degrees: float, sideways: float = 0.0) -> VolumeGeometry:
    """As a CT with gantry tilt: slices step straight along the table, which is not their normal."""
    geometry = axial(shape, (3.0, 0.8, 0.8))
    affine = geometry.affine.copy()
    affine[:3, 0] += [sideways, 3.0 * np.tan(np.radians(degrees)), 0.0]
    return VolumeGeometry(shape, affine)


def ball(geometry: VolumeGeometry, radius_mm: float) -> np.ndarray[Any, Any]:
    """A ball of 100 in a field of -50 about the middle of the volume, sampled where the voxels really lie."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    points = index @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    middle = geometry.affine[:3, :3] @ (np.array(geometry.shape) / 2) + geometry.affine[:3, 3]
    inside = np.linalg.norm(points - middle, axis=-1) < radius_mm
    return np.where(inside, 100, -50).astype(np.int16)


@pytest.mark.parametrize(("degrees", "sideways"), [(18.5, 0.0), (-25.0, 0.0), (12.0, 0.7)])
def test_a_tilted_ball_is_a_ball_in_the_model_and_comes_back(degrees: float, sideways: float) -> None:
    geometry = tilted((30, 100, 90), degrees, sideways)
    stored = ball(geometry, 30.0)
    wanted = spec("RAS", (1.0, 1.0, 1.0))
    grid = model_grid(geometry, "RAS", wanted.spacing_mm)
    image = model_input(torch.from_numpy(stored), grid, intensity(wanted, 1.0, 0.0))[0, 0]
    labels = (image > 80 / 221).to(torch.uint8)
    x, y, z = (
        np.ptp(np.nonzero(labels.any(other).any(rest).numpy())[0]) + 1 for other, rest in ((2, 1), (2, 0), (1, 0))
    )
    assert max(abs(extent - 60) for extent in (x, y, z)) <= 4  # one slice is 3 mm; unstraightened y would be 80
    assert float(labels.sum()) == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.04)
    back = np.empty(geometry.shape, dtype=np.uint8)
    to_source(labels.numpy(), grid, back, threads=3)
    truth = stored == 100
    dice = 2 * (truth & (back == 1)).sum() / (truth.sum() + (back == 1).sum())
    assert dice > 0.97


def test_straightened_voxels_lie_where_they_lay() -> None:
    geometry = tilted((12, 9, 8), 20.0, 0.5)
    straight = straighten(geometry)
    assert straight is not None
    assert straight.geometry.tilt_degrees == pytest.approx(0, abs=1e-5)
    for index in ([0, 0, 0], [11, 8, 7], [5, 3, 1]):
        moved = np.array([*index, 1.0])
        moved[1:3] += straight.shift[index[0]]
        np.testing.assert_allclose(straight.geometry.affine @ moved, geometry.affine @ [*index, 1.0], atol=1e-9)


def test_outside_a_tilted_volume_the_model_sees_the_darkest_value() -> None:
    geometry = tilted((10, 20, 20), 30.0)
    wanted = spec("RAS", (1.0, 1.0, 1.0))
    grid = model_grid(geometry, "RAS", wanted.spacing_mm)
    image = model_input(torch.full((10, 20, 20), 500, dtype=torch.int16), grid, intensity(wanted, 1.0, 0.0))
    assert (float(image[0, 0, 5, 3, -1]), float(image[0, 0, 5, -3, -1])) == (1.0, 0.0)
    assert (float(image[0, 0, 5, 3, 0]), float(image[0, 0, 5, -3, 0])) == (0.0, 1.0)
    assert {round(float(v), 3) for v in (image.min(), image.max())} == {0.0, 1.0}


def test_rounded_direction_cosines_are_no_tilt() -> None:
    geometry = axial((300, 512, 512), (1.0, 0.7, 0.7))
    affine = geometry.affine.copy()
    affine[0, 0] += 5e-4  # 0.15 mm over the whole volume
    assert straighten(VolumeGeometry(geometry.shape, affine)) is None
