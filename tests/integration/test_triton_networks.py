"""One network on every engine that reads it: the same labels, and errors that say what is wrong."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dicomnode.adapters.triton.hosts.networks import ConversionFailed, NetworkInputs, load_network
from dicomnode.domain.model_card import NetworkSpec
from dicomnode.errors import InvalidModelPackage
from tests.triton_models import random_unet

WINDOW = (32, 32, 32)
WINDOWS = torch.rand((1, 1, *WINDOW), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as TorchScript and as ONNX."""
    folder = tmp_path_factory.mktemp("package")
    module = random_unet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        torch.jit.script(module).save(str(folder / "model.ts"))
        torch.onnx.export(module, (WINDOWS,), str(folder / "model.onnx"), opset_version=17, dynamo=False)
    return folder


def spec(file: str, engine: str, precision: str = "fp32") -> NetworkSpec:
    return NetworkSpec(file, engine, precision, WINDOW, 0.25, "constant")


@pytest.mark.parametrize(
    ("file", "engine", "name"),
    [
        ("model.ts", "torchscript", "TorchScript"),
        ("model.ts", "openvino", "OpenVINO"),
        ("model.onnx", "openvino", "OpenVINO"),
        ("model.onnx", "onnxruntime", "onnxruntime"),
    ],
)
def test_every_engine_gives_the_same_labels(folder: Path, tmp_path: Path, file: str, engine: str, name: str) -> None:
    with torch.no_grad():
        expected = random_unet()(WINDOWS)
    network = load_network(folder, spec(file, engine), tmp_path, 2)
    scores = network(WINDOWS)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    assert network.info["engine"].startswith(name)
    assert network.info["precision"] == "f32"


@pytest.mark.parametrize("engine", ["torchscript", "openvino"])
def test_the_precision_named_is_the_one_used(folder: Path, tmp_path: Path, engine: str) -> None:
    """A CPU without bf16 may calculate in f32 instead, and has to say so."""
    full = load_network(folder, spec("model.ts", engine), tmp_path, 2)
    half = load_network(folder, spec("model.ts", engine, "bf16"), tmp_path, 2)
    same = torch.equal(full(WINDOWS).clone(), half(WINDOWS))
    assert half.info["precision"] == ("f32" if same else "bf16")


def test_onnxruntime_says_that_it_runs_fp32_only(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelPackage, match="fp32 only"):
        load_network(folder, spec("model.onnx", "onnxruntime", "bf16"), tmp_path, 2)


def test_a_network_is_converted_once(folder: Path, tmp_path: Path) -> None:
    load_network(folder, spec("model.ts", "openvino"), tmp_path, 2)
    (converted,) = (tmp_path / "openvino").iterdir()
    os.utime(converted / "model.xml", (0, 0))
    load_network(folder, spec("model.ts", "openvino"), tmp_path, 2)
    assert list((tmp_path / "openvino").iterdir()) == [converted]
    assert (converted / "model.xml").stat().st_mtime == 0


class Dropping(torch.nn.Module):
    """Answers anew each time: no conversion can agree with it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.rand([x.shape[0], 3, 32, 32, 32])


def test_a_conversion_that_gives_other_labels_is_not_used(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Dropping()).save(str(tmp_path / "model.ts"))
    with pytest.raises(ConversionFailed):
        load_network(tmp_path, spec("model.ts", "openvino"), tmp_path / "cache", 2)
    network = load_network(tmp_path, spec("model.ts", "auto"), tmp_path / "cache", 2)
    assert network.info["engine"].startswith("TorchScript")
    assert list((tmp_path / "cache").rglob("*.xml")) == []


class Inverting(torch.nn.Module):
    """OpenVINO has no such operation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.linalg.lstsq(x, x)[0].sum()


def test_a_conversion_that_fails_leaves_the_process_its_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Inverting()).save(str(tmp_path / "model.ts"))
    with pytest.raises(ConversionFailed, match="linalg_lstsq"):
        load_network(tmp_path, spec("model.ts", "openvino"), tmp_path / "cache", 2)
    logging.getLogger("dicomnode.something").warning("still heard")
    assert "still heard" in caplog.messages


@pytest.mark.parametrize(
    ("file", "engine", "words"),
    [
        ("gone.onnx", "auto", "not in the package"),
        ("model.onnx", "torchscript", "does not read"),
        ("model.ts", "onnxruntime", "does not read"),
    ],
)
def test_a_package_that_cannot_run_is_refused_by_name(
    folder: Path, tmp_path: Path, file: str, engine: str, words: str
) -> None:
    with pytest.raises(InvalidModelPackage, match=words):
        load_network(folder, spec(file, engine), tmp_path, 2)


