"""From stored values to what a classifying network takes, and from its scores to probabilities.

An image is mapped by the card's intensity, resampled by antialiased bilinear interpolation until it fits into the
card's size, its rows and columns by the same factor, and centred there; what is left over is as dark as the range
begins. Pixels are taken to be square. A whole series is resampled as for segmentation and then cropped or padded,
about its middle, to the card's window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import interpolate, pad

from dicomnode.domain.model_output import Classification
from dicomnode.imaging.resample import Intensity

# As many images at once as float32 copies of them cost little memory: 32 of 512 × 512 are 32 MiB
IMAGES_AT_ONCE = 32
_IN_CACHE = 4  # images that are mapped and resampled before the next are: 2.5 times as fast as all at once


def image_inputs(images: torch.Tensor, size: tuple[int, int], intensity: Intensity, dark: float) -> torch.Tensor:
    """(image, row, column) int16 stored values → (image, 1, *size) float32; `dark` is put around them."""
    inner = fitting(images.shape[1:], size)
    fitted = torch.cat([_fitted(few, inner, intensity) for few in torch.split(images, _IN_CACHE)])
    return centred(fitted, size, dark)


def _fitted(images: torch.Tensor, size: tuple[int, int], intensity: Intensity) -> torch.Tensor:
    mapped = images.to(torch.float32).mul_(intensity.gain).add_(intensity.offset)
    if intensity.clip is not None:
        mapped.clamp_(*intensity.clip)
    return interpolate(mapped[:, None], size, mode="bilinear", antialias=True, align_corners=False)


def fitting(shape: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of an image of `shape` that is made as large as fits into `size`, its sides in proportion."""
    factor = min(most / length for most, length in zip(size, shape, strict=True))
    rows, columns = (max(1, round(length * factor)) for length in shape)
    return rows, columns


def centred(tensor: torch.Tensor, shape: Sequence[int], dark: float) -> torch.Tensor:
    """(n, channels, axes), cropped and padded about its middle to (n, channels, *shape)."""
    for axis, wanted in enumerate(shape, 2):
        if (over := tensor.shape[axis] - wanted) > 0:
            tensor = tensor.narrow(axis, over // 2, wanted)
    room = [wanted - have for wanted, have in zip(shape, tensor.shape[2:], strict=True)]
    ends = [end for short in reversed(room) for end in (short // 2, short - short // 2)]
    return pad(tensor, ends, value=dark) if any(ends) else tensor


def probabilities(scores: torch.Tensor, spec: Classification) -> torch.Tensor:
    """(image, class) float32 as the network gives them → the same as probabilities; raises ValueError."""
    if scores.ndim != 2 or scores.shape[1] != (classes := len(spec.classes)):
        raise ValueError(
            f"the network gives scores of {tuple(scores.shape)}, its card has {len(spec.classes)} classes"
        )
    scores = scores.to(torch.float32).cpu()
    if not bool(scores.isfinite().all()):
        raise ValueError("the network gives scores that are no numbers")
    if spec.scores == "logits":
        return scores.softmax(1)
    if classes and (bool((scores < -1e-3).any()) or bool(((scores.sum(1) - 1).abs() > 1e-2).any())):
        raise ValueError("the network's scores are no probabilities, which add up to 1: the card should say logits")
    return scores
