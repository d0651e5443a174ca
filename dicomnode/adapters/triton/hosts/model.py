"""What Triton's Python backend runs for a model package: the whole chain from stored values to labels.

Inputs: VOLUME (slice, row, column) int16, stored values; RESCALE (slope, intercept) float32; AFFINE (4, 4)
float64, LPS mm, as VolumeGeometry has it; for the card's roles, in their order, VOLUME_1, RESCALE_1, AFFINE_1 and
so on, each in its own grid; PARAMETERS uint8, a JSON object of the job's parameters by name; REGIONS
uint8, a JSON object of where volumes lie, in place of those tensors, and where answers are to be put.
Outputs: LABELMAP (slice, row, column) uint8, in the main volume's grid, or what else the card gives (see
ports.inference); TIMINGS (before, network, after) float32, seconds; INFO uint8, a JSON object of engine, precision
and device.

Tensors go through DLPack both ways: with numpy 2 the backend's as_numpy() corrupts them in silence.
The backend's own module is given by whoever runs the host, so that the same code runs without Triton.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.dlpack import from_dlpack

from dicomnode.adapters.triton.hosts.asked import Asked, Given
from dicomnode.adapters.triton.hosts.calibration import windows_of
from dicomnode.adapters.triton.hosts.calls import CallRecord
from dicomnode.adapters.triton.hosts.gpu import full_float32, gpu_of
from dicomnode.adapters.triton.hosts.memory import Taken, watched
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork, NetworkInputs, load_network, on_triton
from dicomnode.adapters.triton.hosts.networks.on_triton import Inner
from dicomnode.adapters.triton.hosts.regions import CannotMap, places_in, read_from, written
from dicomnode.adapters.triton.hosts.sharing import SharedCores
from dicomnode.adapters.triton.hosts.torch_threads import one_thread
from dicomnode.adapters.triton.tensors import REGIONS, TensorPlace, is_gathered
from dicomnode.domain.model_card import ModelCard, NetworkSpec, parse_model_card
from dicomnode.domain.model_parameter import MINIMUM_VOLUME_ML, OVERLAP, Value, as_numbers, settled
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.imaging.golden import GivenVolume
from dicomnode.imaging.inference import (
    CPU,
    further_input,
    intensity,
    model_input,
    model_labels,
    model_scores,
    source_labels,
    without_islands,
)
from dicomnode.imaging.resample import ModelGrid, model_grid
from dicomnode.imaging.windows import WindowedNetwork

Outputs = Mapping[str, torch.Tensor]


_AXES = {"VOLUME": 3, "RESCALE": 1, "AFFINE": 2, "PARAMETERS": 1}  # one more where Triton gathers requests


class Cancelled(RuntimeError):
    """The client does not wait for this result any more."""


@dataclass(frozen=True)
class HostSettings:
    """The parameters of the model's config.pbtxt."""

    package: Path
    cache: Path
    threads: int
    engine: str = ""  # what tuning chose, in place of the card's
    precision: str = ""
    calls: Path | None = None  # where the host writes down which calls it is at
    inner: Inner | None = None  # the network is another model of the same Triton

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, str]) -> HostSettings:
        parameters = json.loads(arguments["model_config"])["parameters"]
        values = {name: parameter["string_value"] for name, parameter in parameters.items()}
        return cls(
            Path(values["package"]),
            Path(values["cache"]),
            int(values["threads"]),
            values["engine"],
            values["precision"],
            Path(values["calls"]),
            Inner.of_text(values["inner"]) if values.get("inner") else None,
        )

    def network(self, spec: NetworkSpec) -> NetworkSpec:
        """The card's, on the engine that tuning chose."""
        return replace(spec, engine=self.engine or spec.engine, precision=self.precision or spec.precision)


def card_of(package: Path) -> ModelCard:
    """The card of a package that was checked when it was added."""
    return parse_model_card(yaml.safe_load((package / "model.yaml").read_text(encoding="utf-8")))


def prove(backend: Any) -> None:
    """Every int16 there is from torch to the backend and back; raises RuntimeError when one is another then."""
    known = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)
    back = from_dlpack(backend.Tensor.from_dlpack("PROOF", known).to_dlpack())
    if not torch.equal(back, torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)):
        raise RuntimeError("torch and the Python backend do not read the same values in one tensor: see the versions")


