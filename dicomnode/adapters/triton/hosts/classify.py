"""The hosts of models that give classes or measurements: of every image by itself, or of the series as a whole.

Inputs as hosts.model has them; of a model of single images VOLUME holds (image, row, column) and AFFINE means
nothing. Outputs: SCORES (image, class or value) float32, one row for a whole series; TIMINGS and INFO.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dicomnode.adapters.golden_cases import read_golden_cases
from dicomnode.adapters.triton.hosts.asked import Asked, Given, Seconds
from dicomnode.adapters.triton.hosts.calibration import golden_volumes
from dicomnode.adapters.triton.hosts.gpu import done_s
from dicomnode.adapters.triton.hosts.memory import watched
from dicomnode.adapters.triton.hosts.model import Host, HostSettings, Outputs
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork, NetworkInputs, load_network, on_triton
from dicomnode.adapters.triton.hosts.networks.loaded import CPU, Tensors, as_arrays
from dicomnode.adapters.triton.hosts.torch_threads import one_thread
from dicomnode.domain.golden import GOLDEN_FOLDER
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_output import Classification
from dicomnode.domain.model_parameter import settled
from dicomnode.imaging.classify import IMAGES_AT_ONCE, centred, image_inputs, probabilities
from dicomnode.imaging.golden import GivenVolume, read_dicom_images, read_npz_volumes
from dicomnode.imaging.inference import intensity
from dicomnode.imaging.resample import model_grid


def _alike(waiting: Sequence[Asked]) -> list[list[Asked]]:
    """Those with the same parameters together, in their order."""
    groups: dict[str, list[Asked]] = {}
    for one in waiting:
        groups.setdefault(repr(sorted(one.parameters.items())), []).append(one)
    return list(groups.values())


def filled(pieces: Iterable[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """(n, ...) tensors, put together and cut so that each but the last has `size` rows."""
    held: list[torch.Tensor] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        while count >= size:
            whole = torch.cat(held)
            yield whole[:size]
            held, count = [whole[size:]], count - size
    if count:
        yield torch.cat(held)


class ClassifyHost(Host):
    """One loaded model that classifies."""

    def _loaded(self, settings: HostSettings) -> LoadedNetwork:
        card = self._card
        if settings.inner is not None:
            return on_triton.load(self._backend, settings.inner)
        takes = NetworkInputs(1 + len(card.roles), len(card.own_parameters), card.input.size or (), gives=self._gives)
        spec = settings.network(card.network)
        return load_network(
            settings.package, spec, settings.cache, settings.threads, takes, lambda: self._golden(settings)
        )

    def _golden(self, settings: HostSettings) -> Iterator[Tensors]:
        """The network's inputs for every image or series of the package's golden cases: to find out ranges with."""
        card = self._card
        for case in read_golden_cases(settings.package, card):
            path = settings.package / GOLDEN_FOLDER / case.input
            volumes = (
                _golden_images(path, card)
                if card.input.is_of_images
                else golden_volumes(settings.package, card, case)
            )
            main, *further = (Given(torch.from_numpy(v.values), v.placement) for v in volumes)
            asked = Asked(None, main, further, settled(card.parameters, case.parameters))
            own = self._own_inputs(asked.parameters, CPU)
            for part in self._parts(asked):
                for image in part:
                    yield as_arrays([image[None], *own])

    @property
    def _begins_on(self) -> torch.device:
        return CPU  # images are made smaller there; what is left goes to the network's device

    @property
    def _spec(self) -> Classification:
        spec = self._card.classification
        assert spec is not None  # choice.open_host
        return spec

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Several requests, of single images, share their batches; what is asked with other parameters goes alone."""
        if len(requests) == 1:
            return super().execute(requests)
        with self._cores.at_work(), self._calls.of([request.request_id() for request in requests]):
            torch.set_num_threads(self._threads)
            waiting = [self._asked(request) for request in requests if not request.is_cancelled()]
            answers: dict[int, Any] = {}
            for alike in _alike(waiting):
                answers |= self._answered_together(alike)
            return [answers.get(id(request)) or self._refused("cancelled by the client") for request in requests]

    def _answered_together(self, alike: Sequence[Asked]) -> dict[int, Any]:
        """By the request's id(); where one of them makes the network fail, the others are answered without it."""
        try:
            with watched() as taken:
                found = self._gathered(alike)
        except (RuntimeError, ValueError) as error:
            if len(alike) == 1:
                return {id(alike[0].request): self._refused(f"{type(error).__name__}: {error}")}
            return {key: answer for one in alike for key, answer in self._answered_together([one]).items()}
        about = self._about(taken)
        return {
            id(one.request): self._response({"SCORES": scores[None], "TIMINGS": seconds[None], "INFO": about[None]})
            for one, (scores, seconds) in zip(alike, found, strict=True)
        }

    def _gathered(self, alike: Sequence[Asked]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Scores, and the seconds before, in and after the network, which each has a share of, for each request."""
        seconds, own, rows = Seconds(), self._own_inputs(alike[0].parameters, self._network.device), []
        pieces = (part for one in alike for part in self._parts(replace(one, seconds=seconds)))
        for batch in filled(pieces, IMAGES_AT_ONCE):
            with seconds.network():
                rows.append(self._scores_of(batch, own))
        counts = [len(one.main.volume) for one in alike]
        scores, spent = torch.split(self._meant(torch.cat(rows)), counts), seconds.spent()
        shares = (count / sum(counts) for count in counts)
        return [(part.contiguous(), spent * share) for part, share in zip(scores, shares, strict=True)]

    def _answers(self, asked: Asked) -> Outputs:
        own, rows = self._own_inputs(asked.parameters, self._network.device), []
        for part in self._parts(asked):
            self._go_on(asked.request)
            with asked.seconds.network():
                rows.append(self._scores_of(part, own))
        return {"SCORES": self._meant(torch.cat(rows)).contiguous()}

    def _meant(self, scores: torch.Tensor) -> torch.Tensor:
        """(image, class) as the network gives them → probabilities."""
        return probabilities(scores, self._spec)

    def _parts(self, asked: Asked) -> Iterator[torch.Tensor]:
        """(n, channels, axes) float32 at a time, ready for the network."""
        count = len(asked.main.volume) if self._card.input.size else 1
        for first in range(0, count, IMAGES_AT_ONCE):
            with asked.seconds.before():
                part = (
                    self._images(asked.main, slice(first, first + IMAGES_AT_ONCE))
                    if self._card.input.size
                    else self._whole(asked)
                )
            yield part

    def _images(self, main: Given, which: slice) -> torch.Tensor:
        spec, rescale = self._card.input, main.placement.rescale
        assert spec.size is not None
        mapping = intensity(spec, rescale.slope, rescale.intercept)
        with one_thread():
            return image_inputs(main.volume[which], spec.size, mapping, spec.intensity_to[0])

    def _whole(self, asked: Asked) -> torch.Tensor:
        spec = self._card.input
        grid = model_grid(asked.main.placement.geometry, spec.orientation, spec.spacing_mm)
        return centred(self._image(asked.main, asked.further, grid), self._card.network.window, spec.intensity_to[0])

    def _scores_of(self, part: torch.Tensor, own: list[torch.Tensor]) -> torch.Tensor:
        """(n, class); as many at once as the network takes. Answers may lie in the network's own memory: copied."""
        device = self._network.device
        batch = self._network.at_once(self._threads / self._cores.count)
        with torch.inference_mode():
            answers = [self._network(some.to(device), *own).clone() for some in torch.split(part, batch)]
            found = torch.cat(answers)
        done_s(device)
        return found


class MeasureHost(ClassifyHost):
    """One loaded model that gives numbers."""

    _gives = "values"

    def _meant(self, scores: torch.Tensor) -> torch.Tensor:
        """(image, value) float32, as the network gives them: what is no number is told as such, where it is shown."""
        spec = self._card.measurements
        assert spec is not None  # choice.open_host
        if scores.ndim != 2 or scores.shape[1] != len(spec.values):
            raise ValueError(
                f"the network gives numbers of {tuple(scores.shape)}, its card has {len(spec.values)} of them"
            )
        return scores.to(torch.float32).cpu()


def _golden_images(path: Path, card: ModelCard) -> list[GivenVolume]:
    if path.is_dir():
        return [read_dicom_images(path, card.input)]
    return read_npz_volumes(path, 1, needs_place=False)
