"""What only a real GPU can show; `make gpu-check` runs it there, and elsewhere every test skips, saying so.

Nothing in here is replaced: CUDA, the driver, Triton and TensorRT are those of the machine.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dicomnode import bootstrap
from dicomnode.adapters.machine import Gpu as DriversGpu
from dicomnode.adapters.triton.cuda_memory import NoCudaMemory, numbers_here
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.hosts.gpu import full_float32, gpu_of
from dicomnode.adapters.triton.hosts.networks import ConversionFailed, NetworkInputs, load_network
from dicomnode.adapters.triton.hosts.networks.loaded import CUDA
from dicomnode.adapters.triton.hosts.networks.on_tensorrt import how_to_install
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.config import Settings
from dicomnode.domain.model_card import NetworkSpec
from dicomnode.imaging import on_device
from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.imaging.inference import source_labels
from dicomnode.imaging.resample import model_grid, to_model
from dicomnode.ports import InferenceRequest, ModelVersion
from tests import model_bundles
from tests.adapters.crossings import Crossings
from tests.adapters.tensorrt_api import MEMBERS, METHODS, PROPERTIES, parameters
from tests.asked import labelled
from tests.bundle_answers import VOXELS, Answered, changed, of_cpu, transforms
from tests.bundle_reference import dice
from tests.triton_models import Slow, Thresholds, axial, package, random_unet
from tests.unit.test_on_device import GEOMETRIES, mapping, stored

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no GPU here"),
]
needs_triton = pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here")

SHAPE = (60, 256, 256)
GEOMETRY = axial(SHAPE, (3.0, 1.1, 1.1))
HU = Rescale(1.0, 0.0)
LARGE = (512, 512, 512)  # 256 MiB of int16
Labels = npt.NDArray[np.uint8]


def volume() -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(-100, 200, SHAPE).astype(np.int16)


# ------------------------------------------------------------------------------ before and after the network


@pytest.mark.parametrize(("geometry", "orientation", "spacing"), GEOMETRIES)
def test_a_volume_is_resampled_as_on_the_cpu(
    geometry: VolumeGeometry, orientation: str, spacing: tuple[float, float, float]
) -> None:
    grid, values, wanted = model_grid(geometry, orientation, spacing), stored(geometry), mapping(orientation, spacing)
    found = on_device.to_model(torch.from_numpy(values).cuda(), grid, wanted).cpu().numpy()
    np.testing.assert_allclose(found, to_model(values, grid, wanted), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("geometry", "orientation", "spacing"), GEOMETRIES)
def test_labels_come_back_as_on_the_cpu(
    geometry: VolumeGeometry, orientation: str, spacing: tuple[float, float, float]
) -> None:
    grid = model_grid(geometry, orientation, spacing)
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 9, grid.shape, dtype=np.uint8))
    assert torch.equal(source_labels(labels.cuda(), grid), source_labels(labels, grid, threads=2))


def test_what_is_called_f32_is_f32() -> None:
    full_float32()
    random = torch.Generator().manual_seed(0)
    image, kernel = torch.rand((1, 32, 24, 24, 24), generator=random), torch.rand((32, 32, 3, 3, 3), generator=random)
    wanted = torch.nn.functional.conv3d(image.double(), kernel.double())
    found = torch.nn.functional.conv3d(image.cuda(), kernel.cuda()).cpu()
    assert float(((found - wanted) / wanted).abs().max()) < 2e-5  # TF32: some 1e-3


# -------------------------------------------------------------------------------- bundles' own transforms


@pytest.fixture
def crossings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crossings]:
    monkeypatch.setattr(InProcessEngine, "_execute", InProcessEngine._tensors)  # it counts in one thread
    with Crossings() as mode:
        yield mode


def exact(chain: dict[str, Any]) -> None:
    """In float32, as on the CPU: half precision gives other labels where scores are close."""
    chain["evaluator"]["amp"] = False


def alike(found: Answered, wanted: Answered) -> None:
    a, b = (answered.arrays["LABELMAP"] for answered in (found, wanted))
    labels = np.unique(b).tolist()
    assert len(labels) > 1
    assert [dice(a, b, label) for label in labels] == pytest.approx([1.0] * len(labels), abs=1e-3)


@pytest.mark.parametrize("make", [model_bundles.normalised, model_bundles.scripted, model_bundles.two_phases])
def test_a_bundles_own_transforms_run_there(make: model_bundles.Maker, crossings: Crossings, tmp_path: Path) -> None:
    model = changed(tmp_path, exact, make)
    found = Answered(tmp_path / "there", model, crossings, runs=2)
    assert crossings.large == ([2 * VOXELS] * (1 + len(model.card.roles)), [VOXELS])
    alike(found, of_cpu(tmp_path / "here", model))
    assert "by the CPU" not in found.chain


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed")
def test_what_a_bundle_does_with_numpy_is_done_on_the_host(crossings: Crossings, tmp_path: Path) -> None:
    """With cupy and cucim MONAI itself has them on the GPU."""
    model = changed(tmp_path, exact, model_bundles.own_chain)
    found = Answered(tmp_path / "there", model, crossings, runs=2)
    alike(found, of_cpu(tmp_path / "here", model))
    if "by the CPU: KeepLargestConnectedComponentd" in found.chain:
        assert crossings.large == ([2 * VOXELS], [4 * VOXELS])
    else:
        assert importlib.util.find_spec("cucim")


FINE_MM = 0.25  # 27 million voxels, of which Spacingd takes some 1.3 GB


@contextmanager
def short_of_memory() -> Iterator[None]:
    """This process has 512 MiB more than it holds now."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 512 * 2**20) / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_chain_for_which_there_is_no_room_is_done_by_the_cpu(crossings: Crossings, tmp_path: Path) -> None:
    def fine(chain: dict[str, Any]) -> None:
        exact(chain)
        transforms(chain, "pre")[3]["pixdim"] = [FINE_MM] * 3
        chain["inferer"].update(roi_size=[64, 64, 64], overlap=0)

    model = changed(tmp_path, fine)
    with short_of_memory():
        found = Answered(tmp_path / "there", model, crossings)
    assert found.chain.endswith(", by the CPU: the GPU had no room")
    alike(found, of_cpu(tmp_path / "here", model))


