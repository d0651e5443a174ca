"""Networks on ONNX Runtime: its CUDA provider where there is one, else the CPU; float32."""

from __future__ import annotations

import torch

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
    return LoadedNetwork(run, CPU, 1, info)
