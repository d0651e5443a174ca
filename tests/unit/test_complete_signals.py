"""The sweep: which signal closes a series, whom it asks, and that a dead source delays nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import wait as wait_for_all
from typing import Any

import pytest

from dicomnode.domain.announcement import AnnouncedSeries, Announcement, AnnouncementKind, AnnouncementState
from dicomnode.domain.completeness import Policy, SourceCount
from dicomnode.domain.destination import parse_dimse
from dicomnode.domain.source import Source
from dicomnode.domain.study import Series, StudyState
from dicomnode.errors import DestinationUnavailable, IllegalTransition
from dicomnode.stages.complete import Completer
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import SERIES, STUDY, instance

PACS = Source("PACS", query=parse_dimse("PACS@192.0.2.1:104"))
AXIAL = "0.00/0.00/1.00"


class Router:
    """Routes everything nowhere, and remembers."""

    def __init__(self, state: FakeState) -> None:
        self._state = state
        self.series: list[str] = []
        self.studies: list[tuple[str, int]] = []
        self.fails = False

    def route(self, series: Series) -> list[str]:
        self.series.append(series.series_instance_uid)
        return self._state.record_routing(series, [], "no rule", {})

    def route_study(self, study_instance_uid: str, generation: int) -> list[str]:
        if self.fails:
            raise IllegalTransition("not now")
        self.studies.append((study_instance_uid, generation))
        return []


class Counter:
    """A source that has so many instances; `gate` closed, it gives no answer."""

    def __init__(self) -> None:
        self.instances: int | None = None
        self.study: SourceCount | None = None
        self.own_series: list[Collection[str]] = []  # that were named with each question about a study
        self.error: Exception | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def count(self, source: Source, study_instance_uid: str, series_instance_uid: str) -> int | None:
        self._ask(source, study_instance_uid, series_instance_uid)
        return self.instances

    def count_study(
        self, source: Source, study_instance_uid: str, here: SourceCount, own_series: Collection[str]
    ) -> SourceCount | None:
        self.own_series.append(own_series)
        self._ask(source, study_instance_uid, "")
        return self.study

    def _ask(self, source: Source, study_instance_uid: str, series_instance_uid: str) -> None:
        self.asked.append((source.ae_title, study_instance_uid, series_instance_uid))
        self.gate.wait(20)
        if self.error is not None:
            raise self.error

    def asked_of_studies(self) -> int:
        return sum(not series for _, _, series in self.asked)


class Node:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.state = FakeState(self.clock)
        self.router = Router(self.state)
        self.counter = Counter()
        self.sources = {"PACS": PACS}
        self.completer = Completer(
            self.state, self.router, self.clock, Policy(), counter=self.counter, sources=lambda: self.sources
        )

    def receive(self, *numbers: int, association: str = "r/1/1", series: str = SERIES, **changes: Any) -> None:
        values = {"plane": AXIAL} | changes
        self.state.record_instances(
            [instance(n, series, association=association, **{"position_mm": 2.5 * n} | values) for n in numbers]
        )

    def after(self, seconds: float) -> int:
        self.clock.advance(seconds)
        return self.completer.sweep()

    def answered(self) -> int:
        """A sweep once all questions that were asked have an answer."""
        self.wait_for_answers()
        return self.completer.sweep()

    def wait_for_answers(self) -> None:
        wait_for_all([q.answer for q in self.completer._questions._open.values()], 20)

    def release(self, association: str = "r/1/1", how: str = "released") -> None:
        self.state.association_ended(association, how)

    def signal(self, series: str = SERIES) -> str:
        told = [
            e for e in self.state.events(STUDY) if e.kind == "series.complete" and e.series_instance_uid == series
        ]
        return str(told[-1].detail["signal"])

    def words(self, kind: str) -> list[str]:
        return [event.message for event in self.state.events(STUDY) if event.kind == kind]


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.counter.gate.set()
    made.completer.close()


def test_a_contiguous_stack_is_closed_half_a_second_after_its_release(node: Node) -> None:
    node.receive(*range(1, 41))
    node.release()
    assert node.after(0.4) == 0
    assert node.after(0.1) == 1
    assert node.router.series == [SERIES]
    assert node.words("series.complete") == [
        "The CT series 3 is complete: 40 instances; SCANNER released its association after 40 instances without a gap"
    ]


def test_the_stack_is_looked_at_once_for_as_many_images(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    places: Callable[[str], Any] = node.state.places
    monkeypatch.setattr(node.state, "places", lambda uid: looked.append(uid) or places(uid))
    node.receive(*range(1, 41), position_mm=None, plane="")
    node.release()
    for _ in range(4):
        assert node.after(0.5) == 0
    assert looked == [SERIES]
    node.receive(41, association="r/1/2", position_mm=None, plane="")
    node.release("r/1/2")
    assert node.after(4.5) == 0
    assert looked == [SERIES, SERIES]


def test_a_gap_waits_for_the_quiet_period(node: Node) -> None:
    node.receive(*range(1, 20), *range(21, 41))
    node.release()
    assert node.after(4.9) == 0
    assert node.after(0.1) == 1
    assert node.signal() == "quiet"


def test_a_slow_sender_that_pauses_is_not_cut_in_two(node: Node) -> None:
    node.receive(*range(1, 21))
    assert node.after(30) == 0
    node.receive(*range(21, 41))
    node.release()
    assert node.after(0.5) == 1
    assert node.router.series == [SERIES]


def test_two_senders_that_interleave_a_series_are_one(node: Node) -> None:
    for n in range(1, 41, 2):
        node.receive(n, association="r/1/1")
        node.receive(n + 1, association="r/2/1")
        assert node.after(0.05) == 0
    node.release("r/1/1")
    assert node.after(4.0) == 0
    node.release("r/2/1")
    assert node.after(0.5) == 1
    assert "SCANNER released its 2 associations after 40 instances without a gap" in node.words("series.complete")[0]


def test_the_source_is_asked_and_right(node: Node) -> None:
    node.receive(*range(1, 41), calling_ae_title="PACS")
    assert node.after(0.2) == 0
    assert node.counter.asked == []
    node.counter.instances = 40
    assert node.after(0.1) == 0
    assert node.answered() == 1
    assert node.counter.asked == [("PACS", STUDY, SERIES)]
    assert node.signal() == "counted"


def test_the_source_has_more_and_is_asked_again_ever_more_seldom(node: Node) -> None:
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.release()
    node.counter.instances = 60
    for _ in range(300):
        assert node.after(0.2) + node.answered() == 0, "neither the release nor the quiet period cuts it"
        if node.clock.monotonic() > 59:
            break
    assert 5 <= len(node.counter.asked) <= 9
    asked = len(node.counter.asked)
    node.receive(*range(41, 50), association="r/1/2", calling_ae_title="PACS")
    node.after(0.3)
    assert node.answered() == 0
    assert len(node.counter.asked) == asked
    node.receive(*range(50, 61), association="r/1/2", calling_ae_title="PACS")
    node.after(0.3)
    assert node.answered() == 1, "as many as it said are here: it is asked before the time"
    assert node.signal() == "counted"


def test_a_source_that_never_gives_the_rest_is_not_waited_for_for_ever(node: Node) -> None:
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.counter.instances = 60
    node.after(1.0)
    node.answered()
    assert node.after(58.0) == 0
    assert node.after(1.0) == 1
    assert "nothing came for 60.0 s" in node.words("series.complete")[0]
    assert "C-FIND to PACS@192.0.2.1:104 says 60 instances, and 40 are here" in node.words("series.complete")[0]


def test_an_answer_from_before_more_images_came_is_dropped(node: Node) -> None:
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.counter.instances = 40
    node.counter.gate.clear()
    node.after(0.3)
    node.receive(41, calling_ae_title="PACS")
    node.counter.gate.set()
    assert node.answered() == 0
    assert node.state.receiving_series()[0].counted is None


def test_an_image_between_question_and_answer_makes_the_answer_stale(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is recorded after the sweep looked and before the answer is."""
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.counter.instances = 40
    node.after(0.5)
    node.wait_for_answers()
    record = node.state.record_count

    def recorded(*answer: Any) -> None:
        node.clock.advance(0.1)
        node.receive(41, calling_ae_title="PACS")
        node.clock.advance(0.005)
        record(*answer)

    with monkeypatch.context() as patched:
        patched.setattr(node.state, "record_count", recorded)
        assert node.after(0.1) == 0
    assert node.after(0.4) == 0, "the archive counted before the last image came"
    node.wait_for_answers()
    node.counter.instances = 41
    assert node.answered() == 0, "40 of 41"
    assert node.after(0.5) + node.answered() == 1
    assert node.words("series.complete")[0].endswith("says 41 instances, and 41 are here")


