"""What of NVIDIA's tensorrt the node and its stand-in use: read from the docstrings of the real bindings, 10.16.1.

The stand-in is held to it where there is no GPU (tests/unit/test_tensorrt.py), the real module where there is one.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

METHODS: dict[str, dict[str, list[str]]] = {
    "Logger": {"__init__": ["min_severity"]},
    "Builder": {
        "__init__": ["logger"],
        "create_network": ["flags"],
        "create_optimization_profile": [],
        "create_builder_config": [],
        "build_serialized_network": ["network", "config"],
    },
    "OnnxParser": {"__init__": ["network", "logger"], "parse_from_file": ["model"], "get_error": ["index"]},
    "INetworkDefinition": {"get_input": ["index"]},
    "ITensor": {},
    "IBuilderConfig": {
        "set_flag": ["flag"],
        "clear_flag": ["flag"],
        "add_optimization_profile": ["profile"],
        "set_calibration_profile": ["profile"],
    },
    "IOptimizationProfile": {"set_shape": ["input", "min", "opt", "max"]},
    "IInt8EntropyCalibrator2": {
        "get_batch_size": [],
        "get_batch": ["names"],
        "read_calibration_cache": [],
        "write_calibration_cache": ["cache"],
    },
    "Runtime": {"__init__": ["logger"], "deserialize_cuda_engine": ["serialized_engine"]},
    "ICudaEngine": {
        "get_tensor_name": ["index"],
        "get_tensor_mode": ["name"],
        "get_tensor_dtype": ["name"],
        "get_tensor_shape": ["name"],
        "get_tensor_profile_shape": ["name", "profile_index"],
        "create_execution_context": ["strategy"],
    },
    "IExecutionContext": {
        "set_input_shape": ["name", "shape"],
        "set_tensor_address": ["name", "memory"],
        "get_tensor_shape": ["name"],
        "execute_async_v3": ["stream_handle"],
    },
}
PROPERTIES = {
    "OnnxParser": ["num_errors"],
    "INetworkDefinition": ["num_inputs"],
    "ITensor": ["name", "shape"],
    "IBuilderConfig": ["int8_calibrator"],
    "ICudaEngine": ["num_io_tensors"],
}
MEMBERS = {
    "BuilderFlag": ["TF32", "FP16", "BF16", "INT8"],
    "TensorIOMode": ["INPUT", "OUTPUT"],
    "DataType": ["FLOAT", "HALF", "BF16"],
}


def parameters(kind: Any, method: str) -> list[str] | None:
    """Of a method of a real binding, by its docstring (pybind11 gives no signature); of several, the first's.

    Of the stand-in, which is Python, by its signature.
    """
    if inspect.isfunction(getattr(kind, method)):
        return list(inspect.signature(getattr(kind, method)).parameters)[1:]
    for line in (getattr(kind, method).__doc__ or "").splitlines():
        if found := re.match(rf"\s*(?:\d+\. )?{method}\(self: [\w.]+(.*)\) ->", line):
            return re.findall(r", (\w+): ", found[1])
    return None
