"""Networks on ONNX Runtime: its CUDA provider where there is one, else the CPU; float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.adapters.triton.hosts.networks.loaded import CPU, LoadedNetwork, Source, as_arrays, check_inputs
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

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, as_arrays(inputs), strict=True))
        answer: npt.NDArray[np.float32] = session.run(None, given)[0]
        return torch.from_numpy(answer)

    info = {
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "precision": "f32",
        "device": session.get_providers()[0].removesuffix("ExecutionProvider"),
    }
    return LoadedNetwork(run, CPU, 1, info)
