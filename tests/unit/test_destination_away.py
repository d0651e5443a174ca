"""A destination that is away for a day, on a clock that jumps: nothing is lost, and nothing is flooded."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.domain.job import DELIVERY_BACKOFF_MOST_S, DeliveryState
from dicomnode.domain.token_bucket import TokenBucket
from dicomnode.ports import Delivered, DeliveryFilter, DeliveryWork, NotDelivered, NotYet
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import ARCHIVE, STUDY, WEB, finished, routed

DAY_S = 86_400.0
SLOTS = 2  # deliveries to one destination that a worker runs at once
SENDING_S = 1.0


@dataclass
class Peer:
    away_from_s: float = float("inf")
    away_until_s: float = float("inf")
    attempts: list[float] = field(default_factory=list)
    arrived: Counter[str] = field(default_factory=Counter)
    now_sending: int = 0
    most_at_once: int = 0

    def is_away(self, at_s: float) -> bool:
        return self.away_from_s <= at_s < self.away_until_s


class Simulation:
    """Tickets become attempts at their time, as the engine does it, some at once for each destination."""

    def __init__(self) -> None:
        self.state = FakeState()
        self.state.queue.add_delivery = self._add  # type: ignore[method-assign]
        self.peers = {"archive": Peer(), "web": Peer()}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._busy: Counter[str] = Counter()
        self._ready: dict[str, list[tuple[str, int]]] = {"archive": [], "web": []}
        self.starts = 0

    @property
    def now_s(self) -> float:
        return self.state.clock.monotonic()  # type: ignore[no-any-return]

    def _add(
        self, session: Any, delivery_id: str, run: int, *, destination: str, priority: int, delay_s: float
    ) -> None:
        self.at(self.now_s + delay_s, lambda: self._is_ready(destination, delivery_id, run))

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when_s, next(self._numbers), what))

    def run(self, until_s: float) -> None:
        while self._agenda and self._agenda[0][0] <= until_s:
            when_s, _, what = heapq.heappop(self._agenda)
            self.state.clock.advance(max(0.0, when_s - self.now_s))
            what()
        self.state.clock.advance(max(0.0, until_s - self.now_s))

    def _is_ready(self, destination: str, delivery_id: str, run: int) -> None:
        self._ready[destination].append((delivery_id, run))
        self._go_on(destination)

    def _go_on(self, destination: str) -> None:
        while self._ready[destination] and self._busy[destination] < SLOTS:
            delivery_id, run = self._ready[destination].pop(0)
            self.starts += 1
            if (work := self.state.start_delivery(delivery_id, run)) is not None:
                self._busy[destination] += 1
                self._send(work)

    def _send(self, work: DeliveryWork) -> None:
        name, peer = work.destination.name, self.peers[work.destination.name]
        if not self.state.may_send(work.delivery_id):
            self._end(work, NotYet(2.0))
            return
        peer.attempts.append(self.now_s)
        if peer.is_away(self.now_s):
            self._end(work, NotDelivered("connection refused: nothing listens there", True, "no-connection"))
            return
        peer.now_sending += 1
        peer.most_at_once = max(peer.most_at_once, peer.now_sending)

        def arrives() -> None:
            peer.now_sending -= 1
            self.peers[name].arrived[work.result.sop_instance_uid] += 1
            self._end(work, Delivered("stored"))

        self.at(self.now_s + SENDING_S, arrives)

    def _end(self, work: DeliveryWork, outcome: Delivered | NotDelivered | NotYet) -> None:
        self.state.finish_delivery(work.delivery_id, outcome, work.attempt)
        self._busy[work.destination.name] -= 1
        self._go_on(work.destination.name)

    def job(self, number: int) -> None:
        series = f"{STUDY}.{number}"
        job_id = routed(self.state, series, destinations=("archive", "web"))
        self.state.start_job(job_id)
        self.state.finish_job(job_id, finished(f"{number}0", series))

    def events(self, kind: str) -> list[str]:
        return [event.message for _, event in self.state.events_after(0, 10**6) if event.kind == kind]

    def states(self, destination: str) -> Counter[DeliveryState]:
        views = self.state.deliveries(DeliveryFilter(destination=destination), most=10**6)
        return Counter(view.state for view in views)


@pytest.fixture
def simulation() -> Simulation:
    made = Simulation()
    made.state.add_destination(replace(ARCHIVE, options=DeliveryOptions(associations=1)))
    made.state.add_destination(WEB)
    return made


def test_a_day_away_loses_nothing_floods_nothing_and_delays_no_other(simulation: Simulation) -> None:
    jobs = 6
    archive, web = simulation.peers["archive"], simulation.peers["web"]
    archive.away_from_s, archive.away_until_s = 0.0, DAY_S
    for number in range(jobs):
        simulation.at(number * 1800.0, lambda number=number: simulation.job(number))  # type: ignore[misc]
    simulation.run(DAY_S - 1)

    assert simulation.states("web") == {DeliveryState.SENT: 2 * jobs}
    assert all(attempt % 1800.0 <= 10 for attempt in web.attempts), "within seconds of their jobs"
    assert simulation.states("archive") == {DeliveryState.WAITING: 2 * jobs}
    assert len(archive.attempts) <= DAY_S / DELIVERY_BACKOFF_MOST_S + 20, "one looks, not all"
    assert max(b - a for a, b in itertools.pairwise(archive.attempts)) <= DELIVERY_BACKOFF_MOST_S + 1
    assert len(simulation.events("destination.down")) == 1
    assert "archive is away: connection refused" in simulation.events("destination.down")[0]
    assert len(simulation.events("delivery.waiting")) <= 2 * jobs, "a line each at most, none for each try"
    assert simulation.starts < 60 * 2 * jobs, "who waits sleeps"

    simulation.run(DAY_S + 1200)
    assert simulation.states("archive") == {DeliveryState.SENT: 2 * jobs}
    assert set(archive.arrived.values()) == {1}
    assert archive.most_at_once == 1, "its own limit"
    (recovered,) = simulation.events("destination.recovered")
    assert recovered == f"archive answers again after 24 h; {2 * jobs - 1} deliveries on the way"


def test_when_the_one_that_looks_is_dropped_another_does(simulation: Simulation) -> None:
    archive = simulation.peers["archive"]
    archive.away_from_s, archive.away_until_s = 0.0, 7200.0
    simulation.job(1)
    simulation.run(3600)
    looked = len(archive.attempts)
    tried = [v for v in simulation.state.deliveries(DeliveryFilter(destination="archive")) if v.failure]
    for view in tried[:1]:
        simulation.state.drop_delivery(view.delivery_id)
    simulation.run(3600 + 2 * DELIVERY_BACKOFF_MOST_S)
    assert len(archive.attempts) > looked
    simulation.run(9000)
    assert simulation.states("archive") == {DeliveryState.SENT: 1, DeliveryState.CANCELLED: 1}


def test_a_retry_by_hand_looks_at_once(simulation: Simulation) -> None:
    archive = simulation.peers["archive"]
    archive.away_from_s, archive.away_until_s = 0.0, 7000.0
    simulation.job(1)
    simulation.run(7001)
    waiting = simulation.state.deliveries(DeliveryFilter(destination="archive"))
    assert {view.state for view in waiting} == {DeliveryState.WAITING}
    simulation.state.retry_delivery(waiting[0].delivery_id)
    simulation.run(7010)
    assert simulation.states("archive") == {DeliveryState.SENT: 2}


def test_one_bad_object_keeps_no_other_from_being_sent(simulation: Simulation) -> None:
    simulation.job(1)
    first, second = simulation.state.deliveries(DeliveryFilter(destination="archive"))
    simulation.state.start_delivery(first.delivery_id)
    aborted = NotDelivered("aborted the association", True, "association-aborted")
    simulation.state.finish_delivery(first.delivery_id, aborted)
    simulation.run(1.5)
    assert simulation.state.delivery(second.delivery_id).state is DeliveryState.SENT
    assert simulation.state.destination_views()[0].health.down_since is None


def test_a_destination_that_stumbles_is_no_news(simulation: Simulation) -> None:
    simulation.peers["archive"].away_from_s, simulation.peers["archive"].away_until_s = 0.0, 1.0
    simulation.job(1)
    simulation.run(60)
    assert simulation.states("archive") == {DeliveryState.SENT: 2}
    assert simulation.events("destination.down") == simulation.events("destination.recovered") == []


def test_what_is_away_for_longer_than_three_days_fails_and_says_so(simulation: Simulation) -> None:
    simulation.peers["archive"].away_from_s = 0.0
    simulation.job(1)
    simulation.run(60)
    simulation.state.clock.advance(3 * DAY_S)  # nobody was there to look meanwhile
    simulation.run(3.5 * DAY_S)
    assert simulation.states("archive") == {DeliveryState.FAILED: 2}


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = TokenBucket(bytes_per_s=1000.0, burst_bytes=500.0)
    assert bucket.take(500, now_s=10.0) == 0.0
    assert bucket.take(1000, now_s=10.0) == 1.0
    assert bucket.take(1000, now_s=11.0) == 1.0
    assert bucket.take(100, now_s=100.0) == 0.0  # it never holds more than the burst
    assert bucket.take(1400, now_s=100.0) == 1.0
