"""From a detecting network's answers to boxes in the patient, or on an image.

A volume is looked at window by window, as for segmentation, and what several windows found is judged together. Boxes
lie along the model's axes, which are the source's (straightened where the gantry was tilted), so that in the patient
a box is a centre and three half sides, at right angles but not along the patient's axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from monai.data.box_utils import non_max_suppression
from torch.nn.functional import pad

from dicomnode.domain.boxes_output import BoxesOutput
from dicomnode.imaging.classify import fitting
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.onto_grid import patient_affine
from dicomnode.imaging.resample import ModelGrid
from dicomnode.imaging.windows import window_slices

Network = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""(1, channels, window) float32 → boxes, scores and perhaps classes, as domain.boxes_output has them."""
FloatRows = npt.NDArray[np.float64]
"""(box, 2 × axes + 2) float64: the lower corner, the upper one, score, number of the class from 0."""


def detect(
    image: torch.Tensor,
    network: Network,
    window: tuple[int, int, int],
    overlap: float,
    dark: float,
    spec: BoxesOutput,
    spacing_mm: Sequence[float],
    score_least: float,
) -> FloatRows:
    """Boxes in (1, channels, model axes) float32, in voxels of the model's grid, 0 at the centre of the first.

    What a window has beyond the image is `dark`. The highest score comes first.
    """
    shape = image.shape[2:]
    room = [max(w - n, 0) for n, w in zip(shape, window, strict=True)]
    image = pad(image, [end for beyond in reversed(room) for end in (0, beyond)], value=dark)
    found = []
    for place in window_slices(tuple(image.shape[2:]), window, overlap):
        rows = rows_of(network(image[:, :, *place].contiguous()), spec, 3)
        rows = rows[rows[:, 6] >= score_least]
        if spec.unit == "mm":
            rows[:, :6] /= np.tile(spacing_mm, 2)
        rows[:, :6] += np.tile([part.start for part in place], 2) - (0.5 if spec.edges else 0.0)
        found.append(rows)
    return chosen(np.concatenate(found), np.full(3, -0.5), np.array(shape) - 0.5, spec)


def rows_of(answers: Sequence[torch.Tensor], spec: BoxesOutput, axes: int) -> FloatRows:
    """What the network said, checked; raises ValueError."""
    if len(answers) not in (2, 3):
        raise ValueError(f"the network gives {len(answers)} tensors; boxes, scores and classes are needed")
    plain = [one.detach().cpu().double() for one in answers]
    boxes, scores, *rest = (_without_batch(one, n) for one, n in zip(plain, (2, 1, 1), strict=False))
    if boxes.ndim != 2 or boxes.shape[1] != 2 * axes or len(scores) != len(boxes):
        shapes = f"boxes are {tuple(boxes.shape)} and scores {tuple(scores.shape)}"
        raise ValueError(f"{shapes}; (n, {2 * axes}) and (n) are needed")
    classes, scores = _classes(scores, rest, spec)
    scores = torch.sigmoid(scores) if spec.scores == "logits" else scores
    rows = torch.cat([boxes, scores[:, None], classes[:, None]], 1)
    _check(rows, spec)
    found: FloatRows = rows.numpy()
    return found


def _check(rows: torch.Tensor, spec: BoxesOutput) -> None:
    if not len(rows):
        return
    if not bool(rows.isfinite().all()):
        raise ValueError("the network gives boxes or scores that are no numbers")
    (least, first), (most, last) = rows[:, -2:].amin(0).tolist(), rows[:, -2:].amax(0).tolist()
    if not 0 <= least <= most <= 1:
        raise ValueError("the network's scores are no probabilities: the card's output.boxes.scores should be logits")
    if not 0 <= first <= last < len(spec.classes):
        raise ValueError(
            f"the network gives the class {first if first < 0 else last:g} of {len(spec.classes)}, counted from 0: "
            "see output.boxes.first_class in the card"
        )


