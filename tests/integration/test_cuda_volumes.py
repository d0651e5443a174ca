"""Volumes that lie on the GPU for the models there, through a real Triton; the GPU alone is a fake.

What the real server says where there is no GPU is tested too, and tests/integration/test_gpu.py needs a real one.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dicomnode.adapters.triton.client import Client
from dicomnode.adapters.triton.cuda_memory import new_region
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.domain.halt import Halt
from dicomnode.errors import InferenceStopped, InferenceTimeout, ModelFailed
from dicomnode.imaging.box import Box
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest, ModelVersion
from tests.adapters.fake_cuda import FakeGpus, installed
from tests.adapters.gpu_relay import GpuRelay
from tests.asked import labelled
from tests.triton_models import Slow, Thresholds, axial, package, random_unet

pytestmark = [pytest.mark.triton, pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here")]

SHAPE = (20, 64, 60)
GEOMETRY = axial(SHAPE, (3.0, 1.1, 1.1))
HU = Rescale(1.0, 0.0)
Labels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "triton"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[TritonServer]:
    with TritonServer(home, 2) as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelVersion]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "unet": package(folder / "unet", random_unet(), "unet", 2, engine="torchscript"),
        "thresholds": package(folder / "thresholds", Thresholds(), "thresholds", 1, engine="torchscript"),
        "slow": package(folder / "slow", Slow(), "slow", 2, engine="torchscript"),
    }


@dataclass(frozen=True)
class Bench:
    """An engine whose Triton has a fake GPU."""

    engine: TritonEngine
    gpus: FakeGpus
    relay: GpuRelay

    def copies(self) -> int:
        """Volumes on the GPU, made so far; the first memory there was for proving that it works."""
        return len(self.gpus.made) - 1


@pytest.fixture
def bench(
    server: TritonServer,
    home: Path,
    models: dict[str, ModelVersion],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    gpus = FakeGpus()
    with installed(gpus), GpuRelay(Place(home).url, tmp_path, str(gpus.uuids[0])) as relay:
        with monkeypatch.context() as patch:
            patch.setattr(Place, "url", property(lambda place: relay.url))
            engine = TritonEngine(home, 2)

        def not_registered(name: str) -> None:
            assert name not in relay.registered.values(), "freed while the server reads it"

        gpus.freed = not_registered
        with engine:
            for model in (models["unet"], models["thresholds"]):
                engine.describe(model)
            assert relay.read == []  # nobody froze what they were warmed with
            yield Bench(engine, gpus, relay)
        assert gpus.taken == 0
        assert relay.registered == {}


def noise() -> np.ndarray[tuple[int, int, int], np.dtype[np.int16]]:
    return np.random.default_rng(0).integers(-100, 200, SHAPE).astype(np.int16)


def labels_of(engine: TritonEngine, *models: ModelVersion, frozen: bool = True) -> list[Labels]:
    found = []
    with engine.open(SHAPE) as session:
        session.volume[...] = noise()
        if frozen:
            session.freeze()
        for model in models:
            with labelled(session, InferenceRequest(model, GEOMETRY, HU, timeout_s=120)) as labels:
                found.append(labels.copy())
    return found


@pytest.fixture(scope="module")
def expected(server: TritonServer, home: Path, models: dict[str, ModelVersion]) -> dict[str, Labels]:
    """Through system shared memory."""
    with TritonEngine(home, 2) as engine:
        names = ["unet", "thresholds"]
        return dict(zip(names, labels_of(engine, *(models[name] for name in names)), strict=True))


def test_models_read_one_copy_on_the_gpu_and_say_the_same(
    bench: Bench, models: dict[str, ModelVersion], expected: dict[str, Labels]
) -> None:
    unet, thresholds, again = labels_of(bench.engine, models["unet"], models["thresholds"], models["unet"])
    for found, name in ((unet, "unet"), (thresholds, "thresholds"), (again, "unet")):
        np.testing.assert_array_equal(found, expected[name])
    assert bench.copies() == 1
    assert len(bench.relay.read) == 3
    assert len(set(bench.relay.read)) == 1
    assert bench.gpus.made[1].content(noise().nbytes) == noise().tobytes()


def test_what_may_still_be_written_to_stays_in_system_memory(
    bench: Bench, models: dict[str, ModelVersion], expected: dict[str, Labels]
) -> None:
    (found,) = labels_of(bench.engine, models["unet"], frozen=False)
    np.testing.assert_array_equal(found, expected["unet"])
    assert bench.gpus.made == []


def test_a_part_of_whole_slices_is_read_where_the_volume_lies(bench: Bench, models: dict[str, ModelVersion]) -> None:
    box, inner = Box((5, 0, 0), (15, 64, 60)), Box((5, 10, 10), (15, 50, 50))
    found = []
    for frozen in (False, True):
        with bench.engine.open(SHAPE) as session:
            session.volume[...] = noise()
            if frozen:
                session.freeze()
            for part in (box, inner):
                shape = tuple(b - a for a, b in zip(part.start, part.stop, strict=True))
                request = InferenceRequest(models["unet"], axial(shape, (3.0, 1.1, 1.1)), HU, timeout_s=120)
                with session.part(part) as inside, labelled(inside, request) as labels:
                    found.append(labels.copy())
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    (whole, offset), (own, none) = bench.relay.read
    assert whole != own
    assert (offset, none) == (5 * 64 * 60 * 2, 0)
    assert bench.copies() == 2


def test_a_server_that_was_killed_is_given_the_copy_again(
    bench: Bench, server: TritonServer, models: dict[str, ModelVersion], expected: dict[str, Labels]
) -> None:
    with bench.engine.open(SHAPE) as session:
        session.volume[...] = noise()
        session.freeze()
        for kill in (False, True):
            if kill:
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
            with labelled(session, InferenceRequest(models["unet"], GEOMETRY, HU, timeout_s=120)) as labels:
                np.testing.assert_array_equal(labels, expected["unet"])
    assert bench.copies() == 1
    assert len(set(bench.relay.read)) == 1


def test_nothing_is_left_after_failure_cancelling_and_timeout(bench: Bench, models: dict[str, ModelVersion]) -> None:
    slow = models["slow"]
    bench.engine.describe(slow)
    bench.relay.failures.append("the network answers with a str; a tensor is needed")
    with pytest.raises(ModelFailed, match="answers with a str"):
        labels_of(bench.engine, slow)
    halt = Halt()
    with bench.engine.open(SHAPE) as session:
        session.volume[...] = noise()
        session.freeze()
        with pytest.raises(InferenceTimeout), labelled(session, InferenceRequest(slow, GEOMETRY, HU, timeout_s=0.2)):
            pass
        halt.say("the job was cancelled")
        with (
            pytest.raises(InferenceStopped),
            labelled(session, InferenceRequest(slow, GEOMETRY, HU, timeout_s=60, halt=halt)),
        ):
            pass
    assert bench.copies() == 2
    deadline = time.monotonic() + 60
    while bench.gpus.taken or bench.relay.registered:  # a busy server ends what was cancelled when it comes to it
        assert time.monotonic() < deadline, "the server reads them still"
        with bench.engine.open((1, 1, 1)):  # whoever comes next tidies up
            pass


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "system shared memory" in r.getMessage()]


@pytest.mark.parametrize("fault", ["refused", "elsewhere", "full", "not installed", "off"])
def test_without_the_gpu_volumes_go_the_old_way_and_the_log_says_once_why(
    bench: Bench,
    models: dict[str, ModelVersion],
    expected: dict[str, Labels],
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    words = {
        "refused": "failed to register shared memory region: invalid args",
        "elsewhere": f"the models run on the GPU {bench.gpus.uuids[0]}, which this process does not see",
        "full": "out of memory",
        "not installed": "cuda-python is not installed",
    }
    if fault == "refused":
        bench.relay.refuses = True
    elif fault == "elsewhere":
        bench.gpus.uuids[0] = FakeGpus().uuids[0]
        words["elsewhere"] = "which this process does not see"
    elif fault == "full":
        bench.gpus.nbytes = 1 << 20
    elif fault == "off":
        bench.engine.gpu_volumes.wanted = "off"
    if fault == "not installed":
        with installed(None):
            found = labels_of(bench.engine, models["unet"], models["thresholds"])
    else:
        found = labels_of(bench.engine, models["unet"], models["thresholds"])
    for labels, name in zip(found, ("unet", "thresholds"), strict=True):
        np.testing.assert_array_equal(labels, expected[name])
    assert bench.relay.read == []
    if fault == "off":
        assert reasons(caplog) == []
    else:
        (said,) = reasons(caplog)
        assert words[fault] in said
        assert words[fault] in bench.engine.gpu_volumes.why_not


def test_a_volume_for_which_the_gpu_has_no_room_goes_the_old_way_and_the_next_is_tried(
    bench: Bench, models: dict[str, ModelVersion], expected: dict[str, Labels], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    labels_of(bench.engine, models["unet"])
    bench.gpus.nbytes = 1 << 20
    (found,) = labels_of(bench.engine, models["unet"])
    np.testing.assert_array_equal(found, expected["unet"])
    bench.gpus.nbytes = 1 << 30
    labels_of(bench.engine, models["unet"])
    assert (bench.copies(), len(bench.relay.read), len(reasons(caplog))) == (2, 2, 1)


def test_a_model_that_cannot_open_the_memory_is_asked_again_the_old_way(
    bench: Bench, models: dict[str, ModelVersion], expected: dict[str, Labels], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bench.relay.failures.append("Failed to open the cudaIpcHandle. error: invalid argument")  # pb_memory.cc
    unet, thresholds = labels_of(bench.engine, models["unet"], models["thresholds"])
    np.testing.assert_array_equal(unet, expected["unet"])
    np.testing.assert_array_equal(thresholds, expected["thresholds"])
    assert len(bench.relay.read) == 1
    (said,) = reasons(caplog)
    assert "Failed to open the cudaIpcHandle" in said


def test_a_triton_that_brings_volumes_back_to_the_cpu_is_given_none_there_again(
    bench: Bench, models: dict[str, ModelVersion], expected: dict[str, Labels], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bench.relay.brings_to_cpu = True
    for labels in labels_of(bench.engine, models["thresholds"], models["thresholds"]):
        np.testing.assert_array_equal(labels, expected["thresholds"])
    assert len(bench.relay.read) == 1
    (said,) = reasons(caplog)
    assert "Triton brings them back to the CPU" in said


def test_two_engines_have_a_copy_each(
    bench: Bench, home: Path, models: dict[str, ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Place, "url", property(lambda place: bench.relay.url))
        other = TritonEngine(home, 2)
    with other, bench.engine.open(SHAPE) as one, other.open(SHAPE) as two:
        other.describe(models["thresholds"])
        for session, engine in ((one, bench.engine), (two, other)):
            session.volume[...] = noise()
            session.freeze()
            assert engine.is_there
            with labelled(session, InferenceRequest(models["thresholds"], GEOMETRY, HU, timeout_s=120)):
                pass
    assert len(set(bench.relay.read)) == 2


def test_the_region_of_a_client_that_was_killed_is_forgotten(bench: Bench, home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, prefix = int(done.stdout), Place(home).client_prefix
    client = Client(bench.relay.url)
    with client.shared_on_gpu(prefix, np.zeros(100, np.uint8), 0, 0) as ours:
        theirs = new_region(prefix, 100, 0)
        theirs.name = f"{prefix}-{dead}-gpu0"
        client.register_on_gpu(theirs, 0)
        assert set(bench.relay.registered) == {ours.name, theirs.name}
        assert client.forget_dead_clients(prefix) == [theirs.name]
        assert set(bench.relay.registered) == {ours.name}
        theirs.free()
    client.close()


def test_a_real_triton_without_a_gpu_refuses_and_volumes_go_the_old_way(
    server: TritonServer, home: Path, models: dict[str, ModelVersion], expected: dict[str, Labels]
) -> None:
    gpus = FakeGpus()
    with installed(gpus), TritonEngine(home, 2) as engine:
        assert "failed to register shared memory region" in engine.gpu_volumes.tried({str(gpus.uuids[0]): 0})
        (found,) = labels_of(engine, models["unet"])
        np.testing.assert_array_equal(found, expected["unet"])
        assert gpus.taken == 0
