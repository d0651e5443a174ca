"""Runs a MONAI bundle: on the node's own fast chain where the bundle's is the usual one, else as the bundle says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.asked import Asked, Given
from dicomnode.adapters.triton.hosts.bundle import Bundle
from dicomnode.adapters.triton.hosts.gpu import device_here
from dicomnode.adapters.triton.hosts.model import Host, HostSettings, Outputs
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork
from dicomnode.adapters.triton.hosts.own_chain import Made, OwnChain, images_of
from dicomnode.domain.bundle_chain import StandardChain
from dicomnode.domain.model_card import ModelCard, NetworkSpec
from dicomnode.domain.model_parameter import MINIMUM_VOLUME_ML, threshold_of
from dicomnode.imaging.inference import without_islands
from dicomnode.imaging.masks import FULL, SegmentMasks, drop_small_parts

log = logging.getLogger(__name__)

_CLOSE = 1e-3  # largest difference of a traced network's scores, as a share of their range


class BundleHost(Host):
    """As Host, for a package in MONAI's bundle format."""

    _own: OwnChain | None = None

    def _loaded(self, settings: HostSettings) -> LoadedNetwork:
        device = device_here()
        bundle = self._bundle = Bundle(settings.package, device)
        chain = bundle.chain()
        module = bundle.network()
        if isinstance(chain, StandardChain) and not self._card.roles and not self._card.masks.overlap:
            self._card = _with_chain(self._card, chain)
            traced = _traced(module, self._card, settings, device)
            if traced is not None:
                found = self._on_engine(settings, traced.parent, _plain(self._card, traced.name))
                return dataclasses.replace(found, info={**found.info, "chain": "the node's"})
            return LoadedNetwork(plain_runner(module), device, 1, described(device, "the node's"))
        self._own = OwnChain(bundle, module)
        why = chain if isinstance(chain, str) else "several series" if self._card.roles else "masks that overlap"
        return LoadedNetwork(plain_runner(module), device, 1, described(device, f"the bundle's: {why}", bundle))

    @property
    def info(self) -> Mapping[str, str]:
        """As Host, with the transforms that a GPU leaves to the CPU."""
        if self._own is None:
            return super().info
        return {**super().info, "chain": super().info["chain"] + self._own.words}

    def _answers(self, asked: Asked) -> Outputs:
        """A mask a channel where the card says so: each by itself."""
        if self._own is None:
            return super()._answers(asked)
        card, main = self._card, asked.main
        least_ml = float(asked.parameters[MINIMUM_VOLUME_ML])
        if not card.masks.overlap:
            labels = self._made(self._own, asked, lambda values: labels_of(values, card, main))
            if labels is None:
                labels = torch.zeros(main.volume.shape, dtype=torch.uint8)
            without_islands(labels, main.placement.geometry, least_ml)
            return {"LABELMAP": labels}
        found = self._made(self._own, asked, lambda values: probabilities_of(values, card, main))
        if found is None:
            found = torch.zeros((len(card.segments), *main.volume.shape), dtype=torch.uint8)
        masks = SegmentMasks(None, found.numpy(), threshold_of(card.output, asked.parameters))
        drop_small_parts(masks, main.placement.geometry.voxel_volume_mm3, least_ml)
        return {"PROBABILITIES": found}

    def _made(self, own: OwnChain, asked: Asked, made: Made) -> torch.Tensor | None:
        """None of air alone, as on warming up: transforms that look for a patient find none, and nothing is there."""

        def images(device: torch.device) -> dict[str, Any]:
            return images_of(self._bundle, asked.main, asked.further, device)

        try:
            return own.run(images, made, lambda: self._go_on(asked.request), asked.seconds)
        except (RuntimeError, ValueError, IndexError):
            if not _is_empty(asked.main) or asked.request.is_cancelled():
                raise
            return None


def _is_empty(given: Given) -> bool:
    return bool((given.volume == given.volume[0, 0, 0]).all())


def probabilities_of(values: torch.Tensor, card: ModelCard, main: Given) -> torch.Tensor:
    """(segment, column, row, slice), masks or probabilities → (segment, slice, row, column) uint8, 255 for 1."""
    expected = (len(card.segments), *reversed(main.volume.shape))
    if tuple(values.shape) != expected:
        raise ValueError(
            f"the bundle's prediction is {tuple(values.shape)}, its card means a mask a segment: {expected}"
        )
    if not (float(values.min()) >= -1e-3 and float(values.max()) <= 1 + 1e-3):
        raise ValueError("the bundle's channels are neither masks nor probabilities: they leave 0 to 1")
    # the nearest of 0 to 255, as restore_values.quantised
    return values.clamp(0, 1).mul_(FULL).round_().to(torch.uint8).permute(0, 3, 2, 1).contiguous()


