"""Masks of single images: from what a network is shown of an image to labels on the image's own pixels.

Without a pixel spacing in the card an image is fitted into the card's size, as for classes (imaging.classify), and
what the network says is fitted back. With one its rows and columns are resampled to that spacing, antialiased, and
the network sees it window by window. The corners of an image stay its corners both ways, so that nothing is shifted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from dicomnode.domain.model_output import Masks
from dicomnode.imaging.classify import fitting
from dicomnode.imaging.inference import label_map
from dicomnode.imaging.masks import SegmentMasks, drop_small_parts
from dicomnode.imaging.resample import Intensity
from dicomnode.imaging.restore_values import activated, quantised, segments_of

Planes = npt.NDArray[np.uint8]


def resampled(image: torch.Tensor, shape: tuple[int, int], intensity: Intensity) -> torch.Tensor:
    """(row, column) int16 stored values → (1, 1, *shape) float32 for the network."""
    mapped = image.to(torch.float32).mul(intensity.gain).add_(intensity.offset)
    if intensity.clip is not None:
        mapped.clamp_(*intensity.clip)
    return interpolate(mapped[None, None], shape, mode="bilinear", antialias=True, align_corners=False)


def shape_at(shape: Sequence[int], spacing_mm: Sequence[float], wanted_mm: Sequence[float]) -> tuple[int, int]:
    """Rows and columns of an image whose pixels become so large."""
    rows, columns = (
        max(1, round(n * have / want)) for n, have, want in zip(shape, spacing_mm, wanted_mm, strict=True)
    )
    return rows, columns


def without_margin(scores: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """(n, channels, *size) of images of this shape → without what classify.centred put around them."""
    size = scores.shape[2:]
    inner = fitting(shape, size)
    (top, left), (rows, columns) = ((have - part) // 2 for have, part in zip(size, inner, strict=True)), inner
    return scores[:, :, top : top + rows, left : left + columns]


def put_masks(
    scores: torch.Tensor,
    masks: Masks,
    restore: str,
    labels: Planes | None,
    probabilities: Planes | None,
) -> None:
    """Scores (n, channels, rows, columns) float32 of whole images → what is asked for, of the images' own size.

    `labels`: (image, row, column) uint8, 0 for background; `probabilities`: (segment, image, row, column) uint8, 255
    for 1. `restore`: one of model_card.RESTORED. Image by image: in full size every class of many is large.
    """
    array = labels if labels is not None else probabilities
    assert array is not None  # domain.model_output.Output.arrays
    shape = (array.shape[-2], array.shape[-1])
    for number, one in enumerate(torch.split(scores, 1)):
        plane, odds = _on_image(one.cpu(), masks, restore, shape, odds=probabilities is not None)
        if labels is not None:
            labels[number] = plane
        if probabilities is not None and odds is not None:
            probabilities[:, number] = odds


def _on_image(
    scores: torch.Tensor, masks: Masks, restore: str, shape: tuple[int, int], *, odds: bool
) -> tuple[Planes, Planes | None]:
    """Of (1, channels, rows, columns): labels (row, column), and probabilities (segment, row, column) as uint8."""
    if restore == "labels":
        plane: Planes = interpolate(label_map(scores)[None, None], shape, mode="nearest-exact")[0, 0].numpy()
        likely = interpolate(activated(scores, masks), shape, mode="nearest-exact") if odds else None
        return plane, None if likely is None else quantised(segments_of(likely, masks).numpy())
    if restore == "probabilities":
        scores = activated(scores, masks)
    scores = interpolate(scores, shape, mode="bilinear", align_corners=False)
    plane = label_map(scores).numpy()
    if not odds:
        return plane, None
    likely = scores if restore == "probabilities" else activated(scores, masks)
    return plane, quantised(segments_of(likely, masks).numpy())


def drop_small_areas(masks: SegmentMasks, pixel_mm2: float, minimum_area_mm2: float) -> None:
    """In place: parts of a segment that are smaller become background; each image by itself.

    A part that is smaller than an area is one that is smaller than a volume of a plane 1 mm thick.
    """
    for k in range(masks.shape[0]):
        drop_small_parts(masks.plane(k), pixel_mm2, minimum_area_mm2 / 1000.0)
