"""How many a source has, by each kind of address; who was asked, and how soon again."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dicomnode.domain.completeness import SourceCount
from dicomnode.domain.destination import parse_dimse, parse_stow
from dicomnode.domain.source import Source
from dicomnode.stages.counting import SourceCounter, asked_words, backoff_s
from tests.unit.test_complete_signals import PACS


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def count(self, address: object, study_instance_uid: str, series_instance_uid: str) -> int | None:
        return len(f"{self.name}{address}")

    def count_whole(self, address: object, study_instance_uid: str) -> SourceCount | None:
        return SourceCount(len(f"{self.name}{address}"))

    def count_by_series(self, address: object, study_instance_uid: str) -> Mapping[str, int]:
        raise AssertionError("one question was enough")


def test_each_kind_of_address_has_its_counter() -> None:
    counter = SourceCounter({"dimse": Named("d"), "stow": Named("st")})
    assert counter.count(PACS, "1", "2") == len("dPACS@192.0.2.1:104")
    web = Source("WEB", query=parse_stow("http://192.0.2.2/dicom-web"))
    assert counter.count(web, "1", "2") == len("sthttp://192.0.2.2/dicom-web")
    assert counter.count(Source("NOBODY"), "1", "2") is None
    here = SourceCount(0, 0)
    assert counter.count_study(PACS, "1", here, ()) == SourceCount(len("dPACS@192.0.2.1:104"))
    assert counter.count_study(Source("NOBODY"), "1", here, ()) is None


class Archive:
    """What it says of a study at STUDY level, and what it lists at SERIES level."""

    def __init__(self, whole: SourceCount | None, by_series: Mapping[str, int]) -> None:
        self.whole, self.by_series = whole, by_series
        self.questions = 0

    def count(self, address: object, study_instance_uid: str, series_instance_uid: str) -> int | None:
        raise AssertionError("the question is about a study")

    def count_whole(self, address: object, study_instance_uid: str) -> SourceCount | None:
        self.questions += 1
        return self.whole

    def count_by_series(self, address: object, study_instance_uid: str) -> Mapping[str, int]:
        self.questions += 1
        return self.by_series


BOTH = {"ct": 40, "pt": 40}
WITH_RESULTS = BOTH | {"seg": 1, "sr": 1}


@pytest.mark.parametrize(
    ("whole", "by_series", "own", "answer", "questions"),
    [
        (SourceCount(80, 2), BOTH, ["seg"], SourceCount(80, 2), 1),
        (SourceCount(79, 2), BOTH, ["seg"], SourceCount(79, 2), 1),
        (SourceCount(120, 3), BOTH, [], SourceCount(120, 3), 1),
        (SourceCount(82, 4), WITH_RESULTS, ["seg", "sr", "not sent yet"], SourceCount(80, 2, 2), 2),
        (SourceCount(82, 4), WITH_RESULTS, ["sr"], SourceCount(81, 3, 1), 2),
        (SourceCount(80, 4), {"ct": 39, "pt": 39, "seg": 1, "sr": 1}, ["seg", "sr"], SourceCount(78, 2, 2), 2),
        (SourceCount(None), BOTH, [], SourceCount(80, 2), 2),
        (SourceCount(None, 2), BOTH, [], SourceCount(80, 2), 2),
        (SourceCount(None), WITH_RESULTS, ["seg", "sr"], SourceCount(80, 2, 2), 2),
        (SourceCount(None), {}, ["seg"], SourceCount(None), 2),
        (SourceCount(None, 3), BOTH, [], SourceCount(None, 3), 2),
        (SourceCount(121, 5), WITH_RESULTS, ["seg", "sr"], SourceCount(121, 5), 2),
        (SourceCount(121, 4), WITH_RESULTS, ["seg", "sr"], SourceCount(121, 4), 2),
        (None, BOTH, ["seg"], None, 1),
    ],
    ids=[
        "as many", "fewer", "more, none of them ours", "ours are left out", "a foreign result stays",
        "only more series", "not given", "only the series given", "not given, with ours", "nothing listed",
        "not given, list cut off", "list cut off", "counts cut off", "unknown study",
    ],
)  # fmt: skip
def test_the_count_of_a_study(
    whole: SourceCount | None, by_series: dict[str, int], own: list[str], answer: SourceCount | None, questions: int
) -> None:
    archive = Archive(whole, by_series)
    counter = SourceCounter({"dimse": archive})
    assert counter.count_study(PACS, "1", SourceCount(80, 2), own) == answer
    assert archive.questions == questions


def test_who_was_asked_in_words() -> None:
    assert asked_words(parse_dimse("PACS@192.0.2.1:104")) == "C-FIND to PACS@192.0.2.1:104"
    assert asked_words(parse_stow("http://me:secret@192.0.2.2/dw")) == "QIDO-RS to http://me:***@192.0.2.2/dw"


def test_backoff() -> None:
    assert [backoff_s(n, 0.5, 30.0) for n in (1, 2, 3, 9, 4000)] == [0.5, 1.0, 2.0, 30.0, 30.0]