# ------------------------------------------------------------------------------------------- through Triton


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "triton"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[TritonServer]:
    with TritonServer(home, 4) as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelVersion]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "unet": package(folder / "unet", random_unet(), "unet", 2, engine="torchscript"),
        "thresholds": package(folder / "thresholds", Thresholds(), "thresholds", 1, engine="torchscript"),
        "slow": package(folder / "slow", Slow(), "slow", 2, engine="torchscript"),
    }


@pytest.fixture
def engine(server: TritonServer, home: Path, models: dict[str, ModelVersion]) -> Iterator[TritonEngine]:
    """Through CUDA shared memory, which has to work here."""
    with TritonEngine(home, 4) as client:
        for model in models.values():
            client.describe(model)
        assert client.gpu_volumes.tried(numbers_here()) == ""
        yield client
        assert client.gpu_volumes.why_not == ""


def labels_of(engine: TritonEngine, model: ModelVersion) -> Labels:
    with engine.open(SHAPE) as session:
        session.volume[...] = volume()
        session.freeze()
        with labelled(session, InferenceRequest(model, GEOMETRY, HU, timeout_s=300)) as labels:
            found: Labels = labels.copy()
        return found


@needs_triton
def test_the_label_map_is_the_same_from_memory_on_the_gpu_and_from_system_memory(
    engine: TritonEngine, home: Path, models: dict[str, ModelVersion], tmp_path: Path
) -> None:
    with TritonEngine(home, 4, cuda="off") as other, InProcessEngine(tmp_path, 4) as inside:
        for name in ("unet", "thresholds"):
            found, by_system = labels_of(engine, models[name]), labels_of(other, models[name])
            np.testing.assert_array_equal(found, by_system)
            assert len(np.unique(found)) > 1
        with inside.open(SHAPE) as session:
            session.volume[...] = volume()
            with labelled(session, InferenceRequest(models["thresholds"], GEOMETRY, HU, timeout_s=300)) as labels:
                np.testing.assert_array_equal(labels, labels_of(engine, models["thresholds"]))


@needs_triton
def test_several_models_read_one_copy_and_it_is_freed(engine: TritonEngine, models: dict[str, ModelVersion]) -> None:
    gpu = DriversGpu.found()
    assert gpu is not None
    for name in ("unet", "thresholds"):
        labels_of(engine, models[name])  # what torch keeps, it has after this
    nbytes = 2 * math.prod(LARGE)
    place = axial(LARGE, (2.0, 1.5, 1.5))  # as the model wants it
    with engine.open(LARGE) as session:
        session.volume[...] = 0
        session.freeze()
        with labelled(session, InferenceRequest(models["thresholds"], place, HU, timeout_s=300)):
            pass
        upload = session._mapped[0].upload
        (copy,) = upload._copies.values()
        assert copy is not None
        assert copy.nbytes == nbytes
        with labelled(session, InferenceRequest(models["thresholds"], place, HU, timeout_s=300)):
            pass
        assert list(upload._copies.values()) == [copy]
        kept = gpu.memory()[1]
    assert gpu.memory()[1] - kept >= nbytes
    assert engine.taken(models["thresholds"])["gpu_bytes"] >= nbytes


@needs_triton
def test_a_server_that_was_killed_reads_the_copy_again(
    engine: TritonEngine, server: TritonServer, models: dict[str, ModelVersion]
) -> None:
    with engine.open(SHAPE) as session:
        session.volume[...] = volume()
        session.freeze()
        found = []
        for kill in (False, True):
            if kill:
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
            with labelled(session, InferenceRequest(models["unet"], GEOMETRY, HU, timeout_s=300)) as labels:
                found.append(labels.copy())
        np.testing.assert_array_equal(*found)


