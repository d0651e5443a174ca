"""Networks on ONNX Runtime: its CUDA provider where there is one, else the CPU; float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.networks.batching import images_at_once
from dicomnode.adapters.triton.hosts.networks.loaded import (
    CPU,
    Answers,
    LoadedNetwork,
    Source,
    as_arrays,
    check_inputs,
    tensors_of,
)
from dicomnode.errors import InvalidModelPackage


def load(source: Source) -> LoadedNetwork:
    import onnxruntime

    if source.spec.precision != "fp32":
        raise InvalidModelPackage("onnxruntime runs fp32 only here", "model.yaml.network.precision")
    opened = session(source.file, source.threads)
    names = [given.name for given in opened.get_inputs()]
    check_inputs(source, len(names))

    def run(*inputs: torch.Tensor) -> Answers:
        given = dict(zip(names, as_arrays(inputs), strict=True))
        return tensors_of([torch.from_numpy(answer) for answer in opened.run(None, given)])

    info = {
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "precision": "f32",
        "device": opened.get_providers()[0].removesuffix("ExecutionProvider"),
    }
    is_dynamic = not isinstance(opened.get_inputs()[0].shape[0], int)
    batch = images_at_once(source, run, CPU, faults()) if source.takes.size and is_dynamic else 1
    return LoadedNetwork(run, CPU, batch, info)


def session(file: Path, threads: int) -> Any:
    """An onnxruntime.InferenceSession."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # threads that wait busily take cores from the models beside this one
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    known = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in known]
    return onnxruntime.InferenceSession(str(file), options, providers=providers)


def faults() -> tuple[type[Exception], ...]:
    """What a session raises of inputs that it does not take; they have no class in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.RuntimeException
