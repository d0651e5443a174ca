"""What Triton's Python backend runs for a model package: the whole chain from stored values to labels.

Inputs: VOLUME (slice, row, column) int16, stored values; RESCALE (slope, intercept) float32; AFFINE (4, 4)
float64, LPS mm, as VolumeGeometry has it. Outputs: LABELMAP (slice, row, column) uint8, in the same grid;
TIMINGS (before, network, after) float32, seconds; INFO uint8, a JSON object of engine, precision and device.

Tensors go through DLPack both ways: with numpy 2 the backend's as_numpy() corrupts them in silence.
The backend's own module is given by whoever runs the host, so that the same code runs without Triton.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.dlpack import from_dlpack

from dicomnode.adapters.triton.hosts.networks import load_network
from dicomnode.domain.model_card import parse_model_card
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.inference import intensity, model_input, scores, source_labels
from dicomnode.imaging.resample import model_grid


class Cancelled(RuntimeError):
    """The client does not wait for this result any more."""


@dataclass(frozen=True)
class HostSettings:
    """The parameters of the model's config.pbtxt."""

    package: Path
    cache: Path
    threads: int

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, str]) -> HostSettings:
        parameters = json.loads(arguments["model_config"])["parameters"]
        values = {name: parameter["string_value"] for name, parameter in parameters.items()}
        return cls(Path(values["package"]), Path(values["cache"]), int(values["threads"]))


class Host:
    """One loaded model package. `backend` is triton_python_backend_utils or a stand-in for it."""

    def __init__(self, backend: Any, settings: HostSettings) -> None:
        torch.set_num_threads(settings.threads)
        document = yaml.safe_load((settings.package / "model.yaml").read_text(encoding="utf-8"))
        self._backend, self._threads = backend, settings.threads
        self._card = parse_model_card(document)
        self._network = load_network(settings.package, self._card.network, settings.cache, settings.threads)
        self._info = torch.frombuffer(bytearray(json.dumps(self._network.info).encode()), dtype=torch.uint8)

    @property
    def info(self) -> Mapping[str, str]:
        """Engine, precision and device as they really are."""
        return self._network.info

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        volume, rescale, affine = (self._input(request, name) for name in ("VOLUME", "RESCALE", "AFFINE"))
        try:
            labels, timings = self._segment(volume, rescale, affine, request)
        except Cancelled as cancelled:
            return self._backend.InferenceResponse(error=self._backend.TritonError(str(cancelled)))
        outputs = {"LABELMAP": labels, "TIMINGS": timings, "INFO": self._info}
        return self._backend.InferenceResponse(
            [self._backend.Tensor.from_dlpack(name, tensor) for name, tensor in outputs.items()]
        )

    def _input(self, request: Any, name: str) -> torch.Tensor:
        tensor = self._backend.get_input_tensor_by_name(request, name)
        return from_dlpack(tensor.to_dlpack())

    def _segment(
        self, volume: torch.Tensor, rescale: torch.Tensor, affine: torch.Tensor, request: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        started = time.perf_counter()
        spec = self._card.input
        slices, rows, columns = volume.shape
        geometry = VolumeGeometry((slices, rows, columns), affine.numpy())
        grid = model_grid(geometry, spec.orientation, spec.spacing_mm)
        slope, intercept = rescale.tolist()
        image = model_input(volume, grid, intensity(spec, slope, intercept), self._threads)
        prepared = time.perf_counter()
        result = self._scores(image.to(self._network.device), request)
        inferred = time.perf_counter()
        labels = torch.empty(volume.shape, dtype=torch.uint8)
        source_labels(result, grid, labels, self._threads)
        ended = time.perf_counter()
        return labels, torch.tensor([prepared - started, inferred - prepared, ended - inferred])

    def _scores(self, image: torch.Tensor, request: Any) -> torch.Tensor:
        def network(windows: torch.Tensor) -> torch.Tensor:
            if request.is_cancelled():
                raise Cancelled("cancelled by the client")
            return self._network(windows)

        result = scores(image, network, self._card.network, self._network.batch)
        if result.shape[1] != (classes := len(self._card.segments) + 1):
            raise ValueError(f"the network gives {result.shape[1]} classes, its card {classes} with the background")
        return result
