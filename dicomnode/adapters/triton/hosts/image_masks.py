"""The host of models that give masks of single images: radiographs, mammograms, ultrasound.

As hosts.classify, but for the answers: LABELMAP (image, row, column) uint8 and PROBABILITIES (segment, image, row,
column) uint8, in the images' own pixels. AFFINE says how large these are, where anybody asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.classify import ClassifyHost
from dicomnode.adapters.triton.hosts.model import Given, HostSettings, Outputs
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork
from dicomnode.adapters.triton.hosts.networks.loaded import CPU
from dicomnode.adapters.triton.hosts.torch_threads import one_thread
from dicomnode.domain.model_parameter import MINIMUM_AREA_MM2, OVERLAP, Value, threshold_of
from dicomnode.imaging.classify import IMAGES_AT_ONCE
from dicomnode.imaging.image_masks import drop_small_areas, put_masks, resampled, shape_at, without_margin
from dicomnode.imaging.inference import intensity, model_scores
from dicomnode.imaging.masks import SegmentMasks
from dicomnode.imaging.windows import WindowedNetwork, cut


class ImageMasksHost(ClassifyHost):
    """One loaded model that segments each image by itself."""

    def _loaded(self, settings: HostSettings) -> LoadedNetwork:
        self._gives = "channels" if self._card.masks.overlap else "classes"
        return super()._loaded(settings)

    def _answers(
        self, main: Given, further: Sequence[Given], parameters: Mapping[str, Value], request: Any
    ) -> tuple[Outputs, torch.Tensor]:
        card, shape, seconds = self._card, tuple(main.volume.shape), torch.zeros(3)
        outputs = {
            name: torch.empty(shape if name == "LABELMAP" else (len(card.segments), *shape), dtype=torch.uint8)
            for name in card.output.arrays
        }
        arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
        masks = SegmentMasks.of_answers(arrays, threshold_of(card.output, parameters))
        first, begun = 0, time.perf_counter()
        for scores in self._scores(main, parameters, request, seconds):
            images = slice(first, first + len(scores))
            labels = None if masks.labels is None else masks.labels[images]
            odds = None if masks.probabilities is None else masks.probabilities[:, images]
            with torch.inference_mode():
                put_masks(scores, card.masks, card.network.restore, labels, odds)
            first = images.stop
        _, rows_mm, columns_mm = main.placement.geometry.spacing_mm
        drop_small_areas(masks, float(rows_mm * columns_mm), float(parameters[MINIMUM_AREA_MM2]))
        seconds[2] = time.perf_counter() - begun - float(seconds[:2].sum())
        return outputs, seconds

    def _scores(
        self, main: Given, parameters: Mapping[str, Value], request: Any, seconds: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """(n, channels, rows, columns) float32 of whole images, in their order."""
        look = self._fitted if self._card.input.pixel_spacing_mm is None else self._in_windows
        yield from look(main, parameters, request, seconds)

    def _fitted(
        self, main: Given, parameters: Mapping[str, Value], request: Any, seconds: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        own = self._own(parameters, self._network.device)
        for part in super()._parts(main, (), seconds):
            self._go_on(request)
            begun = time.perf_counter()
            scores = self._checked(self._scores_of(part, own), part.shape)
            seconds[1] += time.perf_counter() - begun
            yield without_margin(scores, main.volume.shape[1:])

    def _checked(self, scores: torch.Tensor, given: Sequence[int]) -> torch.Tensor:
        wanted = (given[0], self._channels, *given[2:])
        if tuple(scores.shape) != wanted:
            raise ValueError(f"the network answers {tuple(scores.shape)} where its card means {wanted}")
        return scores.to(torch.float32)

    def _in_windows(
        self, main: Given, parameters: Mapping[str, Value], request: Any, seconds: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Images one by one: windows along their rows and columns, as those of a volume of one slice."""
        network, spec = self._windowed(parameters, request), self._card.network
        size = self._card.input.size
        assert size is not None  # of_images
        for image in self._planes(main, slice(None), seconds):
            begun = time.perf_counter()
            with torch.no_grad(), one_thread(self._network.has_own_threads):
                flat = replace(spec, window=(1, *size))
                given = image[:, :, None].to(self._network.device)
                scores = model_scores(given, network, flat, self._channels, float(parameters[OVERLAP]))
            seconds[1] += time.perf_counter() - begun
            yield scores[:, :, 0]

    def _windowed(self, parameters: Mapping[str, Value], request: Any) -> WindowedNetwork:
        """The network of images, for windows with an axis of one slice."""
        flat = self._network.windowed(
            *self._own(parameters, self._network.device),
            before_each=lambda: self._go_on(request),
            share=lambda: self._threads / self._cores.count,
        )

        def begin(windows: torch.Tensor) -> Any:
            answer = flat.begin(windows[:, :, 0])
            return lambda: answer()[:, :, None]

        return WindowedNetwork(begin, flat.at_once, flat.in_flight)

    def _planes(self, main: Given, which: slice, seconds: torch.Tensor) -> Iterator[torch.Tensor]:
        """(1, 1, rows, columns) float32 at the card's pixel spacing."""
        spec, placement = self._card.input, main.placement
        assert spec.pixel_spacing_mm is not None  # _in_windows
        mapping = intensity(spec, placement.rescale.slope, placement.rescale.intercept)
        shape = shape_at(main.volume.shape[1:], placement.geometry.spacing_mm[1:].tolist(), spec.pixel_spacing_mm)
        for plane in main.volume[which]:
            begun = time.perf_counter()
            with one_thread():
                image = resampled(plane, shape, mapping)
            seconds[0] += time.perf_counter() - begun
            yield image

    def _parts(self, main: Given, further: Sequence[Given], seconds: torch.Tensor) -> Any:
        """What the network is shown: for golden cases, to find out ranges with."""
        if self._card.input.pixel_spacing_mm is None:
            yield from super()._parts(main, further, seconds)
            return
        size = self._card.input.size
        assert size is not None  # of_images
        for image in self._planes(main, slice(None, IMAGES_AT_ONCE), seconds):
            for window in cut(image[:, :, None].to(CPU), (1, *size), self._card.network.overlap):
                yield window[:, :, 0]
