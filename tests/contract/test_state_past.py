"""The received past: all of it in order, a page at a time, and of headers only what was asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dicomnode.adapters.db.evidence_json import header_json
from dicomnode.adapters.db.repositories import SqlState
from dicomnode.adapters.db.tables import EvidenceRow, SeriesRow, StudyRow
from dicomnode.domain.study import Element, SeriesState
from tests.adapters.state_material import STUDY, instance
from tests.contract.state_bench import Bench, bench

__all__ = ["bench"]

HEADER = {
    "Modality": Element("CS", ("CT",)),
    "SliceThickness": Element("DS", (2.5,)),
    "ImageType": Element("CS", ("ORIGINAL", "PRIMARY")),
    "PatientComments": Element("LT", ()),
    "(0019,10,ACME 'one' CT)": Element("LO", ("private",)),
    '(0019,10,ACME "two")': Element("LO", ("quoted",)),
    "RequestAttributesSequence": Element("SQ", ({"RequestedProcedureID": Element("SH", ("ü",))},)),
}
FACTS = {"NumberOfInstances": Element("IS", (3,)), "IsAVolume": Element("FLAG", (False,), "a gap")}


def receive(bench: Bench, studies: int, series: int = 1) -> None:
    for study in range(1, studies + 1):
        for number in range(1, series + 1):
            uid = f"{STUDY}.{study}"
            more: dict[str, Any] = {"study_instance_uid": uid, "accession_number": f"A-{study}"}
            bench.state.record_instances([instance(1, f"{uid}.{number}", **more)])


def give_evidence(bench: Bench, series: str, **more: Any) -> None:
    assert isinstance(bench.state, SqlState)
    with bench.state.engine.begin() as connection:
        found = connection.scalar(sa.select(SeriesRow.id).where(SeriesRow.series_instance_uid == series))
        row = {
            "series_id": found,
            "generation": 2,
            "header": header_json(HEADER),
            "facts": header_json(FACTS),
            "all_facts": True,
            "no_image": "",
        }
        connection.execute(sa.insert(EvidenceRow).values(row | more))


def test_studies_come_in_order_and_each_once_whatever_the_page(bench: Bench) -> None:
    receive(bench, 5, series=2)
    whole = list(bench.state.past([], []))
    assert [s.accession_number for s in whole] == [f"A-{n}" for n in range(1, 6)]
    assert [len(s.series) for s in whole] == [2] * 5
    first = whole[0].series[0]
    assert (first.series_instance_uid, first.modality, first.description) == (f"{STUDY}.1.1", "CT", "Thorax")
    assert (first.state, first.evidence) == (SeriesState.RECEIVING, None)
    for page in (1, 2, 5, 6):
        assert list(bench.state.past([], [], page=page)) == whole


def test_studies_of_one_moment_are_told_apart_by_their_ids(bench: Bench) -> None:
    receive(bench, 4)
    assert isinstance(bench.state, SqlState)
    with bench.state.engine.begin() as connection:
        moment = connection.scalar(sa.select(StudyRow.received_at).limit(1))
        connection.execute(sa.update(StudyRow).values(received_at=moment))
    assert [s.accession_number for s in bench.state.past([], [], page=1)] == ["A-1", "A-2", "A-3", "A-4"]


def test_since_is_the_first_moment_that_counts(bench: Bench) -> None:
    receive(bench, 3)
    whole = list(bench.state.past([], []))
    assert list(bench.state.past([], [], since=whole[1].received_at, page=1)) == whole[1:]
    assert list(bench.state.past([], [], since=whole[2].received_at + timedelta(seconds=1))) == []


@pytest.mark.parametrize(
    "keywords",
    [
        ["Modality"],
        ["SliceThickness", "Modality", "Rows", "ImageType"],
        ["PatientComments", "RequestAttributesSequence"],
        ["(0019,10,ACME 'one' CT)"],
        ["Modality", '(0019,10,ACME "two")'],
        list(HEADER),
    ],
)
def test_of_headers_and_facts_what_was_asked_for(bench: Bench, keywords: list[str]) -> None:
    receive(bench, 1)
    give_evidence(bench, f"{STUDY}.1.1")
    (study,) = bench.state.past(keywords, ["IsAVolume", "Orientation"])
    evidence = study.series[0].evidence
    assert evidence is not None
    assert evidence.header == {k: HEADER[k] for k in keywords if k in HEADER}
    assert evidence.facts == {"IsAVolume": FACTS["IsAVolume"]}
    assert (evidence.generation, evidence.all_facts, evidence.no_image) == (2, True, "")
    (bare,) = bench.state.past([], [])
    assert bare.series[0].evidence is not None
    assert (bare.series[0].evidence.header, bare.series[0].evidence.facts) == ({}, {})


def test_what_is_not_known_and_what_holds_no_image(bench: Bench) -> None:
    receive(bench, 1, series=2)
    give_evidence(bench, f"{STUDY}.1.2", all_facts=False, no_image="it is SR", facts={})
    (study,) = bench.state.past(["Modality"], ["IsAVolume"])
    unread, report = study.series
    assert unread.evidence is None
    assert report.evidence is not None
    assert (report.evidence.all_facts, report.evidence.no_image, report.evidence.facts) == (False, "it is SR", {})


def test_the_caller_may_ask_the_state_between_two_studies(bench: Bench) -> None:
    receive(bench, 3)
    asked = [bench.state.study(s.study_instance_uid).accession_number for s in bench.state.past([], [], page=1)]
    assert asked == ["A-1", "A-2", "A-3"]
