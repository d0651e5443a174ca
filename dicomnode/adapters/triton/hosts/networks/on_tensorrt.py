"""Networks as TensorRT plans on an NVIDIA GPU: built once from the ONNX on the very machine, then kept.

A plan fits one GPU and one release of TensorRT: both are in its name. Tensors stay on the GPU. The interface is that
of TensorRT 10 (https://docs.nvidia.com/deeplearning/tensorrt, Python API: Builder, OnnxParser, IExecutionContext,
IInt8EntropyCalibrator2). Release 11 has taken the flags for lower precision and the calibrators away
(its guide "Migrating from TensorRT 10.x to 11.x"): there only fp32 is built here.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.networks import on_onnxruntime
from dicomnode.adapters.triton.hosts.networks.loaded import (
    AGREEMENT_LEAST,
    CUDA,
    Answers,
    ConversionFailed,
    LoadedNetwork,
    Source,
    Tensors,
    agreement,
    check_inputs,
    random_inputs,
    tensors_of,
)

# The package "tensorrt" is that for CUDA 13, whatever driver there is.
_OF_CUDA = "tensorrt-cu{}>=10,<11"
_WINDOWS_MOST = 4
_CALIBRATED_MOST, _COMPARED = 64, 4
_INT8_AGREEMENT_LEAST = 0.98  # as on_openvino: whether it is good enough, the golden cases say
_BUILT = 2  # counts up when plans are built in another way
_FLAGS = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8", "FP16")}


def load(source: Source) -> LoadedNetwork:
    """Raises ConversionFailed: no GPU, no TensorRT, or a network that it does not take."""
    if not torch.cuda.is_available():
        raise ConversionFailed("TensorRT needs an NVIDIA GPU, and torch sees none here")
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # OSError: of a library that it needs
        raise ConversionFailed(f"TensorRT is not installed, or not whole ({error}): {how_to_install()}") from error
    torch.cuda.empty_cache()  # TensorRT takes memory for itself, and what torch keeps in hand is not there for it
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    plan = source.cache / "tensorrt" / f"{_key(source, tensorrt.__version__)}.plan"
    if not plan.is_file():
        built = _build(tensorrt, logger, source)
        _compare(_opened(tensorrt, logger, built, plan.name), source)
        _keep(plan, built)
    run = _opened(tensorrt, logger, plan.read_bytes(), plan.name)
    info = {
        "engine": f"TensorRT {tensorrt.__version__}",
        "precision": {"fp32": "f32"}.get(source.spec.precision, source.spec.precision),
        "device": torch.cuda.get_device_name(),
    }
    return LoadedNetwork(run, CUDA, run.windows_most, info)


def how_to_install() -> str:
    """Of the CUDA that torch is built for: the driver carries that one."""
    major = (torch.version.cuda or "13").partition(".")[0]
    return f"pip install '{_OF_CUDA.format(major)}'"


def _opened(tensorrt: Any, logger: Any, content: bytes, name: str) -> Plan:
    runtime = _started(tensorrt, tensorrt.Runtime, logger)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise ConversionFailed(f"TensorRT does not load {name}; remove it and try again")
    return Plan(tensorrt, runtime, engine)


def _started(tensorrt: Any, kind: Callable[[Any], Any], logger: Any) -> Any:
    """A Builder or a Runtime: without CUDA its library gives none, which its Python calls a TypeError."""
    try:
        return kind(logger)
    except TypeError as error:
        raise ConversionFailed(
            f"TensorRT {tensorrt.__version__} does not start: it is for another CUDA than the driver's, or the GPU "
            f"has no memory left: {how_to_install()}"
        ) from error


class Plan:
    """An engine and its context, called with tensors on the GPU; one thread calls it at a time."""

    def __init__(self, tensorrt: Any, runtime: Any, engine: Any) -> None:
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        takes = tensorrt.TensorIOMode.INPUT
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == takes]
        self._outputs = [name for name in names if engine.get_tensor_mode(name) != takes]
        self._types = {name: _torch_type(tensorrt, engine.get_tensor_dtype(name), name) for name in names}
        self.windows_most = _windows_most(engine, self._inputs[0])
        self._runtime, self._engine = runtime, engine  # which the context needs for as long as it lives
        self._context = engine.create_execution_context()
        if self._context is None:
            raise ConversionFailed("TensorRT made no context for the plan: the GPU has no memory left for it")
        # on the default stream TensorRT waits for the whole GPU after each call
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, *inputs: torch.Tensor) -> Answers:
        """(n, channels, window) float32 → all outputs as float32, as (n, classes, window); both on the GPU."""
        held = [tensor.to(self._types[name]).contiguous() for name, tensor in zip(self._inputs, inputs, strict=True)]
        for name, tensor in zip(self._inputs, held, strict=True):
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                raise ValueError(f"the plan does not take {tuple(tensor.shape)} as {name}")
            self._context.set_tensor_address(name, tensor.data_ptr())
        answers = [self._answer(name, held[0].device) for name in self._outputs]
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT did not run the network; its log says why")
        current.wait_stream(self._stream)
        return tensors_of(answers)

    def _answer(self, name: str, device: torch.device) -> torch.Tensor:
        """Every output needs memory, also those that nobody reads."""
        shape = tuple(self._context.get_tensor_shape(name))
        if -1 in shape:
            raise ValueError(f"the size of {name} hangs on what the images show; that is not run here")
        answer = torch.empty(shape, dtype=self._types[name], device=device)
        self._context.set_tensor_address(name, answer.data_ptr())
        return answer


def _windows_most(engine: Any, name: str) -> int:
    """What the file fixed, else the most of the profile that the plan was built with."""
    if (fixed := int(engine.get_tensor_shape(name)[0])) != -1:
        return fixed
    _, _, most = engine.get_tensor_profile_shape(name, 0)
    return int(most[0])


def _torch_type(tensorrt: Any, found: Any, name: str) -> torch.dtype:
    known = {
        tensorrt.DataType.FLOAT: torch.float32,
        tensorrt.DataType.HALF: torch.float16,
        tensorrt.DataType.BF16: torch.bfloat16,
    }
    if found not in known:
        raise ConversionFailed(f"{name} holds {found}; float numbers are needed")
    return known[found]


# ------------------------------------------------------------------------------------------------- building


def _build(tensorrt: Any, logger: Any, source: Source) -> bytes:
    """A plan for one to four windows at once, or for as many as the ONNX fixes."""
    precision = source.spec.precision
    if missing := [flag for flag in _FLAGS[precision] if not hasattr(tensorrt.BuilderFlag, flag)]:
        raise ConversionFailed(
            f"TensorRT {tensorrt.__version__} builds no {precision} by {missing[0]}: {how_to_install()}"
        )
    builder = _started(tensorrt, tensorrt.Builder, logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source.file)):
        errors = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ConversionFailed(f"TensorRT does not take {source.file.name}: {errors}")
    check_inputs(source, network.num_inputs)
    config = builder.create_builder_config()
    calibrator = _configure(tensorrt, builder, network, config, source)
    built = builder.build_serialized_network(network, config)
    del calibrator  # until here TensorRT asks it
    if built is None:
        raise ConversionFailed(f"TensorRT could not build {source.file.name}; its log says why")
    return bytes(built)


def _configure(tensorrt: Any, builder: Any, network: Any, config: Any, source: Source) -> Any:
    """Precision and shapes; what gives the images for int8, which has to live while the plan is built."""
    # TensorRT rounds fp32 to TF32 unless it is told not to
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    for flag in _FLAGS[source.spec.precision]:
        config.set_flag(getattr(tensorrt.BuilderFlag, flag))
    if config.add_optimization_profile(_profile(builder, network, source, _WINDOWS_MOST)) < 0:
        raise ConversionFailed(f"{source.file.name} does not take windows of {list(source.spec.window)}")
    if source.spec.precision != "int8":
        return None
    names = [network.get_input(number).name for number in range(network.num_inputs)]
    calibrator = _calibrator(tensorrt, source, names)
    with warnings.catch_warnings():
        # deprecated since 10.1 in favour of networks that are quantised before; it works in all of release 10
        warnings.simplefilter("ignore", DeprecationWarning)
        config.int8_calibrator = calibrator
        if not config.set_calibration_profile(_profile(builder, network, source, 1)):
            raise ConversionFailed(f"TensorRT is not calibrated with windows of {list(source.spec.window)}")
    return calibrator


def _profile(builder: Any, network: Any, source: Source, windows: int) -> Any:
    """For one to so many windows; what the file fixes is fixed."""
    profile = builder.create_optimization_profile()
    one, most = source.takes.shapes(source.spec), source.takes.shapes(source.spec, windows)
    for number, (least, greatest) in enumerate(zip(one, most, strict=True)):
        given = network.get_input(number)
        if len(given.shape) != len(least):
            raise ConversionFailed(f"{given.name} of the file is {tuple(given.shape)}, the card means {least}")
        smallest, largest = (
            [wanted if fixed == -1 else int(fixed) for wanted, fixed in zip(shape, given.shape, strict=True)]
            for shape in (least, greatest)
        )
        if largest[0] != greatest[0] and number == 0 and largest[0] != 1:
            raise ConversionFailed(f"{source.file.name} takes {largest[0]} windows at once, and no other number")
        profile.set_shape(given.name, smallest, largest, largest)
    return profile


def _calibrator(tensorrt: Any, source: Source, inputs: Sequence[str]) -> Any:
    """Shows TensorRT windows of the golden cases one by one, so that it finds the ranges of its tensors.

    `inputs`: names, in the order in which windows hold their values.
    """
    windows = list(source.calibration())[:_CALIBRATED_MOST] if source.calibration else []
    if not windows:
        raise ConversionFailed("int8 needs golden cases in the package to be calibrated with")

    class Calibrator(tensorrt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IInt8EntropyCalibrator2.__init__(self)  # not super(): as pybind11 asks for it
            self._left: Iterator[Tensors] = iter(windows)
            self._held: list[torch.Tensor] = []

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            """Addresses on the GPU, in the order of the names; None when there are no more."""
            shown = next(self._left, None)
            if shown is None:
                return None
            given = dict(zip(inputs, shown, strict=True))
            self._held = [torch.from_numpy(given[name]).contiguous().to(CUDA) for name in names]
            torch.cuda.synchronize()  # TensorRT reads them on a stream of its own
            return [tensor.data_ptr() for tensor in self._held]

        def read_calibration_cache(self) -> None:
            """None is kept: the plan is."""

        def write_calibration_cache(self, cache: object) -> None:
            pass

    return Calibrator()


def _compare(run: Callable[..., Answers], source: Source) -> None:
    """With the original on the CPU; int8 on what it was calibrated with, on noise it means nothing."""
    int8 = source.spec.precision == "int8"
    original = on_onnxruntime.load_on_cpu(replace(source, spec=replace(source.spec, precision="fp32")))
    worst = min(
        agreement(
            tuple(answer.cpu() for answer in run(*(tensor.to(CUDA) for tensor in inputs))),
            original.answers(*inputs),
            source.takes.gives,
        )
        for inputs in _shown(source, int8)
    )
    if not worst >= (_INT8_AGREEMENT_LEAST if int8 else AGREEMENT_LEAST):  # a NaN is no agreement either
        raise ConversionFailed(f"only {worst:.4f} of its answers are those of the original network")


def _shown(source: Source, int8: bool) -> list[list[torch.Tensor]]:
    if not int8 or source.calibration is None:
        return [random_inputs(source)]
    return [list(map(torch.from_numpy, window)) for window in source.calibration()][:_COMPARED]


def _key(source: Source, version: str) -> str:
    with source.file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    shapes, gpu = source.takes.shapes(source.spec), torch.cuda.get_device_name()
    of = f"{shapes} {version} {gpu} {torch.cuda.get_device_capability()} {source.spec.precision} {_BUILT}"
    digest.update(of.encode())
    if source.spec.precision == "int8":
        digest.update(source.calibrated_with())
    return digest.hexdigest()[:32]


def _keep(plan: Path, content: bytes) -> None:
    plan.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=plan.parent, prefix=".new-")
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    Path(scratch).replace(plan)
