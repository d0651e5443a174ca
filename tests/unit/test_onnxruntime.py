"""ONNX Runtime on a GPU: what it is told, and that windows and answers stay where they are. No GPU here."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from dicomnode.adapters.triton.hosts.networks import load_network, on_onnxruntime, on_openvino
from dicomnode.adapters.triton.hosts.networks.loaded import CPU, CUDA
from dicomnode.domain.model_card import NetworkSpec

WINDOW = (8, 8, 8)


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([0.5 - x, x - 0.5], 1), (4 * x).to(torch.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("package")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            Two(),
            (torch.zeros(1, 1, *WINDOW),),
            str(made / "model.onnx"),
            input_names=["image"],
            output_names=["scores", "whole"],
            dynamic_axes={name: {0: "n"} for name in ("image", "scores", "whole")},
            opset_version=17,
            dynamo=False,
        )
    return made


def spec(engine: str = "onnxruntime") -> NetworkSpec:
    return NetworkSpec("model.onnx", engine, "fp32", WINDOW, 0.25, "constant")


def test_bound_tensors_go_in_and_answers_come_out_without_arrays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a GPU, in the CPU's memory: by addresses, and by DLPack."""
    bound = on_onnxruntime.Bound(on_onnxruntime.session(folder / "model.onnx", 1), CPU)
    monkeypatch.setattr(torch.Tensor, "numpy", None)
    monkeypatch.setattr(torch.Tensor, "cpu", None)
    given = torch.rand((3, 2, *WINDOW), generator=torch.Generator().manual_seed(0))[:, 1:]  # not contiguous
    kept = []
    for windows in (given, given[:1], 1 - given):
        kept.append((windows, bound(windows)))
        gc.collect()
    for windows, (scores, whole) in kept:  # one call's answers are not another's memory
        expected, numbers = Two()(windows)
        assert torch.equal(scores, expected)
        assert torch.equal(whole, numbers.float())


class Gpus:
    """Of onnxruntime-gpu: what sessions are asked for, which run on the CPU all the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, loads: bool = True) -> None:
        self.asked: list[list[Any]] = []
        real = onnxruntime.InferenceSession

        def session(file: str, options: Any, providers: list[Any]) -> Any:
            self.asked.append(providers)
            made = real(file, options, providers=["CPUExecutionProvider"])
            if loads and len(providers) == 2:
                made.get_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
            return made

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        known = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Test")


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_where_there_is_one_it_runs_on_the_gpu_in_full(
    folder: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = Gpus(monkeypatch)
    network = load_network(folder, spec(engine), folder / "cache", 1)
    assert gpus.asked == [[("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"}), "CPUExecutionProvider"]]
    assert (network.device, network.batch, network.info["device"]) == (CUDA, 4, "NVIDIA Test")
    assert isinstance(network.run, on_onnxruntime.Bound)


def test_libraries_that_do_not_load_leave_it_on_the_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(monkeypatch, loads=False)
    network = load_network(folder, spec(), folder / "cache", 1)
    assert (network.device, network.batch, network.info["device"]) == (CPU, 1, "CPU")
    assert network(torch.ones(1, 1, *WINDOW)).shape == (1, 2, *WINDOW)


def test_what_others_are_compared_with_and_what_is_only_read_stays_off_the_gpu(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = Gpus(monkeypatch)
    on_onnxruntime.session(folder / "model.onnx", 1)
    network = load_network(folder, spec("openvino"), tmp_path, 1)
    assert network.info["engine"].startswith("OpenVINO")
    assert gpus.asked == [["CPUExecutionProvider"]] * 2
    assert on_openvino.CPU is network.device
