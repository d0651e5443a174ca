"""Versions of a model change in a real tritonserver while requests go on: none fails, and none is unloaded in use."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.leases import Leases
from dicomnode.adapters.triton.repository import SELF_TEST, triton_name
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.errors import ModelFailed
from dicomnode.node.model_loop import ModelLoop
from dicomnode.ports import ModelVersion
from tests.adapters.fake_state import FakeState
from tests.hot_models import NAME, Requests, hot_version, labels_of
from tests.triton_models import Slow, package

pytestmark = [pytest.mark.triton, pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "triton"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[TritonServer]:
    with TritonServer(home, 2) as running:
        yield running


def loaded(engine: TritonEngine) -> set[str]:
    return set(engine._client.loaded()) - {SELF_TEST}


def until(holds: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail(f"it did not come to be: {what}")


@contextlib.contextmanager
def following(state: FakeState, engine: TritonEngine) -> Iterator[None]:
    """The loop of a worker that prepares models, in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=ModelLoop(state, engine).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_no_request_fails_while_versions_change(server: TritonServer, home: Path, tmp_path: Path) -> None:
    """Two workers on one server: requests of both go on while versions are activated, shadowed and rolled back."""
    state = FakeState()
    versions = [hot_version(tmp_path / str(n), n, threshold) for n, threshold in ((1, 0.3), (2, 0.5), (3, 0.7))]
    for number, model in enumerate(versions):
        state.add_model(model.card, model.digest, model.path, activate=number == 0)
    with InProcessEngine(tmp_path, 1) as inside:
        expected = {model.version: labels_of(inside, model) for model in versions}
    with TritonEngine(home, 1) as one, TritonEngine(home, 1) as other:
        assert len({labels.tobytes() for labels in expected.values()}) == 3
        one.prepare(versions[:1])
        with (
            following(state, one),
            following(state, other),
            Requests(state, one, expected) as first,
            Requests(state, other, expected) as second,
        ):
            for change, version in (
                (lambda: state.activate_model(NAME, "2.0.0"), "2.0.0"),
                (lambda: state.shadow_model(NAME, "3.0.0"), "2.0.0"),
                (lambda: state.activate_model(NAME, "3.0.0"), "3.0.0"),
                (lambda: state.rollback_model(NAME), "2.0.0"),
            ):
                before = [requests.count(version) for requests in (first, second)]
                change()
                until(
                    lambda before=before, version=version: all(
                        requests.count(version) > count + 2
                        for requests, count in zip((first, second), before, strict=True)
                    ),
                    f"answers of {version}",
                )
            until(lambda: loaded(one) == {triton_name(versions[1])}, "the others are unloaded")
    answers = first.answers + second.answers
    assert [answer.failure for answer in answers if answer.failure] == []
    assert {answer.version for answer in answers} == {"1.0.0", "2.0.0", "3.0.0"}


def test_a_model_is_not_unloaded_under_a_running_call(server: TritonServer, home: Path, tmp_path: Path) -> None:
    """Of another process even: the file lock is what tells. A version that is broken keeps no other from it."""
    slow = package(tmp_path / "slow", Slow(), "slow", 2, engine="torchscript")
    broken = hot_version(tmp_path / "broken", 1, 0.5)
    (broken.path / "model.ts").write_bytes(b"not a network")
    got: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
    with TritonEngine(home, 1) as caller, TritonEngine(home, 1) as tidier:
        with pytest.raises(ModelFailed):
            caller.prepare([broken, slow])
        expected = labels_of(caller, slow)
        call = threading.Thread(target=lambda: got.append(labels_of(caller, slow)))
        call.start()
        until(lambda: in_use(home, slow), "the call runs")
        tidier.prepare([])
        assert triton_name(slow) in loaded(tidier)
        call.join()
        np.testing.assert_array_equal(got[0], expected)
        tidier.prepare([])
        until(lambda: triton_name(slow) not in loaded(tidier), "it is unloaded once nobody uses it")


def in_use(home: Path, model: ModelVersion) -> bool:
    with Leases(home / "leases").alone_with(triton_name(model)) as alone:
        return not alone
