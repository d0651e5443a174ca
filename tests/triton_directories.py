"""Model directories of Triton's own, made on the spot: programs, and an ensemble of them."""

from __future__ import annotations

from pathlib import Path

_PROGRAM = """
import triton_python_backend_utils as pb_utils
import numpy as np


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", EXPRESSION)]))
        return answers
"""


def _program(folder: Path, name: str, expression: str, channels: int) -> None:
    """A model of Triton's Python backend with a batch axis: x (1, 32, 48, 64) → y (channels, 32, 48, 64)."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(_PROGRAM.replace("EXPRESSION", expression))
    (folder / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 3\n'
        'input [{ name: "x", data_type: TYPE_FP32, dims: [1, 32, 48, 64] }]\n'
        f'output [{{ name: "y", data_type: TYPE_FP32, dims: [{channels}, 32, 48, 64] }}]\n'
    )


def python_model(folder: Path) -> Path:
    """Thresholds of a window, as a program."""
    _program(folder, "thresholds", "np.concatenate([0.5 - x, x - 0.5], 1)", 2)
    return folder


def two_steps(folder: Path) -> Path:
    """The same as an ensemble: one model moves the values, the other compares them with zero."""
    _program(folder / "moved", "moved", "x - np.float32(0.5)", 1)
    _program(folder / "split", "split", "np.concatenate([-x, x], 1)", 2)
    (folder / "both").mkdir()
    (folder / "both" / "config.pbtxt").write_text(
        'name: "both"\nplatform: "ensemble"\nmax_batch_size: 3\n'
        'input [{ name: "image", data_type: TYPE_FP32, dims: [1, 32, 48, 64] }]\n'
        'output [{ name: "scores", data_type: TYPE_FP32, dims: [2, 32, 48, 64] }]\n'
        "ensemble_scheduling { step ["
        '{ model_name: "moved" model_version: -1 input_map { key: "x" value: "image" }'
        ' output_map { key: "y" value: "between" } },'
        '{ model_name: "split" model_version: -1 input_map { key: "x" value: "between" }'
        ' output_map { key: "y" value: "scores" } }] }\n'
    )
    return folder
