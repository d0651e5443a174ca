"""What stands in for Triton's native backends in a server that has only the Python one.

Triton takes `backends/<name>/model.py` for a backend of that name (Python-based backends), so that a model directory
made for onnxruntime, openvino or pytorch runs unchanged: same config.pbtxt, same file, same tensors. The library that
runs it is the one of this environment. What the native backends' parameters say about threads and bfloat16 is heeded
(README of each at github.com/triton-inference-server/<name>_backend), what else they tune is not.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from dicomnode.adapters.triton.hosts import cores
from dicomnode.adapters.triton.hosts.gpu import full_float32
from dicomnode.adapters.triton.hosts.networks import on_onnxruntime, on_torch
from dicomnode.adapters.triton.hosts.networks.loaded import CPU

log = logging.getLogger(__name__)

Named = Mapping[str, torch.Tensor]

_FAULTS = (RuntimeError, ValueError, TypeError, LookupError)
_ORDINAL = re.compile(r".+__(\d+)")  # INPUT__0: how the pytorch backend tells tensors that have no names
_HEEDED = {
    "onnxruntime": {"intra_op_thread_count"},
    "openvino": {"INFERENCE_NUM_THREADS", "HINT_BF16"},
    "pytorch": set[str](),
}


class Loaded:
    """What a model directory says, as `initialize` is told it."""

    def __init__(self, arguments: Mapping[str, str], default_file: str) -> None:
        self.config: Mapping[str, Any] = json.loads(arguments["model_config"])
        named = self.config.get("default_model_filename") or default_file
        self.file = Path(arguments["model_repository"]) / arguments["model_version"] / named
        kind, number = arguments["model_instance_kind"], arguments["model_instance_device_id"]
        on_gpu = kind == "GPU" and torch.cuda.is_available()
        self.device = torch.device(f"cuda:{number}") if on_gpu else CPU
        self.outputs = [output["name"] for output in self.config["output"]]
        self.inputs = [given["name"] for given in self.config["input"]]

    def parameter(self, name: str) -> str:
        return str(self.config.get("parameters", {}).get(name, {}).get("string_value", ""))

    def threads(self, parameter: str) -> int:
        """Of the configuration, else the share that a model has of this machine."""
        given = self.parameter(parameter)
        return int(given) if given.isdigit() and int(given) else int(os.environ.get("OMP_NUM_THREADS") or cores())


class Shim:
    """A model of one of the backends below; `backend` is triton_python_backend_utils."""

    def __init__(self, backend: Any, name: str, arguments: Mapping[str, str]) -> None:
        self._backend = backend
        self._model = _RUNNERS[name](arguments)
        self._outputs = [output["name"] for output in json.loads(arguments["model_config"])["output"]]
        unheeded = set(json.loads(arguments["model_config"]).get("parameters", {})) - _HEEDED[name]
        if unheeded:
            log.warning("the stand-in for %s does not heed %s", name, ", ".join(sorted(unheeded)))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        """An error of its own for each: another's request may lie in the same batch."""
        try:
            given = {tensor.name(): from_dlpack(tensor.to_dlpack()) for tensor in request.inputs()}
            found = self._model(given)
        except _FAULTS as error:
            return self._backend.InferenceResponse(error=self._backend.TritonError(str(error)))
        wanted = set(request.requested_output_names())
        return self._backend.InferenceResponse(
            [
                self._backend.Tensor.from_dlpack(name, found[name].contiguous())
                for name in self._outputs
                if name in wanted
            ]
        )


class OnnxRuntime:
    """`model.onnx`, by the names of its tensors."""

    def __init__(self, arguments: Mapping[str, str]) -> None:
        loaded = Loaded(arguments, "model.onnx")
        threads = loaded.threads("intra_op_thread_count")
        self._session = on_onnxruntime.session(loaded.file, threads, loaded.device)
        self._outputs = loaded.outputs

    def __call__(self, given: Named) -> Named:
        arrays = {name: tensor.cpu().numpy() for name, tensor in given.items()}
        try:
            answers = self._session.run(self._outputs, arrays)
        except on_onnxruntime.faults() as error:
            raise ValueError(str(error)) from error
        return {name: torch.from_numpy(answer) for name, answer in zip(self._outputs, answers, strict=True)}


class OpenVino:
    """`model.xml`, by the names of its tensors; on the CPU, in full precision unless HINT_BF16 says YES."""

    def __init__(self, arguments: Mapping[str, str]) -> None:
        import openvino

        loaded = Loaded(arguments, "model.xml")
        hint = "bf16" if loaded.parameter("HINT_BF16") == "YES" else "f32"
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": loaded.threads("INFERENCE_NUM_THREADS"),
        }
        compiled = openvino.Core().compile_model(str(loaded.file), "CPU", options)
        self._request, self._outputs = compiled.create_infer_request(), loaded.outputs

    def __call__(self, given: Named) -> Named:
        self._request.infer({name: tensor.cpu().numpy() for name, tensor in given.items()}, share_inputs=True)
        return {name: torch.from_numpy(self._request.get_tensor(name).data.copy()) for name in self._outputs}


class PyTorch:
    """`model.pt`, TorchScript: tensors by their number (INPUT__0), by the names that forward has, or in order."""

    def __init__(self, arguments: Mapping[str, str]) -> None:
        loaded = Loaded(arguments, "model.pt")
        torch.set_num_threads(loaded.threads(""))
        full_float32()
        self._module, self._device = on_torch.scripted(loaded.file, loaded.device), loaded.device
        forward: Any = self._module.forward
        takes = [argument.name for argument in forward.schema.arguments[1:]]
        self._inputs, self._outputs = _in_order(loaded.inputs, takes), loaded.outputs

    def __call__(self, given: Named) -> Named:
        with torch.no_grad():
            found = on_torch.called(self._module, *(given[name].to(self._device) for name in self._inputs))
        answers = [found] if isinstance(found, torch.Tensor) else list(found)
        ordered = _in_order(self._outputs, [])
        places = {name: _number(name, ordered.index(name)) for name in self._outputs}
        return {name: answers[place] for name, place in places.items()}


def _in_order(names: Sequence[str], takes: Sequence[str]) -> list[str]:
    """As the network takes them."""
    if all(_ORDINAL.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: _number(name, 0))
    return sorted(names, key=takes.index) if set(names) <= set(takes) else list(names)


def _number(name: str, default: int) -> int:
    found = _ORDINAL.fullmatch(name)
    return int(found[1]) if found else default


_RUNNERS: Mapping[str, Callable[[Mapping[str, str]], Callable[[Named], Named]]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "pytorch": PyTorch,
}
BACKENDS = tuple(_RUNNERS)
