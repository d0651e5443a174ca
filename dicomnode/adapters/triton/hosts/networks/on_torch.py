"""Networks on torch: TorchScript, and programs of torch.export. On the GPU where torch sees one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from dicomnode.adapters.triton.hosts.networks.batching import images_at_once
from dicomnode.adapters.triton.hosts.networks.loaded import (
    CPU,
    CUDA,
    Answers,
    LoadedNetwork,
    Source,
    tensors_of,
)
from dicomnode.errors import InvalidModelPackage

_LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_scripted(source: Source) -> LoadedNetwork:
    return _on(source, scripted, "TorchScript")


def load_exported(source: Source) -> LoadedNetwork:
    return _on(source, exported, "torch.export")


def scripted(file: Path, device: torch.device = CPU) -> torch.jit.ScriptModule:
    """Frozen, for inference."""
    with warnings.catch_warnings():
        # TorchScript is deprecated as a thing to write; what was trained in it has to run
        warnings.simplefilter("ignore", DeprecationWarning)
        module: torch.jit.ScriptModule = torch.jit.load(file, map_location=device)  # type: ignore[no-untyped-call]
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module.eval())
        return frozen


def exported(file: Path, device: torch.device = CPU) -> torch.nn.Module:
    with own_warnings_ignored():
        program = torch.export.load(file)
        if device.type != "cpu":  # tensors that the program itself makes, too
            program = move_to_device_pass(program, device)
        module: torch.nn.Module = program.module()
        return module.to(device)


def called(module: Any, *inputs: torch.Tensor) -> Any:
    """What a script raises by itself is no RuntimeError to torch, as what fails in it is."""
    try:
        return module(*inputs)
    except torch.jit.Error as error:
        raise RuntimeError(str(error)) from error


@contextmanager
def own_warnings_ignored() -> Iterator[None]:
    """Of torch.export, about its own parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _on(source: Source, load: Callable[[Path, torch.device], Any], name: str) -> LoadedNetwork:
    device = CUDA if torch.cuda.is_available() else CPU
    precision = source.spec.precision
    if precision == "int8" or (precision == "fp16" and device is CPU):
        raise InvalidModelPackage(f"torch does not run {precision} here", "model.yaml.network.precision")
    module, lower = load(source.file, device), _LOWER.get(precision)

    def run(*inputs: torch.Tensor) -> Answers:
        with torch.no_grad(), torch.autocast(device.type, lower, enabled=lower is not None):
            return tensors_of(called(module, *inputs))

    info = {
        "engine": f"{name} {torch.__version__}",
        "precision": precision if lower else "f32",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
    }
    if source.takes.size:
        return LoadedNetwork(run, device, images_at_once(source, run, device), info)
    return LoadedNetwork(run, device, 4 if device.type == "cuda" else 1, info)
