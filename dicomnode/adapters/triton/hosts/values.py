"""The hosts of models that give masks which may overlap, probabilities of segments, or a map of numbers.

As hosts.model; what they answer with is in ports.inference.
"""

from __future__ import annotations

import torch

from dicomnode.adapters.triton.hosts.asked import Asked
from dicomnode.adapters.triton.hosts.model import Host, HostSettings, Outputs
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork
from dicomnode.domain.model_parameter import MINIMUM_VOLUME_ML, threshold_of
from dicomnode.imaging.masks import SegmentMasks, drop_small_parts
from dicomnode.imaging.resample import ModelGrid
from dicomnode.imaging.restore_values import restore_map, restore_masks


class MasksHost(Host):
    """Of segments with probabilities, or with channels that do not exclude each other."""

    def _loaded(self, settings: HostSettings) -> LoadedNetwork:
        self._gives = "channels" if self._card.masks.overlap else "classes"
        return super()._loaded(settings)

    def _restored(self, found: torch.Tensor, grid: ModelGrid, asked: Asked) -> Outputs:
        card, main = self._card, asked.main
        shape = main.volume.shape
        outputs: dict[str, torch.Tensor] = {}
        if "LABELMAP" in card.output.arrays:
            outputs["LABELMAP"] = torch.empty(shape, dtype=torch.uint8)
        if "PROBABILITIES" in card.output.arrays:
            outputs["PROBABILITIES"] = torch.empty((len(card.segments), *shape), dtype=torch.uint8)
        arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
        masks = SegmentMasks.of_answers(arrays, threshold_of(card.output, asked.parameters))
        restore_masks(found, grid, card.masks, card.network.restore, masks.probabilities, masks.labels, self._threads)
        voxel_mm3 = main.placement.geometry.voxel_volume_mm3
        drop_small_parts(masks, voxel_mm3, float(asked.parameters[MINIMUM_VOLUME_ML]))
        return outputs


class MapHost(Host):
    """Of a number for every voxel."""

    _gives = "values"

    @property
    def _channels(self) -> int:
        return 1

    def _restored(self, found: torch.Tensor, grid: ModelGrid, asked: Asked) -> Outputs:
        spec = self._card.map
        assert spec is not None  # choice.open_host
        values = torch.empty(asked.main.volume.shape, dtype=torch.float32)
        restore_map(found, grid, values.numpy(), spec.range, self._threads)
        return {"MAP": values}
