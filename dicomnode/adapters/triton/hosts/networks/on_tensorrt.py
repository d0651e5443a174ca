"""Networks as TensorRT plans on an NVIDIA GPU: built once from the ONNX on the very machine, then kept.

A plan fits one GPU and one release of TensorRT: both are in its name. Tensors stay on the GPU. The interface is that
of TensorRT 10 (https://docs.nvidia.com/deeplearning/tensorrt, Python API: Builder, OnnxParser, IExecutionContext).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.networks.loaded import (
    CUDA,
    ConversionFailed,
    LoadedNetwork,
    Source,
    check_inputs,
)

_WINDOWS_MOST = 4


def load(source: Source) -> LoadedNetwork:
    """Raises ConversionFailed: no GPU, no TensorRT, or a network that it does not take."""
    if not torch.cuda.is_available():
        raise ConversionFailed("TensorRT needs an NVIDIA GPU, and torch sees none here")
    try:
        import tensorrt
    except ImportError as error:
        raise ConversionFailed("TensorRT is not installed: pip install tensorrt") from error
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    plan = source.cache / "tensorrt" / f"{_key(source, tensorrt.__version__)}.plan"
    if not plan.is_file():
        _keep(plan, _build(tensorrt, logger, source))
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise ConversionFailed(f"TensorRT does not load {plan.name}; remove it and try again")
    info = {
        "engine": f"TensorRT {tensorrt.__version__}",
        "precision": {"fp32": "f32"}.get(source.spec.precision, source.spec.precision),
        "device": torch.cuda.get_device_name(),
    }
    return LoadedNetwork(Plan(tensorrt, engine), CUDA, _WINDOWS_MOST, info)


class Plan:
    """An engine and its context, called with tensors on the GPU."""

    def __init__(self, tensorrt: Any, engine: Any) -> None:
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        takes = tensorrt.TensorIOMode.INPUT
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == takes]
        self._output, *more = [name for name in names if engine.get_tensor_mode(name) != takes]
        if more:
            raise ConversionFailed("TensorRT runs networks of one output here; this one has several")
        self._engine, self._context = engine, engine.create_execution_context()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """(n, channels, window) float32 → (n, classes, window) float32, both on the GPU."""
        held = [tensor.contiguous() for tensor in inputs]
        for name, tensor in zip(self._inputs, held, strict=True):
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        scores = torch.empty(tuple(self._context.get_tensor_shape(self._output)), device=held[0].device)
        self._context.set_tensor_address(self._output, scores.data_ptr())
        stream = torch.cuda.current_stream()
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT did not run the network; its log says why")
        return scores


def _build(tensorrt: Any, logger: Any, source: Source) -> bytes:
    """A plan for one to four windows at once."""
    precision = source.spec.precision
    if precision not in ("fp32", "fp16", "bf16"):
        raise ConversionFailed(f"TensorRT plans are built in fp32, fp16 and bf16 here, not in {precision}")
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source.file)):
        errors = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ConversionFailed(f"TensorRT does not take {source.file.name}: {errors}")
    check_inputs(source, network.num_inputs)
    config = builder.create_builder_config()
    if precision != "fp32":
        config.set_flag(getattr(tensorrt.BuilderFlag, precision.upper()))
    config.add_optimization_profile(_profile(builder, network, source))
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise ConversionFailed(f"TensorRT could not build {source.file.name}; its log says why")
    return bytes(built)


def _profile(builder: Any, network: Any, source: Source) -> Any:
    profile = builder.create_optimization_profile()
    one, most = source.takes.shapes(source.spec), source.takes.shapes(source.spec, _WINDOWS_MOST)
    for number, (least, greatest) in enumerate(zip(one, most, strict=True)):
        given = network.get_input(number)
        if -1 not in tuple(given.shape):
            least = greatest = list(given.shape)
        profile.set_shape(given.name, least, greatest, greatest)
    return profile


def _key(source: Source, version: str) -> str:
    with source.file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    shapes, gpu = source.takes.shapes(source.spec), torch.cuda.get_device_name()
    digest.update(f"{shapes} {version} {gpu} {torch.cuda.get_device_capability()} {source.spec.precision}".encode())
    return digest.hexdigest()[:32]


def _keep(plan: Path, content: bytes) -> None:
    plan.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=plan.parent, prefix=".new-")
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    Path(scratch).replace(plan)
