"""Numbers in the model's grid back to the scanner's grid: probabilities of segments, and the values of a map.

Where labels are brought back by nearest neighbours, probabilities are too, so that a mask is the same from both.
Else they are interpolated as restore does it: bilinear, border repeated, slice by slice of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.domain.model_output import Masks
from dicomnode.imaging.inference import label_map
from dicomnode.imaging.masks import FULL
from dicomnode.imaging.resample import FloatPlane, FloatVolume, ModelGrid, in_parts, taps, to_source
from dicomnode.imaging.restore import between, in_plane, restore_scores

_NEARLY = 1e-3  # by which rounding may lead out of 0 to 1


def restore_masks(
    scores: torch.Tensor,
    grid: ModelGrid,
    masks: Masks,
    restore: str,
    probabilities: npt.NDArray[np.uint8] | None,
    labels: npt.NDArray[np.uint8] | None,
    threads: int = 1,
) -> None:
    """Scores (1, channels, model axes) float32 → what of the two is asked for, in the source's grid.

    `probabilities`: (segment, slice, row, column) uint8, 255 for 1; `labels`: (slice, row, column) uint8, of channels
    that exclude each other, the background's first. `restore`: one of model_card.RESTORED. `scores` is overwritten.
    """
    if restore == "labels":
        if labels is not None:
            to_source(label_map(scores).cpu().numpy(), grid, labels, threads)
        if probabilities is not None:
            _activate(scores, masks)
            _nearest(scores, grid, masks, probabilities, threads)
        return
    if restore == "probabilities":
        _activate(scores, masks)
    if labels is not None:
        restore_scores(scores, grid, torch.from_numpy(labels), softmax=False, threads=threads)
    if probabilities is not None:
        _interpolated(scores, grid, masks, probabilities, threads, activated=restore == "probabilities")


def _activate(scores: torch.Tensor, masks: Masks) -> None:
    """In place: scores become probabilities."""
    with torch.inference_mode():
        if masks.scores == "logits":
            for plane in scores.unbind(2):
                plane.copy_(torch.sigmoid(plane) if masks.overlap else torch.softmax(plane, 1))
        _check(scores)


def activated(scores: torch.Tensor, masks: Masks) -> torch.Tensor:
    """Probabilities of scores (1, channels, axes) float32, as a new array; raises ValueError."""
    found = scores.clone()
    _activate(found, masks)
    return found


def _check(probabilities: torch.Tensor) -> None:
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (low >= -_NEARLY and high <= 1 + _NEARLY):  # false of a NaN, too
        raise ValueError(
            f"the network's channels go from {low:.4g} to {high:.4g}, which are no probabilities: the card's "
            "output.scores should be logits, or the network is wrong"
        )


def segments_of(scores: torch.Tensor, masks: Masks) -> torch.Tensor:
    """(segment, model axes), without the background's channel."""
    return scores[0] if masks.overlap else scores[0, 1:]


def _nearest(scores: torch.Tensor, grid: ModelGrid, masks: Masks, out: npt.NDArray[np.uint8], threads: int) -> None:
    for channel, into in zip(segments_of(scores, masks), out, strict=True):
        to_source(quantised(channel.cpu().numpy()), grid, into, threads)


def quantised(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """0 to 1 as 0 to 255, the nearest: a half and more is 128 and more, less is less."""
    whole: npt.NDArray[np.uint8] = np.rint(np.clip(probabilities, 0.0, 1.0) * np.float32(FULL)).astype(np.uint8)
    return whole


def _interpolated(
    scores: torch.Tensor,
    grid: ModelGrid,
    masks: Masks,
    out: npt.NDArray[np.uint8],
    threads: int,
    *,
    activated: bool,
) -> None:
    first = 0 if masks.overlap else 1

    def fill(index: int, planes: Sequence[FloatPlane]) -> None:
        together = torch.from_numpy(np.stack(planes))[None, :, None]
        if not activated:
            _activate(together, masks)
        out[:, index] = quantised(together[0, first:, 0].numpy())

    _by_planes(scores, grid, fill, threads)


def restore_map(
    values: torch.Tensor,
    grid: ModelGrid,
    out: npt.NDArray[np.float32],
    ends: tuple[float, float] | None,
    threads: int = 1,
) -> None:
    """Values (1, 1, model axes) float32 → `out`, (slice, row, column) float32, cut off at `ends`."""
    if not bool(values.isfinite().all()):
        raise ValueError("the network gives a map with values that are no numbers")

    def fill(index: int, planes: Sequence[FloatPlane]) -> None:
        (out[index],) = planes
        if ends is not None:
            np.clip(out[index], *ends, out=out[index])

    _by_planes(values, grid, fill, threads)


def _by_planes(
    values: torch.Tensor, grid: ModelGrid, fill: Callable[[int, Sequence[FloatPlane]], None], threads: int
) -> None:
    """`fill` is given every slice of the source with a plane for each channel."""
    a, b, c = (grid.order.index(axis) for axis in range(3))
    channels: list[FloatVolume] = [np.ascontiguousarray(v.transpose(a, b, c)) for v in values[0].cpu().numpy()]
    slices = taps(grid.back[0], len(grid.positions[0]))
    upright = None if grid.shift is not None else in_plane(grid, 0)

    def part_of(part: range) -> None:
        for index in part:
            rows, columns = upright or in_plane(grid, index)
            fill(index, [columns.blend(rows.blend(between(one, slices, index), 0), 1) for one in channels])

    in_parts(part_of, grid.source_shape[0], threads)
