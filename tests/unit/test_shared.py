"""Answers that several ask for: made once, and for as long as somebody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from dicomnode.domain.halt import Halt
from dicomnode.errors import InferenceStopped, InferenceTimeout, ModelFailed
from dicomnode.stages.shared import Shared


class Making:
    """What makes the answer: it waits to be let go, or to be stopped."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.times = 0

    def __call__(self, wanted: Halt) -> str:
        self.times += 1
        self.begun.set()
        with wanted.calling(self.go.set):
            assert self.go.wait(20)
        wanted.check()
        return "made"


class Bench:
    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.shared = Shared[str](lambda answer: f"{answer} by another")
        self.making, self._threads = Making(), threads

    def ask(self, halt: Halt | None, timeout_s: float = 20.0) -> Future[str]:
        return self._threads.submit(self.shared.get, "key", timeout_s, halt, self.making)

    def waiting(self, count: int) -> None:
        wait_for(lambda: [making.waiting for making in self.shared._making.values()] == [count])


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it did not come about")


@pytest.fixture
def bench() -> Bench:
    return Bench(ThreadPoolExecutor(4))


def test_the_first_who_asks_makes_it_for_all(bench: Bench) -> None:
    first, second = bench.ask(Halt()), bench.ask(Halt())
    bench.waiting(2)
    bench.making.go.set()
    assert {first.result(20), second.result(20)} == {"made", "made by another"}
    assert bench.ask(None).result(20) == "made by another"
    assert bench.making.times == 1


def test_who_makes_it_and_is_stopped_makes_it_all_the_same_while_another_waits(bench: Bench) -> None:
    halt = Halt()
    first = bench.ask(halt)
    bench.making.begun.wait(20)
    second = bench.ask(Halt())
    bench.waiting(2)
    halt.say("cancelled")
    bench.waiting(1)
    assert not second.done()
    bench.making.go.set()
    assert second.result(20) == "made by another"
    with pytest.raises(InferenceStopped, match="cancelled"):
        first.result(20)


def test_when_nobody_waits_any_more_it_stops(bench: Bench) -> None:
    halts = [Halt(), Halt()]
    asked = [bench.ask(halts[0])]
    bench.making.begun.wait(20)
    asked.append(bench.ask(halts[1]))
    bench.waiting(2)
    for halt in reversed(halts):
        halt.say("cancelled")
    for one in asked:
        with pytest.raises(InferenceStopped):
            one.result(20)
    assert bench.shared._making == {}


def test_what_is_made_ahead_stops_with_the_last_who_came_to_wait(bench: Bench) -> None:
    ahead, halt = bench.ask(None), Halt()
    bench.making.begun.wait(20)
    job = bench.ask(halt)
    bench.waiting(1)
    halt.say("cancelled")
    for one in (ahead, job):
        with pytest.raises(InferenceStopped):
            one.result(20)


def test_who_waits_has_patience_of_its_own(bench: Bench) -> None:
    first = bench.ask(Halt())
    bench.making.begun.wait(20)
    with pytest.raises(InferenceTimeout, match="to another job"):
        bench.ask(Halt(), 0.01).result(20)
    bench.making.go.set()
    assert first.result(20) == "made"


def test_a_failure_is_of_the_one_who_made_it(bench: Bench) -> None:
    def fail(wanted: Halt) -> str:
        raise ModelFailed("it broke")

    with pytest.raises(ModelFailed):
        bench.shared.get("key", 20.0, Halt(), fail)
    bench.making.go.set()
    assert bench.ask(Halt()).result(20) == "made"


def test_a_halt_calls_those_who_come_late_too() -> None:
    halt, called = Halt(), threading.Event()
    halt.say("first")
    halt.say("second")
    with halt.calling(called.set):
        assert called.is_set()
    with pytest.raises(InferenceStopped, match="first"):
        halt.check()


def test_what_is_old_is_made_anew() -> None:
    now_s = 10.0
    shared = Shared[str](lambda answer: f"{answer} before", 3.0, lambda: now_s)
    answers = [shared.get("key", 1.0, Halt(), lambda wanted: "made")]
    now_s = 12.9
    answers.append(shared.get("key", 1.0, Halt(), lambda wanted: "made"))
    now_s = 13.1
    answers.append(shared.get("key", 1.0, Halt(), lambda wanted: "made anew"))
    assert answers == ["made", "made before", "made anew"]
    assert len(shared._making) == 1
