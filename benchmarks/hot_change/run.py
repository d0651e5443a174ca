"""What does a change of a model's version cost the requests that go on meanwhile?

One run: a tritonserver, two workers that each send request after request to a small network, and an administrator.
For some seconds nothing changes; then versions are activated, shadowed and rolled back as `dicomnode models` does
it, and the same is measured. At last the process that runs the model is killed, and then the server (kill -9).
Every answer is compared with that of its version.

    python -m benchmarks.hot_change.run [--changes 6] [--every 4]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome
from dicomnode.node.model_loop import ModelLoop
from dicomnode.ports import ModelVersion
from dicomnode.stages.registry import Registry
from tests.adapters.fake_state import FakeState
from tests.hot_models import NAME, Answer, Requests, hot_version, labels_of, longest_gap_s

VERSIONS = (0.3, 0.5, 0.7)


@contextlib.contextmanager
def following(state: FakeState, engine: TritonEngine) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=ModelLoop(state, engine).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(folder: Path, changes: int, every_s: float) -> dict[str, object]:
    state = FakeState()
    versions = [hot_version(folder / str(n), n, threshold, "auto") for n, threshold in enumerate(VERSIONS, 1)]
    for number, model in enumerate(versions):
        state.add_model(model.card, model.digest, model.path, activate=number == 0)
    with InProcessEngine(folder, 1) as inside:
        expected = {model.version: labels_of(inside, model) for model in versions}
    home = folder / "triton"
    with TritonServer(home, 2) as server, TritonEngine(home, 1) as one, TritonEngine(home, 1) as other:
        ModelLoop(state, one).prepare()
        with (
            following(state, one),
            following(state, other),
            Requests(state, one, expected) as first,
            Requests(state, other, expected) as second,
        ):
            time.sleep(every_s * 2)
            quiet_until = time.monotonic()
            registry = Registry(state, _nothing_to_try, lambda model: _warm(home, model))
            switched = [_change(state, registry, number, (first, second), every_s) for number in range(changes)]
            changed_until = time.monotonic()
            recovered = {victim: _kill(server, victim, (first, second)) for victim in ("stub", "server")}
    answers = first.answers + second.answers
    return {
        **figures(answers, quiet_until, changed_until, [seconds for seconds in switched if seconds is not None]),
        "killed_and_answering_again_s": recovered,
    }


def _kill(server: TritonServer, victim: str, requests: tuple[Requests, Requests]) -> float:
    """Seconds from kill -9 until both workers have an answer again to a request that was sent after it."""
    assert server.pid is not None
    victims = [server.pid] if victim == "server" else _stubs(server.pid)
    before = [len(r.answers) for r in requests]
    began = time.monotonic()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    while not all(_has_recovered(r, count, began) for r, count in zip(requests, before, strict=True)):
        if time.monotonic() > began + 120:
            raise RuntimeError(f"no answer two minutes after the {victim} was killed")
        time.sleep(0.01)
    return round(time.monotonic() - began, 2)


def _stubs(server: int) -> list[int]:
    """The processes in which versions of the model run."""
    found = []
    for process in psutil.Process(server).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is none either
            if f"/{NAME}-" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def _has_recovered(requests: Requests, before: int, killed_s: float) -> bool:
    return any(not a.failure and a.sent_s > killed_s for a in list(requests.answers)[before:])


def _nothing_to_try(model: ModelVersion, before: Mapping[str, ModelVersion]) -> Acceptance:
    return Acceptance(AcceptanceOutcome.NONE, datetime.now(UTC))


def _warm(home: Path, model: ModelVersion) -> None:
    """As the command does, which is a process of its own."""
    with TritonEngine(home, 1) as engine:
        engine.describe(model)


def _change(
    state: FakeState, registry: Registry, number: int, requests: tuple[Requests, Requests], every_s: float
) -> float | None:
    """Seconds from a command until the first answer of the version that it makes active; None of a shadow's."""
    began = time.monotonic()
    match number % 3:
        case 0:
            model = registry.activate(NAME, "2.0.0" if number % 2 == 0 else "3.0.0").model
        case 1:
            registry.shadow(NAME, "3.0.0" if number % 2 == 1 else "1.0.0")
            time.sleep(every_s)
            return None
        case _:
            model = registry.rollback(NAME).model
    while time.monotonic() < began + 60:
        answered = [a.answered_s for r in requests for a in list(r.answers) if a.version == model.version]
        if since := [at for at in answered if at > began]:
            time.sleep(every_s)
            return min(since) - began
        time.sleep(0.01)
    raise RuntimeError(f"version {model.version} did not answer within a minute")


def figures(
    answers: list[Answer], quiet_until: float, changed_until: float, switched: list[float]
) -> dict[str, object]:
    quiet = [a for a in answers if a.answered_s <= quiet_until]
    changing = [a for a in answers if quiet_until < a.answered_s <= changed_until]
    killed = [a for a in answers if a.answered_s > changed_until]
    answers = quiet + changing
    return {
        "sent": len(answers),
        "failed": sum(bool(a.failure) for a in answers),
        "sent_around_kills": len(killed),
        "failed_around_kills": [a.failure for a in killed if a.failure],
        "longest_gap_without_changes_s": round(longest_gap_s(quiet), 3),
        "longest_gap_with_changes_s": round(longest_gap_s(changing), 3),
        "median_answer_s": round(statistics.median(a.answered_s - a.sent_s for a in answers), 4),
        "longest_answer_s": round(max(a.answered_s - a.sent_s for a in answers), 3),
        "from_the_command_to_the_first_answer_s": [round(seconds, 2) for seconds in switched],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--changes", type=int, default=6)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two changes")
    given = parser.parse_args()
    if find_server() is None:
        sys.exit("there is no tritonserver here: pip install nvidia-pytriton")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.changes, given.every)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(json.dumps({"machine": machine, **found}, indent=2))
    if found["failed"]:
        sys.exit("requests failed")


if __name__ == "__main__":
    main()
