"""The hosts of models that give masks which may overlap, probabilities of segments, or a map of numbers.

As hosts.model; what they answer with is in ports.inference.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.gpu import done_s
from dicomnode.adapters.triton.hosts.model import Given, Host, HostSettings, Outputs
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork
from dicomnode.domain.model_parameter import MINIMUM_VOLUME_ML, Value, threshold_of
from dicomnode.imaging.masks import SegmentMasks, drop_small_parts
from dicomnode.imaging.resample import ModelGrid, model_grid
from dicomnode.imaging.restore_values import restore_map, restore_masks


class ValuesHost(Host, ABC):
    """What both have in common: the chain of Host up to the scores."""

    def _answers(
        self, main: Given, further: Sequence[Given], parameters: Mapping[str, Value], request: Any
    ) -> tuple[Outputs, torch.Tensor]:
        started = time.perf_counter()
        spec = self._card.input
        grid = model_grid(main.placement.geometry, spec.orientation, spec.spacing_mm)
        image = self._image(main, further, grid, self._network.device)
        prepared = done_s(self._network.device)
        result = self._found(image, parameters, request)
        inferred = done_s(self._network.device)
        with torch.inference_mode():
            outputs = self._restored(result, grid, main, parameters)
        ended = time.perf_counter()
        return outputs, torch.tensor([prepared - started, inferred - prepared, ended - inferred])

    @property
    def _finds_labels(self) -> bool:
        return False

    @abstractmethod
    def _restored(
        self, scores: torch.Tensor, grid: ModelGrid, main: Given, parameters: Mapping[str, Value]
    ) -> Outputs:
        """Scores (1, channels, model axes) in the source's grid."""


class MasksHost(ValuesHost):
    """Of segments with probabilities, or with channels that do not exclude each other."""

    def _loaded(self, settings: HostSettings) -> LoadedNetwork:
        self._gives = "channels" if self._card.masks.overlap else "classes"
        return super()._loaded(settings)

    def _restored(
        self, scores: torch.Tensor, grid: ModelGrid, main: Given, parameters: Mapping[str, Value]
    ) -> Outputs:
        card, shape = self._card, main.volume.shape
        outputs: dict[str, torch.Tensor] = {}
        if "LABELMAP" in card.output.arrays:
            outputs["LABELMAP"] = torch.empty(shape, dtype=torch.uint8)
        if "PROBABILITIES" in card.output.arrays:
            outputs["PROBABILITIES"] = torch.empty((len(card.segments), *shape), dtype=torch.uint8)
        arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
        masks = SegmentMasks.of_answers(arrays, threshold_of(card.output, parameters))
        restore_masks(
            scores, grid, card.masks, card.network.restore, masks.probabilities, masks.labels, self._threads
        )
        voxel_mm3 = main.placement.geometry.voxel_volume_mm3
        drop_small_parts(masks, voxel_mm3, float(parameters[MINIMUM_VOLUME_ML]))
        return outputs


class MapHost(ValuesHost):
    """Of a number for every voxel."""

    _gives = "values"

    @property
    def _channels(self) -> int:
        return 1

    def _restored(
        self, scores: torch.Tensor, grid: ModelGrid, main: Given, parameters: Mapping[str, Value]
    ) -> Outputs:
        spec = self._card.map
        assert spec is not None  # choice.open_host
        values = torch.empty(main.volume.shape, dtype=torch.float32)
        restore_map(scores, grid, values.numpy(), spec.range, self._threads)
        return {"MAP": values}
