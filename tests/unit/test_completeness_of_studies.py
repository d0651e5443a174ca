"""When a study is complete, by what its series, its announcements and its source say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.completeness import (
    AnnouncedSigns,
    CountSigns,
    Need,
    Policy,
    Signal,
    StudySigns,
    Verdict,
    Wait,
    study_verdict,
)
from tests.unit.test_completeness import _AGES, _ANNOUNCED, IN_PROGRESS, POLICY, mpps


def study(idle_s: float = 1.0, open_associations: int = 0, *announced: AnnouncedSigns) -> StudySigns:
    return StudySigns("1", "CT1", idle_s, open_associations, announced, instances=600)


def study_said(signs: StudySigns, policy: Policy = POLICY) -> str:
    found = study_verdict(signs, policy)
    return f"{found.signal}: {found.words}" if isinstance(found, Verdict) else f"wait: {found.words}"


def test_a_study_is_complete_when_all_that_was_announced_is_here() -> None:
    assert study_said(study(0.1, 0, mpps(600))).startswith("announced: the MPPS is completed and names 600 instances")
    assert study_said(study(0.1, 1, mpps(600))).startswith("wait")
    assert study_said(study(0.1, 0, mpps(600, missing=1))).startswith("wait")
    assert study_said(study(0.1, 0, mpps(300))).startswith("wait"), "more came than is announced"
    assert study_said(study(0.1, 0, mpps(600), mpps(0, 0, IN_PROGRESS))).startswith("wait")


def test_a_study_is_complete_when_all_that_several_announce_is_here() -> None:
    both = replace(study(0.1, 0, mpps(400), mpps(200)), named=600)
    assert study_said(both) == "announced: 2 MPPS together name 600 instances, and all of them are here"
    assert study_said(replace(both, named=500)).startswith("wait: 2 MPPS together name 500 instances, and all")
    assert study_said(replace(study(0.1, 0, mpps(400), mpps(200, 1)), named=600)).startswith("wait")


def test_a_study_is_complete_when_it_is_quiet() -> None:
    assert study_said(study(19.0)).startswith("wait")
    assert study_said(study(20.0)) == "quiet: nothing came for 20.0 s"
    assert study_said(study(20.0, 2)) == "wait: the last instance came 20.0 s ago; 2 associations are open"
    assert study_said(study(60.0, 2)).startswith("quiet")


def test_a_study_is_not_quiet_before_its_series() -> None:
    assert isinstance(study_verdict(replace(study(25.0), calling_ae_title="DEAF"), POLICY), Wait)


def counted_study(
    idle_s: float, of_source: CountSigns | None = None, *announced: AnnouncedSigns, sender: str = "PACS"
) -> StudySigns:
    """600 instances in two series, from a source that can be asked."""
    signs = replace(study(idle_s, 0, *announced), calling_ae_title=sender)
    return replace(signs, series=2, counted=of_source)


def whole(instances: int = 600, series: int = 2, age_s: float = 0.1, own_results: int = 0) -> CountSigns:
    return CountSigns(instances, "C-FIND to PACS@192.0.2.1:104", age_s, series, own_results)


def test_a_study_is_complete_when_the_source_has_no_more() -> None:
    assert study_said(counted_study(0.4, whole())) == (
        "counted: C-FIND to PACS@192.0.2.1:104 says 600 instances in 2 series, and 600 in 2 series are here"
    )
    assert study_said(counted_study(0.4, whole(series=0))) == (
        "counted: C-FIND to PACS@192.0.2.1:104 says 600 instances, and 600 are here"
    )
    assert "says 600 instances in 2 series besides 3 of own results, and" in study_said(
        counted_study(0.4, whole(own_results=3))
    )


def test_who_was_asked_of_a_study_from_several_senders() -> None:
    signs = replace(counted_study(0.4, whole()), senders=("CT1", "PACS"))
    assert study_said(signs).endswith("are here (asked since PACS sent last; CT1 sent some of it too)")
    assert "asked since" not in study_said(replace(signs, senders=("PACS",)))


def test_an_open_association_may_bring_more_of_the_study_than_its_archive_has_yet() -> None:
    signs = replace(counted_study(0.4, whole()), open_associations=1)
    found = study_verdict(signs, POLICY)
    assert isinstance(found, Wait)
    assert found.needs == frozenset(), "nobody is asked before it is over"
    assert found.again_s == pytest.approx(4.6)
    assert study_said(replace(signs, idle_s=4.9, counted=whole(age_s=4.5))).startswith("wait")
    silent = replace(signs, idle_s=5.0)
    assert study_said(silent).startswith("counted"), "it is silent for as long as the quiet period"
    assert study_said(replace(silent, calling_ae_title="DEAF")).startswith("wait"), "which is 30 s for that one"


@pytest.mark.parametrize(
    "signs",
    [
        counted_study(0.2, whole()),
        counted_study(0.4, whole(age_s=0.5)),
        counted_study(0.4, whole(601)),
        counted_study(0.4, whole(599)),
        counted_study(0.4, whole(600, 3)),
        counted_study(0.4, whole(600, 1)),
        counted_study(0.4, whole(), mpps(0, 0, IN_PROGRESS)),
        counted_study(0.4, whole(), mpps(700, 100)),
    ],
    ids=[
        "it came just now", "answered before the last image", "more images", "fewer images", "more series",
        "fewer series", "begun", "announced",
    ],
)  # fmt: skip
def test_a_count_that_does_not_complete_the_study(signs: StudySigns) -> None:
    assert study_said(signs).startswith("wait")


def test_when_the_source_of_a_study_is_asked() -> None:
    def asks(signs: StudySigns) -> bool:
        found = study_verdict(signs, POLICY)
        assert isinstance(found, Wait)
        return Need.COUNT in found.needs

    assert asks(counted_study(0.4))
    assert asks(counted_study(0.4, whole(601))), "again, as seldom as the caller likes"
    assert not asks(counted_study(0.2)), "it came just now"
    assert not asks(counted_study(0.4, None, mpps(0, 0, IN_PROGRESS))), "the source has not all of it either"
    assert not asks(counted_study(0.4, sender="CT1")), "there is nobody to ask"


def test_a_study_of_which_the_source_has_more_is_waited_for_as_long_as_a_series() -> None:
    said_more = replace(counted_study(59.9, whole(900)), open_associations=0)
    assert "says 900 instances in 2 series, and 600 in 2 series are here" in study_said(said_more)
    assert study_said(said_more).startswith("wait")
    assert study_said(replace(said_more, idle_s=60.0)).startswith("quiet: nothing came for 60.0 s; C-FIND")
    assert study_said(replace(said_more, idle_s=20.0, counted=whole(600, 3))).startswith("quiet"), "only more series"


def test_the_decision_about_a_study_says_what_was_counted() -> None:
    found = study_verdict(counted_study(0.4, whole(own_results=3)), POLICY)
    assert isinstance(found, Verdict)
    assert found.signs["counted"] == {
        "instances": 600,
        "source": "C-FIND to PACS@192.0.2.1:104",
        "age_s": 0.1,
        "series": 2,
        "own_results": 3,
    }
    assert found.signs["said"]["counted"] == found.words


_STUDIES = st.builds(
    StudySigns,
    st.just("1"),
    st.sampled_from(["CT1", "PACS", "DEAF"]),
    _AGES,
    st.integers(0, 3),
    st.lists(_ANNOUNCED, max_size=3).map(tuple),
    st.integers(1, 9),
    st.integers(1, 3),
    st.none() | st.builds(CountSigns, st.integers(1, 12), st.just("C-FIND"), _AGES, st.integers(0, 4)),
)


def study_later(signs: StudySigns, by_s: float) -> StudySigns:
    counted = signs.counted and replace(signs.counted, age_s=signs.counted.age_s + by_s)
    return replace(signs, idle_s=signs.idle_s + by_s, counted=counted)


@given(_STUDIES, st.floats(0, 100))
def test_a_study_is_complete_in_the_end_and_stays_so(signs: StudySigns, by_s: float) -> None:
    assert isinstance(study_verdict(study_later(signs, 12 * 30.0), POLICY), Verdict)
    if isinstance(study_verdict(signs, POLICY), Verdict):
        assert isinstance(study_verdict(study_later(signs, by_s), POLICY), Verdict)


@given(_STUDIES)
def test_a_study_is_counted_only_when_nothing_says_that_there_is_more(signs: StudySigns) -> None:
    found = study_verdict(signs, POLICY)
    if isinstance(found, Verdict) and found.signal is Signal.COUNTED:
        assert signs.counted is not None
        assert signs.counted.instances == signs.instances
        assert signs.counted.series in (0, signs.series)
        assert signs.counted.age_s <= signs.idle_s
        assert not signs.open_associations or signs.idle_s >= 5.0
        assert not any(a.missing or a.state is IN_PROGRESS for a in signs.announced)


@given(_STUDIES)
def test_it_is_worth_looking_at_a_study_again_when_the_answer_says_so(signs: StudySigns) -> None:
    for _ in range(60):
        found = study_verdict(signs, POLICY)
        if isinstance(found, Verdict):
            return
        assert found.again_s > 0
        signs = study_later(signs, found.again_s + 1e-6)
    raise AssertionError(found)
