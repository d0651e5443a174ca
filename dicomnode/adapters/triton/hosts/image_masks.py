"""The host of models that give masks of single images: radiographs, mammograms, ultrasound.

As hosts.classify, but for the answers: LABELMAP (image, row, column) uint8 and PROBABILITIES (segment, image, row,
column) uint8, in the images' own pixels. AFFINE says how large these are, where anybody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.asked import Asked
from dicomnode.adapters.triton.hosts.classify import ClassifyHost
from dicomnode.adapters.triton.hosts.model import HostSettings, Outputs
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork
from dicomnode.adapters.triton.hosts.networks.loaded import CPU
from dicomnode.adapters.triton.hosts.torch_threads import one_thread
from dicomnode.domain.model_parameter import MINIMUM_AREA_MM2, OVERLAP, threshold_of
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

    def _answers(self, asked: Asked) -> Outputs:
        card, main, parameters = self._card, asked.main, asked.parameters
        shape = tuple(main.volume.shape)
        outputs = {
            name: torch.empty(shape if name == "LABELMAP" else (len(card.segments), *shape), dtype=torch.uint8)
            for name in card.output.arrays
        }
        arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
        masks = SegmentMasks.of_answers(arrays, threshold_of(card.output, parameters))
        first = 0
        for scores in self._scores(asked):
            images = slice(first, first + len(scores))
            labels = None if masks.labels is None else masks.labels[images]
            odds = None if masks.probabilities is None else masks.probabilities[:, images]
            with torch.inference_mode():
                put_masks(scores, card.masks, card.network.restore, labels, odds)
            first = images.stop
        _, rows_mm, columns_mm = main.placement.geometry.spacing_mm
        drop_small_areas(masks, float(rows_mm * columns_mm), float(parameters[MINIMUM_AREA_MM2]))
        return outputs

    def _scores(self, asked: Asked) -> Iterator[torch.Tensor]:
        """(n, channels, rows, columns) float32 of whole images, in their order."""
        look = self._fitted if self._card.input.pixel_spacing_mm is None else self._in_windows
        yield from look(asked)

    def _fitted(self, asked: Asked) -> Iterator[torch.Tensor]:
        own = self._own_inputs(asked.parameters, self._network.device)
        for part in super()._parts(asked):
            self._go_on(asked.request)
            with asked.seconds.network():
                scores = self._checked(self._scores_of(part, own), part.shape)
            yield without_margin(scores, asked.main.volume.shape[1:])

    def _checked(self, scores: torch.Tensor, given: Sequence[int]) -> torch.Tensor:
        wanted = (given[0], self._channels, *given[2:])
        if tuple(scores.shape) != wanted:
            raise ValueError(f"the network answers {tuple(scores.shape)} where its card means {wanted}")
        return scores.to(torch.float32)

    def _in_windows(self, asked: Asked) -> Iterator[torch.Tensor]:
        """Images one by one: windows along their rows and columns, as those of a volume of one slice."""
        network, spec = self._windowed(asked), self._card.network
        size = self._card.input.size
        assert size is not None  # of_images
        for image in self._planes(asked, slice(None)):
            with (
                asked.seconds.network(),
                torch.no_grad(),
                one_thread(self._network.has_own_threads),
            ):
                flat = replace(spec, window=(1, *size))
                given = image[:, :, None].to(self._network.device)
                scores = model_scores(given, network, flat, self._channels, float(asked.parameters[OVERLAP]))
            yield scores[:, :, 0]

    def _windowed(self, asked: Asked) -> WindowedNetwork:
        """The network of images, for windows with an axis of one slice."""
        flat = super()._windowed(asked)

        def begin(windows: torch.Tensor) -> Any:
            answer = flat.begin(windows[:, :, 0])
            return lambda: answer()[:, :, None]

        return WindowedNetwork(begin, flat.at_once, flat.in_flight)

    def _planes(self, asked: Asked, which: slice) -> Iterator[torch.Tensor]:
        """(1, 1, rows, columns) float32 at the card's pixel spacing."""
        spec, main, placement = self._card.input, asked.main, asked.main.placement
        assert spec.pixel_spacing_mm is not None  # _in_windows
        mapping = intensity(spec, placement.rescale.slope, placement.rescale.intercept)
        shape = shape_at(main.volume.shape[1:], placement.geometry.spacing_mm[1:].tolist(), spec.pixel_spacing_mm)
        for plane in main.volume[which]:
            with asked.seconds.before(), one_thread():
                image = resampled(plane, shape, mapping)
            yield image

    def _parts(self, asked: Asked) -> Iterator[torch.Tensor]:
        """What the network is shown: for golden cases, to find out ranges with."""
        if self._card.input.pixel_spacing_mm is None:
            yield from super()._parts(asked)
            return
        size = self._card.input.size
        assert size is not None  # of_images
        for image in self._planes(asked, slice(None, IMAGES_AT_ONCE)):
            for window in cut(image[:, :, None].to(CPU), (1, *size), self._card.network.overlap):
                yield window[:, :, 0]