class Weighed(torch.nn.Module):
    """Two channels, weighed by two parameters."""

    def forward(self, x: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        mixed = x[:, :1] * parameters[0] + x[:, 1:] * parameters[1]
        return torch.cat([1 - mixed, mixed], 1)


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weighed")
    example = (torch.rand(1, 2, *WINDOW), torch.tensor([0.25, 0.75]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        torch.jit.script(Weighed()).save(str(folder / "model.ts"))
        torch.onnx.export(Weighed(), example, str(folder / "model.onnx"), opset_version=17, dynamo=False)
    return folder


@pytest.mark.parametrize(
    ("file", "engine"),
    [
        ("model.ts", "torchscript"),
        ("model.ts", "openvino"),
        ("model.onnx", "openvino"),
        ("model.onnx", "onnxruntime"),
    ],
)
def test_every_engine_takes_channels_and_parameters(
    two_channels: Path, tmp_path: Path, file: str, engine: str
) -> None:
    network = load_network(two_channels, spec(file, engine), tmp_path, 2, NetworkInputs(channels=2, parameters=2))
    windows = torch.rand((1, 2, *WINDOW), generator=torch.Generator().manual_seed(1))
    for weights in (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.3, 0.6])):
        scores = network(windows, weights).clone()
        torch.testing.assert_close(scores, Weighed()(windows, weights), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "auto"])
def test_a_network_without_the_parameters_of_its_card_is_refused(
    two_channels: Path, folder: Path, tmp_path: Path, engine: str
) -> None:
    with pytest.raises(InvalidModelPackage, match="takes 2 inputs and the card means 1"):
        load_network(two_channels, spec("model.onnx", engine), tmp_path, 2, NetworkInputs(channels=2))
    with pytest.raises(InvalidModelPackage, match="takes 1 inputs and the card means 2"):
        load_network(folder, spec("model.onnx", engine), tmp_path, 2, NetworkInputs(parameters=3))


def test_a_program_of_torch_export_runs_in_torch_and_openvino(tmp_path: Path) -> None:
    module = random_unet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.export.save(torch.export.export(module, (WINDOWS,)), tmp_path / "model.pt2")
    with torch.no_grad():
        expected = module(WINDOWS)
    for engine, name in (("torch", "torch.export"), ("openvino", "OpenVINO"), ("auto", "OpenVINO")):
        network = load_network(tmp_path, spec("model.pt2", engine), tmp_path / "cache", 2)
        torch.testing.assert_close(network(WINDOWS), expected, atol=1e-4, rtol=1e-4)
        assert network.info["engine"].startswith(name)


def test_openvinos_own_format_is_read(folder: Path, tmp_path: Path) -> None:
    load_network(folder, spec("model.ts", "openvino"), tmp_path, 2)
    (converted,) = (tmp_path / "openvino").iterdir()
    network = load_network(converted, spec("model.xml", "auto"), tmp_path / "again", 2)
    with torch.no_grad():
        torch.testing.assert_close(network(WINDOWS), random_unet()(WINDOWS), atol=1e-4, rtol=1e-4)


def test_several_windows_at_once_are_as_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    network = load_network(folder, spec("model.ts", "openvino"), tmp_path, 2)
    assert network.batch == 2
    windows = torch.rand((2, 1, *WINDOW), generator=torch.Generator().manual_seed(2))
    together = network(windows).clone()
    alone = torch.cat([network(windows[n : n + 1]).clone() for n in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_int8_keeps_most_labels_of_what_it_was_calibrated_with(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed")
    shown = [[WINDOWS.numpy()]] * 4
    network = load_network(folder, spec("model.ts", "openvino", "int8"), tmp_path, 2, calibration=lambda: shown)
    with torch.no_grad():
        expected = random_unet()(WINDOWS)
    assert network.info["precision"] == "int8"
    assert not torch.equal(network(WINDOWS), expected)
    assert float((network(WINDOWS).argmax(1) == expected.argmax(1)).float().mean()) > 0.98


def test_int8_is_not_guessed_from_noise(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed")
    with pytest.raises(ConversionFailed, match="golden cases"):
        load_network(folder, spec("model.ts", "openvino", "int8"), tmp_path, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_tensorrt_says_what_it_lacks(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="needs an NVIDIA GPU"):
        load_network(folder, spec("model.onnx", "tensorrt"), tmp_path, 2)


def test_nobody_is_told_of_a_conversion(folder: Path, tmp_path: Path) -> None:
    """OpenVINO's converter reports to its maker by default; it must find nothing to do so with."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dicomnode.adapters.triton.hosts.networks import load_network\n"
        "from dicomnode.domain.model_card import NetworkSpec\n"
        f"spec = NetworkSpec('model.ts', 'openvino', 'fp32', {WINDOW}, 0.25, 'constant')\n"
        f"load_network(Path({str(folder)!r}), spec, Path({str(tmp_path)!r}), 1)\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__.endswith('telemetry_stub'), telemetry_utils.tm\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
