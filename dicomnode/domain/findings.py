"""What a detecting model found: boxes in the patient, or on images, each with a class and a score.

Rounded to what every engine gives alike, so that the same finding is the same object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SCORE_DIGITS, _MM_DIGITS, _PIXEL_DIGITS = 4, 2, 2

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class VolumeBox:
    """In LPS mm (PS3.3 C.7.6.2.1.1); its sides are at right angles, but need not run along the patient's axes."""

    number: int  # of the class, from 0
    score: float
    centre_mm: Vector
    halves_mm: tuple[Vector, Vector, Vector]  # from the centre to the middle of a face


@dataclass(frozen=True, slots=True)
class ImageBox:
    """On an image, in pixels from the outer edge of its first one (PS3.3 C.10.5.1.2)."""

    number: int  # of the class, from 0
    score: float
    image: int  # from 0, in the series' order
    low: tuple[float, float]  # (column, row) of the corner nearest to the first pixel
    high: tuple[float, float]


def volume_boxes(rows: Sequence[Sequence[float]]) -> tuple[VolumeBox, ...]:
    """Of BOXES (box, 14), as ports.inference has them."""
    return tuple(_volume_box(row) for row in rows)


def _volume_box(row: Sequence[float]) -> VolumeBox:
    (x, y, z), a, b, c = (_vector(row[at : at + 3]) for at in (0, 3, 6, 9))
    return VolumeBox(int(row[13]), round(row[12], _SCORE_DIGITS), (x, y, z), (a, b, c))


def _vector(values: Sequence[float]) -> Vector:
    x, y, z = (round(value, _MM_DIGITS) + 0.0 for value in values)  # no -0.0
    return x, y, z


def image_boxes(rows: Sequence[Sequence[float]]) -> tuple[ImageBox, ...]:
    """Of BOXES (box, 7)."""
    return tuple(_image_box(row) for row in rows)


def _image_box(row: Sequence[float]) -> ImageBox:
    left, top, right, bottom = (round(value, _PIXEL_DIGITS) for value in row[1:5])
    return ImageBox(int(row[6]), round(row[5], _SCORE_DIGITS), int(row[0]), (left, top), (right, bottom))
