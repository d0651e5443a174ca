"""From stored values to a label map: what happens around a network, the same in every executor.

The chain is MONAI's as most researchers write it: Orientationd, Spacingd, ScaleIntensityRanged, sliding window,
AsDiscreted(argmax), Invertd(nearest). Memory beside the volume and the label map: one float32 volume in the
model's grid for the input and one for every class, as MONAI's sliding window keeps them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.inferers.utils import sliding_window_inference

from dicomnode.domain.model_card import InputSpec, NetworkSpec, RoleSpec
from dicomnode.imaging.geometry import Placement, VolumeGeometry
from dicomnode.imaging.islands import drop_islands
from dicomnode.imaging.onto_grid import further_to_model
from dicomnode.imaging.resample import Intensity, ModelGrid, to_model, to_source
from dicomnode.imaging.restore import restore_scores

Network = Callable[[torch.Tensor], torch.Tensor]
"""(n, channels, window) float32 → (n, classes, window) float32, scores or probabilities."""


def intensity(spec: InputSpec | RoleSpec, slope: float, intercept: float) -> Intensity:
    """ScaleIntensityRange over the modality LUT (PS3.3 C.11.1), as one product and one sum.

    Where a straightened volume has no voxel it is as dark as the model's range begins: air, in CT.
    """
    (low, high), (to_low, to_high) = spec.intensity_from, spec.intensity_to
    scale = (to_high - to_low) / (high - low)
    return Intensity(
        gain=slope * scale,
        offset=(intercept - low) * scale + to_low,
        clip=(min(to_low, to_high), max(to_low, to_high)) if spec.clip else None,
        outside=(low - intercept) / slope if slope else 0.0,
    )


def model_input(volume: torch.Tensor, grid: ModelGrid, intensity: Intensity, threads: int = 1) -> torch.Tensor:
    """(slice, row, column) int16 stored values → (1, 1, model axes) float32."""
    return torch.from_numpy(to_model(volume.numpy(), grid, intensity, threads))[None, None]


def further_input(
    volume: torch.Tensor,
    placement: Placement,
    spec: RoleSpec,
    main: VolumeGeometry,
    grid: ModelGrid,
    threads: int = 1,
) -> torch.Tensor:
    """A role's (slice, row, column) int16 stored values → (1, 1, model axes) float32 on the main volume's grid."""
    mapping = intensity(spec, placement.rescale.slope, placement.rescale.intercept)
    return torch.from_numpy(further_to_model(volume.numpy(), placement.geometry, main, grid, mapping, threads))[
        None, None
    ]


def scores(
    image: torch.Tensor, network: Network, spec: NetworkSpec, batch: int, overlap: float | None = None
) -> torch.Tensor:
    """(1, channels, model axes) float32 → (1, classes, model axes) float32, blended over the windows.

    `overlap` in place of the card's.
    """
    share = spec.overlap if overlap is None else overlap
    result = sliding_window_inference(image, spec.window, batch, network, overlap=share, mode=spec.blend)
    if not isinstance(result, torch.Tensor):
        raise TypeError(f"the network answers with a {type(result).__name__}; one tensor is needed")
    return result


def label_map(scores: torch.Tensor) -> torch.Tensor:
    """(1, classes, axes) float32 → (axes) uint8: the class with the highest score, the first of equals.

    As argmax, whose int64 result costs eight bytes a voxel.
    """
    best = scores[0, 0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number in range(1, scores.shape[1]):
        labels.masked_fill_(scores[0, number] > best, number)
        torch.maximum(best, scores[0, number], out=best)
    return labels


def source_labels(
    scores: torch.Tensor, grid: ModelGrid, out: torch.Tensor, threads: int = 1, restore: str = "labels"
) -> None:
    """Scores in the model's grid → `out`, (slice, row, column) uint8 in the source's grid.

    `restore`: what is brought back, one of model_card.RESTORED.
    """
    if restore != "labels":
        restore_scores(scores, grid, out, softmax=restore == "probabilities", threads=threads)
        return
    to_source(label_map(scores).cpu().numpy(), grid, out.numpy(), threads)


def without_islands(labels: torch.Tensor, geometry: VolumeGeometry, minimum_volume_ml: float) -> None:
    """Drops small parts of segments, in place, where the masks will lie: in the source's grid."""
    drop_islands(labels.numpy(), geometry.voxel_volume_mm3, minimum_volume_ml)
