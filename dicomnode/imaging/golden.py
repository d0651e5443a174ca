"""The arrays of golden cases, and how far what a model gave is from what it must give.

An input is an .npz with `volume` (slice, row, column) int16, stored values; `affine` (4, 4) float64, LPS mm, as
VolumeGeometry has it; `slope` and `intercept`, the modality LUT (PS3.3 C.11.1.1.2), 1 and 0 when they are absent.
Further series have the same names with `_1`, `_2` and so on, in the order of the card's roles. Or it is a folder of
DICOM files. What is expected is an .npz with the one array that domain.golden.EXPECTED names for what the card gives.
Single images are (image, row, column), and need no affine.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.model_card import InputSpec
from dicomnode.errors import InvalidModelPackage, SeriesRefused
from dicomnode.imaging.decode import plan_instances, read_frames, read_volume
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.imaging.headers import read_instances
from dicomnode.imaging.images import ImageStack, not_monochrome, plan_images

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class GivenVolume:
    """Stored values, (slice, row, column) int16, where they lie and what they mean."""

    values: npt.NDArray[np.int16]
    placement: Placement

    @property
    def shape(self) -> Shape:
        return self.placement.geometry.shape


def read_npz_volumes(path: Path, count: int, *, needs_place: bool = True) -> list[GivenVolume]:
    """The main volume and those of the roles; single images need no place. Raises InvalidModelPackage."""
    arrays = _arrays(path)
    if not needs_place:
        arrays.setdefault("affine", np.eye(4))
    return [_volume(arrays, f"_{number}" if number else "", path) for number in range(count)]


def npz_arrays(volumes: Sequence[GivenVolume]) -> dict[str, npt.NDArray[Any]]:
    """As read_npz_volumes reads them; nothing but pixels and where they lie."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, given in enumerate(volumes):
        end, rescale = f"_{number}" if number else "", given.placement.rescale
        arrays |= {f"volume{end}": given.values, f"affine{end}": given.placement.geometry.affine}
        arrays |= {f"slope{end}": np.array(rescale.slope), f"intercept{end}": np.array(rescale.intercept)}
    return arrays


def read_dicom_volume(folder: Path) -> GivenVolume:
    """The series that lies in a folder; raises InvalidModelPackage."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    try:
        instances = read_instances(files)
        plan = plan_instances(instances)
        values = np.zeros(plan.geometry.shape, dtype=np.int16)
        read_volume(plan, instances, values)
    except SeriesRefused as error:
        raise InvalidModelPackage(str(error), _shown(folder)) from error
    return GivenVolume(values, Placement(plan.geometry, plan.rescale))


def read_dicom_images(folder: Path, spec: InputSpec) -> GivenVolume:
    """The images in a folder, all of one size, in their series' order; raises InvalidModelPackage.

    Of a card that takes each in its own window, 0 and 1 after the rescale are black and white in that.
    """
    try:
        instances = read_instances(sorted(path for path in folder.iterdir() if path.is_file()))
        plan = plan_images([instance.header for instance in instances])
        if plan.colour and spec.colour == "refused":
            raise not_monochrome(len(plan.frames), plan.colour)
        if len(plan.stacks) > 1:
            raise InvalidModelPackage("its images have several sizes; one is needed", _shown(folder))
        (stack,) = plan.stacks
        values = np.zeros(stack.shape, dtype=np.int16)
        read_frames(stack, instances, values)
    except SeriesRefused as error:
        raise InvalidModelPackage(str(error), _shown(folder)) from error
    rescale = _as_windowed(stack, values) if spec.windowed else stack.rescale
    return GivenVolume(values, Placement(stack.geometry or VolumeGeometry(stack.shape, np.eye(4)), rescale))


def _as_windowed(stack: ImageStack, values: npt.NDArray[np.int16]) -> Rescale:
    """In place: one rescale for all windows, so fine that none is coarser than 1/8192."""
    for images, rescale in stack.shown_as(slice(None)):
        shown = values[images] * rescale.slope + rescale.intercept
        values[images] = np.rint(np.clip(shown * _WINDOW_STEPS, -32768, 32767)).astype(np.int16)
    return Rescale(1.0 / _WINDOW_STEPS, 0.0)


_WINDOW_STEPS = 8192


def read_expected(path: Path, name: str) -> npt.NDArray[Any]:
    """`labels` and `masks` as uint8, all else as float32 (domain.golden.EXPECTED); raises InvalidModelPackage."""
    array = _named(_arrays(path), name, path)
    wanted = np.uint8 if name in ("labels", "masks") else np.float32
    if array.dtype != wanted:
        raise InvalidModelPackage(f"{name} is {array.dtype}, {np.dtype(wanted)} is needed", _shown(path))
    return array


def dice(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], number: int) -> float:
    """Twice what both label maps give a number over what each does; 1 where neither has it."""
    first, second = one == number, other == number
    both = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / both if both else 1.0


# ------------------------------------------------------------------------------------------------------- files


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InvalidModelPackage(f"this is no .npz that can be read: {error}", _shown(path)) from error


def _volume(arrays: dict[str, npt.NDArray[Any]], number: str, path: Path) -> GivenVolume:
    values, affine = _named(arrays, f"volume{number}", path), _named(arrays, f"affine{number}", path)
    if values.dtype != np.int16 or values.ndim != 3 or not values.size:
        words = f"volume{number} is {values.dtype} {_sizes(values.shape)}, (slice, row, column) int16 is needed"
        raise InvalidModelPackage(words, _shown(path))
    try:
        slices, rows, columns = values.shape
        geometry = VolumeGeometry((slices, rows, columns), affine)
        slope, intercept = (float(arrays.get(f"{name}{number}", default)) for name, default in _RESCALE)
    except (ValueError, TypeError) as error:
        raise InvalidModelPackage(
            f"affine{number}, slope{number} or intercept{number}: {error}", _shown(path)
        ) from None
    return GivenVolume(values, Placement(geometry, Rescale(slope, intercept)))


_RESCALE = (("slope", np.float64(1.0)), ("intercept", np.float64(0.0)))


def _named(arrays: dict[str, npt.NDArray[Any]], name: str, path: Path) -> npt.NDArray[Any]:
    if name not in arrays:
        raise InvalidModelPackage(f"there is no {name}; there are: {', '.join(arrays) or 'none'}", _shown(path))
    return arrays[name]


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "()"


def _shown(path: Path) -> str:
    """As much of the path as says where in the package it is."""
    return "/".join(path.parts[-2:])