def test_a_source_that_lags_is_asked_again_ever_more_seldom(node: Node) -> None:
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.counter.instances = 30
    for _ in range(40):
        assert node.after(0.1) + node.answered() == 0
    assert 3 <= len(node.counter.asked) <= 4
    node.counter.instances = 40
    assert sum(node.after(0.1) + node.answered() for _ in range(40)) == 1
    assert node.signal() == "counted"


@pytest.mark.parametrize("instances", [10**30, 2**31, -5])
def test_an_answer_that_cannot_be_is_none(node: Node, instances: int) -> None:
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.release()
    node.counter.instances = instances
    node.after(0.3)
    assert node.answered() == 0
    assert node.after(0.3) == 1
    assert node.signal() == "released"


def test_a_source_that_gives_no_answer_delays_no_sweep_and_no_release(node: Node) -> None:
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.release()
    node.receive(*range(1, 41), association="r/1/2", series=f"{STUDY}.2")
    node.release("r/1/2")
    node.counter.gate.clear()
    assert node.after(0.4) == 0
    assert node.after(0.2) == 1, "the other one"
    assert node.router.series == [f"{STUDY}.2"]
    node.counter.error = DestinationUnavailable("PACS@192.0.2.1:104: no connection in time")
    node.counter.gate.set()
    assert node.answered() == 1
    assert node.signal() == "released"


