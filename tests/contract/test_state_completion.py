"""Completeness in the State: the signs of series and studies, and when both are complete; on both databases."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy import event as sa_event

from dicomnode.adapters.db.tables import SeriesRow
from dicomnode.domain.announcement import AnnouncedSeries, Announcement, AnnouncementKind, AnnouncementState
from dicomnode.domain.completeness import Place, SeriesSigns, Signal, StudySigns, Verdict
from dicomnode.domain.study import Recorded, SeriesState, StudyState
from dicomnode.ports import State
from tests.adapters.state_material import ARCHIVE, SERIES, STUDY, complete, finished, instance, results, routed
from tests.contract.state_bench import OTHER, Bench, bench, series_state, state

__all__ = ["bench", "state"]

A1, A2, B1 = "node:receiver-1/77-1/1", "node:receiver-1/77-1/2", "node:receiver-2/88-1/1"


def receive(state: State, *numbers: int, association: str = A1, series: str = SERIES, **changes: object) -> None:
    state.record_instances([instance(n, series, association=association, **changes) for n in numbers])


def signs(state: State, series: str = SERIES) -> SeriesSigns:
    return next(s for s in state.receiving_series() if s.series_instance_uid == series)


def study_signs(state: State) -> StudySigns:
    (found,) = state.receiving_studies()
    return found


def verdict(instances: int, signal: Signal = Signal.RELEASED) -> Verdict:
    return Verdict(signal, "the association was released", instances, {"idle_s": 0.5})


def announce(
    state: State,
    *numbers: int,
    kind: AnnouncementKind = AnnouncementKind.MPPS,
    status: AnnouncementState = AnnouncementState.COMPLETED,
    series: str = SERIES,
    uid: str = "1.2.3.4",
) -> None:
    named = tuple(f"{series}.{n}" for n in numbers)
    of = (AnnouncedSeries(STUDY, series, named),) if named else ()
    document = {"0020000D": {"vr": "UI", "Value": [STUDY]}}
    state.record_announcement(Announcement(kind, uid, "CT1", status, of, document))


# ---------------------------------------------------------------------------------------------------- series


def test_nothing_is_received(state: State) -> None:
    assert state.receiving_series() == []
    assert state.receiving_studies() == []


def test_what_an_association_brought(state: State) -> None:
    receive(state, 1, 2)
    receive(state, 3)
    found = signs(state)
    assert (found.study_instance_uid, found.modality, found.calling_ae_title) == (STUDY, "CT", "SCANNER")
    assert found.instances == 3
    (arrival,) = found.arrivals
    assert (arrival.association, arrival.calling_ae_title, arrival.instances) == (A1, "SCANNER", 3)
    assert (arrival.ended_how, arrival.ended_s) == ("", None)
    assert 0 <= arrival.idle_s <= arrival.began_s < 30
    assert 0 <= found.idle_s < 30


def test_ages_grow(state: State) -> None:
    receive(state, 1)
    before = signs(state)
    time.sleep(0.02)
    after = signs(state)
    assert after.idle_s > before.idle_s
    assert after.arrivals[0].idle_s > before.arrivals[0].idle_s


def test_repeats_show_that_the_sender_is_at_it_and_are_not_counted_twice(state: State) -> None:
    receive(state, 1, 2)
    time.sleep(0.02)
    receive(state, 1, 2)
    found = signs(state)
    assert found.instances == 2
    assert found.arrivals[0].instances == 4
    assert found.arrivals[0].idle_s < found.arrivals[0].began_s


def test_images_of_an_unknown_association(state: State) -> None:
    receive(state, 1, association="")
    assert signs(state).arrivals == ()


def test_two_senders_bring_one_series(state: State) -> None:
    receive(state, 1, 3)
    receive(state, 2, 4, association=B1, calling_ae_title="OTHER")
    found = signs(state)
    assert found.instances == 4
    assert [(a.association, a.calling_ae_title, a.instances) for a in found.arrivals] == [
        (A1, "SCANNER", 2),
        (B1, "OTHER", 2),
    ]


@pytest.mark.parametrize("how", ["released", "aborted"])
def test_an_association_ends(state: State, how: str) -> None:
    receive(state, 1)
    receive(state, 2, association=A2)
    state.association_ended(A1, how)
    state.association_ended("nobody/1/1", how)
    ended = {a.association: (a.ended_how, a.ended_s is not None) for a in signs(state).arrivals}
    assert ended == {A1: (how, True), A2: ("", False)}
    state.association_ended(A1, "lost")
    assert signs(state).arrivals[0].ended_how == how, "it ends once"


def test_a_receiver_that_starts_again_has_lost_its_associations(state: State) -> None:
    names = [A1, A2, B1, "node:receiver-11/1-1/1", "node_receiver-1/1-1/1"]
    for n, name in enumerate(names, 1):
        receive(state, n, association=name)
    state.association_ended(A1, "released")
    receive(state, 9, association="node:receiver-1/99-1/1")
    state.associations_lost("node:receiver-1", "node:receiver-1/99-1")
    ended = {a.association: a.ended_how for a in signs(state).arrivals}
    assert ended == {
        A1: "released",
        A2: "lost",
        B1: "",
        "node:receiver-11/1-1/1": "",
        "node_receiver-1/1-1/1": "",
        "node:receiver-1/99-1/1": "",
    }


def test_an_association_that_has_gone_on_to_another_series(state: State) -> None:
    receive(state, 1)
    time.sleep(0.05)
    receive(state, 1, series=OTHER)
    (first,), (second,) = signs(state).arrivals, signs(state, OTHER).arrivals
    assert first.any_idle_s is not None
    assert second.any_idle_s is not None
    assert first.any_idle_s < first.idle_s - 0.02
    assert abs(second.any_idle_s - second.idle_s) < 0.01


def test_those_longest_without_an_image_come_first(state: State) -> None:
    for series in (SERIES, OTHER):
        receive(state, 1, series=series)
        time.sleep(0.02)
    assert [s.series_instance_uid for s in state.receiving_series()] == [SERIES, OTHER]
    assert [s.series_instance_uid for s in state.receiving_series(1)] == [SERIES]


def test_all_that_is_received_is_looked_at_however_much_it_is(state: State) -> None:
    """What waits long must not keep the others out."""
    many = [f"{STUDY}.7.{n}" for n in range(1, 1204)]
    state.record_instances([instance(1, uid, association=A1) for uid in many])
    found = state.receiving_series()
    assert {s.series_instance_uid for s in found} == set(many)
    assert all(len(s.arrivals) == s.instances == 1 for s in found)


def test_all_studies_are_looked_at_however_many_they_are(state: State) -> None:
    many = [f"1.2.7.{n}" for n in range(1, 604)]
    state.record_instances([instance(1, f"{uid}.1", study_instance_uid=uid, association=A1) for uid in many])
    # as if each series had been complete and routed; to go that way would take two transactions each
    with state.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(sa.update(SeriesRow).values(state=SeriesState.NOT_ROUTED))
    assert {s.study_instance_uid for s in state.receiving_studies()} == set(many)


def test_places(state: State) -> None:
    receive(state, 1, plane="0.00/0.00/1.00", position_mm=-12.5, images_announced=300)
    receive(state, 2, number_of_frames=40, instance_number=None)
    state.record_instances([replace(instance(1, association=A2), sha256="f" * 64, instance_number=9)])
    expected = [Place(1, "0.00/0.00/1.00", -12.5, 1, 300), Place(None, "", None, 40, None)]
    assert sorted(state.places(SERIES), key=lambda p: p.number_of_frames) == expected
    assert state.places("1.2.3") == []


def test_what_the_source_answered(state: State) -> None:
    receive(state, 1)
    assert signs(state).counted is None
    state.record_count(SERIES, 300, "C-FIND to PACS@192.0.2.1:104")
    counted = signs(state).counted
    assert counted is not None
    assert (counted.instances, counted.source) == (300, "C-FIND to PACS@192.0.2.1:104")
    assert 0 <= counted.age_s <= signs(state).idle_s + 0.01
    state.record_count(SERIES, 300, "C-FIND to PACS@192.0.2.1:104", 60.0)
    asked = signs(state).counted
    assert asked is not None
    assert 60.0 <= asked.age_s < 90.0, "as old as the question"


def test_own_results_have_no_signs(state: State) -> None:
    own = instance(1, OTHER, association=A1, modality="SEG", manufacturer="dicomnode")
    assert state.record_instances([own]) == [Recorded.OWN_RESULT]
    assert state.receiving_series() == []
    assert state.receiving_studies() == []
    assert state.study(STUDY).state is StudyState.ROUTED, "nothing in it waits for a decision"


# ------------------------------------------------------------------------------------------------- announced


def announced(state: State, series: str = SERIES) -> list[tuple[str, str, int, int]]:
    return [(str(a.kind), str(a.state), a.expected, a.missing) for a in signs(state, series).announced]


def test_what_was_announced_of_a_series(state: State) -> None:
    announce(state, 1, 2, 3)
    receive(state, 1, 2)
    assert announced(state) == [("mpps", "completed", 3, 1)]
    receive(state, 3)
    assert announced(state) == [("mpps", "completed", 3, 0)]
    receive(state, 4)
    assert announced(state) == [("mpps", "completed", 3, 0)]
    assert signs(state).named_in_all == 3
    announce(state, 1, 9, kind=AnnouncementKind.IAN, status=AnnouncementState.AVAILABLE, uid="1.2.3.5")
    assert announced(state) == [("mpps", "completed", 3, 0), ("ian", "available", 2, 1)]
    assert signs(state).named_in_all == 4, "what both name counts once"


def test_a_step_in_progress_counts_for_the_whole_study(state: State) -> None:
    announce(state, status=AnnouncementState.IN_PROGRESS)
    receive(state, 1)
    receive(state, 1, series=OTHER)
    assert announced(state) == announced(state, OTHER) == [("mpps", "in progress", 0, 0)]
    announce(state, 1, series=OTHER, status=AnnouncementState.IN_PROGRESS)
    assert announced(state) == [("mpps", "in progress", 0, 0)]
    assert announced(state, OTHER) == [("mpps", "in progress", 1, 0)]
    announce(state, 1, series=OTHER)
    assert announced(state) == []
    assert announced(state, OTHER) == [("mpps", "completed", 1, 0)]


def test_a_step_in_progress_of_another_study(state: State) -> None:
    announce(state, status=AnnouncementState.IN_PROGRESS)
    receive(state, 1, series="1.2.9.1", study_instance_uid="1.2.9")
    assert announced(state, "1.2.9.1") == []


# -------------------------------------------------------------------------------------------------- complete


def test_a_series_is_complete_by_a_signal(state: State) -> None:
    receive(state, 1, 2)
    series = state.complete_series(SERIES, 0.0, verdict(2))
    assert series is not None
    assert len(series.instances) == 2
    (told,) = [e for e in state.events(STUDY) if e.kind == "series.complete"]
    assert told.message == "The CT series 3 is complete: 2 instances; the association was released"
    assert told.detail == {"instances": 2, "generation": 1, "signal": "released", "signs": {"idle_s": 0.5}}


def test_an_image_more_voids_the_verdict(state: State) -> None:
    receive(state, 1, 2, 3)
    assert state.complete_series(SERIES, 0.0, verdict(2)) is None
    assert series_state(state) is SeriesState.RECEIVING


def test_quiet_is_checked_too(state: State) -> None:
    receive(state, 1)
    assert state.complete_series(SERIES, 60.0, verdict(1, Signal.QUIET)) is None


def test_only_one_is_first(state: State) -> None:
    receive(state, 1)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(state.complete_series(SERIES, 0.0, verdict(1))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(series is not None for series in found) == 1


# ----------------------------------------------------------------------------------------------------- study


def route(state: State, *series: str) -> None:
    for uid in series:
        images = len(state.places(uid))
        found = state.complete_series(uid, 0.0, verdict(images))
        assert found is not None
        state.record_routing(found, [], "no rule", {})


def test_a_study_waits_for_its_series(state: State) -> None:
    receive(state, 1, 2)
    receive(state, 1, series=OTHER, association=A2, calling_ae_title="OTHER")
    assert state.study(STUDY).state is StudyState.RECEIVING
    assert state.receiving_studies() == []
    route(state, SERIES)
    assert state.receiving_studies() == [], "the other one is received"
    state.complete_series(OTHER, 0.0, verdict(1))
    assert state.receiving_studies() == [], "the other one is not routed"
    (other,) = state.complete_unrouted()
    state.record_routing(other, [], "no rule", {})
    found = study_signs(state)
    assert (found.study_instance_uid, found.instances, found.open_associations) == (STUDY, 3, 2)
    assert found.calling_ae_title == "OTHER"
    assert found.senders == ("OTHER", "SCANNER")
    assert 0 <= found.idle_s < 30
    state.association_ended(A1, "released")
    assert study_signs(state).open_associations == 1


def test_a_study_is_complete_once(state: State) -> None:
    receive(state, 1)
    assert state.complete_study(STUDY, verdict(1)) is None
    route(state, SERIES)
    assert state.complete_study("1.2.3", verdict(1)) is None
    assert state.complete_study(STUDY, verdict(2)) is None, "decided for other instances"
    assert state.complete_study(STUDY, verdict(1)) == 1
    assert state.complete_study(STUDY, verdict(1)) is None
    assert state.study(STUDY).state is StudyState.COMPLETE
    assert state.complete_unrouted_studies() == [(STUDY, 1)]
    assert state.receiving_studies() == []
    (told,) = [e for e in state.events(STUDY) if e.kind == "study.complete"]
    assert told.message == "The study is complete: 1 instance; the association was released"


def test_what_became_complete_just_now_is_not_left_over(state: State) -> None:
    """The worker that completed it is at its routing."""
    receive(state, 1)
    assert state.complete_series(SERIES, 0.0, verdict(1)) is not None
    assert state.complete_unrouted(30.0) == []
    time.sleep(0.05)
    (left,) = state.complete_unrouted(0.01)
    assert state.complete_unrouted() == [left]
    state.record_routing(left, [], "no rule", {})
    assert state.complete_study(STUDY, verdict(1)) == 1
    assert state.complete_unrouted_studies(30.0) == []
    time.sleep(0.05)
    assert state.complete_unrouted_studies(0.01) == state.complete_unrouted_studies() == [(STUDY, 1)]


def test_what_is_to_be_routed_again_is_left_over_at_once(state: State) -> None:
    receive(state, 1)
    route(state, SERIES)
    state.rerun_study(STUDY)
    assert [s.series_instance_uid for s in state.complete_unrouted(30.0)] == [SERIES]


def test_a_late_image_opens_series_and_study_again(state: State) -> None:
    receive(state, 1)
    route(state, SERIES)
    assert state.complete_study(STUDY, verdict(1)) == 1
    receive(state, 1)
    assert state.study(STUDY).state is StudyState.COMPLETE, "a repeat is nothing new"
    receive(state, 2)
    assert state.study(STUDY).state is StudyState.RECEIVING
    route(state, SERIES)
    assert state.complete_study(STUDY, verdict(2)) == 2
    assert state.complete_unrouted_studies() == [(STUDY, 2)]


def test_an_own_result_does_not_open_its_study(state: State) -> None:
    receive(state, 1)
    route(state, SERIES)
    state.complete_study(STUDY, verdict(1))
    own = instance(1, OTHER, association=A1, modality="SEG", manufacturer="dicomnode")
    state.record_instances([own])
    assert state.study(STUDY).state is StudyState.COMPLETE
    assert state.complete_unrouted_studies() == [(STUDY, 1)]


def test_an_own_result_is_not_counted_in_its_study(state: State) -> None:
    receive(state, 1)
    state.record_instances([instance(1, OTHER, association=A2, modality="SEG", manufacturer="dicomnode")])
    route(state, SERIES)
    assert (study_signs(state).instances, study_signs(state).open_associations) == (1, 1)
    assert state.complete_study(STUDY, verdict(1)) == 1


def test_what_is_here_of_a_study(state: State) -> None:
    receive(state, 1, 2)
    receive(state, 1, series=OTHER)
    state.record_instances([instance(1, f"{STUDY}.9", association=A2, modality="SEG", manufacturer="dicomnode")])
    route(state, SERIES)
    route(state, OTHER)
    found = study_signs(state)
    assert (found.instances, found.series) == (3, 2)


def test_the_series_of_own_results_are_known_whether_they_came_back_or_not(state: State) -> None:
    assert state.own_series(STUDY) == []
    state.add_destination(ARCHIVE)
    job_id = routed(state)
    assert state.own_series(STUDY) == []
    work = state.start_job(job_id)
    assert work is not None
    state.finish_job(job_id, finished())
    made = results()[0].series_instance_uid
    assert state.own_series(STUDY) == [made]
    foreign = instance(1, f"{STUDY}.8", association=A2, modality="SEG", manufacturer="dicomnode")
    state.record_instances([foreign, instance(1, made, association=A2)])
    assert state.own_series(STUDY) == sorted([made, f"{STUDY}.8"])
    assert state.own_series("1.2.3") == []


def test_what_several_announce_of_a_study_counts_once(state: State) -> None:
    announce(state, 1, 2)
    announce(state, 2, 3, uid="1.2.3.5")
    announce(state, 1, series=OTHER, uid="1.2.3.6")
    receive(state, 1, 2, 3)
    receive(state, 1, series=OTHER)
    assert signs(state).named_in_all == 3
    assert signs(state, OTHER).named_in_all == 1
    route(state, SERIES, OTHER)
    found = study_signs(state)
    assert [(a.expected, a.missing) for a in found.announced] == [(2, 0), (2, 0), (1, 0)]
    assert found.named_in_all == found.instances == 4


def test_what_was_announced_of_a_study_is_summed_up(state: State) -> None:
    named = tuple(
        AnnouncedSeries(STUDY, series, tuple(f"{series}.{n}" for n in range(1, last + 1)))
        for series, last in ((SERIES, 2), (OTHER, 3))
    )
    document = {"0020000D": {"vr": "UI", "Value": [STUDY]}}
    state.record_announcement(
        Announcement(AnnouncementKind.MPPS, "1.2.3.4", "CT1", AnnouncementState.COMPLETED, named, document)
    )
    receive(state, 1, 2)
    route(state, SERIES)
    (found,) = study_signs(state).announced
    assert (found.expected, found.missing) == (5, 3)
    receive(state, 1, 2, 3, series=OTHER)
    route(state, OTHER)
    (found,) = study_signs(state).announced
    assert (found.expected, found.missing) == (5, 0)


def test_an_image_that_comes_while_the_study_completes_is_never_lost(state: State) -> None:
    """Either it is counted, or it finds the study complete and opens it again."""
    receive(state, 1)
    route(state, SERIES)
    begin = threading.Barrier(2)

    def late() -> None:
        begin.wait()
        receive(state, 2)

    for _ in range(5):
        thread = threading.Thread(target=late)
        thread.start()
        begin.wait()
        state.complete_study(STUDY, verdict(1))
        thread.join()
        assert state.study(STUDY).state is StudyState.RECEIVING


def test_a_series_that_was_routed_before_is_complete_by_the_old_call(state: State) -> None:
    assert complete(state).generation == 1


# ------------------------------------------------------------------------------------------------- how costly


def test_a_sweep_is_a_handful_of_queries_however_much_is_received(bench: Bench) -> None:
    state = bench.state
    for k in range(30):
        receive(state, 1, 2, series=f"{STUDY}.{k}", study_instance_uid=f"{STUDY}{k // 10}", association=f"r/1/{k}")
    announce(state, 1, 2, series=f"{STUDY}.3")
    statements: list[str] = []
    engine: sa.Engine = state.engine  # type: ignore[attr-defined]
    sa_event.listen(engine, "before_cursor_execute", lambda *about: statements.append(about[2]))
    assert len(state.receiving_series()) == 30
    assert len(statements) <= 7, "BEGIN, and six questions"
