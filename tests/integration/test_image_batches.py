"""Images in batches: as many at once as a network takes, and the scores are those of one at a time."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from dicomnode.adapters.triton.hosts.networks import LoadedNetwork, NetworkInputs, load_network
from dicomnode.adapters.triton.hosts.networks.batching import CLOSE, IMAGES_MOST
from dicomnode.domain.model_card import NetworkSpec

SIZE = (32, 32)


class Small(torch.nn.Module):
    """A few layers of a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, 2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2)
        )
        self.last = torch.nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(x).mean((2, 3)))


class Compares(torch.nn.Module):
    """Gives scores that hang on the other images of the batch, as a network does that was exported in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        mean = mean - mean.mean()
        return torch.cat([mean, -mean], 1)


class OneOnly(torch.nn.Module):
    """Takes the first image, whatever comes behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x[0].mean().reshape(1, 1)
        return torch.cat([mean, -mean], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("networks")
    example = torch.rand(1, 1, *SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        for name, module in (("small", Small()), ("compares", Compares()), ("one", OneOnly())):
            torch.jit.script(module.eval()).save(str(made / f"{name}.ts"))
        for name, axes in (("dynamic", {"x": {0: "n"}, "y": {0: "n"}}), ("fixed", {})):
            torch.onnx.export(
                Small().eval(),
                (example,),
                str(made / f"{name}.onnx"),
                opset_version=17,
                dynamo=False,
                input_names=["x"],
                output_names=["y"],
                dynamic_axes=axes,
            )
    return made


def loaded(folder: Path, file: str, engine: str, size: tuple[int, ...] = SIZE) -> LoadedNetwork:
    spec = NetworkSpec(file, engine, "fp32", (1, 1, 1), 0.25, "constant")
    return load_network(folder, spec, folder / "cache", 2, NetworkInputs(size=size))


@pytest.mark.parametrize(
    ("file", "engine", "at_once"),
    [
        ("small.ts", "torchscript", IMAGES_MOST),
        ("dynamic.onnx", "onnxruntime", IMAGES_MOST),
        ("fixed.onnx", "onnxruntime", 1),
        ("compares.ts", "torchscript", 1),
        ("one.ts", "torchscript", 1),
    ],
)
def test_as_many_at_once_as_the_network_takes(folder: Path, file: str, engine: str, at_once: int) -> None:
    assert loaded(folder, file, engine).batch == at_once


@pytest.mark.parametrize(
    ("file", "engine"),
    [
        ("small.ts", "torchscript"),
        ("dynamic.onnx", "onnxruntime"),
        ("dynamic.onnx", "openvino"),
        ("fixed.onnx", "openvino"),
    ],
)
def test_the_scores_are_those_of_one_image_at_a_time(folder: Path, file: str, engine: str) -> None:
    network = loaded(folder, file, engine)
    images = torch.rand(40, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    assert network.batch > 1
    with torch.inference_mode():
        alone = torch.cat([network(image).clone() for image in images.split(1)])
        several = torch.cat([network(some).clone() for some in images.split(network.batch)])
        wanted = Small().eval()(images)
    assert float((several - alone).abs().max()) <= CLOSE
    assert float((several - wanted).abs().max()) <= CLOSE
    assert float(wanted.std()) > 100 * CLOSE


def test_windows_of_a_volume_go_one_by_one_on_the_cpu(folder: Path) -> None:
    """Each costs the memory of its activations."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert loaded(folder, "small.ts", "torchscript", ()).batch == 1
