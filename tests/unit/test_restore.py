"""Scores back in the scanner's grid: MONAI's Invertd of the scores, then argmax."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Invertd

from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.resample import model_grid
from dicomnode.imaging.restore import restore_scores
from tests.monai_reference import Reference, spec
from tests.triton_models import axial


def of_monai(scores: torch.Tensor, softmax: bool, reference: Reference) -> npt.NDArray[np.uint8]:
    values = torch.softmax(scores, 1) if softmax else scores
    back = Invertd(keys="pred", transform=reference.before, orig_keys="image", nearest_interp=False)
    result = back({"image": reference.image, "pred": MetaTensor(values[0])})["pred"]
    labels: npt.NDArray[np.uint8] = result.argmax(0).numpy().T.astype(np.uint8)
    return labels


def oblique() -> VolumeGeometry:
    """Slices from top to bottom, columns towards the right, all turned by 20 degrees."""
    turn = np.radians(20.0)
    affine = np.eye(4)
    affine[:3, 0] = 3.0 * np.array([0.0, np.sin(turn), -np.cos(turn)])
    affine[:3, 1] = 0.8 * np.array([0.0, np.cos(turn), np.sin(turn)])
    affine[:3, 2] = 0.9 * np.array([-1.0, 0.0, 0.0])
    return VolumeGeometry((9, 22, 31), affine)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize(
    ("geometry", "orientation", "spacing"),
    [
        (axial((11, 30, 27), (5.0, 0.8, 0.8)), "RAS", (1.5, 1.5, 2.0)),
        (axial((24, 18, 20), (1.0, 1.5, 1.5)), "LPI", (1.0, 2.0, 3.0)),
        (axial((8, 12, 13), (2.0, 1.5, 1.5)), "RAS", (1.5, 1.5, 2.0)),  # nothing to resample
        (oblique(), "RAS", (1.3, 1.3, 2.0)),
        (axial((1, 20, 20), (5.0, 1.0, 1.0)), "RAS", (2.0, 2.0, 5.0)),
    ],
)
def test_labels_are_those_of_monai(
    classes: int, softmax: bool, geometry: VolumeGeometry, orientation: str, spacing: tuple[float, float, float]
) -> None:
    card = spec(orientation, spacing)
    reference, grid = Reference(card), model_grid(geometry, orientation, spacing)
    reference.prepare(np.zeros(geometry.shape, np.int16), geometry)
    assert tuple(reference.image.shape[1:]) == grid.shape
    scores = torch.randn((1, classes, *grid.shape), generator=torch.Generator().manual_seed(1)) * 3
    out = torch.empty(geometry.shape, dtype=torch.uint8)
    restore_scores(scores.clone(), grid, out, softmax=softmax, threads=2)
    wanted = of_monai(scores, softmax, reference)
    assert len(np.unique(wanted)) == classes
    assert (out.numpy() == wanted).mean() > 0.9999  # the rest are ties within a rounding


def test_a_tilted_volume_gets_its_labels_where_its_slices_lie() -> None:
    affine = np.diag([4.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
    affine[1, 0] = 1.5  # each slice 1.5 mm further back than the last
    geometry = VolumeGeometry((7, 30, 12), affine)
    grid = model_grid(geometry, "RAS", (1.0, 1.0, 4.0))
    assert grid.shift is not None
    line = torch.arange(grid.shape[1], dtype=torch.float32)  # towards the front
    front = (line - line.mean())[None, :, None].expand(grid.shape)
    out = torch.empty(geometry.shape, dtype=torch.uint8)
    restore_scores(torch.stack([-front, front])[None], grid, out, softmax=True)
    edges = out.bool().sum(1)[:, 0]
    # the plane of the border stays where it is in the patient: rows of a later slice begin further back
    assert (edges[:-1] - edges[1:]).float().mean() == pytest.approx(1.5, abs=0.1)
