"""A result that its own check refuses is never sent: it lies in quarantine, and the job says where and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from dicomnode.adapters.quarantine import FolderQuarantine
from dicomnode.encoding import forms, results
from dicomnode.errors import CannotUnderstand, OutOfResources
from dicomnode.ports import JobFailed, JobFinished, RefusedResult
from dicomnode.stages.deliver import DeliverStage
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.infer import InferStage
from dicomnode.stages.work import Work
from tests.adapters.fake_sink import FakeSink
from tests.adapters.fake_state import FakeClock
from tests.unit.test_two_series import Bench, card, work_on

STUDY = "2.25.7"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench, clock = Bench(tmp_path / "store"), FakeClock()
    aside = FolderQuarantine(tmp_path / "quarantine", 1 << 20)
    encode = EncodeStage(bench.store, clock, device_serial_number="NODE", quarantine=aside)
    infer = InferStage(bench.store, bench.engine, clock, 60.0)
    bench._work = Work(infer, encode, DeliverStage(FakeSink(), bench.store))
    return bench


def another_patients(encode: Any) -> Any:
    """The encoder, but for whose result it is."""

    def broken(*arguments: Any, **how: Any) -> Dataset:
        report: Dataset = encode(*arguments, **how)
        report.PatientID = "somebody else"
        return report

    return broken


def test_a_job_whose_report_is_refused_fails_and_says_where_it_lies(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "encode_report", another_patients(results.encode_report))
    outcome = bench.perform(work := work_on(bench, card()))
    assert isinstance(outcome, JobFailed)
    place = tmp_path / "quarantine" / work.series.study_instance_uid / "j-1-SR.dcm"
    assert outcome.code == "non-conformant"
    assert not outcome.retryable
    assert "SR did not pass its own check and is not sent: PatientID differs" in outcome.reason
    assert outcome.reason.endswith(f"kept in quarantine: {place}")
    (aside,) = outcome.quarantined
    assert (aside.kind, aside.place) == ("SR", str(place))
    assert aside.reason.startswith("PatientID differs")
    assert dcmread(place).PatientID == "somebody else"
    reason = place.with_suffix(".txt").read_text()
    assert "job j-1, SR: PatientID differs from the source's" in reason
    assert not list((tmp_path / "store").rglob("results/**/*.dcm")), "nothing of the job is stored to be sent"


def test_a_form_that_is_refused_stops_no_other(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "encode_structure_set", another_patients(forms.encode_structure_set))
    outcome = bench.perform(work := work_on(bench, card(), forms=("RTSTRUCT", "KO")))
    assert isinstance(outcome, JobFinished)
    assert [result.kind for result in outcome.results] == ["SEG", "SR", "KO"]
    assert [aside.kind for aside in outcome.quarantined] == ["RTSTRUCT"]
    assert "RTSTRUCT did not pass its own check and is not sent: PatientID differs" in outcome.note
    assert (tmp_path / "quarantine" / work.series.study_instance_uid / "j-1-RTSTRUCT.dcm").is_file()


def refused(job: str, size_bytes: int = 10, study: str = STUDY) -> RefusedResult:
    return RefusedResult(study, job, "SEG", "it lies elsewhere", b"x" * size_bytes)


def objects(root: Path) -> list[str]:
    return sorted(path.stem for path in root.glob("*/*.dcm"))


def test_the_oldest_go_when_it_is_full(tmp_path: Path) -> None:
    quarantine = FolderQuarantine(tmp_path, 25)
    for second, job in enumerate("abc"):
        place = Path(quarantine.keep(refused(job, study=f"2.25.{second}")))
        os.utime(place, (second, second))
    assert objects(tmp_path) == ["b-SEG", "c-SEG"]
    assert not (tmp_path / "2.25.0").exists(), "with its reason and its folder"
    assert "it lies elsewhere" in quarantine_text(quarantine.keep(refused("d", 25)))
    assert objects(tmp_path) == ["d-SEG"]


def quarantine_text(place: str) -> str:
    return Path(place).with_suffix(".txt").read_text()


def test_of_what_is_too_large_the_reason_stays(tmp_path: Path) -> None:
    quarantine = FolderQuarantine(tmp_path, 25)
    quarantine.keep(refused("a"))
    place = quarantine.keep(refused("b", 26))
    assert place.endswith("b-SEG.txt")
    assert "The object is not kept" in quarantine_text(place)
    assert objects(tmp_path) == ["a-SEG"]


def test_a_job_that_is_tried_again_leaves_one_object(tmp_path: Path) -> None:
    quarantine = FolderQuarantine(tmp_path, 100)
    quarantine.keep(refused("a", 10))
    place = Path(quarantine.keep(refused("a", 20)))
    assert objects(tmp_path) == ["a-SEG"]
    assert place.stat().st_size == 20
    assert not list(tmp_path.rglob("*.part"))


def test_forgetting_a_study_takes_its_objects(tmp_path: Path) -> None:
    quarantine = FolderQuarantine(tmp_path, 100)
    for study in (STUDY, "2.25.8"):
        quarantine.keep(refused("a", study=study))
    assert [quarantine.forget(study) for study in (STUDY, STUDY, "..", "")] == [1, 0, 0, 0]
    assert [path.parent.name for path in tmp_path.glob("*/*.dcm")] == ["2.25.8"]


def test_no_name_leads_out_of_it(tmp_path: Path) -> None:
    with pytest.raises(CannotUnderstand):
        FolderQuarantine(tmp_path / "q", 100).keep(refused("a", study="../../x"))


def test_a_disk_that_is_full_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("a file where the folder should be")
    with pytest.raises(OutOfResources, match=r"Not a directory|exists"):
        FolderQuarantine(tmp_path / "q", 100).keep(refused("a"))
