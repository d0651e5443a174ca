"""TensorRT plans: built and called as its Python API says. No GPU: a stand-in runs them in host memory."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dicomnode.adapters.triton.hosts.networks import NetworkInputs, load_network, on_tensorrt
from dicomnode.adapters.triton.hosts.networks.loaded import CPU, ConversionFailed, LoadedNetwork, Tensors
from dicomnode.domain.model_card import NetworkSpec
from tests.adapters import fake_tensorrt

WINDOW = (8, 8, 8)


class Two(torch.nn.Module):
    """Scores, and something that nobody reads."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([0.5 - x, x - 0.5], 1), 2 * x


def spec(precision: str = "fp32") -> NetworkSpec:
    return NetworkSpec("model.onnx", "tensorrt", precision, WINDOW, 0.25, "constant")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As far as it is asked for, on the CPU."""
    stream = SimpleNamespace(cuda_stream=7, wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Test")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(on_tensorrt, "CUDA", CPU)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(fake_tensorrt.Builder, "built", [])
    return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export(tmp_path / "model.onnx", {0: "n"})
    return tmp_path


def export(file: Path, batch: dict[int, str] | None, windows: int = 1) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Two(),
            (torch.zeros(windows, 1, *WINDOW),),
            str(file),
            input_names=["image"],
            output_names=["scores", "twice"],
            dynamic_axes={"image": batch, "scores": batch, "twice": batch} if batch else None,
            opset_version=17,
            dynamo=False,
        )


def loaded(folder: Path, precision: str = "fp32", shown: list[Tensors] | None = None) -> LoadedNetwork:
    calibration = None if shown is None else lambda: shown
    return load_network(folder, spec(precision), folder / "cache", 1, NetworkInputs(), calibration)


@pytest.mark.usefixtures("gpu")
def test_a_plan_takes_one_to_four_windows_and_is_kept(folder: Path) -> None:
    network, windows = loaded(folder), torch.rand(4, 1, *WINDOW)
    assert (network.batch, network.info["engine"], network.info["precision"]) == (4, "TensorRT 10.13.3", "f32")
    for count in (4, 1, 3):
        assert torch.equal(network(windows[:count]), Two()(windows[:count])[0])
    with pytest.raises(ValueError, match=r"does not take \(5, 1, 8, 8, 8\) as image"):
        network(torch.rand(5, 1, *WINDOW))
    loaded(folder)
    assert len(fake_tensorrt.Builder.built) == 1


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("precision", "flags"), [("fp32", set()), ("fp16", {"FP16"}), ("bf16", {"BF16"}), ("int8", {"INT8", "FP16"})]
)
def test_each_precision_has_its_flags_and_none_is_tf32(folder: Path, precision: str, flags: set[str]) -> None:
    loaded(folder, precision, [[np.full((1, 1, *WINDOW), value, np.float32)] for value in (0.25, 0.75)])
    (built,) = fake_tensorrt.Builder.built
    assert built["flags"] == flags
    assert built["shown"] == ([0.25, 0.75] if precision == "int8" else [])


@pytest.mark.usefixtures("gpu")
def test_int8_is_built_anew_for_another_card_or_other_golden_cases(folder: Path) -> None:
    """The network's file may be the same, and what it is given is not."""
    shown: list[Tensors] = [[np.full((1, 1, *WINDOW), 0.5, np.float32)]]
    built = []
    for content in ("intensity: 1", "intensity: 1", "intensity: 2"):
        (folder / "model.yaml").write_text(content)
        loaded(folder, "int8", shown)
        built.append(len(fake_tensorrt.Builder.built))
    (folder / "golden" / "case").mkdir(parents=True)
    (folder / "golden" / "case" / "input.npz").write_bytes(b"other")
    loaded(folder, "int8", shown)
    assert [*built, len(fake_tensorrt.Builder.built)] == [1, 1, 2, 3]


@pytest.mark.usefixtures("gpu")
def test_int8_is_not_guessed(folder: Path) -> None:
    with pytest.raises(ConversionFailed, match="golden cases"):
        loaded(folder, "int8")


@pytest.mark.usefixtures("gpu")
def test_a_file_for_one_window_is_given_one(folder: Path) -> None:
    export(folder / "model.onnx", None)
    network = loaded(folder)
    assert network.batch == 1
    assert fake_tensorrt.Builder.built[0]["profile"]["image"][2] == [1, 1, *WINDOW]
    export(folder / "model.onnx", None, windows=2)
    with pytest.raises(ConversionFailed, match="takes 2 windows at once, and no other number"):
        loaded(folder)


@pytest.mark.usefixtures("gpu")
def test_what_tensorrt_does_not_take_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ConversionFailed, match=r"does not take model\.onnx: In node -1"):
        loaded(folder)
    monkeypatch.setattr(fake_tensorrt, "BuilderFlag", SimpleNamespace(TF32=0))  # as in release 11
    with pytest.raises(ConversionFailed, match=r"builds no fp16 by FP16: pip install 'tensorrt>=10,<11'"):
        loaded(folder, "fp16")


@pytest.mark.usefixtures("gpu")
def test_a_plan_with_other_answers_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memmove = fake_tensorrt.ctypes.memmove

    def wrong(target: int, source: int, count: int) -> None:
        memmove(target, source, count)
        if count > 4 * 8**3:  # the scores: both classes change places
            memmove(target, source + count // 2, count // 2)
            memmove(target + count // 2, source, count // 2)

    monkeypatch.setattr(fake_tensorrt, "ctypes", SimpleNamespace(**{**vars(fake_tensorrt.ctypes), "memmove": wrong}))
    with pytest.raises(ConversionFailed, match="of its answers are those of the original"):
        loaded(folder)
    assert not list((folder / "cache").rglob("*.plan"))


def test_without_a_gpu_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConversionFailed, match="needs an NVIDIA GPU"):
        load_network(folder, dataclasses.replace(spec()), folder / "cache", 1)
