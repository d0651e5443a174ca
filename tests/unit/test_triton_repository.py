"""What is written for Triton, and where its server and clients meet."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from dicomnode.adapters.triton import shared_memory
from dicomnode.adapters.triton.client import LostModel, LostRegion, LostStub, error_of
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import touch, triton_name, write_model, write_self_test
from dicomnode.domain.model_card import parse_model_card
from dicomnode.errors import EngineUnavailable, InferenceTimeout, ModelFailed, OutOfResources
from dicomnode.ports import ModelVersion
from tests.triton_models import document

CARD = parse_model_card(document("torso-ct", 2))
MODEL = ModelVersion(1, "torso-ct", "1.0.0+b", "0123456789abcdef" * 4, Path('/models/a "b"'), CARD, True)


def test_an_entry_is_written_once_and_touched_on_purpose(tmp_path: Path) -> None:
    name = write_model(tmp_path, MODEL, cache=tmp_path / "cache", calls=tmp_path, threads=3)
    code, config = tmp_path / name / "1" / "model.py", tmp_path / name / "config.pbtxt"
    os.utime(code, (0, 0))
    os.utime(config, (0, 0))
    assert write_model(tmp_path, MODEL, cache=tmp_path / "cache", calls=tmp_path, threads=3) == name
    assert (code.stat().st_mtime, config.stat().st_mtime) == (0, 0)
    assert write_model(tmp_path, MODEL, cache=tmp_path / "cache", calls=tmp_path, threads=4) == name
    assert (code.stat().st_mtime, config.stat().st_mtime > 0) == (0, True)
    touch(tmp_path, name)
    assert code.stat().st_mtime > 0
    assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["1", "config.pbtxt"]


def test_the_configuration_says_what_goes_in_and_out(tmp_path: Path) -> None:
    config = (
        tmp_path / write_model(tmp_path, MODEL, cache=Path("/c"), calls=Path("/d"), threads=3) / "config.pbtxt"
    ).read_text()
    assert '{ name: "VOLUME", data_type: TYPE_INT16, dims: [-1, -1, -1], optional: true }' in config
    assert '{ name: "LABELMAP", data_type: TYPE_UINT8, dims: [-1, -1, -1] }' in config
    assert 'parameters { key: "package", value: { string_value: "/models/a \\"b\\"" } }' in config
    assert 'parameters { key: "threads", value: { string_value: "3" } }' in config


def test_each_role_is_a_volume_with_its_place(tmp_path: Path) -> None:
    inputs = [{"role": r, "modality": ["PT"], "intensity": {"from": [0, 1]}} for r in ("pet", "prior")]
    model = dataclasses.replace(MODEL, card=parse_model_card(document("torso-ct", 2, inputs=inputs)))
    config = (
        tmp_path / write_model(tmp_path, model, cache=Path("/c"), calls=Path("/d"), threads=3) / "config.pbtxt"
    ).read_text()
    names = [line.split('"')[1] for line in config.splitlines() if line.startswith("input ")]
    main, first, second = ([f"{name}{n}" for name in ("VOLUME", "RESCALE", "AFFINE")] for n in ("", "_1", "_2"))
    assert names == [*main, *first, *second, "PARAMETERS", "REGIONS"]


def test_another_digest_is_another_model() -> None:
    assert triton_name(MODEL) == "torso-ct-1.0.0+b-01234567-5"
    assert triton_name(dataclasses.replace(MODEL, digest="f" * 64)) != triton_name(MODEL)


def test_the_code_for_triton_compiles(tmp_path: Path) -> None:
    for name in (write_self_test(tmp_path), write_model(tmp_path, MODEL, cache=tmp_path, calls=tmp_path, threads=1)):
        source = (tmp_path / name / "1" / "model.py").read_text()
        compile(source, name, "exec")
        assert "class TritonPythonModel" in source


def test_a_socket_path_is_short_however_long_the_home(tmp_path: Path) -> None:
    place = Place(tmp_path / ("long-" * 60))
    assert len(str(place.socket)) < 107 - 10
    assert place.url == f"unix:{place.socket}"
    assert place.socket != Place(tmp_path / "other").socket


def test_a_socket_folder_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = Place(tmp_path / "triton")
    place.make()
    place.make()
    assert place.socket_folder.stat().st_mode & 0o777 == 0o700
    place.socket_folder.chmod(0o755)
    with pytest.raises(EngineUnavailable, match="this user alone"):
        place.make()


def test_what_triton_is_told_is_plain_whatever_the_home_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "Übung $(a) 'b'"
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    assert Place(odd).socket_folder.parent == Path("/tmp")
    (short := tmp_path / "t").mkdir()
    monkeypatch.setattr(Place, "socket_folder", short / "own")
    place = Place(odd / "triton")
    place.make()
    assert place.plain_repository.samefile(place.repository)
    assert place.plain_backends.samefile(place.backends)
    linked = place.plain(place.cache)
    assert linked.parent == short / "own"
    assert linked.samefile(place.cache)
    assert place.plain(short) == short


def test_a_link_that_leads_elsewhere_is_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "socket_folder", tmp_path / "own")
    place = Place(tmp_path / "triton")
    place.make()
    place.plain_repository.unlink()
    place.plain_repository.symlink_to(tmp_path)
    place.make()
    assert place.plain_repository.samefile(place.repository)
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["backends", "repository"]


def test_a_socket_folder_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "socket_folder", tmp_path / "planted")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "planted").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineUnavailable, match="this user alone"):
        Place(tmp_path / "triton").make()


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", InferenceTimeout),
        ("StatusCode.UNAVAILABLE", "Socket closed", EngineUnavailable),
        ("StatusCode.CANCELLED", "cancelled", EngineUnavailable),
        ("StatusCode.INTERNAL", "Stub process 'a_0_0' is not healthy.", LostStub),
        ("StatusCode.INVALID_ARGUMENT", "Unable to find shared memory region: 'x'", LostRegion),
        ("StatusCode.NOT_FOUND", "Request for unknown model: 'a' is not found", LostModel),
        ("StatusCode.UNAVAILABLE", "Request for unknown model: 'a' has no available versions", LostModel),
        ("StatusCode.INTERNAL", "Failed to increase the shared memory pool size", OutOfResources),
        ("StatusCode.INTERNAL", "RuntimeError: the network is at fault", ModelFailed),
    ],
)
def test_the_servers_answers_in_the_nodes_words(status: str, message: str, kind: type[Exception]) -> None:
    assert type(error_of(InferenceServerException(message, status))) is kind


def test_a_model_that_did_not_load_says_why_and_nothing_around_it() -> None:
    message = (
        "load failed for model 'a-1': version 1 is at UNAVAILABLE state: Internal: InvalidModelPackage: model.yaml."
        "network.format: this model needs nnU-Net: pip install it\n\nAt:\n  /srv/nnunet.py(120): _predictor\n;\n"
    )
    error = error_of(InferenceServerException(message, "StatusCode.INTERNAL"))
    assert str(error) == "model.yaml.network.format: this model needs nnU-Net: pip install it"
    assert str(error_of(InferenceServerException("x: y\n\nAt:\n  z", ""))) == "x: y\n\nAt:\n  z"


def test_a_model_that_fails_says_why_and_the_log_where(caplog: pytest.LogCaptureFixture) -> None:
    why = "the network gives 2 channels, its card means 4"
    around = "Failed to process the request(s) for model 'a-1_0_0', message: ValueError: "
    message = f"{around}{why}\n\nAt:\n  /srv/a.py(9): f\n"
    caplog.set_level(logging.INFO)
    assert str(error_of(InferenceServerException(message, "StatusCode.INTERNAL"))) == why
    assert "/srv/a.py(9): f" in caplog.text


def test_a_scripted_network_that_fails_says_what_was_wrong_and_not_its_stack() -> None:
    told = (
        "Failed to process the request(s) for model 'a-1_0_0', message: RuntimeError: The following operation failed "
        "in the TorchScript interpreter.\nTraceback of TorchScript, serialized code (most recent call last):\n"
        '  File "code/__torch__/a.py", line 9, in forward\n    ~~~ <--- HERE\n\n'
        "Traceback of TorchScript, original code (most recent call last):\n"
        "builtins.RuntimeError: there is too much light in it\n\n\nAt:\n  /srv/a.py(9): f\n"
    )
    error = error_of(InferenceServerException(told, "StatusCode.INTERNAL"))
    assert str(error) == "RuntimeError: there is too much light in it"


# ---------------------------------------------------------------------------------------------- shared memory

needs_shm = pytest.mark.skipif(not shared_memory.FOLDER.is_dir(), reason="there is no /dev/shm here")
PREFIX = f"dicomnode-test-{os.getpid()}"


def names() -> list[str]:
    return sorted(path.name for path in shared_memory.FOLDER.glob(f"{PREFIX}*"))


@needs_shm
def test_a_region_has_a_name_only_inside_its_block() -> None:
    with shared_memory.region(PREFIX, 24) as made:
        array = made.array((2, 3), np.int32)
        array[...] = 7
        assert names() == [made.name]
        assert (shared_memory.FOLDER / made.name).read_bytes() == array.tobytes()
    assert names() == []
    assert array.sum() == 42  # its memory lives as long as the array


@needs_shm
def test_memory_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(OutOfResources, match="MiB left"), shared_memory.region(PREFIX, 1 << 45):
        pass
    assert names() == []


@needs_shm
def test_only_what_dead_clients_left_is_swept() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = shared_memory.FOLDER / f"{PREFIX}-{dead.pid}-0"
    left.write_bytes(b"x")
    with shared_memory.region(PREFIX, 1) as mine:
        assert shared_memory.sweep(PREFIX) == [left.name]
        assert names() == [mine.name]


# --------------------------------------------------------------------------------------------- installation


def test_a_named_server_is_the_only_one_looked_for(tmp_path: Path) -> None:
    assert find_server({"TRITON_SERVER_PATH": str(tmp_path), "PATH": ""}) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tritonserver").touch()
    (tmp_path / "backends" / "python").mkdir(parents=True)
    found = find_server({"TRITON_SERVER_PATH": str(tmp_path), "PATH": ""})
    assert found is not None
    assert (found.program, found.stub) == (tmp_path / "bin" / "tritonserver", None)
