"""A stand-in for NVIDIA's tensorrt, release 10, as far as plans are built and run here: by ONNX Runtime, on the CPU.

It has the methods of the Python API's reference and nothing else, and is as strict: what is not set is an error.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime

__version__ = "10.13.3"


class Logger:
    WARNING = 2

    def __init__(self, level: int) -> None:
        self.level = level


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


class IInt8EntropyCalibrator2:
    def __init__(self) -> None:
        self.initialised = True


class _Tensor:
    def __init__(self, given: Any) -> None:
        self.name = given.name
        self.shape = tuple(n if isinstance(n, int) else -1 for n in given.shape)


class _Network:
    def __init__(self) -> None:
        self.file = ""
        self.inputs: list[_Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, number: int) -> _Tensor:
        return self.inputs[number]


class OnnxParser:
    def __init__(self, network: _Network, logger: Logger) -> None:
        self._network, self.num_errors = network, 0

    def parse_from_file(self, file: str) -> bool:
        if not Path(file).read_bytes():
            self.num_errors = 1
            return False
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self._network.file, self._network.inputs = file, [_Tensor(t) for t in session.get_inputs()]
        return True

    def get_error(self, number: int) -> str:
        return "In node -1: the model is empty"


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, least: Sequence[int], best: Sequence[int], most: Sequence[int]) -> None:
        self.shapes[name] = [list(least), list(best), list(most)]


class _Config:
    def __init__(self) -> None:
        self.flags, self.profiles = {BuilderFlag.TF32}, list[_Profile]()
        self.int8_calibrator: Any = None
        self.calibration: _Profile | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile: _Profile) -> bool:
        self.calibration = profile
        return True


class Builder:
    built: ClassVar[list[dict[str, Any]]] = []  # what each plan was built with

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> _Network:
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        (profile,) = config.profiles
        shown = _shown(config, network) if BuilderFlag.INT8 in config.flags else []
        self.built.append({"flags": {flag.name for flag in config.flags}, "shown": shown, "profile": profile.shapes})
        return json.dumps({"file": network.file, "shapes": profile.shapes}).encode()


def _shown(config: _Config, network: _Network) -> list[float]:
    """The first value of each window that the calibrator gives; as TensorRT asks for them."""
    calibrator, names = config.int8_calibrator, [tensor.name for tensor in network.inputs]
    assert calibrator.initialised
    assert config.calibration is not None
    assert calibrator.read_calibration_cache() is None
    first = []
    while (addresses := calibrator.get_batch(names)) is not None:
        assert len(addresses) == len(names)
        assert config.calibration.shapes[names[0]][1][0] == calibrator.get_batch_size()
        first.append(ctypes.c_float.from_address(addresses[0]).value)
    calibrator.write_calibration_cache(b"ranges")
    return first


class Runtime:
    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> _Engine | None:
        return _Engine(json.loads(content)) if content.startswith(b"{") else None


class _Engine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.session = onnxruntime.InferenceSession(plan["file"], providers=["CPUExecutionProvider"])
        self.shapes = plan["shapes"]
        self._inputs = [t.name for t in self.session.get_inputs()]
        self._names = [*self._inputs, *(t.name for t in self.session.get_outputs())]

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, number: int) -> str:
        return self._names[number]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        assert profile == 0
        return list(self.shapes[name])

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._set: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.shapes[name]
        fits = all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        if fits:
            self._set[name] = shape
        return fits

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._run()[name].shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        answers = self._run()
        if set(self._addresses) != set(self._engine._names):
            return False
        for name, answer in answers.items():
            ctypes.memmove(self._addresses[name], answer.ctypes.data, answer.nbytes)
        return True

    def _run(self) -> dict[str, Any]:
        given = {name: self._read(name, shape) for name, shape in self._set.items()}
        names = [t.name for t in self._engine.session.get_outputs()]
        return dict(zip(names, self._engine.session.run(names, given), strict=True))

    def _read(self, name: str, shape: tuple[int, ...]) -> Any:
        count = int(np.prod(shape))
        memory = (ctypes.c_float * count).from_address(self._addresses[name]) if name in self._addresses else None
        return np.zeros(shape, np.float32) if memory is None else np.frombuffer(memory, np.float32).reshape(shape)
