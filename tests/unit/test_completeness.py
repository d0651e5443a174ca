"""Which signal makes a series complete, and that no combination of signs is waited for for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.announcement import AnnouncementKind, AnnouncementState
from dicomnode.domain.completeness import (
    AnnouncedSigns,
    ArrivalSigns,
    CountSigns,
    Need,
    Policy,
    SeriesSigns,
    Stack,
    Verdict,
    Wait,
    series_verdict,
)
from dicomnode.domain.destination import parse_dimse
from dicomnode.domain.source import Source

PACS = Source("PACS", query=parse_dimse("PACS@192.0.2.1:104"))
DEAF = Source("DEAF", release=False, quiet_period_s=30.0)
POLICY = Policy(sources={"PACS": PACS, "DEAF": DEAF})
WHOLE = Stack(True, "300 instances without a gap")
GAP = Stack(False, "instance number 17 is missing")
MPPS, IAN = AnnouncementKind.MPPS, AnnouncementKind.IAN
COMPLETED, IN_PROGRESS = AnnouncementState.COMPLETED, AnnouncementState.IN_PROGRESS


def arrival(ended: str = "", idle_s: float = 1.0, ended_s: float | None = None, **more: object) -> ArrivalSigns:
    values = {"association": "a/1/1", "calling_ae_title": "CT1", "instances": 300, "began_s": idle_s + 10} | more
    return ArrivalSigns(**values, idle_s=idle_s, ended_how=ended, ended_s=ended_s)  # type: ignore[arg-type]


def series(idle_s: float = 1.0, *arrivals: ArrivalSigns, **more: object) -> SeriesSigns:
    values = {"modality": "CT", "calling_ae_title": "CT1", "instances": 300} | more
    return SeriesSigns("1", "1.1", idle_s=idle_s, arrivals=arrivals, **values)  # type: ignore[arg-type]


def released(ended_s: float = 0.6, **more: object) -> SeriesSigns:
    return series(ended_s + 0.01, arrival("released", ended_s + 0.01, ended_s), **more)


def said(signs: SeriesSigns, stack: Stack | None = None, policy: Policy = POLICY) -> str:
    found = series_verdict(signs, policy, stack)
    return f"{found.signal}: {found.words}" if isinstance(found, Verdict) else f"wait: {found.words}"


def waits(signs: SeriesSigns, stack: Stack | None = None, policy: Policy = POLICY) -> Wait:
    found = series_verdict(signs, policy, stack)
    assert isinstance(found, Wait)
    return found


# ------------------------------------------------------------------------------------------------- announced


def mpps(expected: int = 300, missing: int = 0, state: AnnouncementState = COMPLETED) -> AnnouncedSigns:
    return AnnouncedSigns(MPPS, state, expected, missing)


@pytest.mark.parametrize("state", [COMPLETED, AnnouncementState.DISCONTINUED])
def test_all_that_the_mpps_names_is_here(state: AnnouncementState) -> None:
    signs = series(0.4, arrival(idle_s=0.4), announced=(mpps(state=state),))
    assert said(signs) == f"announced: the MPPS is {state} and names 300 instances, and all of them are here"


def test_all_that_an_ian_names_is_here() -> None:
    signs = series(0.4, announced=(AnnouncedSigns(IAN, AnnouncementState.AVAILABLE, 1, 0),), instances=1)
    assert said(signs) == "announced: the IAN names 1 instance, and it is here"


def test_it_is_not_complete_while_images_pour_in() -> None:
    found = waits(series(0.1, arrival(idle_s=0.1), announced=(mpps(),)))
    assert found.again_s == pytest.approx(0.2)


def test_an_announcement_of_which_something_is_missing_is_waited_for() -> None:
    signs = released(10, announced=(mpps(missing=2),), instances=298)
    assert "2 of them are missing" in said(signs, WHOLE)
    assert said(replace(signs, idle_s=60.0)) == (
        "quiet: nothing came for 60.0 s; the MPPS is completed and names 300 instances, but 2 of them are missing"
    )


def test_an_announcement_that_names_less_than_came_is_none() -> None:
    signs = series(0.4, announced=(AnnouncedSigns(IAN, AnnouncementState.AVAILABLE, 10, 0),), instances=11)
    assert "and more came" in said(signs)


def test_two_announcements_of_one_series_that_together_name_all_of_it() -> None:
    signs = series(0.4, arrival(idle_s=0.4), announced=(mpps(150), mpps(150)), named=300)
    assert said(signs) == "announced: 2 MPPS together name 300 instances, and all of them are here"
    same = series(0.4, arrival(idle_s=0.4), announced=(mpps(150), mpps(150)), named=150)
    assert "names 150 instances, and all of them are here, and more came" in said(same)
    by_both = (mpps(150), AnnouncedSigns(IAN, AnnouncementState.AVAILABLE, 200, 0))
    signs = series(0.4, arrival(idle_s=0.4), announced=by_both, named=300)
    assert said(signs) == "announced: 2 announcements together name 300 instances, and all of them are here"
    signs = series(0.4, arrival(idle_s=0.4), announced=(mpps(150), mpps(200, 50)), named=350)
    assert said(signs).startswith("wait: the MPPS is completed and names 200 instances, but 50 of them are missing")


# --------------------------------------------------------------------------------------------------- counted


def counted(instances: int, age_s: float = 0.1) -> CountSigns:
    return CountSigns(instances, "C-FIND to PACS@192.0.2.1:104", age_s)


def test_the_source_is_asked_once_images_stop() -> None:
    pacs = {"calling_ae_title": "PACS"}
    busy, still = series(0.1, arrival(idle_s=0.1), **pacs), series(0.3, arrival(idle_s=0.3), **pacs)
    assert waits(busy).needs == frozenset()
    assert waits(busy).again_s == pytest.approx(0.2)
    assert waits(still).needs == {Need.COUNT}
    assert waits(series(0.3)).needs == frozenset(), "of CT1 nobody knows whom to ask"


def test_as_many_as_the_source_has() -> None:
    signs = series(0.4, arrival(idle_s=0.4), calling_ae_title="PACS", counted=counted(300))
    assert said(signs) == "counted: C-FIND to PACS@192.0.2.1:104 says 300 instances, and 300 are here"


def test_an_answer_from_before_the_last_image_is_not_believed() -> None:
    """A source that receives the series itself while it sends it has no more than it has sent."""
    signs = series(0.4, arrival(idle_s=0.4), calling_ae_title="PACS", counted=counted(300, age_s=0.5))
    assert waits(signs).needs == {Need.COUNT}


@pytest.mark.parametrize("instances", [3, 299, -5])
def test_a_source_that_has_fewer_than_are_here_lags_and_is_asked_again(instances: int) -> None:
    signs = series(0.4, arrival(idle_s=0.4), calling_ae_title="PACS", counted=counted(instances))
    assert waits(signs).needs == {Need.COUNT}


@pytest.mark.parametrize("announced", [mpps(500, missing=200), mpps(0, 0, IN_PROGRESS)], ids=["missing", "begun"])
def test_no_count_overrules_an_announcement_of_more(announced: AnnouncedSigns) -> None:
    """The archive has not all of it either."""
    signs = series(0.4, arrival(idle_s=0.4), calling_ae_title="PACS", counted=counted(300), announced=(announced,))
    assert waits(signs).needs == frozenset()
    assert waits(replace(signs, counted=None)).needs == frozenset()


def test_a_source_that_has_more_is_waited_for_and_asked_again() -> None:
    signs = released(20, calling_ae_title="PACS", instances=150, counted=counted(300))
    found = waits(signs, WHOLE)
    assert found.needs == {Need.COUNT}
    assert "C-FIND to PACS@192.0.2.1:104 says 300 instances, and 150 are here" in found.words
    assert found.words.count("300") == 1, "it is said once"
    assert found.latest_s == pytest.approx(39.99)
    assert said(replace(signs, idle_s=60)) == (
        "quiet: nothing came for 60.0 s; C-FIND to PACS@192.0.2.1:104 says 300 instances, and 150 are here"
    )


# -------------------------------------------------------------------------------------------------- released


def test_a_release_after_a_contiguous_stack() -> None:
    assert waits(released()).needs == {Need.CONTIGUITY}
    assert said(released(), WHOLE) == ("released: CT1 released its association after 300 instances without a gap")


def test_the_grace_after_a_release() -> None:
    found = waits(released(0.2))
    assert found.needs == frozenset()
    assert found.again_s == pytest.approx(0.3)


def test_a_gap_is_left_to_the_quiet_period() -> None:
    assert "CT1 released its association, but instance number 17 is missing" in said(released(), GAP)
    assert said(released(5.0), GAP).startswith("quiet: nothing came for 5.0 s")


@pytest.mark.parametrize("how", ["aborted", "lost"])
def test_an_association_that_was_not_released_says_nothing(how: str) -> None:
    signs = series(1.0, arrival(how, 1.0, 0.9))
    assert f"the last association that brought it was {how}" in said(signs, WHOLE)
    again = replace(signs, arrivals=(*signs.arrivals, arrival("released", 0.7, 0.65, association="a/1/2")))
    assert said(again, WHOLE) == ("released: CT1 released its 2 associations after 300 instances without a gap")


def test_all_associations_have_to_be_over() -> None:
    first = arrival("released", 3.0, 2.0)
    signs = series(1.0, first, arrival(idle_s=1.0, association="b/1/1", calling_ae_title="CT2"))
    assert "an association that brought it is open" in said(signs, WHOLE)


def test_an_mpps_in_progress_vetoes_the_release_and_not_the_quiet() -> None:
    open_step = (mpps(0, 0, IN_PROGRESS),)
    assert "an MPPS of the study is in progress" in said(released(announced=open_step), WHOLE)
    assert said(released(5.0, announced=open_step), WHOLE).startswith("quiet")


def test_a_source_whose_release_says_nothing_and_its_own_quiet_period() -> None:
    signs = series(6.0, arrival("released", 6.0, 5.9, calling_ae_title="DEAF"), calling_ae_title="DEAF")
    assert "the end of this source's associations says nothing" in said(signs, WHOLE)
    assert said(replace(signs, idle_s=30.0)) == "quiet: nothing came for 30.0 s"


def test_the_release_waits_for_an_answer_that_is_under_way() -> None:
    assert "the source is being asked how many there are" in said(released(counting=True), WHOLE)


def one_each(number: int, every_s: float, ago_s: float) -> SeriesSigns:
    """A sender that makes an association for each image; the last one ended `ago_s` ago."""
    ends = [ago_s + every_s * k for k in range(number)]
    each = [arrival("released", s + 0.05, s, association=f"a/1/{s}", began_s=s + 0.05, instances=1) for s in ends]
    return series(ago_s, *each, instances=number)


def test_a_sender_with_an_association_for_each_image_is_given_time_by_its_own_pauses() -> None:
    assert "may make another one" in said(one_each(40, every_s=2.0, ago_s=3.0), WHOLE)
    assert said(one_each(40, every_s=2.0, ago_s=4.0), WHOLE).startswith("released: CT1 released its 40 associations")
    assert "may make another one" in said(one_each(40, every_s=0.1, ago_s=0.4), WHOLE)
    assert said(one_each(40, every_s=0.1, ago_s=0.5), WHOLE).startswith("released")


def test_yesterdays_association_is_no_pause() -> None:
    yesterday = arrival("released", 86400.0, 86399.0, association="a/1/1", began_s=86410.0)
    today = arrival("released", 0.6, 0.55, association="a/1/2", began_s=5.0)
    assert said(series(0.6, yesterday, today), WHOLE).startswith("released")


# ----------------------------------------------------------------------------------------------------- quiet


def test_nothing_but_time() -> None:
    assert waits(series(4.0)).again_s == pytest.approx(1.0)
    assert said(series(5.0)) == "quiet: nothing came for 5.0 s"


def test_a_sender_that_pauses_is_not_cut_in_two() -> None:
    paused = arrival(idle_s=20.0)
    assert waits(series(20.0, paused)).again_s == pytest.approx(40.0)
    assert said(series(60.0, replace(paused, idle_s=60.0))) == (
        "quiet: nothing came for 60.0 s; an association from CT1 is open"
    )


def test_a_sender_that_has_gone_on_to_another_series_does_not_hold_this_one() -> None:
    assert said(series(6.0, arrival(idle_s=6.0, any_idle_s=0.1))).startswith("quiet")
    interleaved = series(6.0, arrival(idle_s=6.0, any_idle_s=5.5))
    assert isinstance(series_verdict(interleaved, POLICY), Wait), "it sends two series in turn, and pauses"


def test_all_that_was_looked_at_is_kept() -> None:
    signs = released(announced=(mpps(0, 0, IN_PROGRESS),), counted=counted(200))
    found = series_verdict(replace(signs, idle_s=70.0), POLICY, GAP)
    assert isinstance(found, Verdict)
    assert found.instances == 300
    assert set(found.signs) == {"idle_s", "associations", "said", "announced", "counted"}
    assert found.signs["associations"][0]["ended"] == "released"
    assert set(found.signs["said"]) == {"counted", "released", "quiet"}


# ---------------------------------------------------------------------------------------------- whatever comes

_AGES = st.floats(0, 200)
_ANNOUNCED = st.builds(
    AnnouncedSigns,
    st.sampled_from(AnnouncementKind),
    st.sampled_from(AnnouncementState),
    st.integers(0, 9),
    st.integers(0, 9),
)  # fmt: skip
_SIGNS = st.builds(
    SeriesSigns,
    study_instance_uid=st.just("1"),
    series_instance_uid=st.just("1.1"),
    modality=st.sampled_from(["CT", "MG"]),
    calling_ae_title=st.sampled_from(["CT1", "PACS", "DEAF"]),
    instances=st.integers(1, 9),
    idle_s=_AGES,
    arrivals=st.lists(
        st.builds(
            ArrivalSigns,
            association=st.text("ab", min_size=1),
            calling_ae_title=st.sampled_from(["CT1", "PACS", "DEAF"]),
            instances=st.integers(1, 9),
            idle_s=_AGES,
            ended_how=st.sampled_from(["", "released", "aborted", "lost"]),
            ended_s=_AGES,
            began_s=_AGES,
            any_idle_s=st.none() | _AGES,
        ),
        max_size=4,
    ).map(tuple),
    announced=st.lists(_ANNOUNCED, max_size=2).map(tuple),
    counted=st.none() | st.builds(CountSigns, st.integers(1, 9), st.just("C-FIND"), _AGES),
    counting=st.booleans(),
)
_STACKS = st.sampled_from([None, WHOLE, GAP])


def later(signs: SeriesSigns, by_s: float) -> SeriesSigns:
    """The same, when nothing happened for so long."""
    return replace(
        signs,
        idle_s=signs.idle_s + by_s,
        arrivals=tuple(
            replace(
                a,
                idle_s=a.idle_s + by_s,
                began_s=a.began_s + by_s,
                ended_s=None if a.ended_s is None else a.ended_s + by_s,
                any_idle_s=None if a.any_idle_s is None else a.any_idle_s + by_s,
            )
            for a in signs.arrivals
        ),
        counted=signs.counted and replace(signs.counted, age_s=signs.counted.age_s + by_s),
    )


@given(_SIGNS, _STACKS)
def test_never_while_an_open_association_brings_images(signs: SeriesSigns, stack: Stack | None) -> None:
    busy = ArrivalSigns("busy", "CT1", 1, idle_s=0.1)
    signs = replace(signs, idle_s=0.1, arrivals=(*signs.arrivals, busy))
    assert isinstance(series_verdict(signs, POLICY, stack), Wait)


@given(_SIGNS, _STACKS, st.floats(0, 100))
def test_what_is_complete_stays_so(signs: SeriesSigns, stack: Stack | None, by_s: float) -> None:
    if isinstance(series_verdict(signs, POLICY, stack), Verdict):
        assert isinstance(series_verdict(later(signs, by_s), POLICY, stack), Verdict)


@given(_SIGNS, _STACKS)
def test_it_is_complete_in_the_end(signs: SeriesSigns, stack: Stack | None) -> None:
    assert isinstance(series_verdict(later(signs, 12 * 30.0), POLICY, stack), Verdict)


@given(_SIGNS, _STACKS)
def test_it_is_worth_looking_again_when_the_answer_says_so(signs: SeriesSigns, stack: Stack | None) -> None:
    """Following `again_s` alone comes to an end, and each step takes time: nothing is asked in a tight loop."""
    for _ in range(60):
        found = series_verdict(signs, POLICY, stack)
        if isinstance(found, Verdict):
            return
        if Need.CONTIGUITY in found.needs:
            stack = GAP
            continue
        assert found.again_s > 0
        signs = later(signs, found.again_s + 1e-6)
    raise AssertionError(found)
