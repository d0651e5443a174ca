"""What senders announce and may send, as a State keeps it, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from dicomnode.domain.announcement import (
    AnnouncedSeries,
    Announcement,
    AnnouncementKind,
    AnnouncementState,
)
from dicomnode.domain.destination import DimseAddress, StowAddress
from dicomnode.domain.source import Source
from dicomnode.errors import IllegalTransition, NotFound
from dicomnode.ports import Event, State
from tests.adapters.state_material import SERIES, STUDY, instance
from tests.contract.state_bench import OTHER, Bench, bench, state

__all__ = ["bench", "state"]  # fixtures
MPPS_UID, IAN_UID = f"{STUDY}.900", f"{STUDY}.901"
DOCUMENT = {
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Prüfer^Hänschen \U0001f600"}]},
    "00400270": {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": [STUDY]}}]},
}
BEGUN = Announcement(AnnouncementKind.MPPS, MPPS_UID, "CT1", AnnouncementState.IN_PROGRESS, (), DOCUMENT)


def ended(*series: AnnouncedSeries, now: AnnouncementState = AnnouncementState.COMPLETED) -> Announcement:
    return replace(BEGUN, state=now, series=series)


def named(series: str, count: int) -> AnnouncedSeries:
    return AnnouncedSeries(STUDY, series, tuple(f"{series}.{n}" for n in range(1, count + 1)))


def test_an_announcement_is_what_it_is_now(state: State) -> None:
    assert state.announcement(MPPS_UID) is None
    state.record_announcement(BEGUN)
    assert state.announcement(MPPS_UID) == BEGUN
    partly = ended(named(SERIES, 2), now=AnnouncementState.IN_PROGRESS)
    state.record_announcement(partly)
    assert state.announcement(MPPS_UID) == partly
    completed = ended(named(OTHER, 3), named(SERIES, 300))
    state.record_announcement(completed)
    assert state.announcement(MPPS_UID) == completed


@pytest.mark.parametrize("final", [AnnouncementState.COMPLETED, AnnouncementState.DISCONTINUED])
def test_a_final_state_stays(state: State, final: AnnouncementState) -> None:
    state.record_announcement(BEGUN)
    state.record_announcement(ended(named(SERIES, 2), now=final))
    for other in (BEGUN, ended(named(SERIES, 3)), ended(now=AnnouncementState.DISCONTINUED)):
        with pytest.raises(IllegalTransition, match=final):
            state.record_announcement(other)
    assert state.announcement(MPPS_UID) == ended(named(SERIES, 2), now=final)


def test_the_story_is_told_once_a_state_and_names_nobody(state: State) -> None:
    state.record_announcement(BEGUN)
    state.record_announcement(ended(named(SERIES, 1), now=AnnouncementState.IN_PROGRESS))
    state.record_instances([instance(1)])
    state.record_announcement(ended(named(SERIES, 2)))
    events = [event for event in state.events(STUDY) if event.kind.startswith("mpps")]
    assert [event.kind for event in events] == ["mpps.in-progress", "mpps.completed"]
    assert events[1].detail["instances"] == 2
    assert not any("fer" in f"{event.message}{event.detail}" for event in events)


def test_an_announcement_of_several_studies_is_in_the_story_of_each(state: State) -> None:
    steps = [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in (STUDY, "1.2.3")]
    state.record_announcement(replace(BEGUN, document={"00400270": {"vr": "SQ", "Value": steps}}))
    assert [len(state.events(uid)) for uid in (STUDY, "1.2.3")] == [1, 1]


def test_what_is_in_progress_is_a_sign_for_its_study(bench: Bench) -> None:
    """Before it names a series too."""
    state = bench.state
    state.record_instances([instance(1)])
    state.record_announcement(BEGUN)
    (signs,) = state.receiving_series()
    assert [(sign.state, sign.expected) for sign in signs.announced] == [(AnnouncementState.IN_PROGRESS, 0)]
    state.record_announcement(ended(named(SERIES, 2)))
    (signs,) = state.receiving_series()
    assert [(sign.state, sign.expected, sign.missing) for sign in signs.announced] == [
        (AnnouncementState.COMPLETED, 2, 1)
    ]


def test_what_is_available_is_told(state: State) -> None:
    notification = Announcement(
        AnnouncementKind.IAN, IAN_UID, "PACS", AnnouncementState.AVAILABLE, (named(SERIES, 2), named(OTHER, 1))
    )
    state.record_announcement(notification)
    assert state.announcement(IAN_UID) == notification
    (event,) = state.events(STUDY)
    assert (event.kind, event.detail["instances"], event.detail["series"]) == ("ian.received", 3, 2)


def test_one_of_several_completions_at_once_is_the_one(state: State) -> None:
    state.record_announcement(BEGUN)

    def complete(count: int) -> int | None:
        try:
            state.record_announcement(ended(named(SERIES, count)))
            return count
        except IllegalTransition:
            return None

    with ThreadPoolExecutor(4) as pool:
        (done,) = [count for count in pool.map(complete, range(1, 9)) if count]
    assert state.announcement(MPPS_UID) == ended(named(SERIES, done))
    assert [event.kind for event in state.events(STUDY)] == ["mpps.in-progress", "mpps.completed"]


# ------------------------------------------------------------------------------------------------------ sources


FULL: dict[str, Any] = {
    "quiet_period_s": 30.0,
    "release": False,
    "allowed_sop_classes": ("1.2.840.10008.5.1.4.1.1.2",),
    "refused_transfer_syntaxes": ("1.2.840.10008.1.2.4.50",),
}


def test_sources_are_kept_by_ae_title(state: State) -> None:
    assert state.sources() == []
    dimse = Source("PET", query=DimseAddress("PACS", "192.0.2.1", 104), **FULL)
    web = Source("CT 1", query=StowAddress("http://user:secret@192.0.2.2/dicom-web"))
    state.put_source(dimse)
    state.put_source(web)
    assert state.sources() == [web, dimse]
    state.put_source(Source("PET", release=False))
    assert state.sources() == [web, Source("PET", release=False)]
    state.remove_source("CT 1")
    assert state.sources() == [Source("PET", release=False)]


def test_a_source_that_is_not_there_cannot_be_removed(state: State) -> None:
    with pytest.raises(NotFound, match="sources list"):
        state.remove_source("CT1")


# --------------------------------------------------------------------------------------------------- rejections


def test_those_that_were_turned_away_last_come_first(state: State) -> None:
    assert state.rejections() == []
    state.record_instances([instance(1)])
    at = state.events(STUDY)[0].at
    for number in range(5):
        kind = "association.rejected" if number % 2 else "context.rejected"
        state.record_event(Event(at, kind, f"turned away CT{number}", detail={"times": number}))
        state.record_event(Event(at, "association.aborted", "association from CT9 aborted: nothing kept"))
    assert [event.message for event in state.rejections()] == [f"turned away CT{n}" for n in (4, 3, 2)]
    assert [event.detail for event in state.rejections(most=1)] == [{"times": 4}]
