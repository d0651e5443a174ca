"""Runs a MONAI bundle that gives classes, of every image by itself or of the series, by its own transforms.

MONAI's axes of an image are (x, y) = (column, row). A bundle made for colours is given a grey image three times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from monai.data.meta_tensor import MetaTensor

from dicomnode.adapters.triton.hosts.asked import Asked, Given
from dicomnode.adapters.triton.hosts.bundle import Bundle
from dicomnode.adapters.triton.hosts.bundle_host import described, plain_runner
from dicomnode.adapters.triton.hosts.classify import ClassifyHost
from dicomnode.adapters.triton.hosts.gpu import device_here
from dicomnode.adapters.triton.hosts.model import HostSettings, Outputs
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork
from dicomnode.adapters.triton.hosts.own_chain import Images, OwnChain, images_of
from dicomnode.imaging.classify import probabilities


class BundleClassifyHost(ClassifyHost):
    """As ClassifyHost, for a package in MONAI's bundle format."""

    def _loaded(self, settings: HostSettings) -> LoadedNetwork:
        device = device_here()
        self._bundle = Bundle(settings.package, device)
        module = self._bundle.network()
        self._own_chain = OwnChain(self._bundle, module)
        return LoadedNetwork(plain_runner(module), device, 1, described(device, "the bundle's", self._bundle))

    @property
    def info(self) -> Mapping[str, str]:
        """As Host, with the transforms that a GPU leaves to the CPU."""
        return {**super().info, "chain": super().info["chain"] + self._own_chain.words}

    @property
    def _begins_on(self) -> torch.device:
        return self._own_chain.device

    def _answers(self, asked: Asked) -> Outputs:
        def check() -> None:
            self._go_on(asked.request)

        main = asked.main
        if self._begins_on.type != "cpu":  # once, and not image by image
            main = replace(main, volume=main.volume.to(self._begins_on))
        rows = [self._own_chain.run(one, torch.flatten, check, asked.seconds) for one in self._inputs(main, asked)]
        return {"SCORES": probabilities(self._adding_up(torch.stack(rows)), self._spec).contiguous()}

    def _inputs(self, main: Given, asked: Asked) -> Iterator[Images]:
        if self._spec.of == "series":
            yield partial(images_of, self._bundle, main, asked.further)
            return
        key, colours = self._bundle.image_keys[0], self._bundle.channels == 3

        def one_image(number: int, device: torch.device) -> dict[str, MetaTensor]:
            return {key: image_of(main.volume[number].to(device), main, colours=colours)}

        for number in range(len(main.volume)):
            yield partial(one_image, number)

    def _adding_up(self, scores: torch.Tensor) -> torch.Tensor:
        """(image, class): what a sigmoid gives for each class by itself, as shares of one."""
        if self._spec.scores == "logits" or scores.ndim != 2:
            return scores
        total = scores.sum(1, keepdim=True)
        return scores / total if bool((total > 0).all()) else scores


def image_of(values: torch.Tensor, given: Given, *, colours: bool) -> MetaTensor:
    """(row, column) stored values → (column, row) float32 in modality units, with colours (column, row, 3)."""
    rescale = given.placement.rescale
    grey = values.T.to(torch.float32).mul_(rescale.slope).add_(rescale.intercept)
    result = MetaTensor(grey[..., None].repeat(1, 1, 3) if colours else grey.contiguous())
    result.meta["original_channel_dim"] = -1 if colours else math.nan
    return result