def _without_batch(tensor: torch.Tensor, axes: int) -> torch.Tensor:
    """Some networks answer for a batch, which is one here; scores may have an axis more, of classes."""
    return tensor[0] if tensor.ndim > axes and tensor.shape[0] == 1 and (axes == 2 or tensor.ndim == 3) else tensor


def _classes(
    scores: torch.Tensor, rest: Sequence[torch.Tensor], spec: BoxesOutput
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of classes from 0, and the scores of these: (n,) each."""
    if rest and scores.ndim == 1:
        return rest[0].reshape(-1) - spec.first_class, scores
    if scores.ndim == 2 and scores.shape[1] == len(spec.classes):
        best, classes = scores.max(1)
        return classes.double(), best
    if scores.ndim == 1 and len(spec.classes) == 1:
        return torch.zeros_like(scores), scores
    words = f"scores are {tuple(scores.shape)} without numbers of classes, the card has {len(spec.classes)} classes"
    raise ValueError(words)


def chosen(
    rows: FloatRows, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], spec: BoxesOutput
) -> FloatRows:
    """Boxes cut off at the image's ends, without those that others suppress, and no more than the card wants."""
    axes = len(low)
    rows = rows.copy()
    rows[:, : 2 * axes] = np.clip(rows[:, : 2 * axes], np.tile(low, 2), np.tile(high, 2))
    rows = rows[(rows[:, axes : 2 * axes] > rows[:, :axes]).all(1)]
    if spec.non_maximum_suppression is not None:
        rows = np.concatenate([_suppressed(rows[rows[:, -1] == n], spec) for n in range(len(spec.classes))])
    order = np.lexsort((*rows[:, : 2 * axes].T[::-1], rows[:, -1], -rows[:, -2]))
    best: FloatRows = rows[order][: spec.most]
    return best


def _suppressed(rows: FloatRows, spec: BoxesOutput) -> FloatRows:
    if len(rows) < 2:
        return rows
    assert spec.non_maximum_suppression is not None
    kept = non_max_suppression(rows[:, :-2], rows[:, -2], spec.non_maximum_suppression)
    best: FloatRows = rows[np.asarray(kept)]
    return best


def in_patient(rows: FloatRows, grid: ModelGrid, geometry: VolumeGeometry) -> npt.NDArray[np.float32]:
    """(box, 8) in voxels of the model's grid → (box, 14): centre, three half sides, LPS mm; score, class."""
    affine = patient_affine(geometry, grid)
    affine = affine[:, [*grid.order, 3]]
    low, high = rows[:, :3], rows[:, 3:6]
    centres = (low + high) / 2 @ affine[:3, :3].T + affine[:3, 3]
    halves = ((high - low) / 2)[:, :, None] * affine[:3, :3].T[None]
    found: npt.NDArray[np.float32] = np.concatenate([centres, halves.reshape(-1, 9), rows[:, 6:]], 1).astype("f4")
    return found


def in_image(
    rows: FloatRows, number: int, shape: Sequence[int], size: Sequence[int], spec: BoxesOutput
) -> npt.NDArray[np.float32]:
    """(box, 6) in pixels of the card's size → (box, 7) of the image with this number and shape, (rows, columns).

    The way back of classify.image_inputs: the image lies in the middle, enlarged until it fits.
    """
    inner = fitting(shape, size)
    room = [(whole - part) // 2 for whole, part in zip(size, inner, strict=True)]
    order = [0, 1, 2, 3] if spec.order == "xyxy" else [1, 0, 3, 2]
    factors = np.array([shape[1] / inner[1], shape[0] / inner[0]])
    scaled = rows.copy()
    scaled[:, :4] = (rows[:, order] - np.tile(room[::-1], 2)) * np.tile(factors, 2)
    found = chosen(scaled, np.zeros(2), np.array(shape[::-1], dtype=float), spec)
    numbered: npt.NDArray[np.float32] = np.concatenate([np.full((len(found), 1), number), found], 1).astype("f4")
    return numbered
