"""Results of models that give numbers, boxes, maps, and masks that overlap, for tests of encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from dicomnode.domain.findings import ImageBox, VolumeBox
from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.masks import SegmentMasks
from tests.made_series import classic, f_mask
from tests.output_cards import CYST, FLOW, NODULE, SCORE, VOLUME, document, segment

SEGMENTS = [segment(1), segment(2)]


def card(output: dict[str, Any], *, of_images: bool = False) -> ModelCard:
    return parse_model_card(document("finder", output, of_images=of_images))


MEASURED = card({"measurements": {"values": [SCORE, VOLUME]}})
MEASURED_IMAGES = card({"measurements": {"of": "image", "values": [VOLUME, SCORE]}}, of_images=True)
BOXES = card({"boxes": {"classes": [NODULE, CYST]}})
BOXES_IMAGES = card({"boxes": {"classes": [NODULE, CYST]}}, of_images=True)
MAP = card({"map": FLOW})
OVERLAP = card({"segments": SEGMENTS, "channels": "independent"})
BOTH = card({"segments": SEGMENTS, "kind": "both"})
PROBABILITIES = card({"segments": SEGMENTS, "kind": "probabilities", "channels": "independent"})


def box_of(
    geometry: VolumeGeometry, low: Sequence[int], high: Sequence[int], *, number: int = 0, score: float = 0.875
) -> VolumeBox:
    """About the voxels from `low` to `high`, both of them in it, (slice, row, column)."""
    first, last = np.array(low), np.array(high)
    centre = geometry.affine[:3, :3] @ ((first + last) / 2) + geometry.affine[:3, 3]
    halves = geometry.affine[:3, :3] * (last - first + 1) / 2
    x, y, z = centre.tolist()
    a, b, c = (tuple(half) for half in halves.T.tolist())
    return VolumeBox(number, score, (x, y, z), (a, b, c))


def on_image(image: int = 0, *, number: int = 0) -> ImageBox:
    return ImageBox(number, 0.75, image, (2.0, 3.5), (10.0, 6.25))


def overlapping(shape: tuple[int, int, int]) -> SegmentMasks:
    """Segment 1 an "F", segment 2 its lower half and more, both asymmetric; with probabilities in steps."""
    first = f_mask(shape) * np.uint8(200)
    second = np.zeros(shape, np.uint8)
    second[1:, shape[1] // 2 :, 1 : shape[2] // 2] = 128
    second[0, 0, 0] = 60
    return SegmentMasks(None, np.stack([first, second]))


def exclusive(shape: tuple[int, int, int]) -> SegmentMasks:
    labels = f_mask(shape)
    labels[-2:, : shape[1] // 2] *= 2
    probabilities = np.stack([np.where(labels == n, 255, 13 * n) for n in (1, 2)]).astype(np.uint8)
    return SegmentMasks(labels, probabilities)


def values(shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    s, r, c = np.indices(shape)
    return (s * 100 + r * 7.5 - c * 0.125).astype(np.float32)


def radiographs(count: int = 2, *, spacing: bool = True) -> list[Dataset]:
    """Images without a place in the patient, as CR has them."""
    series = classic(count)
    for d in series:
        del d.ImagePositionPatient, d.ImageOrientationPatient, d.FrameOfReferenceUID, d.SliceThickness
        if not spacing:
            del d.PixelSpacing
            d.ImagerPixelSpacing = [0.2, 0.2]
    return series


def twice(geometry: VolumeGeometry) -> list[VolumeBox]:
    first = box_of(geometry, (1, 2, 3), (2, 6, 9))
    return [first, replace(box_of(geometry, (3, 8, 4), (4, 10, 7), number=1), score=0.5)]
