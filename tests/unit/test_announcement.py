"""What MPPS and IAN data sets say, and what is answered to those that say it wrongly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from dicomnode.domain.announcement import (
    AnnouncedSeries,
    Announcement,
    AnnouncementKind,
    AnnouncementState,
    read_ian,
    read_mpps,
    read_new_mpps,
    said,
    studies_of,
    updated_mpps,
)
from dicomnode.encoding.dicom_json import dicom_json
from dicomnode.errors import (
    DatabaseAway,
    DuplicateInstance,
    IllegalTransition,
    InvalidAttribute,
    MissingAttribute,
    NoLongerUpdatable,
    NoSuchInstance,
    ReceiveError,
)
from dicomnode.stages.announce import AnnounceStage
from tests.adapters.fake_state import FakeState
from tests.announcements import IAN_UID, MPPS_UID, SERIES, STUDY, available, begun, ended, made

OTHER = f"{STUDY}.2"


def begun_mpps() -> Announcement:
    return read_new_mpps(MPPS_UID, "CT1", dicom_json(begun()))


# --------------------------------------------------------------------------------------------- what they say


def test_an_mpps_in_progress_names_its_study_and_nothing_more() -> None:
    announcement = begun_mpps()
    assert (announcement.kind, announcement.state) == (AnnouncementKind.MPPS, AnnouncementState.IN_PROGRESS)
    assert announcement.series == ()
    assert studies_of(announcement) == (STUDY,)


def test_an_n_set_completes_it_with_images_and_other_objects() -> None:
    changes = ended({SERIES: ["1.1", "1.2", "1.1"], OTHER: []}, {SERIES: ["1.9"]})
    announcement = updated_mpps(begun_mpps(), dicom_json(changes))
    assert announcement.state is AnnouncementState.COMPLETED
    assert announcement.series == (AnnouncedSeries(STUDY, SERIES, ("1.1", "1.2", "1.9")),)
    assert announcement.instances == 3


def test_an_n_set_replaces_what_it_gives_and_leaves_the_rest() -> None:
    first = updated_mpps(begun_mpps(), dicom_json(ended({SERIES: ["1.1"]}, status="IN PROGRESS")))
    second = updated_mpps(first, dicom_json(ended({OTHER: ["2.1"]}, status="DISCONTINUED")))
    assert second.state is AnnouncementState.DISCONTINUED
    assert second.series == (AnnouncedSeries(STUDY, OTHER, ("2.1",)),)
    assert second.document["00100010"]["Value"] == [{"Alphabetic": "Prüfer^Hänschen"}]
    assert second.document["00400250"]["Value"] == ["20260301"]
    assert "00080005" not in second.document


def test_an_n_set_of_something_else_leaves_its_state() -> None:
    first = updated_mpps(begun_mpps(), dicom_json(ended({SERIES: ["1.1"]}, status="IN PROGRESS")))
    second = updated_mpps(first, dicom_json(made(PerformedProcedureStepDescription="Thorax")))
    assert (second.state, second.series) == (first.state, first.series)


def test_steps_of_several_studies_are_all_told_of() -> None:
    announcement = read_new_mpps(MPPS_UID, "CT1", dicom_json(begun("1.5", "1.6", "1.5")))
    assert studies_of(announcement) == ("1.5", "1.6")


def test_an_ian_says_what_is_online() -> None:
    data_set = available({SERIES: ["1.1", "1.2"], OTHER: ["2.1"]})
    data_set.ReferencedSeriesSequence[0].ReferencedSOPSequence[1].InstanceAvailability = "NEARLINE"
    data_set.ReferencedSeriesSequence[1].ReferencedSOPSequence[0].InstanceAvailability = "UNAVAILABLE"
    announcement = read_ian(IAN_UID, "PACS", dicom_json(data_set))
    assert (announcement.kind, announcement.state) == (AnnouncementKind.IAN, AnnouncementState.AVAILABLE)
    assert announcement.series == (AnnouncedSeries(STUDY, SERIES, ("1.1",)),)


@pytest.mark.parametrize(
    ("announcement", "kind", "message"),
    [
        (begun_mpps(), "mpps.in-progress", "CT1 says that the examination has begun (MPPS)"),
        (
            updated_mpps(begun_mpps(), dicom_json(ended({SERIES: ["1.1", "1.2"], OTHER: ["2.1"]}))),
            "mpps.completed",
            "CT1 says that the examination is completed (MPPS): 3 instances in 2 series",
        ),
        (
            updated_mpps(begun_mpps(), dicom_json(ended({SERIES: ["1.1"]}, status="DISCONTINUED"))),
            "mpps.discontinued",
            "CT1 says that the examination was discontinued (MPPS): 1 instance in 1 series",
        ),
        (
            read_ian(IAN_UID, "PACS", dicom_json(available({SERIES: ["1.1"]}))),
            "ian.received",
            "PACS says what is available (IAN): 1 instance in 1 series",
        ),
    ],
)
def test_the_story_has_counts_and_no_patient(announcement: Announcement, kind: str, message: str) -> None:
    line = said(announcement)
    assert (line.kind, line.message) == (kind, message)
    assert "fer" not in json.dumps(dict(line.detail))
    assert line.detail["instances"] == announcement.instances


# ----------------------------------------------------------------------------------------- what is wrong in them


def without(data_set: Dataset, keyword: str) -> Dataset:
    delattr(data_set, keyword)
    return data_set


def with_step(**attributes: Any) -> Dataset:
    data_set = begun()
    data_set.ScheduledStepAttributesSequence = Items([made(**attributes)])
    return data_set


def with_status(status: str) -> Dataset:
    data_set = begun()
    data_set.PerformedProcedureStepStatus = status
    return data_set


@pytest.mark.parametrize(
    ("data_set", "status", "offending"),
    [
        (without(begun(), "PerformedProcedureStepStatus"), 0x0120, 0x00400252),
        (with_status(""), 0x0121, 0x00400252),
        (with_status("COMPLETED"), 0x0106, 0x00400252),
        (with_status("FINISHED"), 0x0106, 0x00400252),
        (without(begun(), "ScheduledStepAttributesSequence"), 0x0120, 0x0020000D),
        (with_step(AccessionNumber="A1"), 0x0120, 0x0020000D),
        (with_step(StudyInstanceUID=""), 0x0121, 0x0020000D),
    ],
)
def test_an_n_create_that_cannot_be_understood(data_set: Dataset, status: int, offending: int) -> None:
    with pytest.raises(ReceiveError) as caught:
        read_new_mpps(MPPS_UID, "CT1", dicom_json(data_set))
    assert caught.value.dimse_status == status
    assert caught.value.offending_elements == (offending,)


def test_uids_that_are_none_are_refused() -> None:
    document = dicom_json(begun())
    document["00400270"]["Value"][0]["0020000D"]["Value"] = ["../../etc"]
    with pytest.raises(InvalidAttribute):
        read_new_mpps(MPPS_UID, "CT1", document)
    document = dicom_json(ended({SERIES: ["1.1"]}))
    document["00400340"]["Value"][0]["00081140"]["Value"][0]["00081155"]["Value"] = ["1..2"]
    with pytest.raises(InvalidAttribute, match="Referenced SOP Instance UID"):
        updated_mpps(begun_mpps(), document)


def test_series_and_references_without_a_uid_are_refused() -> None:
    changes = ended({SERIES: ["1.1"]})
    del changes.PerformedSeriesSequence[0].SeriesInstanceUID
    with pytest.raises(MissingAttribute, match="Series Instance UID"):
        updated_mpps(begun_mpps(), dicom_json(changes))
    notification = available({SERIES: ["1.1"]})
    del notification.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].InstanceAvailability
    with pytest.raises(MissingAttribute, match="Instance Availability"):
        read_ian(IAN_UID, "PACS", dicom_json(notification))
    with pytest.raises(MissingAttribute, match="Referenced Series Sequence"):
        read_ian(IAN_UID, "PACS", dicom_json(made(StudyInstanceUID=STUDY)))


def test_documents_of_any_shape_raise_nothing_else() -> None:
    odd: list[Any] = [[], [None], ["x"], [{}], [3], [{"vr": "SQ"}], "text", None, {"a": 1}]
    for value in odd:
        for tag in ("00400252", "00400270", "00400340", "0020000D", "00081115"):
            document = {**dicom_json(begun()), tag: {"vr": "SQ", "Value": value}}
            for read in (read_mpps, read_new_mpps, read_ian):
                try:
                    read(MPPS_UID, "CT1", document)
                except ReceiveError:
                    continue


def test_what_cannot_be_read_is_left_out_of_the_document_and_nothing_else() -> None:
    changes = ended({SERIES: ["1.1"]})
    item = changes.PerformedSeriesSequence[0]
    item.add_new(0x00189345, "FD", float("nan"))  # CTDIvol
    item.add_new(0x0008103E, "LO", "one\0two")
    number = Tag(0x00200011)  # Series Number
    item._dict[number] = RawDataElement(number, "IS", 4, b"none", 0, False, True)
    document = dicom_json(changes)
    series = document["00400340"]["Value"][0]
    assert "00200011" not in series
    assert series["00189345"]["Value"] == [None]
    assert series["0008103E"]["Value"] == ["onetwo"]
    assert updated_mpps(begun_mpps(), document).instances == 1
    assert json.loads(json.dumps(document, allow_nan=False)) == document


# -------------------------------------------------------------------------------------------------- the stage


def create(stage: AnnounceStage, uid: str = MPPS_UID) -> None:
    stage.create_mpps(uid, "CT1", dicom_json(begun()))


def test_an_examination_from_beginning_to_end() -> None:
    state = FakeState()
    stage = AnnounceStage(state)
    create(stage)
    stage.update_mpps(MPPS_UID, dicom_json(ended({SERIES: ["1.1"]}, status="IN PROGRESS")))
    stage.update_mpps(MPPS_UID, dicom_json(ended({SERIES: ["1.1", "1.2"]})))
    announcement = state.announcement(MPPS_UID)
    assert announcement is not None
    assert announcement.instances == 2
    assert [event.kind for event in state.events(STUDY)] == ["mpps.in-progress", "mpps.completed"]


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_final_state_stays(status: str) -> None:
    stage = AnnounceStage(FakeState())
    create(stage)
    stage.update_mpps(MPPS_UID, dicom_json(ended({SERIES: ["1.1"]}, status=status)))
    with pytest.raises(NoLongerUpdatable) as caught:
        stage.update_mpps(MPPS_UID, dicom_json(ended({SERIES: ["1.1", "1.2"]})))
    assert (caught.value.dimse_status, caught.value.error_id) == (0x0110, 0xA710)


def test_what_is_there_already_and_what_is_not() -> None:
    stage = AnnounceStage(FakeState())
    create(stage)
    stage.create_ian(IAN_UID, "PACS", dicom_json(available({SERIES: ["1.1"]})))
    with pytest.raises(DuplicateInstance):
        create(stage)
    with pytest.raises(DuplicateInstance):
        stage.create_ian(IAN_UID, "PACS", dicom_json(available({SERIES: ["1.1"]})))
    for uid in ("1.2.3", IAN_UID):
        with pytest.raises(NoSuchInstance):
            stage.update_mpps(uid, dicom_json(ended({SERIES: ["1.1"]})))


class Faster(FakeState):
    """Another association completes the procedure step between our look and our writing."""

    def record_announcement(self, announcement: Announcement) -> None:
        raise IllegalTransition("completed")


def test_another_association_may_be_faster() -> None:
    state = Faster()
    FakeState.record_announcement(state, begun_mpps())
    with pytest.raises(NoLongerUpdatable):
        AnnounceStage(state).update_mpps(MPPS_UID, dicom_json(ended({SERIES: ["1.1"]})))


def test_nothing_is_success_while_the_database_is_away() -> None:
    class Away:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            raise DatabaseAway("gone")

    with pytest.raises(DatabaseAway):
        create(AnnounceStage(FakeState(), Away))
