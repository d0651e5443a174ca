"""Whether frames lie on one grid: equal steps from slice to slice, sheared or not.

Everything here is decided from positions and orientations alone; nothing is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dicomnode.domain.quantity import quantity
from dicomnode.errors import NotAVolume
from dicomnode.imaging.frames import COSINE_TOLERANCE, Frame
from dicomnode.imaging.geometry import FloatArray, VolumeGeometry

# Closer than this along the normal is the same position: no scanner reconstructs slices 0.01 mm apart, and
# positions come rounded to 0.001 mm or better where slices are thin.
SAME_POSITION_MM = 0.01
# A slice may be this part of a step away from where equal steps from the first to the last put it; or what rounding
# to 0.1 mm does (0.05 mm here and 0.05 mm at the ends), as long as that is well below the third of a step or more by
# which a missing slice moves its neighbours.
STEP_TOLERANCE = 0.1
ROUNDING_MM, ROUNDING_MOST_OF_STEP = 0.1, 0.2
# In the plane, a slice may be off the line through its neighbours' first pixels by a quarter of a pixel,
# or by what rounding to 0.1 mm does.
SHIFT_TOLERANCE_PIXELS, SHIFT_TOLERANCE_MM = 0.25, 0.1
# Relative; over 1000 pixels it adds up to a tenth of one.
PIXEL_SPACING_TOLERANCE = 1e-4
# Gantries tilt to 30 degrees; a stack sheared further than this is no stack of one acquisition.
TILT_MOST_DEGREES = 45.0


def orientation_groups(frames: Sequence[Frame]) -> list[list[Frame]]:
    """The frames by orientation, in the order in which orientations turn up."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _same_orientation(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _same_orientation(one: Frame, other: Frame) -> bool:
    return max(abs(a - b) for a, b in zip(one.orientation, other.orientation, strict=True)) <= COSINE_TOLERANCE


def plane_name(frame: Frame) -> str:
    """ "axial", "sagittal", "coronal", or "oblique" beyond 30 degrees from all three."""
    normal = np.abs(frame.normal)
    axis = int(np.argmax(normal))
    return ("sagittal", "coronal", "axial")[axis] if normal[axis] > np.cos(np.radians(30)) else "oblique"


def in_slice_order(frames: Sequence[Frame]) -> list[Frame]:
    """By position along row × column of the first frame; equal positions keep their order."""
    normal = np.array(frames[0].normal)
    return sorted(frames, key=lambda frame: float(normal @ np.array(frame.position_mm)))


def position_groups(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames in slice order, those at one position together."""
    groups = [[frames[0]]]
    steps = np.diff(_along_normal(frames))
    for frame, step in zip(frames[1:], steps, strict=True):
        if step < SAME_POSITION_MM:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    return groups


def _along_normal(frames: Sequence[Frame]) -> FloatArray:
    """(slice,) mm along the normal of the first frame."""
    along: FloatArray = np.array([frame.position_mm for frame in frames]) @ np.array(frames[0].normal)
    return along


def check_same_spacing(frames: Sequence[Frame]) -> None:
    """Raises NotAVolume when pixel spacings differ by more than rounding."""
    spacings = np.array([frame.spacing_mm for frame in frames])
    if (np.abs(spacings / spacings[0] - 1) > PIXEL_SPACING_TOLERANCE).any():
        named = sorted({frame.spacing_mm for frame in frames})
        raise NotAVolume("mixed-pixel-spacing", f"{len(named)} pixel spacings: {_listed(named)} mm")


def geometry_of(frames: Sequence[Frame], rows: int, columns: int) -> VolumeGeometry:
    """The grid of frames in slice order, one at each position; raises NotAVolume when they lie on none."""
    along = _along_normal(frames)
    _check_steps(np.diff(along))
    positions = np.array([frame.position_mm for frame in frames])
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    first = frames[0]
    _check_shifts(positions, step, first)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing_mm[0]
    affine[:3, 2] = np.array(first.orientation[:3]) * first.spacing_mm[1]
    affine[:3, 3] = positions[0]
    geometry = VolumeGeometry((len(frames), rows, columns), affine)
    if geometry.tilt_degrees > TILT_MOST_DEGREES:
        raise NotAVolume(
            "misaligned-slices",
            f"each slice is shifted against the next: a shear of {geometry.tilt_degrees:.0f} degrees",
        )
    return geometry


def _check_steps(steps: FloatArray) -> None:
    """`steps` is (slice - 1,) mm along the normal."""
    mean = float(steps.mean())
    off = np.abs(np.cumsum(steps) - mean * np.arange(1, len(steps) + 1))
    if off.max() <= max(STEP_TOLERANCE * mean, min(ROUNDING_MM, ROUNDING_MOST_OF_STEP * mean)):
        return
    usual = float(np.median(steps))
    multiples = np.rint(steps / usual)
    missing = int((multiples - 1).sum())
    whole = (np.abs(steps - multiples * usual) <= STEP_TOLERANCE * usual).all() and multiples.min() >= 1
    if whole and missing <= len(steps):
        gaps = ", ".join(
            f"{steps[i]:.2f} mm between slices {i + 1} and {i + 2}" for i in np.flatnonzero(multiples > 1)[:4]
        )
        slices = f"{quantity(missing, 'slice')} {'is' if missing == 1 else 'are'} missing"
        raise NotAVolume("missing-slices", f"{slices}: steps of {usual:.2f} mm, but {gaps}")
    raise NotAVolume("uneven-spacing", f"the steps between slices differ: {_steps_in_words(steps)}")


def _steps_in_words(steps: FloatArray) -> str:
    values, counts = np.unique(np.round(steps, 2), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = [f"{counts[i]} × {values[i]:g} mm" for i in order[:5]]
    return ", ".join(named) + (f" and {len(values) - 5} others" if len(values) > 5 else "")


def _check_shifts(positions: FloatArray, step: FloatArray, first: Frame) -> None:
    """`positions` is (slice, 3) LPS mm; each should lie on the line from the first to the last, in its plane."""
    off = positions - positions[0] - np.arange(len(positions))[:, None] * step
    in_plane = np.abs(off @ np.array([first.orientation[:3], first.orientation[3:]]).T).max(axis=1)
    most = max(SHIFT_TOLERANCE_PIXELS * min(first.spacing_mm), SHIFT_TOLERANCE_MM)
    if in_plane.max() > most:
        worst = int(in_plane.argmax())
        raise NotAVolume(
            "misaligned-slices",
            f"slice {worst + 1} lies {in_plane[worst]:.2f} mm beside the line through the others' first pixels",
        )


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(v) for v in values[:4]) + (f" and {len(values) - 4} others" if len(values) > 4 else "")
