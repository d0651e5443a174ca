"""The real Triton: the same answers as in-process, and killed at the worst moments."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from dicomnode.adapters.triton import server as server_module
from dicomnode.adapters.triton.client import Client, self_test
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import SELF_TEST, triton_name
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.adapters.triton.shared_memory import FOLDER, Region
from dicomnode.adapters.triton.tensors import TensorPlace
from dicomnode.errors import EngineUnavailable, InferenceTimeout, ModelFailed
from dicomnode.imaging.geometry import Placement, Rescale
from dicomnode.ports import InferenceEngine, InferenceRequest, ModelVersion
from tests.asked import labelled
from tests.triton_models import Both, Slow, Thresholds, axial, package, random_unet

pytestmark = [pytest.mark.triton, pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here")]

SHAPE = (20, 64, 60)
GEOMETRY = axial(SHAPE, (3.0, 1.1, 1.1))
HU = Rescale(1.0, 0.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "triton"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[TritonServer]:
    with TritonServer(home, 2) as running:
        yield running
    assert left_behind(home) == []
    assert not Place(home).socket_folder.exists()


@pytest.fixture(scope="module")
def engine(server: TritonServer, home: Path) -> Iterator[TritonEngine]:
    with TritonEngine(home, 2) as client:
        yield client


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return package(tmp_path_factory.mktemp("models") / "unet", random_unet(), "unet", 2)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return package(tmp_path_factory.mktemp("models") / "slow", Slow(), "slow", 2, engine="torchscript")


def left_behind(home: Path) -> list[str]:
    place = Place(home)
    return [p.name for prefix in (place.client_prefix, place.server_prefix) for p in FOLDER.glob(f"{prefix}*")]


def stub_of(server: TritonServer, name: str) -> psutil.Process:
    assert server.pid is not None
    children = psutil.Process(server.pid).children(recursive=True)
    return next(p for p in children if any(f"/{name}/" in argument for argument in p.cmdline()))


def noise() -> np.ndarray[tuple[int, int, int], np.dtype[np.int16]]:
    return np.random.default_rng(0).integers(-100, 200, SHAPE).astype(np.int16)


def labels_of(engine: InferenceEngine, model: ModelVersion) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with engine.open(SHAPE) as session:
        session.volume[...] = noise()
        with labelled(session, InferenceRequest(model, GEOMETRY, HU, timeout_s=120)) as labels:
            return labels.copy()


def test_every_int16_comes_back_as_it_went_in(engine: TritonEngine) -> None:
    engine.self_test()


def test_labels_are_those_of_the_engine_in_process(engine: TritonEngine, unet: ModelVersion, tmp_path: Path) -> None:
    with InProcessEngine(tmp_path, 2) as inside:
        expected = labels_of(inside, unet)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(labels_of(engine, unet), expected)


def test_where_a_host_does_not_see_our_memory_triton_brings_the_volume(
    server: TritonServer,
    home: Path,
    unet: ModelVersion,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in a container of its own, where the path leads to another file, or to none."""
    with TritonEngine(home, 2) as engine:
        expected = labels_of(engine, unet)
    place = Region.place

    def elsewhere(region: Region, offset: int, shape: tuple[int, ...]) -> TensorPlace:
        return dataclasses.replace(place(region, offset, shape), inode=1)

    monkeypatch.setattr(Region, "place", elsewhere)
    with TritonEngine(home, 2) as engine:
        engine.prepare([unet])
        for _ in range(2):
            np.testing.assert_array_equal(labels_of(engine, unet), expected)
    said = [line for line in caplog.messages if "through Triton, which copies them" in line]
    assert len(said) == 1
    assert "is another file here" in said[0]


def test_what_runs_the_network_is_known(engine: TritonEngine, unet: ModelVersion) -> None:
    described = engine.describe(unet)
    assert described["server"].startswith("triton 2.")
    assert described["engine"].startswith(("OpenVINO", "TorchScript"))
    assert described["precision"] == "f32"


def test_regions_have_no_names_once_they_are_registered(engine: TritonEngine, home: Path) -> None:
    with engine.open(SHAPE):
        assert [name for name in left_behind(home) if "client" in name] == []


