"""Routing beside the sweep: one big series holds up no other, and no worker does what another one is at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all

import pytest

from dicomnode.domain.study import Series, SeriesState
from dicomnode.stages import complete
from dicomnode.stages.complete import LEFT_OVER_S, Completer
from dicomnode.stages.route_beside import AtOnce
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import SERIES, STUDY, instance

OTHER = f"{STUDY}.2"
QUIET_S = 5.0


class Router:
    """Takes as long over the series called SERIES as the gate is closed. It touches no state: see Node.routed."""

    def __init__(self) -> None:
        self.series: list[tuple[str, int]] = []
        self.done: list[Series] = []
        self.error: Exception | None = None
        self.gate = threading.Event()

    def route(self, series: Series) -> list[str]:
        self.series.append((series.series_instance_uid, series.generation))
        if series.series_instance_uid == SERIES:
            self.gate.wait(20)
        if self.error is not None:
            raise self.error
        self.done.append(series)
        return []

    def route_study(self, study_instance_uid: str, generation: int) -> list[str]:
        return []


class Node:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.state = FakeState(self.clock)
        self.router = Router()
        self.completer = Completer(self.state, self.router, self.clock, QUIET_S, executor=ThreadPoolExecutor(2))

    def receive(self, number: int, series: str = SERIES) -> None:
        self.state.record_instances([instance(number, series)])

    def after(self, seconds: float) -> int:
        self.clock.advance(seconds)
        return self.completer.sweep()

    def wait_for(self, routings: int) -> None:
        for _ in range(2000):
            if len(self.router.series) >= routings:
                return
            threading.Event().wait(0.005)
        raise AssertionError(self.router.series)

    def routed(self) -> None:
        """All that is under way is over, and recorded: the fake state has one connection, which one thread uses."""
        self.router.gate.set()
        wait_for_all(self.completer._routings.under_way, 20)
        for series in self.router.done:
            self.state.record_routing(series, [], "no rule", {})


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.router.gate.set()
    made.completer.close()


def test_a_big_series_does_not_hold_up_the_others(node: Node) -> None:
    node.receive(1)
    assert node.after(QUIET_S) == 1
    node.wait_for(1)
    node.receive(1, OTHER)
    assert node.after(QUIET_S) == 1
    node.wait_for(2)
    other = [routing for about, routing in node.completer._routings._open.items() if OTHER in about[0]]
    wait_for_all(other, 20)
    assert node.router.series == [(SERIES, 1), (OTHER, 1)]
    assert [s.series_instance_uid for s in node.router.done] == [OTHER]
    node.routed()
    assert [s.series_instance_uid for s in node.router.done] == [OTHER, SERIES]
    states = {s.series_instance_uid: s.state for s in node.state.study(STUDY).series}
    assert states == {SERIES: SeriesState.NOT_ROUTED, OTHER: SeriesState.NOT_ROUTED}


def test_what_is_under_way_is_not_begun_again(node: Node) -> None:
    node.receive(1)
    node.after(QUIET_S)
    node.wait_for(1)
    assert node.completer.resume() == 0
    node.clock.advance(60.0)
    assert node.completer.resume(LEFT_OVER_S) == 0
    node.routed()
    assert node.completer.resume() == 0
    assert node.router.series == [(SERIES, 1)]


def test_what_is_opened_again_meanwhile_is_routed_anew(node: Node) -> None:
    node.receive(1)
    node.after(QUIET_S)
    node.wait_for(1)
    node.receive(2)
    assert node.after(QUIET_S) == 1
    node.wait_for(2)
    assert node.router.series == [(SERIES, 1), (SERIES, 2)]


def test_what_another_worker_may_be_at_is_left_alone_for_a_while(node: Node) -> None:
    node.router.gate.set()
    node.receive(1)
    node.clock.advance(QUIET_S)
    assert node.state.complete_series(SERIES, QUIET_S) is not None
    assert node.completer.resume(LEFT_OVER_S) == 0
    node.clock.advance(LEFT_OVER_S - 1)
    assert node.completer.resume(LEFT_OVER_S) == 0
    node.clock.advance(1)
    assert node.completer.resume(LEFT_OVER_S) == 1


def test_a_worker_that_starts_soon_takes_up_what_its_dead_predecessor_left(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, ages_s = threading.Event(), []

    def resume(older_than_s: float = 0.0) -> int:
        ages_s.append(older_than_s)
        if len(ages_s) == 20:
            stop.set()
        return 0

    def sweep() -> int:
        node.clock.advance(3.0)
        return 1

    monkeypatch.setattr(node.completer, "resume", resume)
    monkeypatch.setattr(node.completer, "sweep", sweep)
    node.completer.run(stop, 0.0)
    assert ages_s[:5] == [3.0, 3.0, 6.0, 9.0, 12.0], "what was complete before it began, and nothing later"
    assert ages_s[10:] == [LEFT_OVER_S] * 10


def test_an_error_of_the_node_itself_ends_the_sweep_and_is_raised_once(node: Node) -> None:
    """As when the database is away: the loop begins again then."""
    node.router.error = ValueError("the node is broken")
    node.receive(1)
    node.after(QUIET_S)
    node.router.gate.set()
    wait_for_all(node.completer._routings.under_way, 20)
    with pytest.raises(ValueError, match="the node is broken"):
        node.completer.sweep()
    assert node.completer.sweep() == 0


def test_a_failure_is_told_and_left_over(node: Node) -> None:
    node.router.error = OSError("the disk is away")
    node.receive(1)
    node.after(QUIET_S)
    node.router.gate.set()
    wait_for_all(node.completer._routings.under_way, 20)
    told = [event.message for event in node.state.events(STUDY) if event.kind == "series.routing-failed"]
    assert told == ["Routing failed and will be tried again: the disk is away"]
    node.router.error = None
    assert node.completer.resume() == 1


def test_the_end_waits_for_what_is_under_way_and_leaves_the_rest(node: Node) -> None:
    for number in range(1, 6):
        node.receive(1, f"{STUDY}.{number}")
    node.receive(2, SERIES)
    assert node.after(QUIET_S) == len(node.state.study(STUDY).series)
    closing = threading.Thread(target=node.completer.close)
    closing.start()
    node.router.gate.set()
    closing.join(20)
    assert not closing.is_alive()
    assert all(routing.done() for routing in node.completer._routings.under_way)


def test_the_loop_looks_again_once_something_was_routed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its study may be complete with it."""
    waited: list[int] = []
    monkeypatch.setattr(complete, "wait", lambda futures, timeout, when: waited.append(len(futures)))
    node.receive(1)
    node.after(QUIET_S)
    node.completer._wait(threading.Event(), 0.1)
    assert waited == [1]


def test_at_once() -> None:
    assert AtOnce().submit(lambda number: number + 1, 2).result() == 3