def labels_of(values: torch.Tensor, card: ModelCard, main: Given) -> torch.Tensor:
    """(channels, column, row, slice) → (slice, row, column) uint8.

    One channel holds labels. As many as the card's segments and the background: the highest is the label. As many as
    the segments: each is a mask, and where masks overlap the last one counts.
    """
    count, shape = len(card.segments), tuple(reversed(main.volume.shape))
    if values.ndim != 4 or tuple(values.shape[1:]) != shape:
        raise ValueError(f"the bundle's prediction is {tuple(values.shape)}, the image (channels, {shape})")
    if values.shape[0] == 1:
        labels = _numbered(values[0].round().to(torch.int32), card)
    elif values.shape[0] == count + 1:
        labels = values.argmax(0)
    elif values.shape[0] == count:
        numbers = torch.arange(1, count + 1, device=values.device).reshape(-1, 1, 1, 1)
        labels = ((values > 0.5) * numbers).amax(0)
    else:
        raise ValueError(f"the bundle gives {values.shape[0]} channels and its card has {count} segments")
    return labels.to(torch.uint8).permute(2, 1, 0).contiguous()


def _numbered(found: torch.Tensor, card: ModelCard) -> torch.Tensor:
    """The bundle's labels as numbers of segments."""
    labels = torch.zeros_like(found, dtype=torch.uint8)
    for segment in card.segments:
        labels[found == segment.label] = segment.number
    if bool(((found != 0) & (labels == 0)).any()):
        strange = sorted(set(found.flatten().tolist()) - {0} - {s.label for s in card.segments})
        raise ValueError(
            f"the bundle gives the labels {', '.join(map(str, strange))}, which are none of its card's segments: "
            "add it again with a model.yaml in which output.segments have a value each"
        )
    return labels


def _with_chain(card: ModelCard, chain: StandardChain) -> ModelCard:
    """The card with what the bundle does, in place of what the card says of it."""
    given = dataclasses.replace(
        card.input,
        orientation=chain.orientation,
        spacing_mm=chain.spacing_mm,
        intensity_from=chain.intensity_from,
        intensity_to=chain.intensity_to,
        clip=chain.clip,
    )
    network = dataclasses.replace(
        card.network, window=chain.window, overlap=chain.overlap, blend=chain.blend, restore=chain.restore
    )
    return dataclasses.replace(card, input=given, network=network)


def _plain(card: ModelCard, file: str) -> NetworkSpec:
    return dataclasses.replace(card.network, file=file, format="torchscript")


def plain_runner(module: torch.nn.Module) -> Any:
    """Calls the network as it is."""

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scores: torch.Tensor = module(*inputs)
            return scores.float()

    return run


def described(device: torch.device, chain: str, bundle: Bundle | None = None) -> dict[str, str]:
    """What runs a network as it is; `chain`: whose transforms. A bundle may ask a GPU for mixed precision."""
    half = bundle is not None and bundle.half_precision and device.type == "cuda"
    return {
        "engine": f"torch {torch.__version__}",
        "precision": "f16" if half else "f32",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "chain": chain,
    }


# -------------------------------------------------------------------------------------------------- tracing


def _traced(module: torch.nn.Module, card: ModelCard, settings: HostSettings, device: torch.device) -> Path | None:
    """The network as TorchScript in the cache, which every engine reads; None when it cannot be traced."""
    file = settings.cache / "bundles" / _key(settings.package, card, device) / "network.ts"
    if file.is_file():
        return file
    try:
        script = _script(module, (1, 1, *card.network.window))
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        log.warning("the network of %s is not traced, and runs in torch as it is: %s", settings.package.name, error)
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=file.parent, prefix=".new-")
    with os.fdopen(descriptor, "wb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's: every engine reads it
        torch.jit.save(script, stream)
    Path(scratch).replace(file)
    return file


def _script(module: torch.nn.Module, shape: tuple[int, ...]) -> Any:
    """Traced with one window, compared on another; raises RuntimeError when its scores differ."""
    if isinstance(module, torch.jit.ScriptModule):
        return module
    random = torch.Generator().manual_seed(0)
    device = next(module.parameters()).device
    first, second = (torch.rand(shape, generator=random).to(device) for _ in range(2))
    with warnings.catch_warnings(), torch.no_grad():
        # TorchScript's deprecation, and the tracer's remarks on shapes: every window here is as large as this one
        warnings.simplefilter("ignore")
        script = torch.jit.trace(module, first, check_trace=False)  # type: ignore[no-untyped-call]
        wanted, found = module(second), script(second)
    if float((wanted - found).abs().max()) > _CLOSE * float(wanted.max() - wanted.min()):
        raise RuntimeError("its scores are not those of the network that it came from")
    return script


def _key(package: Path, card: ModelCard, device: torch.device) -> str:
    """Of what the traced network depends on: everything in the package, the window, and where it was traced.

    Tensors that a network makes on its way are made there again.
    """
    digest = hashlib.sha256(json.dumps([card.network.window, torch.__version__, device.type]).encode())
    for file in sorted(p for p in package.rglob("*") if p.is_file()):
        with file.open("rb") as stream:
            digest.update(f"{file.relative_to(package)} {hashlib.file_digest(stream, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()[:32]
