"""TensorRT plans: built and called as its Python API says. No GPU: a stand-in runs them in host memory."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dicomnode.adapters.triton.hosts.networks import NetworkInputs, load_network, on_tensorrt
from dicomnode.adapters.triton.hosts.networks.loaded import CPU, ConversionFailed, LoadedNetwork, Tensors
from dicomnode.domain.model_card import NetworkSpec
from tests.adapters import fake_tensorrt
from tests.adapters.tensorrt_api import MEMBERS, METHODS, PROPERTIES

WINDOW = (8, 8, 8)


class Two(torch.nn.Module):
    """Scores, and something that nobody reads."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([0.5 - x, x - 0.5], 1), 2 * x


def spec(precision: str = "fp32") -> NetworkSpec:
    return NetworkSpec("model.onnx", "tensorrt", precision, WINDOW, 0.25, "constant")


@dataclasses.dataclass
class Stream:
    """Of CUDA; `waited`: how many calls had run on any when another was waited for, and by which."""

    cuda_stream: int
    waited: list[tuple[int, int, int]]

    def wait_stream(self, other: Stream) -> None:
        self.waited.append((len(fake_tensorrt.ran_on), self.cuda_stream, other.cuda_stream))


@dataclasses.dataclass
class Gpu:
    own: Stream
    torchs: Stream
    synchronised: int = 0

    def synchronize(self) -> None:
        self.synchronised += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """As far as it is asked for, on the CPU."""
    waited: list[tuple[int, int, int]] = []
    fake = Gpu(Stream(7, waited), Stream(0, waited))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Test")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: fake.own)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: fake.torchs)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(on_tensorrt, "CUDA", CPU)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(fake_tensorrt.Builder, "_built", [])
    monkeypatch.setattr(fake_tensorrt, "ran_on", [])
    return fake


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
    assert (network.batch, network.info["engine"], network.info["precision"]) == (4, "TensorRT 10.16.1.11", "f32")
    for count in (4, 1, 3):
        assert torch.equal(network(windows[:count]), Two()(windows[:count])[0])
    with pytest.raises(ValueError, match=r"does not take \(5, 1, 8, 8, 8\) as image"):
        network(torch.rand(5, 1, *WINDOW))
    loaded(folder)
    assert len(fake_tensorrt.Builder._built) == 1


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("precision", "flags"), [("fp32", set()), ("fp16", {"FP16"}), ("bf16", {"BF16"}), ("int8", {"INT8", "FP16"})]
)
def test_each_precision_has_its_flags_and_none_is_tf32(folder: Path, precision: str, flags: set[str]) -> None:
    loaded(folder, precision, [[np.full((1, 1, *WINDOW), value, np.float32)] for value in (0.25, 0.75)])
    (built,) = fake_tensorrt.Builder._built
    assert built["flags"] == flags
    assert [shown["image"] for shown in built["shown"]] == ([0.25, 0.75] if precision == "int8" else [])


@pytest.mark.usefixtures("gpu")
def test_int8_is_built_anew_for_another_card_or_other_golden_cases(folder: Path) -> None:
    """The network's file may be the same, and what it is given is not."""
    shown: list[Tensors] = [[np.full((1, 1, *WINDOW), 0.5, np.float32)]]
    built = []
    for content in ("intensity: 1", "intensity: 1", "intensity: 2"):
        (folder / "model.yaml").write_text(content)
        loaded(folder, "int8", shown)
        built.append(len(fake_tensorrt.Builder._built))
    (folder / "golden" / "case").mkdir(parents=True)
    (folder / "golden" / "case" / "input.npz").write_bytes(b"other")
    loaded(folder, "int8", shown)
    assert [*built, len(fake_tensorrt.Builder._built)] == [1, 1, 2, 3]


@pytest.mark.usefixtures("gpu")
def test_int8_is_not_guessed(folder: Path) -> None:
    with pytest.raises(ConversionFailed, match="golden cases"):
        loaded(folder, "int8")