_CLIENT = """
import sys
from pathlib import Path
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.ports import InferenceRequest
from tests.asked import labelled
from tests.integration.test_gpu import GEOMETRY, HU, SHAPE
from tests.integration.test_gpu import volume
from tests.bundle_answers import VOXELS, Answered, changed, of_cpu, transforms
from tests.bundle_reference import dice
from tests.triton_models import Slow, package
home, folder = map(Path, sys.argv[1:])
model = package(folder, Slow(), "slow", 2, engine="torchscript")
with TritonEngine(home, 4) as engine, engine.open(SHAPE) as session:
    engine.describe(model)
    session.volume[...] = volume()
    session.freeze()
    print("asks", flush=True)
    with labelled(session, InferenceRequest(model, GEOMETRY, HU, timeout_s=300)):
        pass
"""


@needs_triton
def test_a_worker_that_is_killed_takes_its_volume_with_it_and_harms_nobody(
    engine: TritonEngine, home: Path, models: dict[str, ModelVersion], tmp_path: Path
) -> None:
    expected = labels_of(engine, models["thresholds"])
    with subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(home), str(tmp_path / "slow")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "asks\n"
            until(lambda: any(f"-{client.pid}-gpu" in name for name in engine._client._gpu_regions()))
        finally:
            client.kill()
    until(lambda: not any(f"-{client.pid}-gpu" in name for name in engine._client._gpu_regions()))
    np.testing.assert_array_equal(labels_of(engine, models["thresholds"]), expected)


def until(condition: Callable[[], bool]) -> None:
    """The supervisor looks for clients that died every five seconds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@needs_triton
def test_a_gpu_that_this_process_does_not_see_is_left_alone(home: Path, models: dict[str, ModelVersion]) -> None:
    with TritonEngine(home, 4) as engine:
        engine.gpu_volumes._numbers = dict
        engine.describe(models["thresholds"])
        labels_of(engine, models["thresholds"])
        assert "which this process does not see" in engine.gpu_volumes.why_not


def test_torch_and_cuda_python_name_the_gpu_alike() -> None:
    said = gpu_of(torch.device("cuda"))
    assert said is not None
    try:
        assert numbers_here()[said["uuid"]] == said["number"]
    except NoCudaMemory as error:
        pytest.fail(f"cuda-python: {error}")


@needs_triton
def test_doctor_is_content(server: TritonServer, home: Path) -> None:
    settings = Settings(home=home.parent, engine="triton")
    assert settings.triton_folder == home
    assert bootstrap.sees_gpu()
    assert bootstrap.torch_and_gpu()[1]
    assert bootstrap.why_not_on_gpu(settings) == ""


# ------------------------------------------------------------------------------------------------ TensorRT


@pytest.fixture
def tensorrt() -> Any:
    return pytest.importorskip("tensorrt", reason=f"TensorRT is not installed: {how_to_install()}")


def test_tensorrt_is_the_one_that_plans_were_written_for(tensorrt: Any) -> None:
    """Its classes, and what each takes: an error here says more than one while a plan is built."""
    for kind, methods in METHODS.items():
        for method, takes in methods.items():
            assert parameters(getattr(tensorrt, kind), method) == takes, (kind, method)
    for kind, names in PROPERTIES.items():
        assert all(isinstance(getattr(getattr(tensorrt, kind), name), property) for name in names), kind
    for kind, members in MEMBERS.items():
        assert set(members) <= set(getattr(tensorrt, kind).__members__), kind


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_a_plan_says_what_the_network_says(precision: str, tmp_path: Path) -> None:
    window = (32, 32, 32)
    network = random_unet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(1, 1, *window),),
            str(tmp_path / "model.onnx"),
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )

    def given(windows: int) -> torch.Tensor:
        return torch.rand((windows, 1, *window), generator=torch.Generator().manual_seed(windows))

    def shown() -> list[list[npt.NDArray[np.float32]]]:
        return [[one[None].numpy()] for one in given(16)]

    spec = NetworkSpec("model.onnx", "tensorrt", precision, window, 0.25, "constant")
    takes = NetworkInputs(1)
    reference = dataclasses.replace(spec, engine="onnxruntime", precision="fp32")
    original = load_network(tmp_path, reference, tmp_path, 4, takes)
    try:
        plan = load_network(tmp_path, spec, tmp_path / "cache", 4, takes, shown)
    except ConversionFailed as error:
        # random weights: classes lie close together, and int8 may well not be good enough to be kept
        if precision != "int8" or "of its answers are those of the original network" not in str(error):
            raise
        return
    assert plan.device.type == CUDA.type
    assert plan.info["engine"].startswith("TensorRT")
    least = {"fp32": 0.9999, "int8": 0.95}.get(precision, 0.99)
    for windows in (1, 3, 4):
        found = plan(given(windows).to(CUDA)).cpu()
        wanted = torch.cat([original(one[None].to(original.device)).cpu() for one in given(windows)])
        assert float((found.argmax(1) == wanted.argmax(1)).float().mean()) > least
    again = load_network(tmp_path, spec, tmp_path / "cache", 4, takes, shown)  # the plan that was kept
    torch.testing.assert_close(again(given(4).to(CUDA)).cpu(), found, rtol=0, atol=1e-5)
