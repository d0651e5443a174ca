"""Where a network runs, and what is written for Triton when it is a model of Triton's own."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch.utils.dlpack import from_dlpack
from tritonclient.grpc import model_config_pb2

from dicomnode.adapters.triton.hosts import shims
from dicomnode.adapters.triton.hosts.model import HostSettings
from dicomnode.adapters.triton.hosts.networks.on_triton import Inner, load
from dicomnode.adapters.triton.inner_choice import About, InnerChoice, read_about, write_about
from dicomnode.adapters.triton.installation import STAND_INS, Installation, copy_backends, has_gpu
from dicomnode.adapters.triton.native import Net, net_of
from dicomnode.adapters.triton.repository import net_name, owner_of, touch, triton_name, write_model
from dicomnode.domain.inner import BLS, LOCAL, NATIVE, STAND_IN, Asked, inner_of
from dicomnode.domain.model_card import parse_model_card
from dicomnode.errors import InvalidModelPackage
from dicomnode.ports import ModelVersion
from tests.triton_directories import python_model, two_steps
from tests.triton_models import Above, Thresholds, document, package, random_unet, registered

EMBEDDED = dict.fromkeys(STAND_INS, STAND_IN)
CONTAINER = dict.fromkeys([*STAND_INS, "tensorrt"], NATIVE)
WINDOW = (32, 32, 32)


def spec_of(**network: Any) -> Any:
    return model(Path("/nowhere"), **network).card.network


def model(folder: Path, **network: Any) -> ModelVersion:
    card = parse_model_card(document("net", 1, **network))
    return ModelVersion(1, card.name, card.version, "0123456789abcdef" * 4, folder, card, True)


@pytest.mark.parametrize(
    ("network", "asked", "expected"),
    [
        # what only Triton runs, whatever the setting
        ({"file": "config.pbtxt", "format": "triton"}, {"wanted": "local", "own_backend": "python"}, BLS),
        ({"file": "m.onnx", "engine": "triton"}, {"wanted": "local"}, BLS),
        ({"file": "m.onnx"}, {"wanted": "auto", "tuned": "triton"}, BLS),
        # as the setting says, where there is a backend
        ({"file": "m.onnx"}, {"wanted": "local", "backends": CONTAINER, "has_gpu": True}, LOCAL),
        ({"file": "m.ts"}, {"wanted": "bls"}, BLS),
        ({"file": "m.pt2"}, {"wanted": "bls"}, LOCAL),
        ({"file": "models/model.pt", "format": "monai-bundle"}, {"wanted": "bls"}, LOCAL),
        # by itself
        ({"file": "m.onnx"}, {"backends": EMBEDDED, "has_gpu": True}, LOCAL),
        ({"file": "m.onnx"}, {"backends": CONTAINER, "has_gpu": True}, BLS),
        ({"file": "m.onnx"}, {"backends": CONTAINER, "has_gpu": False}, LOCAL),
        ({"file": "m.ts"}, {"backends": CONTAINER, "has_gpu": True}, LOCAL),
        ({"file": "m.onnx", "engine": "openvino"}, {"backends": CONTAINER, "has_gpu": True}, LOCAL),
        ({"file": "m.onnx", "precision": "bf16"}, {"backends": CONTAINER, "has_gpu": True}, LOCAL),
        ({"file": "m.onnx"}, {"backends": CONTAINER, "has_gpu": True, "tuned": "tensorrt"}, LOCAL),
        ({"file": "1/model.pt"}, {"backends": CONTAINER, "own_backend": "pytorch"}, BLS),
        ({"file": "1/model.pt"}, {"backends": EMBEDDED, "own_backend": "pytorch"}, LOCAL),
    ],
)
def test_where_a_network_runs(network: dict[str, Any], asked: dict[str, Any], expected: str) -> None:
    defaults: dict[str, Any] = {
        "wanted": "auto",
        "tuned": "",
        "backends": {},
        "own_backend": "",
        "has_gpu": False,
    }
    assert inner_of(spec_of(**network), Asked(**{**defaults, **asked})) == expected


def test_what_the_server_has_is_read_back_and_absent_at_first(tmp_path: Path) -> None:
    assert read_about(tmp_path / "server.json") == About()
    write_about(tmp_path / "server.json", CONTAINER, gpu=True)
    assert read_about(tmp_path / "server.json") == About(CONTAINER, True)
    choice = InnerChoice(tmp_path / "server.json", "auto")
    assert choice.of(model(tmp_path / "a", file="m.onnx")) == BLS
    assert choice.of(model(tmp_path / "b", file="m.strange")) == LOCAL  # its host says what is wrong
    python_model(tmp_path / "given")
    program = model(tmp_path / "given", file="config.pbtxt", format="triton")
    assert choice.of(program) == BLS


# -------------------------------------------------------------------------------------------- what is written


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def onnx(folder: Path, *, batches: bool) -> ModelVersion:
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            random_unet(),
            (torch.zeros(1, 1, *WINDOW),),
            str(folder / "model.onnx"),
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}} if batches else None,
            opset_version=17,
            dynamo=False,
        )
    return registered(folder, document("net", 2, file="model.onnx"))


def net(model: ModelVersion, backends: dict[str, str] = EMBEDDED) -> Net:
    return net_of(model.path, model.card, net_name(model), backends)


def test_an_onnx_file_that_takes_batches_gets_them(tmp_path: Path) -> None:
    version = onnx(tmp_path / "m", batches=True)
    found = net(version, CONTAINER)
    (entry,) = found.entries
    config = parsed(entry.config)
    assert (config.name, config.backend, config.max_batch_size) == (net_name(version), "onnxruntime", 4)
    assert config.HasField("dynamic_batching")
    assert [(g.count, g.kind) for g in config.instance_group] == [(1, model_config_pb2.ModelInstanceGroup.KIND_AUTO)]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
    assert [(t.name, list(t.dims)) for t in config.input] == [("image", [1, *WINDOW])]
    assert [(t.name, list(t.dims)) for t in config.output] == [("scores", [3, *WINDOW])]
    assert entry.files == {"1/model.onnx": version.path / "model.onnx"}
    assert (found.inner.batch, found.inner.batches_all, found.inner.backend) == (4, True, "onnxruntime")


def test_an_onnx_file_for_one_window_is_given_one(tmp_path: Path) -> None:
    found = net(onnx(tmp_path / "m", batches=False))
    config = parsed(found.entries[0].config)
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert list(config.input[0].dims) == [1, 1, *WINDOW]
    assert (found.inner.batch, found.inner.batches_all) == (1, False)
    assert found.inner.backend == "onnxruntime (stand-in)"


def test_torchscript_has_numbers_for_names(tmp_path: Path) -> None:
    config = parsed(net(package(tmp_path / "t", Thresholds(), "t", 1)).entries[0].config)
    assert (config.backend, config.input[0].name, config.output[0].name) == ("pytorch", "INPUT__0", "OUTPUT__0")
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([1, *WINDOW], [-1, *WINDOW])
    numbers = {"a": {"type": "number", "default": 0}, "b": {"type": "number", "default": 1}}
    found = net(package(tmp_path / "above", Above(), "above", 1, parameters=numbers))
    config = parsed(found.entries[0].config)
    assert [list(t.dims) for t in config.input] == [[-1, 1, *WINDOW], [2]]
    assert (config.max_batch_size, found.inner.batch, found.inner.batches_all) == (0, 4, False)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"precision": "bf16"}, r"network\.precision: Triton runs a network as its file says"),
        ({"file": "gone.onnx"}, r"network\.file: gone\.onnx is not in the package"),
        ({"file": "model.pt2"}, r"network\.engine: Triton has no backend for torch-export"),
    ],
)
def test_what_cannot_be_a_model_of_tritons_is_said(tmp_path: Path, network: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidModelPackage, match=words):
        net(model(tmp_path / "m", **network))


def test_a_file_that_is_no_network_is_said(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(InvalidModelPackage, match=r"network\.file: onnxruntime does not read it"):
        net(model(tmp_path / "m", file="model.onnx"))


def test_a_directory_keeps_its_configuration_but_for_its_name(tmp_path: Path) -> None:
    directory = python_model(tmp_path / "given")
    config = directory / "config.pbtxt"
    config.write_text(config.read_text() + 'parameters { key: "a" value { string_value: "b" } }\n')
    (directory / "model.yaml").write_text("")
    version = model(directory, file="config.pbtxt", format="triton", window=[32, 48, 64])
    found = net(version)
    (entry,) = found.entries
    expected = parsed(config.read_text())
    expected.name, expected.default_model_filename = net_name(version), "dicomnode_start.py"
    assert parsed(entry.config) == expected
    assert (list(entry.files), list(entry.texts)) == (["1/model.py"], ["1/dicomnode_start.py"])
    assert "with_name('model.py')" in entry.texts["1/dicomnode_start.py"]
    own = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/envs/own.tar.gz" } }\n'
    config.write_text(config.read_text() + own)
    assert not net(version).entries[0].texts
    assert (found.inner.batch, found.inner.batches_all, found.inner.inputs) == (3, True, ("x",))


def test_the_steps_of_an_ensemble_are_renamed_with_it(tmp_path: Path) -> None:
    version = model(two_steps(tmp_path / "given"), file="both/config.pbtxt", format="triton", window=[32, 48, 64])
    names = [entry.name for entry in net(version).entries]
    assert names == [f"{net_name(version)}.moved", f"{net_name(version)}.split", net_name(version)]
    last = parsed(net(version).entries[-1].config)
    assert [step.model_name for step in last.ensemble_scheduling.step] == names[:2]
    assert {owner_of(name) for name in names} == {triton_name(version, BLS)}


def test_a_backend_that_the_server_lacks_is_named(tmp_path: Path) -> None:
    directory = python_model(tmp_path / "given")
    (directory / "config.pbtxt").write_text(
        (directory / "config.pbtxt").read_text().replace('"python"', '"tensorrt"')
    )
    version = model(directory, file="config.pbtxt", format="triton", window=[32, 48, 64])
    with pytest.raises(InvalidModelPackage, match=r"no backend tensorrt \(it has onnxruntime, openvino, python"):
        net(version)
    assert net(version, CONTAINER).inner.backend == "tensorrt"


def test_host_and_network_are_written_and_touched_apart(tmp_path: Path) -> None:
    version = package(tmp_path / "t", Thresholds(), "t", 1)
    file = version.path / "model.ts"
    os.utime(file, (0, 0))
    repository = tmp_path / "repository"
    name = write_model(repository, version, cache=tmp_path, calls=tmp_path, threads=1, net=net(version))
    assert (name, owner_of(net_name(version)), owner_of(name)) == (triton_name(version, BLS), name, name)
    assert owner_of(triton_name(version)) == triton_name(version)
    assert (repository / net_name(version) / "1" / "model.pt").read_bytes() == file.read_bytes()
    host = parsed((repository / name / "config.pbtxt").read_text())
    assert Inner.of_text(host.parameters["inner"].string_value) == net(version).inner
    touch(repository, net_name(version))
    assert (repository / net_name(version) / "1" / ".touched").is_file()
    assert file.stat().st_mtime == 0  # what was added never changes


def test_the_host_reads_how_its_network_is_called(tmp_path: Path) -> None:
    inner = net(package(tmp_path / "t", Thresholds(), "t", 1)).inner
    said = {"package": "/p", "cache": "/c", "calls": "/calls", "threads": "2", "engine": "", "precision": ""}
    for more, expected in ({}, None), ({"inner": inner.as_text()}, inner):
        parameters = {key: {"string_value": value} for key, value in {**said, **more}.items()}
        arguments = {"model_config": json.dumps({"parameters": parameters})}
        assert HostSettings.from_arguments(arguments).inner == expected


# --------------------------------------------------------------------------------------------- the server's side


def installation(root: Path, *native: str) -> Installation:
    (root / "backends" / "python").mkdir(parents=True)
    (root / "backends" / "python" / "triton_python_backend_stub").write_text("")
    for name in native:
        (root / "backends" / name).mkdir()
        (root / "backends" / name / f"libtriton_{name}.so").write_text("")
    (root / "backends" / "half").mkdir()  # nothing that Triton would load
    return Installation(root / "tritonserver", root / "backends", None, ())


def test_a_servers_own_backends_go_before_stand_ins(tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    folder.mkdir()
    given = installation(tmp_path / "embedded")
    assert copy_backends(given, folder) == EMBEDDED
    code = (folder / "onnxruntime" / "model.py").read_text()
    compile(code, "model.py", "exec")
    assert "Shim(backend, 'onnxruntime', args)" in code
    given = installation(tmp_path / "container", "onnxruntime", "tensorrt")
    found = copy_backends(given, folder)  # of the server before nothing is left
    assert found == {"onnxruntime": NATIVE, "tensorrt": NATIVE, "openvino": STAND_IN, "pytorch": STAND_IN}
    assert (folder / "onnxruntime").is_symlink()
    assert (folder / "onnxruntime" / "libtriton_onnxruntime.so").is_file()
    assert not (folder / "python").is_symlink()
    assert shims.BACKENDS == STAND_INS


def test_a_gpu_is_seen_by_its_device(tmp_path: Path) -> None:
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_gpu(tmp_path)


# ------------------------------------------------------------------------------------------------ calling it


class Backend:
    """triton_python_backend_utils with one model behind it: it doubles, and tells what it was given."""

    def __init__(self, error: str = "") -> None:
        self.given: list[list[torch.Tensor]] = []
        self._error = error

    class Tensor:
        def __init__(self, name: str, value: Any) -> None:
            self.name, self.value = name, value

        @classmethod
        def from_dlpack(cls, name: str, value: torch.Tensor) -> Backend.Tensor:
            return cls(name, value)

        def to_dlpack(self) -> Any:
            return self.value

    def InferenceRequest(self, *, model_name: str, requested_output_names: list[str], inputs: list[Any]) -> Any:
        self.given.append([from_dlpack(tensor.value) for tensor in inputs])
        answer = SimpleNamespace(
            has_error=lambda: bool(self._error),
            error=lambda: SimpleNamespace(message=lambda: self._error),
            output=self.Tensor(requested_output_names[0], 2 * self.given[-1][0]),
        )
        return SimpleNamespace(exec=lambda: answer)

    @staticmethod
    def get_output_tensor_by_name(response: Any, name: str) -> Any:
        assert response.output.name == name
        return response.output


INNER = Inner("net", ("x",), ("y",), ("TYPE_FP32",), 4, True, 5, "onnxruntime", True)


def test_windows_go_several_at_once() -> None:
    backend, windows = Backend(), torch.rand(4, 1, 3, 4, 5)
    loaded = load(backend, INNER)
    assert torch.equal(loaded(windows), 2 * windows)
    assert (loaded.batch, loaded.info["engine"], backend.given[0][0].shape) == (
        4,
        "Triton onnxruntime",
        windows.shape,
    )


def test_a_model_without_a_batch_axis_or_in_half_precision_is_given_what_it_takes() -> None:
    backend, windows = Backend(), torch.rand(1, 1, 3, 4, 5)
    lone = dataclasses.replace(INNER, batch=1, batches_all=False, rank=4, data_types=("TYPE_FP16",))
    found = load(backend, lone)(windows)
    assert (backend.given[0][0].shape, backend.given[0][0].dtype) == (windows.shape[1:], torch.float16)
    assert (found.shape, found.dtype) == (windows.shape, torch.float32)


def test_parameters_are_repeated_for_a_model_whose_tensors_all_have_a_batch_axis() -> None:
    backend, windows, numbers = Backend(), torch.rand(3, 1, 2, 2, 2), torch.tensor([0.5, 1.0])
    two = dataclasses.replace(INNER, inputs=("x", "p"), data_types=("TYPE_FP32", "TYPE_FP32"))
    load(backend, two)(windows, numbers)
    assert backend.given[0][1].tolist() == [[0.5, 1.0]] * 3
    load(backend, dataclasses.replace(two, batches_all=False))(windows, numbers)
    assert backend.given[1][1].tolist() == [0.5, 1.0]


def test_what_the_inner_model_says_reaches_the_host() -> None:
    with pytest.raises(RuntimeError, match=r"^net: Stub process 'net_0_0' is not healthy"):
        load(Backend("Stub process 'net_0_0' is not healthy."), INNER)(torch.rand(1, 1, 2, 2, 2))


# ------------------------------------------------------------------------------------------------- stand-ins


def arguments(folder: Path, name: str, inputs: list[str], outputs: list[str], **parameters: str) -> dict[str, str]:
    config = {
        "default_model_filename": name,
        "input": [{"name": one} for one in inputs],
        "output": [{"name": one} for one in outputs],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }
    return {
        "model_config": json.dumps(config),
        "model_repository": str(folder),
        "model_version": "1",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    }


class Swapped(torch.nn.Module):
    """Two inputs whose order matters, two outputs."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return first - second, first + second


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(["INPUT__1", "INPUT__0"], ["OUTPUT__1", "OUTPUT__0"]), (["second", "first"], ["OUTPUT__1", "OUTPUT__0"])],
)
def test_tensors_of_torchscript_go_by_number_or_by_name(
    tmp_path: Path, inputs: list[str], outputs: list[str]
) -> None:
    (tmp_path / "1").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Swapped()).save(str(tmp_path / "1" / "model.pt"))
    run = shims.PyTorch(arguments(tmp_path, "model.pt", inputs, outputs))
    found = run({inputs[0]: torch.tensor([1.0]), inputs[1]: torch.tensor([5.0])})
    assert {name: tensor.item() for name, tensor in found.items()} == {"OUTPUT__0": 4.0, "OUTPUT__1": 6.0}


def test_one_bad_request_does_not_spoil_the_others_of_its_batch(tmp_path: Path) -> None:
    version = onnx(tmp_path / "m", batches=True)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes((version.path / "model.onnx").read_bytes())
    shim = shims.Shim(
        SimpleNamespace(
            Tensor=Backend.Tensor,
            InferenceResponse=lambda tensors=(), error=None: SimpleNamespace(tensors=tensors, error=error),
            TritonError=str,
        ),
        "onnxruntime",
        arguments(tmp_path, "model.onnx", ["image"], ["scores"], intra_op_thread_count="1"),
    )

    def request(value: torch.Tensor) -> Any:
        tensor = SimpleNamespace(name=lambda: "image", to_dlpack=lambda: value)
        return SimpleNamespace(inputs=lambda: [tensor], requested_output_names=lambda: ["scores"])

    wrong, right = shim.execute([request(torch.zeros(1, 1, 3, 3, 3)), request(torch.zeros(2, 1, *WINDOW))])
    assert "image" in wrong.error
    assert right.error is None
    assert np.shape(right.tensors[0].value) == (2, 3, *WINDOW)
