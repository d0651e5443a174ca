"""A stand-in for NVIDIA's tensorrt, release 10, as far as plans are built and run here: by ONNX Runtime, on the CPU.

It has the classes, methods and parameters of tensorrt_api and nothing else, and is as strict: what is not set is an
error, shapes are looked at as set_shape's documentation says, what is deprecated warns.
"""

from __future__ import annotations

import ctypes
import enum
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime

__version__ = "10.16.1.11"
ran_on: list[int] = []  # the stream of each call


class Logger:
    WARNING = 2

    def __init__(self, min_severity: int = WARNING) -> None:
        self.level = min_severity


class BuilderFlag(enum.Enum):
    TF32 = 0
    FP16 = 1
    BF16 = 2
    INT8 = 3


class TensorIOMode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    BF16 = 2


def _deprecated() -> None:
    warnings.warn(
        "Deprecated in TensorRT 10.1. Superseded by explicit quantization.", DeprecationWarning, stacklevel=3
    )


class IInt8EntropyCalibrator2:
    def __init__(self) -> None:
        self.initialised = True

    def get_batch_size(self) -> int:
        raise NotImplementedError

    def get_batch(self, names: Sequence[str]) -> list[int] | None:
        raise NotImplementedError

    def read_calibration_cache(self) -> bytes | None:
        raise NotImplementedError

    def write_calibration_cache(self, cache: bytes) -> None:
        raise NotImplementedError


class ITensor:
    def __init__(self, given: Any) -> None:
        self._given = given

    @property
    def name(self) -> str:
        return str(self._given.name)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(n if isinstance(n, int) else -1 for n in self._given.shape)


class INetworkDefinition:
    def __init__(self) -> None:
        self._file = ""
        self._inputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: Logger) -> None:
        assert isinstance(logger, Logger)
        self._network, self._errors = network, 0

    @property
    def num_errors(self) -> int:
        return self._errors

    def parse_from_file(self, model: str) -> bool:
        assert isinstance(model, str)  # the bindings take no Path
        if not Path(model).read_bytes():
            self._errors = 1
            return False
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._network._file, self._network._inputs = model, [ITensor(t) for t in session.get_inputs()]
        return True

    def get_error(self, index: int) -> str:
        return "In node -1: the model is empty"


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        if not len(min) == len(opt) == len(max) or any(
            not 0 <= a <= b <= c for a, b, c in zip(min, opt, max, strict=True)
        ):
            raise ValueError("Shape provided is inconsistent with other shapes.")
        self._shapes[input] = [list(min), list(opt), list(max)]

    def fits(self, network: INetworkDefinition) -> bool:
        """What a file fixes cannot be another number; what it leaves open has to be set."""
        return all(
            -1 not in tensor.shape
            if tensor.name not in self._shapes
            else all(
                len(shape) == len(tensor.shape)
                and all(fixed in (-1, n) for fixed, n in zip(tensor.shape, shape, strict=True))
                for shape in self._shapes[tensor.name]
            )
            for tensor in network._inputs
        )


class IBuilderConfig:
    def __init__(self) -> None:
        self._flags, self._profiles = {BuilderFlag.TF32}, list[IOptimizationProfile]()
        self._calibrator: Any = None
        self._calibration: IOptimizationProfile | None = None

    @property
    def int8_calibrator(self) -> Any:
        return self._calibrator

    @int8_calibrator.setter
    def int8_calibrator(self, given: Any) -> None:
        _deprecated()
        self._calibrator = given

    def set_flag(self, flag: BuilderFlag) -> None:
        assert isinstance(flag, BuilderFlag)
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        assert isinstance(flag, BuilderFlag)
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
        _deprecated()
        self._calibration = profile
        return True


class Builder:
    _built: ClassVar[list[dict[str, Any]]] = []  # what each plan was built with

    def __init__(self, logger: Logger) -> None:
        assert isinstance(logger, Logger)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        (profile,) = config._profiles
        if not profile.fits(network):
            return None
        shown = _shown(config, network) if BuilderFlag.INT8 in config._flags else []
        self._built.append(
            {"flags": {flag.name for flag in config._flags}, "shown": shown, "profile": profile._shapes}
        )
        return json.dumps({"file": network._file, "shapes": profile._shapes}).encode()


def _shown(config: IBuilderConfig, network: INetworkDefinition) -> list[dict[str, float]]:
    """The first value of each input that the calibrator gives; asked for in another order than the network's."""
    calibrator, names = config._calibrator, sorted((t.name for t in network._inputs), reverse=True)
    assert calibrator.initialised
    assert config._calibration is not None
    assert config._calibration.fits(network)
    assert calibrator.read_calibration_cache() is None
    first = []
    while (addresses := calibrator.get_batch(names)) is not None:
        assert len(addresses) == len(names)
        image = network._inputs[0].name
        assert config._calibration._shapes[image][1][0] == calibrator.get_batch_size()
        first.append(
            {name: ctypes.c_float.from_address(address).value for name, address in zip(names, addresses, strict=True)}
        )
    calibrator.write_calibration_cache(b"ranges")
    return first


class Runtime:
    def __init__(self, logger: Logger) -> None:
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        return ICudaEngine(json.loads(serialized_engine)) if serialized_engine.startswith(b"{") else None


class ICudaEngine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._session = onnxruntime.InferenceSession(plan["file"], providers=["CPUExecutionProvider"])
        self._profile = plan["shapes"]
        self._tensors = {t.name: ITensor(t) for t in (*self._session.get_inputs(), *self._session.get_outputs())}
        self._inputs = [t.name for t in self._session.get_inputs()]
        self._names = list(self._tensors)

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        assert profile_index == 0
        assert -1 in self.get_tensor_shape(name)
        return list(self._profile[name])

    def create_execution_context(self, strategy: int = 0) -> IExecutionContext | None:
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._set: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine._profile[name]
        fits = all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        if fits:
            self._set[name] = shape
        return fits

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._run()[name].shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        answers = self._run()
        if set(self._addresses) != set(self._engine._names):
            return False
        ran_on.append(stream_handle)
        for name, answer in answers.items():
            ctypes.memmove(self._addresses[name], answer.ctypes.data, answer.nbytes)
        return True

    def _run(self) -> dict[str, Any]:
        given = {name: self._read(name, shape) for name, shape in self._set.items()}
        names = [t.name for t in self._engine._session.get_outputs()]
        return dict(zip(names, self._engine._session.run(names, given), strict=True))

    def _read(self, name: str, shape: tuple[int, ...]) -> Any:
        count = int(np.prod(shape))
        memory = (ctypes.c_float * count).from_address(self._addresses[name]) if name in self._addresses else None
        return np.zeros(shape, np.float32) if memory is None else np.frombuffer(memory, np.float32).reshape(shape)
