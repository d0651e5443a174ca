"""What runs on a GPU beside the network, here with tensors of the CPU: the same values as plane by plane."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dicomnode.imaging import on_device
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.inference import intensity, source_labels
from dicomnode.imaging.resample import Intensity, ModelGrid, model_grid, to_model
from dicomnode.imaging.restore import restore_scores
from tests.monai_reference import spec
from tests.triton_models import axial
from tests.unit.test_resample import tilted
from tests.unit.test_restore import oblique

GEOMETRIES = [
    (axial((11, 30, 27), (5.0, 0.8, 0.8)), "RAS", (1.5, 1.5, 2.0)),
    (axial((24, 18, 20), (1.0, 1.5, 1.5)), "LPI", (1.0, 2.0, 3.0)),
    (axial((8, 12, 13), (2.0, 1.5, 1.5)), "RAS", (1.5, 1.5, 2.0)),  # nothing to resample
    (axial((90, 20, 20), (1.0, 1.0, 1.0)), "SPR", (0.5, 2.0, 2.0)),  # more than one block of slices
    (oblique(), "RAS", (1.3, 1.3, 2.0)),
    (axial((1, 20, 20), (5.0, 1.0, 1.0)), "RAS", (2.0, 2.0, 5.0)),
    (tilted((12, 30, 28), 20.0, 0.7), "RAS", (1.5, 1.5, 2.0)),
]


def mapping(orientation: str, spacing: tuple[float, float, float]) -> Intensity:
    return intensity(spec(orientation, spacing), 1.0, -1024.0)


def stored(geometry: VolumeGeometry) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.random.default_rng(0).integers(0, 2500, geometry.shape, dtype=np.int16)


@pytest.mark.parametrize(("geometry", "orientation", "spacing"), GEOMETRIES)
def test_the_model_sees_the_same(
    geometry: VolumeGeometry, orientation: str, spacing: tuple[float, float, float]
) -> None:
    grid, values, wanted = model_grid(geometry, orientation, spacing), stored(geometry), mapping(orientation, spacing)
    found = on_device.to_model(torch.from_numpy(values), grid, wanted)
    assert np.array_equal(found.numpy(), to_model(values, grid, wanted))
    assert len(np.unique(found.numpy())) > 5


@pytest.mark.parametrize(("geometry", "orientation", "spacing"), GEOMETRIES)
def test_the_same_labels_come_back(
    geometry: VolumeGeometry, orientation: str, spacing: tuple[float, float, float]
) -> None:
    """Ties of nearest neighbours too: the same positions."""
    grid = model_grid(geometry, orientation, spacing)
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 9, grid.shape, dtype=np.uint8))
    assert torch.equal(on_device.to_source(labels, grid), source_labels(labels, grid, threads=2))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize(("geometry", "orientation", "spacing"), GEOMETRIES)
def test_the_same_labels_come_of_restored_scores(
    classes: int, softmax: bool, geometry: VolumeGeometry, orientation: str, spacing: tuple[float, float, float]
) -> None:
    grid: ModelGrid = model_grid(geometry, orientation, spacing)
    scores = torch.randn((1, classes, *grid.shape), generator=torch.Generator().manual_seed(2)) * 3
    wanted = torch.empty(geometry.shape, dtype=torch.uint8)
    restore_scores(scores.clone(), grid, wanted, softmax=softmax)
    found = on_device.restored(scores, grid, softmax=softmax)
    # softmax of a plane and of a volume may differ in the last digit, and so the label of a tie
    assert (found != wanted).float().mean() <= (1e-3 if softmax else 0)
    assert len(found.unique()) == classes