class InFlight:
    """A run of a model in a thread, with what came of it."""

    def __init__(self, engine: TritonEngine, model: ModelVersion, timeout_s: float = 120) -> None:
        self._engine, self._model, self._timeout_s = engine, model, timeout_s
        self.labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._engine.open(SHAPE) as session:
                session.volume[...] = noise()
                with labelled(
                    session, InferenceRequest(self._model, GEOMETRY, HU, timeout_s=self._timeout_s)
                ) as labels:
                    self.labels = labels.copy()
        except (EngineUnavailable, InferenceTimeout, ModelFailed) as error:
            self.error = error

    def wait(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()


def wait_until_busy(process: psutil.Process) -> None:
    """Until it has worked for a moment since now: a network is running in it."""
    before = sum(process.cpu_times()[:2])
    for _ in range(1000):
        if sum(process.cpu_times()[:2]) > before + 0.1:
            return
        time.sleep(0.02)
    pytest.fail("the model did not start to work")


@pytest.mark.parametrize("victim", ["server", "stub"])
def test_a_call_in_flight_survives_kill_9(
    engine: TritonEngine, server: TritonServer, slow: ModelVersion, home: Path, victim: str
) -> None:
    engine.prepare([slow])
    expected = labels_of(engine, slow)
    stub, before = stub_of(server, triton_name(slow)), server.pid
    assert before is not None
    call = InFlight(engine, slow)
    wait_until_busy(stub)
    os.kill(before if victim == "server" else stub.pid, signal.SIGKILL)
    call.wait()
    assert call.error is None
    assert call.labels is not None
    np.testing.assert_array_equal(call.labels, expected)
    assert (server.pid == before) == (victim == "stub")
    assert [name for name in left_behind(home) if "client" in name] == []


@pytest.mark.parametrize("is_seen", [True, False], ids=["mapped by the host", "brought by Triton"])
def test_both_series_of_a_session_reach_the_server_that_came_after(
    engine: TritonEngine, server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    """Decoded for a server that was killed since: each volume moves, and none is taken for the other."""
    pet = {"role": "pet", "modality": ["PT"], "intensity": {"from": [-57, 164]}}
    model = package(tmp_path / "both", Both(), "both", 1, inputs=[pet], spacing_mm=[1.5, 1.5, 2.0])
    geometry = axial((6, 20, 24), (2.0, 1.5, 1.5))
    before = server.pid
    assert before is not None
    monkeypatch.setattr(engine._reach, "is_seen", is_seen)
    with engine.open(geometry.shape, [geometry.shape]) as session:
        session.volume[...], session.further[0][...] = 0, 0
        session.volume[:, 5:, :], session.further[0][:, :, 8:] = 100, 100
        os.kill(before, signal.SIGKILL)
        placement = Placement(geometry, HU)
        with labelled(session, InferenceRequest(model, geometry, HU, timeout_s=100, further=[placement])) as labels:
            wanted = np.zeros(geometry.shape, np.uint8)
            wanted[:, 5:, 8:] = 1
            np.testing.assert_array_equal(labels, wanted)
    assert server.pid != before


def test_a_call_that_takes_too_long_is_given_up_by_the_host_too(
    engine: TritonEngine, server: TritonServer, slow: ModelVersion
) -> None:
    engine.prepare([slow])
    before = server.pid
    call = InFlight(engine, slow, timeout_s=0.05)
    call.wait()
    assert isinstance(call.error, InferenceTimeout)
    expected = labels_of(engine, slow)  # the same server, and nothing of the call before is left in it
    assert expected.any()
    assert server.pid == before


def test_what_the_network_says_reaches_the_node(engine: TritonEngine, tmp_path: Path) -> None:
    wrong = package(tmp_path / "wrong", Thresholds(), "wrong", 5, engine="torchscript")
    with pytest.raises(ModelFailed, match="2 channels, its card means 6"):
        engine.prepare([wrong])
    (tmp_path / "wrong" / "model.ts").unlink()
    gone = dataclasses.replace(wrong, digest="e" * 64)
    with pytest.raises(ModelFailed, match=r"model\.ts is not in the package"):
        engine.prepare([gone])


def test_a_dead_self_test_is_revived_by_the_supervisor(server: TritonServer, home: Path) -> None:
    before = server.pid
    stub_of(server, SELF_TEST).kill()
    client = Client(Place(home).url)
    with contextlib.closing(client):
        for _ in range(150):
            with contextlib.suppress(EngineUnavailable):
                self_test(client, Place(home).client_prefix, SELF_TEST)
                break
            time.sleep(0.2)
        else:
            pytest.fail("the self-test's stub was not revived")
    assert server.pid == before


def test_a_client_that_was_killed_leaves_nothing_registered(server: TritonServer, home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dicomnode.adapters.triton.engine import TritonEngine\n"
        "with TritonEngine(Path(sys.argv[1])) as engine, engine.open((4, 5, 6)):\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"open\n"
        worker.kill()
    place = Place(home)
    with contextlib.closing(Client(place.url)) as client:
        assert len(client.forget_dead_clients(place.client_prefix)) == 1
    assert [name for name in left_behind(home) if "client" in name] == []


def test_a_second_server_for_one_home_is_refused(server: TritonServer, home: Path) -> None:
    with pytest.raises(EngineUnavailable, match="another process"), TritonServer(home):
        pass
    assert server.pid is not None


def test_without_a_server_the_client_says_so(tmp_path: Path) -> None:
    with TritonEngine(tmp_path / "nobody", grace_s=0.3) as engine:
        with pytest.raises(EngineUnavailable, match="not ready within"), engine.open(SHAPE):
            pass
        assert EngineUnavailable.retryable


def test_a_client_that_is_closed_waits_no_longer(tmp_path: Path) -> None:
    engine, said = TritonEngine(tmp_path / "nobody", grace_s=600), []

    def prepare() -> None:
        try:
            engine.prepare([])
        except EngineUnavailable as error:
            said.append(str(error))

    waiting = threading.Thread(target=prepare, daemon=True)
    waiting.start()
    engine.close()
    waiting.join(60)
    assert said == ["the connection to Triton was closed here"]


def test_a_home_may_be_called_anything(tmp_path: Path) -> None:
    odd = tmp_path / "Übung mit Raum $(exit 1)" / "å;b"
    model = package(odd / "unet", random_unet(), "unet", 2)
    with TritonServer(odd / "triton", 2), TritonEngine(odd / "triton", 2) as engine:
        assert len(np.unique(labels_of(engine, model))) == 3
        assert engine.describe(model)["engine"].startswith(("OpenVINO", "TorchScript"))
    assert left_behind(odd / "triton") == []


def replace_stub(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The server passes its check of the stub, and then finds another."""

    def replaced(folder: Path, environment: object) -> None:
        (folder / "python" / "triton_python_backend_stub").write_text(code)

    monkeypatch.setattr(server_module, "probe_stub", replaced)


def test_a_stub_that_cannot_start_fails_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_stub(monkeypatch, "#!/no/such/program\n")
    monkeypatch.setattr(server_module, "START_S", 600.0)
    with pytest.raises(EngineUnavailable, match=r"ended at once(.|\n)*triton_python_backend_stub: "):
        TritonServer(tmp_path / "triton").start()


def test_a_stop_while_a_model_loads_ends_the_server_and_its_stub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_stub(monkeypatch, "#!/bin/sh\nexec sleep 600\n")
    server, stop = TritonServer(tmp_path / "triton"), threading.Event()
    serving = threading.Thread(target=server.serve_forever, args=(stop,))
    serving.start()
    try:
        family = family_once_it_loads(server)
    finally:
        stop.set()
        serving.join(60)
    assert not serving.is_alive()
    assert not any(lives(process) for process in family)
    assert left_behind(tmp_path / "triton") == []


def lives(process: psutil.Process) -> bool:
    """A process that ended may keep its entry: its parent is gone too."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family_once_it_loads(server: TritonServer) -> list[psutil.Process]:
    """The server and the process that should become its stub."""
    for _ in range(600):
        with contextlib.suppress(psutil.NoSuchProcess):
            if server.pid and (children := psutil.Process(server.pid).children()):
                return [psutil.Process(server.pid), *children]
        time.sleep(0.05)
    pytest.fail("Triton did not start a stub")


def test_a_supervisor_that_was_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path; from dicomnode.adapters.triton.server import TritonServer\n"
        "server = TritonServer(Path(sys.argv[1]), 1); server.start(); print(server.pid, flush=True)\n"
        "threading.Event().wait()"
    )
    home = tmp_path / "triton"
    with subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        supervisor.kill()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert Place(home).socket_folder.exists()
    with TritonServer(tmp_path / "another", 1) as anew:
        assert anew.pid not in {None, pid}
    assert left_behind(home) == []
    assert not Place(home).socket_folder.exists()
