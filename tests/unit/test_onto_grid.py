"""A further volume is read where the patient is: against analytic volumes, torch's sampler and the main volume."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.onto_grid import further_to_model, patient_affine
from dicomnode.imaging.resample import Intensity, ModelGrid, model_grid, to_model

AS_IT_IS = Intensity(gain=1.0, offset=0.0, clip=None, outside=-1000.0)
CENTRE_MM = np.array([12.0, -30.0, 100.0])


def turned(degrees: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Rotation about L, P and S, in this order."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def placed(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    degrees: tuple[float, float, float] = (0, 0, 0),
    shear: float = 0.0,
    axes: tuple[int, int, int] = (2, 1, 0),
) -> VolumeGeometry:
    """A volume about CENTRE_MM: (slice, row, column) along the patient's `axes`, then turned; `shear` mm a slice."""
    columns = np.zeros((3, 3))
    for axis, (patient, step) in enumerate(zip(axes, spacing_mm, strict=True)):
        columns[patient, axis] = step
    columns[:, 0] += shear * columns[:, 1] / spacing_mm[1]
    columns = turned(degrees) @ columns
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = CENTRE_MM - columns @ (np.array(shape) - 1) / 2
    return VolumeGeometry(shape, affine)


def places_mm(affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """(*shape, 3) LPS mm of every voxel."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def ramp(mm: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    """A linear function of the place, steep enough that rounding to int16 is small beside it."""
    return np.rint((mm - CENTRE_MM) @ np.array([40.0, -23.0, 31.0])).astype(np.int16)


FURTHER = {
    "finer": placed((40, 50, 44), (1.5, 1.1, 1.3)),
    "coarser, as PET beside CT": placed((20, 24, 22), (4.0, 3.5, 3.0)),
    "coronal": placed((25, 30, 28), (2.5, 2.0, 2.2), axes=(1, 2, 0)),
    "sagittal": placed((25, 30, 28), (2.5, 2.0, 2.2), axes=(0, 2, 1)),
    "oblique": placed((24, 30, 26), (2.5, 2.0, 2.2), (10, -25, 33)),
    "tilted": placed((24, 30, 26), (2.5, 2.0, 2.2), shear=0.7),
    "smaller than the main": placed((8, 10, 9), (2.5, 2.0, 2.2), (0, 0, 4)),
}
MAIN = {
    "axial": placed((16, 30, 28), (3.0, 1.4, 1.4)),
    "upside down": placed((16, 30, 28), (-3.0, -1.4, 1.4)),
    "oblique": placed((16, 30, 28), (3.0, 1.4, 1.4), (-7, 12, 5)),
    "tilted": placed((16, 30, 28), (3.0, 1.4, 1.4), shear=0.9),
}


def reference(
    volume: npt.NDArray[np.int16], geometry: VolumeGeometry, main: VolumeGeometry, grid: ModelGrid
) -> npt.NDArray[np.float32]:
    """torch's trilinear sampler in float64, every sample by its own coordinates; along the model's axes."""
    shape = [len(p) for p in grid.positions]
    mm = places_mm(patient_affine(main, grid), tuple(shape))
    back = np.linalg.inv(geometry.affine)
    index = mm @ back[:3, :3].T + back[:3, 3]
    count = np.array(geometry.shape)
    normal = (2 * index + 1) / count - 1
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(volume.astype(np.float64))[None, None],
        torch.from_numpy(normal[..., ::-1].copy())[None],
        padding_mode="border",
        align_corners=False,
    )[0, 0].numpy()
    beyond = ((index < -0.5) | (index > count - 0.5)).any(-1)
    sampled[beyond] = AS_IT_IS.outside
    return sampled.transpose(grid.order).astype(np.float32)


@pytest.mark.parametrize("main", MAIN)
@pytest.mark.parametrize("further", FURTHER)
def test_noise_is_sampled_as_torch_samples_it(further: str, main: str) -> None:
    geometry, mains = FURTHER[further], MAIN[main]
    volume = np.random.default_rng(1).integers(-900, 900, geometry.shape, dtype=np.int16)
    grid = model_grid(mains, "RAS", (1.9, 2.1, 2.6))
    found = further_to_model(volume, geometry, mains, grid, AS_IT_IS, threads=3)
    wanted = reference(volume, geometry, mains, grid)
    assert found.shape == grid.shape
    near_the_edge = (found == AS_IT_IS.outside) != (wanted == AS_IT_IS.outside)
    assert near_the_edge.mean() < 1e-3  # half a voxel out to the last digit
    np.testing.assert_allclose(
        found[~near_the_edge], wanted[~near_the_edge], atol=0.5 if further != "oblique" else 0.1
    )


@pytest.mark.parametrize("main", MAIN)
@pytest.mark.parametrize("further", FURTHER)
def test_a_linear_volume_comes_out_as_the_function_it_is(further: str, main: str) -> None:
    geometry, mains = FURTHER[further], MAIN[main]
    grid = model_grid(mains, "LPS", (2.0, 2.0, 2.0))
    found = further_to_model(ramp(places_mm(geometry.affine, geometry.shape)), geometry, mains, grid, AS_IT_IS)
    order = grid.order
    mm = places_mm(patient_affine(mains, grid), tuple(len(p) for p in grid.positions)).transpose(*order, 3)
    back = np.linalg.inv(geometry.affine)
    index = mm @ back[:3, :3].T + back[:3, 3]
    inside = ((index >= 0) & (index <= np.array(geometry.shape) - 1)).all(-1)
    assert inside.any()
    np.testing.assert_allclose(found[inside], ramp(mm)[inside], atol=1.01)  # both are rounded to whole numbers
    beyond = ((index < -0.51) | (index > np.array(geometry.shape) - 0.49)).any(-1)
    assert (found[beyond] == AS_IT_IS.outside).all()


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRA"])
@pytest.mark.parametrize("main", MAIN)
def test_both_channels_agree_on_where_the_patient_is(main: str, orientation: str) -> None:
    """The same function of the patient in both series: the main's way, which is MONAI's, and the further one's."""
    mains, geometry = MAIN[main], FURTHER["oblique"]
    grid = model_grid(mains, orientation, (1.5, 2.5, 2.0))
    first = to_model(ramp(places_mm(mains.affine, mains.shape)), grid, AS_IT_IS)
    second = further_to_model(ramp(places_mm(geometry.affine, geometry.shape)), geometry, mains, grid, AS_IT_IS)
    both = (first != AS_IT_IS.outside) & (second != AS_IT_IS.outside)
    middle = tuple(slice(n // 4, -(n // 4)) for n in grid.shape)  # neither repeats its border there
    assert both[middle].mean() > 0.9
    np.testing.assert_allclose(first[middle][both[middle]], second[middle][both[middle]], atol=1.5)


def test_where_there_is_no_voxel_it_is_as_dark_as_the_range_begins() -> None:
    mains, geometry = MAIN["axial"], FURTHER["smaller than the main"]
    grid = model_grid(mains, "RAS", (2.0, 2.0, 2.0))
    scaled = Intensity(gain=0.01, offset=0.2, clip=(0.0, 1.0), outside=-20.0)
    found = further_to_model(np.full(geometry.shape, 50, np.int16), geometry, mains, grid, scaled)
    assert set(np.unique(found.round(6))) == {np.float32(0.0), np.float32(0.7)}