def test_a_source_that_fails_is_told_once_and_left_alone_for_a_while(node: Node) -> None:
    node.counter.error = DestinationUnavailable("PACS@192.0.2.1:104: connection refused; start the peer")
    node.receive(1, calling_ae_title="PACS")
    node.after(0.3)
    node.answered()
    for _ in range(40):
        node.after(0.1)
        node.answered()
    assert len(node.counter.asked) == 1
    node.receive(1, calling_ae_title="PACS", series=f"{STUDY}.2")
    node.after(0.4)
    node.answered()
    assert len(node.counter.asked) == 1, "not of another series either"
    assert node.words("series.count-failed") == [
        "PACS could not be asked how many instances the series has: "
        "PACS@192.0.2.1:104: connection refused; start the peer"
    ]


def test_a_source_that_does_not_know_the_series_is_asked_again(node: Node) -> None:
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.after(0.3)
    assert node.answered() == 0
    node.counter.instances = 40
    node.after(0.6)
    assert node.answered() == 1


def test_one_silent_source_leaves_room_for_the_others(node: Node) -> None:
    node.sources["OTHER"] = Source("OTHER", query=parse_dimse("OTHER@192.0.2.2:104"))
    node.counter.gate.clear()
    for n in range(5):
        node.receive(1, series=f"{STUDY}.{n}", calling_ae_title="PACS")
    node.receive(1, series=f"{STUDY}.9", calling_ae_title="OTHER")
    node.after(0.3)
    asked = {q.source.ae_title for q in node.completer._questions._open.values()}
    assert asked == {"PACS", "OTHER"}


def test_what_waits_long_does_not_keep_the_others_waiting(node: Node) -> None:
    node.sources["SLOW"] = Source("SLOW", quiet_period_s=3600.0)
    for number in range(1, 251):
        series, study = f"{STUDY}.8.{number}", f"{STUDY}.9.{number}"
        node.receive(1, series=series, study_instance_uid=study, calling_ae_title="SLOW", plane="", association="")
    node.clock.advance(1.0)
    node.receive(1, 2, 3, calling_ae_title="STAT", association="")
    assert [node.after(5.0), node.router.series] == [1, [SERIES]]


def test_settings_of_sources_are_followed(node: Node) -> None:
    node.sources["SLOW"] = Source("SLOW", quiet_period_s=30.0, release=False)
    node.receive(*range(1, 41), calling_ae_title="SLOW")
    node.release()
    assert node.after(29.9) == 0
    node.sources["SLOW"] = Source("SLOW", quiet_period_s=40.0, release=False)
    assert node.after(9.9) == 0
    assert node.after(0.2) == 1
    assert node.signal() == "quiet"


def test_settings_of_sources_that_cannot_be_read_stay_as_they_were(node: Node) -> None:
    def broken() -> dict[str, Source]:
        raise IllegalTransition("written by a later version")

    completer = Completer(node.state, node.router, node.clock, 5.0, sources=broken)
    node.receive(1)
    node.clock.advance(5.0)
    node.release()
    assert completer.sweep() == 1


def test_announced(node: Node) -> None:
    named = AnnouncedSeries(STUDY, SERIES, tuple(f"{SERIES}.{n}" for n in range(1, 4)))
    document = {"0020000D": {"vr": "UI", "Value": [STUDY]}}
    node.receive(1, 2, 3)
    node.state.record_announcement(
        Announcement(AnnouncementKind.MPPS, "1.2.3", "CT1", AnnouncementState.COMPLETED, (named,), document)
    )
    assert node.after(0.3) == 1
    assert node.signal() == "announced"
    assert node.router.studies == [(STUDY, 1)]


def test_a_study_is_routed_once_it_is_complete(node: Node) -> None:
    node.receive(*range(1, 41))
    node.release()
    node.after(0.5)
    node.after(19.0)
    assert node.router.studies == []
    node.after(1.0)
    assert node.router.studies == [(STUDY, 1)]
    assert node.state.study(STUDY).state is StudyState.COMPLETE


def test_a_study_that_cannot_be_routed_is_tried_again_as_a_leftover(node: Node) -> None:
    node.router.fails = True
    node.receive(1)
    node.release()
    node.after(5.0)
    node.after(20.0)
    assert node.completer.resume() == 0
    assert node.words("study.routing-failed") == ["Routing failed and will be tried again: not now"]
    node.router.fails = False
    assert node.completer.resume() == 1
    assert node.router.studies == [(STUDY, 1)]
