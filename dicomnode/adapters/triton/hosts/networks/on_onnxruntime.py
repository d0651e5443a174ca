"""Networks on ONNX Runtime: its CUDA provider where there is one, else the CPU; float32."""

from __future__ import annotations

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
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = source.threads
    # threads that wait busily take cores from the models beside this one
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    known = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in known]
    session = onnxruntime.InferenceSession(str(source.file), options, providers=providers)
    names = [given.name for given in session.get_inputs()]
    check_inputs(source, len(names))

    def run(*inputs: torch.Tensor) -> Answers:
        given = dict(zip(names, as_arrays(inputs), strict=True))
        return tensors_of([torch.from_numpy(answer) for answer in session.run(None, given)])

    info = {
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "precision": "f32",
        "device": session.get_providers()[0].removesuffix("ExecutionProvider"),
    }
    is_dynamic = not isinstance(session.get_inputs()[0].shape[0], int)
    batch = images_at_once(source, run, CPU, _faults()) if source.takes.size and is_dynamic else 1
    return LoadedNetwork(run, CPU, batch, info)


def _faults() -> tuple[type[Exception], ...]:
    """What a session raises of inputs that it does not take; they have no class in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.RuntimeException
