"""Networks of torch as OpenVINO has them, and what it answers."""

from __future__ import annotations

import warnings
from typing import Any

import torch


def converted(module: torch.nn.Module, shape: tuple[int, ...]) -> Any:
    """An openvino.Model with that one input."""
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.trace, by which OpenVINO reads networks
        return openvino.convert_model(module.eval(), example_input=torch.zeros(shape), input=[list(shape)])


def answer(model: Any, values: torch.Tensor) -> Any:
    """In single precision."""
    import openvino

    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([values.numpy()])[0]


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]
