"""A job of a model that gives classes: from the received files to a stored report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset

from dicomnode.domain.model_card import parse_model_card
from dicomnode.ports import InferenceRequest, JobFinished, JobOutcome
from tests.adapters.fake_engine import FakeEngine, FakeSession, Shape
from tests.class_models import document
from tests.made_series import classic
from tests.unit.test_two_series import Bench, refusal, work_on

# The fake engine's thresholds are -800 and -600 HU; slice s of a made series has a mean of 100 s - 1004 HU
SLICES = [0, 0, 0, 1, 1, 2]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ask(bench: Bench, series: list[Dataset] | None = None, **how: Any) -> JobOutcome:
    card = parse_model_card(document("regions", **how.pop("card", {})))
    work = work_on(bench, card, **how)
    if series is not None:
        work = replace(work, series=bench.series(series, "own"))
    return bench.perform(work)


def finished(outcome: JobOutcome) -> JobFinished:
    assert isinstance(outcome, JobFinished), outcome
    return outcome


def test_each_image_of_a_series_gets_its_class(bench: Bench) -> None:
    done = finished(ask(bench))
    assert [r.kind for r in done.results] == ["SR"]
    assert [(row["class"], row["images"]) for row in done.details["classes"]] == [
        ("Head", 3),
        ("Chest", 2),
        ("Abdomen", 1),
    ]
    assert [row["images"] for row in done.details["runs"]] == ["1-3", "4-5", "6-6"]
    np.testing.assert_array_equal(np.argmax(done.details["probabilities"], 1), SLICES)
    assert done.note == ""
    assert bench.files(done)["SR"].Modality == "SR"


def test_who_shows_no_reports_gets_the_classes_on_a_page(bench: Bench) -> None:
    done = finished(ask(bench, forms=("PDF", "KO")))
    assert [r.kind for r in done.results] == ["SR", "PDF"]
    page = bench.files(done)["PDF"].EncapsulatedDocument
    assert [word for word in (b"Head", b"Chest", b"Abdomen", b"4-5") if word not in page] == []


def test_images_that_make_no_volume_will_do(bench: Bench) -> None:
    series = classic(2)
    for d in series:
        del d.ImagePositionPatient, d.FrameOfReferenceUID
    other = classic(1, rows=8, columns=8, series="b", SeriesInstanceUID=series[0].SeriesInstanceUID, InstanceNumber=3)
    done = finished(ask(bench, [*series, *other]))
    assert [row["class"] for row in done.details["runs"]] == ["Head"]
    assert sum(row["images"] for row in done.details["classes"]) == 3


def test_what_is_not_certain_is_said(bench: Bench) -> None:
    done = finished(ask(bench, card={"certain_from": 0.95}))
    assert done.note == "no class is certain enough of 6 of 6 images, and the SR says so"
    assert done.details["classes"] == [{"class": "(not certain)", "images": 6, "share": 1.0}]


def test_a_whole_series_gets_one_class(bench: Bench) -> None:
    done = finished(ask(bench, card={"of": "series"}))
    assert [row["class"] for row in done.details["runs"]] == ["Chest"]  # -754 HU all in all
    assert len(done.details["probabilities"]) == 1


def test_the_same_job_again_gives_the_same_report(bench: Bench) -> None:
    first = finished(ask(bench)).results
    again = finished(ask(bench, earlier=first)).results
    assert again == first


def test_a_kind_that_it_does_not_give_is_noted(bench: Bench) -> None:
    assert "wants SEG, which regions does not give" in finished(ask(bench, objects=("SEG", "SR"))).note


def test_colour_and_other_modalities_are_refused(bench: Bench) -> None:
    assert refusal(ask(bench, classic(1, SamplesPerPixel=3, PhotometricInterpretation="RGB"))) == "1 image is RGB"
    assert "takes MR, this series is CT" in refusal(ask(bench, card={"modality": "MR"}))


class MovingSession(FakeSession):
    """As Triton's when the server was started anew: after the first answer the images lie somewhere else, unread."""

    @contextmanager
    def ask(self, request: InferenceRequest) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        with super().ask(request) as answers:
            yield answers
        self.volume = np.full_like(self.volume, 32000)


class MovingEngine(FakeEngine):
    @contextmanager
    def open(self, shape: Shape, further: Sequence[Shape] = ()) -> Iterator[FakeSession]:
        yield MovingSession(self, shape, further)


def test_images_are_read_again_when_their_memory_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.stages.answers.IMAGES_AT_ONCE", 2)
    monkeypatch.setattr("tests.unit.test_two_series.FakeEngine", MovingEngine)
    done = finished(ask(Bench(tmp_path)))
    np.testing.assert_array_equal(np.argmax(done.details["probabilities"], 1), SLICES)
