"""Networks as models of Triton's own, called by their hosts: the same labels, and one life for both."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import psutil
import pytest
import torch
import yaml

from dicomnode.adapters.model_store import ModelStore
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.repository import SELF_TEST, net_name
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.domain.rules import Parameter
from dicomnode.errors import ModelFailed
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest, ModelVersion
from tests.asked import labelled
from tests.triton_directories import python_model, two_steps
from tests.triton_models import Above, Thresholds, axial, document, package, random_unet, registered

pytestmark = [pytest.mark.triton, pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here")]

SHAPE = (20, 64, 60)
GEOMETRY = axial(SHAPE, (3.0, 1.1, 1.1))
HU = Rescale(1.0, 0.0)
WINDOW = (32, 32, 32)
Labels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "triton"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[TritonServer]:
    with TritonServer(home, 2) as running:
        yield running


@pytest.fixture(scope="module")
def bls(server: TritonServer, home: Path) -> Iterator[TritonEngine]:
    with TritonEngine(home, 2, inner="bls") as client:
        yield client


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessEngine]:
    with InProcessEngine(tmp_path_factory.mktemp("inside"), 2) as engine:
        yield engine


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    folder = tmp_path_factory.mktemp("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of its own future
        torch.onnx.export(
            random_unet(5),
            (torch.zeros(1, 1, *WINDOW),),
            str(folder / "model.onnx"),
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    return registered(folder, document("net-onnx", 2, file="model.onnx", engine="onnxruntime"))


def model_of(form: str, onnx: ModelVersion, folder: Path) -> ModelVersion:
    """The same network in one form or another."""
    if form == "onnx":
        return onnx
    if form == "torchscript":
        return package(folder, random_unet(5), "net-torchscript", 2, engine="torchscript")
    folder.mkdir()
    converted = openvino.convert_model(onnx.path / "model.onnx", input=[1, 1, *WINDOW])
    openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)
    return registered(folder, document("net-openvino", 2, file="model.xml"))


def labels_of(
    engine: TritonEngine | InProcessEngine, model: ModelVersion, parameters: dict[str, Parameter] | None = None
) -> Labels:
    with engine.open(SHAPE) as session:
        session.volume[...] = np.random.default_rng(0).integers(-100, 200, SHAPE)
        with labelled(
            session, InferenceRequest(model, GEOMETRY, HU, timeout_s=200, parameters=parameters or {})
        ) as labels:
            return labels.copy()


SLOW = pytest.mark.slow  # each pair of processes imports torch and MONAI


@pytest.mark.parametrize(
    "form", ["onnx", pytest.param("torchscript", marks=SLOW), pytest.param("openvino", marks=SLOW)]
)
def test_a_network_in_triton_gives_the_labels_of_one_in_its_host(
    bls: TritonEngine, inside: InProcessEngine, onnx: ModelVersion, tmp_path: Path, form: str
) -> None:
    model = model_of(form, onnx, tmp_path / "model")
    expected, found = labels_of(inside, model), labels_of(bls, model)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(found, expected)
    backend = {"onnx": "onnxruntime", "torchscript": "pytorch", "openvino": "openvino"}[form]
    assert bls.describe(model)["engine"] == f"Triton {backend} (stand-in)"


@pytest.mark.slow
def test_parameters_go_along(bls: TritonEngine, inside: InProcessEngine, tmp_path: Path) -> None:
    declared = {
        "threshold": {"type": "number", "default": 0.5, "at_least": 0, "at_most": 1},
        "side": {"type": "text", "default": "above", "one_of": ["above", "below"]},
    }
    model = package(tmp_path / "above", Above(), "above", 1, parameters=declared, engine="torchscript")
    chosen: dict[str, Parameter] = {"threshold": 0.25, "side": "below"}
    expected = labels_of(inside, model, chosen)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(labels_of(bls, model, chosen), expected)


def stub_of(server: TritonServer, name: str) -> psutil.Process:
    assert server.pid is not None
    children = psutil.Process(server.pid).children(recursive=True)
    alive = [p for p in children if p.status() != psutil.STATUS_ZOMBIE]  # Triton leaves some for a while
    return next(p for p in alive if any(f"/{name}/" in argument for argument in p.cmdline()))


def test_host_and_network_live_and_die_together(bls: TritonEngine, server: TritonServer, onnx: ModelVersion) -> None:
    bls.prepare([onnx])
    names = {bls.name_of(onnx), net_name(onnx)}
    assert set(bls._client.loaded()) == {SELF_TEST, *names}
    before = labels_of(bls, onnx)
    os.kill(stub_of(server, net_name(onnx)).pid, signal.SIGKILL)
    np.testing.assert_array_equal(labels_of(bls, onnx), before)
    bls._client.unload(net_name(onnx))
    np.testing.assert_array_equal(labels_of(bls, onnx), before)
    bls.prepare([])
    assert set(bls._client.loaded()) == {SELF_TEST}


def added(folder: Path, directory: Path) -> ModelVersion:
    """As `models add` takes a Triton directory with a card."""
    whole = dict(document("x", 1))
    said = {key: whole[key] for key in ("manufacturer", "intended_use", "limits", "input", "output")}
    (folder / "card.yaml").write_text(yaml.safe_dump(said))
    card, digest, place = ModelStore(folder / "store").add(directory, folder / "card.yaml")
    return ModelVersion(1, card.name, card.version, digest, place, card, True)


@pytest.mark.parametrize("make", [python_model, two_steps])
def test_a_program_of_tritons_runs_as_the_network(
    server: TritonServer, home: Path, inside: InProcessEngine, tmp_path: Path, make: object
) -> None:
    """With the setting as it is from the beginning: nothing else can run it."""
    assert callable(make)
    model = added(tmp_path, make(tmp_path / "given"))
    reference = package(tmp_path / "reference", Thresholds(), "reference", 1, window=[32, 48, 64])
    with TritonEngine(home, 2) as client:
        found = labels_of(client, model)
        assert client.describe(model)["engine"] == f"Triton {'python' if make is python_model else 'ensemble'}"
    with pytest.raises(ModelFailed, match="only Triton itself runs this"):
        labels_of(inside, model)
    expected = labels_of(inside, reference)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(found, expected)