def _count(taken: Taken, main: Given) -> None:
    """A volume that whoever asked has put on the GPU is part of what a run takes there."""
    if main.volume.is_cuda and "gpu_bytes" in taken:
        taken["gpu_bytes"] += main.volume.nbytes


class Host:
    """One loaded model package. `backend` is triton_python_backend_utils or a stand-in for it."""

    _gives = "classes"  # what the network's answers mean, as networks.loaded has it
    _found_there = False  # whether the main volume of the request in hand came on the GPU

    def __init__(self, backend: Any, settings: HostSettings) -> None:
        torch.set_num_threads(settings.threads)
        full_float32()
        self._backend = backend
        name = f"{settings.package} {settings.engine} {settings.precision}"
        self._cores = SharedCores(settings.cache / "at-work", name, settings.threads)
        self._card = card_of(settings.package)
        self._network = self._loaded(settings)
        self._calls = CallRecord(settings.calls)

    def _loaded(self, settings: HostSettings) -> LoadedNetwork:
        return self._on_engine(settings, settings.package, self._card.network)

    def _on_engine(self, settings: HostSettings, folder: Path, spec: NetworkSpec) -> LoadedNetwork:
        """The network in `folder` that `spec` names, on the engine that tuning chose."""
        card = self._card
        if settings.inner is not None:
            return on_triton.load(self._backend, settings.inner)
        takes = NetworkInputs(1 + len(card.roles), len(card.own_parameters), gives=self._gives)
        return load_network(
            folder,
            settings.network(spec),
            settings.cache,
            settings.threads,
            takes,
            lambda: windows_of(settings.package, card, self._golden_image),
        )

    def _golden_image(self, volumes: Sequence[GivenVolume]) -> torch.Tensor:
        main, *further = (Given(torch.from_numpy(given.values), given.placement) for given in volumes)
        spec = self._card.input
        return self._image(main, further, model_grid(main.placement.geometry, spec.orientation, spec.spacing_mm))

    @property
    def _begins_on(self) -> torch.device:
        """Where the main volume is read; further ones are read by the CPU."""
        return self._network.device

    @property
    def info(self) -> Mapping[str, str]:
        """Engine, precision and device as they really are."""
        return self._network.info

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        with self._cores.at_work():
            torch.set_num_threads(self._threads)
            return [self._recorded(request) for request in requests]

    @property
    def _threads(self) -> int:
        """CPU threads for what is done now: fewer while other models compute."""
        return self._cores.threads

    def _go_on(self, request: Any) -> None:
        """Between two pieces of work: raises Cancelled, or takes the cores that are this model's share now."""
        if request.is_cancelled():
            raise Cancelled("cancelled by the client")
        if not self._network.has_own_threads:
            torch.set_num_threads(self._threads)

    def _recorded(self, request: Any) -> Any:
        with self._calls.of([request.request_id()]):
            return self._answer(request)

    def _answer(self, request: Any) -> Any:
        try:
            asked = self._asked(request)
        except CannotMap as error:
            return self._refused(str(error))
        self._found_there = asked.main.volume.is_cuda
        try:
            with watched() as taken:
                answers, timings = self._answers(asked), asked.seconds.spent()
            _count(taken, asked.main)
        except Cancelled as cancelled:
            return self._refused(str(cancelled))
        outputs = {**written(answers, asked.places), "TIMINGS": timings, "INFO": self._about(taken)}
        if is_gathered(self._card):
            outputs = {name: tensor[None] for name, tensor in outputs.items()}
        return self._response(outputs)

    def _response(self, outputs: Mapping[str, torch.Tensor]) -> Any:
        return self._backend.InferenceResponse(
            [self._backend.Tensor.from_dlpack(name, tensor) for name, tensor in outputs.items()]
        )

    def _refused(self, why: str) -> Any:
        return self._backend.InferenceResponse(error=self._backend.TritonError(why))

    def _about(self, taken: Taken) -> torch.Tensor:
        gpu = gpu_of(self._begins_on)
        said = None if gpu is None else {**gpu, "found_there": self._found_there}
        document = json.dumps({**self.info, "taken": taken, "gpu": said})
        return torch.frombuffer(bytearray(document.encode()), dtype=torch.uint8)

    def _asked(self, request: Any) -> Asked:
        places = self._places(request)
        main = self._given(request, "", places)
        further = [self._given(request, f"_{n}", places) for n in range(1, len(self._card.roles) + 1)]
        return Asked(request, main, further, self._parameters(request), places)

    def _places(self, request: Any) -> dict[str, TensorPlace]:
        """None where the volumes themselves came."""
        said = self._backend.get_input_tensor_by_name(request, REGIONS)
        return {} if said is None else places_in(from_dlpack(said.to_dlpack()).numpy().tobytes())

    def _given(self, request: Any, number: str, places: Mapping[str, TensorPlace]) -> Given:
        name = f"VOLUME{number}"
        volume = read_from(places[name], np.int16) if name in places else self._input(request, name)
        rescale, affine = (self._input(request, name + number) for name in ("RESCALE", "AFFINE"))
        if number or self._begins_on.type == "cpu":
            volume = volume.cpu()
        slices, rows, columns = volume.shape
        slope, intercept = rescale.tolist()
        geometry = VolumeGeometry((slices, rows, columns), affine.numpy())
        return Given(volume, Placement(geometry, Rescale(slope, intercept)))

    def _parameters(self, request: Any) -> dict[str, Value]:
        """Every parameter of the card with its value in this job."""
        document = self._input(request, "PARAMETERS").numpy().tobytes()
        return settled(self._card.parameters, json.loads(document))

    def _input(self, request: Any, name: str) -> torch.Tensor:
        """Where the backend has it: a volume perhaps on the GPU, and the very memory that other models read."""
        tensor = from_dlpack(self._backend.get_input_tensor_by_name(request, name).to_dlpack())
        return tensor[0] if tensor.ndim > _AXES[name.partition("_")[0]] else tensor

    def _answers(self, asked: Asked) -> Outputs:
        """What the card's output.arrays names."""
        spec, device = self._card.input, self._network.device
        with asked.seconds.before(device):
            grid = model_grid(asked.main.placement.geometry, spec.orientation, spec.spacing_mm)
            image = self._image(asked.main, asked.further, grid, device)
        with asked.seconds.network(device):
            found = self._found(image, asked)
        with torch.inference_mode():
            return self._restored(found, grid, asked)

    def _restored(self, found: torch.Tensor, grid: ModelGrid, asked: Asked) -> Outputs:
        """What the network found, (1, channels, model axes) or labels, in the source's grid."""
        labels = source_labels(found, grid, self._threads, self._card.network.restore)
        without_islands(labels, asked.main.placement.geometry, float(asked.parameters[MINIMUM_VOLUME_ML]))
        return {"LABELMAP": labels}

    def _image(
        self, main: Given, further: Sequence[Given], grid: ModelGrid, device: torch.device = CPU
    ) -> torch.Tensor:
        """(1, channels, model axes) float32: the main series, then the roles in the card's order."""
        spec, rescale, threads = self._card.input, main.placement.rescale, self._threads
        mapping = intensity(spec, rescale.slope, rescale.intercept)
        first = model_input(main.volume, grid, mapping, threads, device)
        if not further:
            return first
        others = [
            further_input(given.volume, given.placement, role, main.placement.geometry, grid, threads).to(device)
            for given, role in zip(further, self._card.roles, strict=True)
        ]
        return torch.cat([first, *others], 1)

    def _own_inputs(self, parameters: Mapping[str, Value], device: torch.device) -> list[torch.Tensor]:
        """What the network is given beside the image."""
        specs = self._card.own_parameters
        return [torch.tensor(as_numbers(specs, parameters), device=device)] if specs else []

    def _windowed(self, asked: Asked) -> WindowedNetwork:
        return self._network.windowed(
            *self._own_inputs(asked.parameters, self._network.device),
            before_each=lambda: self._go_on(asked.request),
            share=lambda: self._threads / self._cores.count,
        )

    def _found(self, image: torch.Tensor, asked: Asked) -> torch.Tensor:
        """In the model's grid: labels, or what the card has restored in place of them."""
        network, spec = self._windowed(asked), self._card.network
        find = model_labels if self._finds_labels else model_scores
        with torch.no_grad(), one_thread(self._network.has_own_threads):
            return find(image, network, spec, self._channels, float(asked.parameters[OVERLAP]))

    @property
    def _finds_labels(self) -> bool:
        """Whether what is brought back are labels, which are made as soon as the scores are there."""
        return self._card.output.arrays == ("LABELMAP",) and self._card.network.restore == "labels"

    @property
    def _channels(self) -> int:
        """Of the network's answer: the background has one of its own where segments exclude each other."""
        return len(self._card.segments) + (not self._card.masks.overlap)