@pytest.mark.usefixtures("gpu")
def test_a_file_for_one_window_is_given_one(folder: Path) -> None:
    export(folder / "model.onnx", None)
    network = loaded(folder)
    assert network.batch == 1
    assert fake_tensorrt.Builder._built[0]["profile"]["image"][2] == [1, 1, *WINDOW]
    export(folder / "model.onnx", None, windows=2)
    with pytest.raises(ConversionFailed, match="takes 2 windows at once, and no other number"):
        loaded(folder)


@pytest.mark.usefixtures("gpu")
def test_what_tensorrt_does_not_take_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ConversionFailed, match=r"does not take model\.onnx: In node -1"):
        loaded(folder)
    monkeypatch.setattr(fake_tensorrt, "BuilderFlag", SimpleNamespace(TF32=0))  # as in release 11
    with pytest.raises(ConversionFailed, match=r"builds no fp16 by FP16: pip install 'tensorrt-cu12>=10,<11'"):
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


@pytest.mark.parametrize("kind", METHODS)
def test_the_stand_in_has_what_the_real_one_has_and_nothing_else(kind: str) -> None:
    """What is used of it in another way than NVIDIA's bindings allow is an error here as it is there."""
    ours = vars(getattr(fake_tensorrt, kind))
    functions = {
        name: list(inspect.signature(found).parameters)[1:] for name, found in ours.items() if callable(found)
    }
    public = {name: takes for name, takes in functions.items() if not name.startswith("_") and name != "fits"}
    assert public.keys() <= METHODS[kind].keys()
    for name, takes in public.items():
        assert takes == METHODS[kind][name]
    if "__init__" in METHODS[kind]:
        assert functions["__init__"] == METHODS[kind]["__init__"]
    properties = [name for name, found in ours.items() if isinstance(found, property)]
    assert properties == PROPERTIES.get(kind, [])


@pytest.mark.parametrize("kind", MEMBERS)
def test_the_stand_ins_enumerations_have_the_real_ones_members(kind: str) -> None:
    assert list(getattr(fake_tensorrt, kind).__members__) == MEMBERS[kind]


def test_torch_and_the_plan_wait_for_each_other(folder: Path, gpu: Gpu) -> None:
    """Inputs are made on torch's stream, and their memory is torch's to give away again after the call."""
    network = loaded(folder)
    gpu.own.waited.clear()
    fake_tensorrt.ran_on.clear()
    network(torch.rand(1, 1, *WINDOW))
    assert fake_tensorrt.ran_on == [7]
    assert gpu.own.waited == [(0, 7, 0), (1, 0, 7)]


class Weighed(torch.nn.Module):
    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([weight[0] - x, x - weight[0]], 1), 2 * x


def test_int8_is_shown_each_input_by_its_name_once_it_is_there(folder: Path, gpu: Gpu) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Weighed(),
            (torch.zeros(1, 1, *WINDOW), torch.ones(1)),
            str(folder / "model.onnx"),
            input_names=["image", "weight"],
            output_names=["scores", "twice"],
            dynamic_axes={name: {0: "n"} for name in ("image", "scores", "twice")},
            opset_version=17,
            dynamo=False,
        )
    shown: list[Tensors] = [
        [np.full((1, 1, *WINDOW), value, np.float32), np.full(1, 10 * value, np.float32)] for value in (0.25, 0.5)
    ]
    load_network(folder, spec("int8"), folder / "cache", 1, NetworkInputs(1, 1), lambda: shown)
    (built,) = fake_tensorrt.Builder._built
    assert built["shown"] == [{"image": 0.25, "weight": 2.5}, {"image": 0.5, "weight": 5.0}]
    assert gpu.synchronised >= 2


@pytest.mark.usefixtures("gpu")
def test_a_tensorrt_of_another_cuda_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_given(logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")  # what NVIDIA's bindings say

    monkeypatch.setattr(fake_tensorrt, "Builder", none_given)
    with pytest.raises(ConversionFailed, match=r"another CUDA than the driver's.*tensorrt-cu12"):
        loaded(folder)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ConversionFailed, match=r"TensorRT is not installed.*pip install 'tensorrt-cu13>=10,<11'"):
        loaded(folder)


@pytest.mark.usefixtures("gpu")
def test_a_plan_without_memory_for_its_context_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_tensorrt.ICudaEngine, "create_execution_context", lambda engine: None)
    with pytest.raises(ConversionFailed, match="no memory left"):
        loaded(folder)
