"""One of several series: each preference alone, one after the other, and what the order of arrival never changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.rules import Choice, Preference
from dicomnode.domain.selection import select, series_name
from dicomnode.domain.study import Evidence
from tests.unit.evidence_material import evidence

THIN = Preference(Choice.THINNEST_SLICES)
MOST = Preference(Choice.MOST_INSTANCES)
LATEST = Preference(Choice.LATEST)
LOWEST = Preference(Choice.LOWEST_NUMBER)
KERNEL = Preference(Choice.KERNEL, ("B30f", "Br40d"))


def _ct(number: int | None, **values: Any) -> Evidence:
    return evidence(f"1.{number}", Modality="CT", SeriesNumber=number, **values)


def test_the_thinnest_is_told_against_the_next() -> None:
    chosen = select([THIN], [_ct(3, MeasuredSliceSpacing=5.0), _ct(4, MeasuredSliceSpacing=1.25)])
    assert chosen.series_instance_uid == "1.4"
    assert chosen.words == "chosen: thinnest slices, 1.25 mm against 5 mm of CT series 3"
    assert chosen.passed_over == {"1.3": "CT series 4 was chosen: thinnest slices, 1.25 mm against 5 mm"}


@pytest.mark.parametrize(
    ("preference", "worse", "better"),
    [
        (THIN, {"SliceThickness": 5.0}, {"MeasuredSliceSpacing": 2.5, "SliceThickness": 6.0}),
        (THIN, {"SliceThickness": 1.0, "MeasuredSliceSpacing": 3.0}, {"SliceThickness": 2.0}),
        (THIN, {}, {"SliceThickness": 9.0}),
        (THIN, {"SliceThickness": 0.0}, {"SliceThickness": 9.0}),
        (MOST, {"NumberOfInstances": 9}, {"NumberOfInstances": 10}),
        (MOST, {}, {"NumberOfInstances": 1}),
        (KERNEL, {"ConvolutionKernel": "Br40d"}, {"ConvolutionKernel": "b30F"}),
        (KERNEL, {"ConvolutionKernel": "B70f"}, {"ConvolutionKernel": ("Br40d", "3")}),
        (KERNEL, {}, {"ConvolutionKernel": "Br40d"}),
        (LATEST, {"SeriesDate": "20240130", "SeriesTime": "235959"}, {"SeriesDate": "20240131"}),
        (LATEST, {"SeriesDate": "20240131", "SeriesTime": "0959"}, {"SeriesDate": "20240131", "SeriesTime": "10"}),
        (LATEST, {"SeriesDate": "2024"}, {"SeriesDate": "soon", "AcquisitionDate": "20240102"}),
        (LATEST, {"SeriesDate": "soon"}, {"SeriesDate": "19700101"}),
        (LOWEST, {"SeriesNumber": 10}, {"SeriesNumber": 9}),
        (LOWEST, {}, {"SeriesNumber": 9}),
    ],
)
def test_each_preference(preference: Preference, worse: dict[str, Any], better: dict[str, Any]) -> None:
    one, other = evidence("1.1", **worse), evidence("1.2", **better)
    assert select([preference], [one, other]).series_instance_uid == "1.2"


def test_what_is_equal_by_one_preference_is_left_to_the_next() -> None:
    series = [
        _ct(1, MeasuredSliceSpacing=1.25, ConvolutionKernel="B70f", NumberOfInstances=300),
        _ct(2, MeasuredSliceSpacing=1.2500001, ConvolutionKernel="B30f", NumberOfInstances=200),
        _ct(3, MeasuredSliceSpacing=5.0, ConvolutionKernel="B30f", NumberOfInstances=900),
    ]
    chosen = select([THIN, KERNEL, MOST], series)
    assert chosen.series_instance_uid == "1.2"
    assert chosen.words == "chosen: preferred kernel, B30f against B70f of CT series 1"
    assert chosen.passed_over["1.3"] == "CT series 2 was chosen: thinnest slices, 1.25 mm against 5 mm"


def test_the_last_words_are_the_series_number_and_then_the_uid() -> None:
    assert select([THIN], [_ct(5), _ct(4)]).words == "chosen: lowest series number, 4 against 5 of CT series 5"
    same = select([THIN], [evidence("1.20", Modality="CT"), evidence("1.19", Modality="CT")])
    assert same.words == "chosen: lowest Series Instance UID, 1.19 against 1.20 of CT series 1.20"


def test_one_alone_is_taken_without_a_comparison() -> None:
    assert select([THIN], [_ct(7)]).words == "the only series that fits"


def test_a_series_is_never_called_by_free_text() -> None:
    named = evidence("1.7", Modality="C\0T" + "x" * 99, SeriesNumber="7\x1b[31m" + "9" * 99, SeriesDescription="Doe")
    assert series_name(named).isprintable()
    assert len(series_name(named)) < 60


_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "SeriesNumber": st.sampled_from([None, 1, 2, "x", 10**30]),
    "SliceThickness": st.sampled_from([None, 1.0, 5.0, "thin", float("nan"), -1.0]),
    "MeasuredSliceSpacing": st.sampled_from([None, 1.0, 1.0000001, 5.0]),
    "NumberOfInstances": st.sampled_from([None, 1, 300]),
    "ConvolutionKernel": st.sampled_from([None, "B30f", ("Br40d", "3"), "\0\ud800"]),
    "SeriesDate": st.sampled_from([None, "20240131", "2024", "99999999"]),
    "SeriesTime": st.sampled_from([None, "1200", "noon"]),
}
_series = st.fixed_dictionaries(_VALUES)
_studies = st.lists(_series, min_size=1, max_size=5).map(
    lambda found: [evidence(f"1.{n}", **values) for n, values in enumerate(found)]
)
_preferences = st.lists(st.sampled_from([THIN, MOST, LATEST, LOWEST, KERNEL]), max_size=3, unique=True)


@given(_preferences, _studies, st.randoms())
def test_the_order_of_arrival_changes_nothing(
    preferences: list[Preference], study: list[Evidence], random: Any
) -> None:
    chosen = select(preferences, study)
    random.shuffle(study)
    assert select(preferences, study) == chosen


@given(_preferences, _studies)
def test_one_is_taken_and_every_other_is_told_why_not(preferences: list[Preference], study: list[Evidence]) -> None:
    chosen = select(preferences, study)
    assert {chosen.series_instance_uid, *chosen.passed_over} == {series.series_instance_uid for series in study}
    assert len(chosen.passed_over) == len(study) - 1
    assert json.dumps(chosen.document(), allow_nan=False).isprintable()
    assert chosen.words.isprintable()


@given(_preferences, _studies)
def test_without_those_passed_over_the_same_is_taken(preferences: list[Preference], study: list[Evidence]) -> None:
    chosen = select(preferences, study)
    for left_out in chosen.passed_over:
        rest = [series for series in study if series.series_instance_uid != left_out]
        assert select(preferences, rest).series_instance_uid == chosen.series_instance_uid
