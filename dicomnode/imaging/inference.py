"""From stored values to a label map: what happens around a network, the same in every executor.

The chain is MONAI's as most researchers write it: Orientationd, Spacingd, ScaleIntensityRanged, sliding window,
AsDiscreted(argmax), Invertd(nearest). Memory beside the volume and the label map: one float32 volume in the
model's grid for the input, and for every class one as long as a window (see `windows`); where the card has scores
restored instead of labels, all of it.

On a GPU all of it happens there (see `on_device`): stored values go in, labels come back.
"""

from __future__ import annotations

import torch

from dicomnode.domain.model_card import InputSpec, NetworkSpec, RoleSpec
from dicomnode.imaging import on_device
from dicomnode.imaging.geometry import Placement, VolumeGeometry
from dicomnode.imaging.islands import drop_islands
from dicomnode.imaging.onto_grid import further_to_model
from dicomnode.imaging.resample import Intensity, ModelGrid, to_model, to_source
from dicomnode.imaging.restore import restore_scores
from dicomnode.imaging.windows import Slab, WindowedNetwork, slabs

CPU = torch.device("cpu")


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


def model_input(
    volume: torch.Tensor, grid: ModelGrid, intensity: Intensity, threads: int = 1, device: torch.device = CPU
) -> torch.Tensor:
    """(slice, row, column) int16 stored values → (1, 1, model axes) float32 on `device`."""
    if device.type == "cpu":
        return torch.from_numpy(to_model(volume.numpy(), grid, intensity, threads))[None, None]
    return on_device.to_model(volume.to(device), grid, intensity)[None, None]


def further_input(
    volume: torch.Tensor,
    placement: Placement,
    spec: RoleSpec,
    main: VolumeGeometry,
    grid: ModelGrid,
    threads: int = 1,
) -> torch.Tensor:
    """A role's (slice, row, column) int16 stored values → (1, 1, model axes) float32 on the main volume's grid.

    On the CPU, wherever the network runs: a further series may lie at an angle.
    """
    mapping = intensity(spec, placement.rescale.slope, placement.rescale.intercept)
    return torch.from_numpy(further_to_model(volume.numpy(), placement.geometry, main, grid, mapping, threads))[
        None, None
    ]


def model_labels(
    image: torch.Tensor, network: WindowedNetwork, spec: NetworkSpec, classes: int, overlap: float
) -> torch.Tensor:
    """(1, channels, model axes) float32 → (model axes) uint8 on the same device; classes with the background."""
    labels = torch.empty(image.shape[2:], dtype=torch.uint8, device=image.device)
    for slab in slabs(image, network, spec.window, overlap, spec.blend):
        _check_classes(slab, classes)
        labels[slab.first : slab.first + slab.scores.shape[1]] = label_map(slab.scores[None])
    return labels


def model_scores(
    image: torch.Tensor, network: WindowedNetwork, spec: NetworkSpec, classes: int, overlap: float
) -> torch.Tensor:
    """(1, channels, model axes) float32 → (1, classes, model axes) float32, blended over the windows."""
    scores = torch.empty((1, classes, *image.shape[2:]), dtype=torch.float32, device=image.device)
    for slab in slabs(image, network, spec.window, overlap, spec.blend, weighted=True):
        _check_classes(slab, classes)
        assert slab.weight is not None
        torch.div(slab.scores, slab.weight, out=scores[0, :, slab.first : slab.first + slab.scores.shape[1]])
    return scores


def _check_classes(slab: Slab, classes: int) -> None:
    if len(slab.scores) != classes:
        raise ValueError(
            f"the network gives {len(slab.scores)} channels, its card means {classes} (a map one, segments one each, "
            "and of the background where segments exclude each other)"
        )


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


def source_labels(found: torch.Tensor, grid: ModelGrid, threads: int = 1, restore: str = "labels") -> torch.Tensor:
    """What model_labels or model_scores found → (slice, row, column) uint8 in the source's grid, on the CPU.

    `restore`: what is brought back, one of model_card.RESTORED: of "labels" labels, else scores. On the CPU scores
    are overwritten.
    """
    softmax = restore == "probabilities"
    if found.device.type != "cpu":
        back = (
            on_device.to_source(found, grid)
            if restore == "labels"
            else on_device.restored(found, grid, softmax=softmax)
        )
        return back.cpu()
    out = torch.empty(grid.source_shape, dtype=torch.uint8)
    if restore == "labels":
        to_source(found.numpy(), grid, out.numpy(), threads)
    else:
        restore_scores(found, grid, out, softmax=softmax, threads=threads)
    return out


def without_islands(labels: torch.Tensor, geometry: VolumeGeometry, minimum_volume_ml: float) -> None:
    """Drops small parts of segments, in place, where the masks will lie: in the source's grid."""
    drop_islands(labels.numpy(), geometry.voxel_volume_mm3, minimum_volume_ml)
