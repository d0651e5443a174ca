"""A job as a rule describes it, from the received files to stored results: roles, parameters, kinds, repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard, card_document, parse_model_card
from dicomnode.domain.study import Series, StoredInstance
from dicomnode.ports import JobFinished, JobOutcome, JobRefused, JobWork, ModelVersion
from dicomnode.stages.deliver import DeliverStage
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.infer import InferStage
from dicomnode.stages.work import Work
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_sink import FakeSink
from tests.adapters.fake_state import FakeClock
from tests.made_results import CARD
from tests.made_series import classic, write

PET_ROLE = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 1000]}}


def card(**more: Any) -> ModelCard:
    return parse_model_card({**card_document(CARD), **more})


class Bench:
    """The stages over fakes; what is put into `store` can be named in a job."""

    def __init__(self, root: Path) -> None:
        self.store, self.engine, clock = FakeInstanceStore(root), FakeEngine((-800.0, -600.0)), FakeClock()
        infer = InferStage(self.store, self.engine, clock, 60.0)
        encode = EncodeStage(self.store, clock, device_serial_number="NODE")
        self._work = Work(infer, encode, DeliverStage(FakeSink(), self.store))

    def series(self, instances: Sequence[Dataset], folder: str) -> Series:
        write(instances, self.store.root / folder)
        stored = tuple(
            StoredInstance(
                str(d.SOPInstanceUID), str(d.SOPClassUID), "1.2.840.10008.1.2.1", f"{folder}/{k:03d}.dcm", k
            )
            for k, d in enumerate(instances)
        )
        first = instances[0]
        study, series = str(first.StudyInstanceUID), str(first.SeriesInstanceUID)
        return Series(study, series, str(first.Modality), "SCANNER", "NODE", stored)

    def perform(self, work: JobWork) -> JobOutcome:
        return self._work.perform(work)

    def files(self, outcome: JobOutcome) -> dict[str, Dataset]:
        assert isinstance(outcome, JobFinished), outcome
        return {r.kind: pydicom.dcmread(self.store.path(r.path)) for r in outcome.results}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def pet(**attributes: Any) -> list[Dataset]:
    """Coarser than the CT and over its middle; hot everywhere."""
    values = np.full((4, 8, 10), 800, dtype=np.int16)
    return classic(
        4,
        rows=8,
        columns=10,
        modality="PT",
        values=values,
        series="pet",
        step_mm=3.0,
        spacing=(1.1, 1.1),
        **{"Units": "BQML", **attributes},
    )


def work_on(bench: Bench, model: ModelCard, inputs: dict[str, Series] | None = None, **more: Any) -> JobWork:
    return JobWork(
        job_id="j-1",
        series=bench.series(classic(6), "ct"),
        model=ModelVersion(1, model.name, model.version, "ab" * 32, Path("/models"), model, True),
        rule_name="torso",
        rule_revision=2,
        destinations=(),
        attempt=1,
        created_at=datetime(2026, 11, 20, tzinfo=UTC),
        inputs=inputs or {},
        **more,
    )


def refusal(outcome: JobOutcome) -> str:
    assert isinstance(outcome, JobRefused), outcome
    return outcome.reason


def series_of(items: Sequence[Dataset], instances: str) -> dict[str, int]:
    """Series Instance UID → number of its instances that are named."""
    return {str(s.SeriesInstanceUID): len(s[instances].value) for s in items}


def test_a_job_of_two_series_names_both_in_what_it_gives(bench: Bench) -> None:
    second = bench.series(pet(), "pet")
    outcome = bench.perform(work_on(bench, card(inputs=[PET_ROLE]), {"pet": second}))
    files = bench.files(outcome)
    ct = str(classic(6)[0].SeriesInstanceUID)
    seg, sr = files["SEG"], files["SR"]
    assert series_of(seg.ReferencedSeriesSequence, "ReferencedInstanceSequence") == {
        ct: 6,
        second.series_instance_uid: 4,
    }
    sources = [str(i.ReferencedSOPInstanceUID) for i in seg.SourceImageSequence]
    assert sources[-4:] == [i.sop_instance_uid for i in second.instances]
    [study] = sr.CurrentRequestedProcedureEvidenceSequence
    listed = series_of(study.ReferencedSeriesSequence, "ReferencedSOPSequence")
    assert (listed[ct], listed[second.series_instance_uid]) == (6, 4)
    assert isinstance(outcome, JobFinished)
    assert outcome.details["inputs"] == {"pet": second.series_instance_uid}


def test_where_the_second_series_says_no_nothing_is_marked(bench: Bench) -> None:
    cold = pet()
    for d in cold:
        d.PixelData = bytes(len(d.PixelData))
    work = work_on(bench, card(inputs=[PET_ROLE]), {"pet": bench.series(cold, "pet")})
    outcome = bench.perform(work)
    assert list(bench.files(outcome)) == ["SR"]
    assert isinstance(outcome, JobFinished)
    assert outcome.note == "nothing was found: no SEG, and the SR says so"


def test_a_series_of_an_earlier_study_is_named_by_its_study(bench: Bench) -> None:
    prior = bench.series(pet(StudyInstanceUID="2.25.4711"), "pet")
    files = bench.files(bench.perform(work_on(bench, card(inputs=[PET_ROLE]), {"pet": prior})))
    [study] = files["SEG"].StudiesContainingOtherReferencedInstancesSequence
    assert study.StudyInstanceUID == "2.25.4711"
    assert series_of(study.ReferencedSeriesSequence, "ReferencedInstanceSequence") == {prior.series_instance_uid: 4}
    assert len(files["SEG"].ReferencedSeriesSequence) == 1
    [other] = files["SR"].PertinentOtherEvidenceSequence
    assert other.StudyInstanceUID == "2.25.4711"


@pytest.mark.parametrize(
    ("role", "attributes", "words"),
    [
        ({}, {"FrameOfReferenceUID": "2.25.99"}, "one frame of reference: the series in the role pet is in 2.25.99"),
        ({"frame_of_reference": "any"}, {"FrameOfReferenceUID": "2.25.99"}, ""),
        ({"unit": "g/ml"}, {}, "takes values in g/ml, the series in the role pet has them in Bq/ml"),
        ({"unit": "g/ml"}, {"Units": "NONE"}, "has them in a unit that its header does not say"),
        ({"unit": "g/ml"}, {"Units": "GML"}, ""),
        ({}, {"PatientID": "another"}, "the series in the role pet has another Patient ID than the main series"),
        ({"modality": ["MR"]}, {}, "takes MR in the role pet, this series is PT"),
        ({}, {"PhotometricInterpretation": "RGB"}, "the series in the role pet: 4 images are RGB"),
    ],
)
def test_a_second_series_that_does_not_fit_is_refused_by_name(
    bench: Bench, role: dict[str, Any], attributes: dict[str, Any], words: str
) -> None:
    second = bench.series(pet(**attributes), "pet")
    outcome = bench.perform(work_on(bench, card(inputs=[{**PET_ROLE, **role}]), {"pet": second}))
    if words:
        assert words in refusal(outcome)
    else:
        assert set(bench.files(outcome)) == {"SEG", "SR"}


def test_a_main_series_in_other_units_is_refused(bench: Bench) -> None:
    document = card_document(CARD)
    wanted = parse_model_card({**document, "input": {**document["input"], "unit": "HU"}})
    assert set(bench.files(bench.perform(work_on(bench, wanted)))) == {"SEG", "SR"}
    other = parse_model_card({**document, "input": {**document["input"], "unit": "g/ml"}})
    reason = refusal(bench.perform(work_on(bench, other)))
    assert reason == "the model torso-ct takes values in g/ml, this series has them in [hnsf'U]"


def test_roles_of_rule_and_model_must_agree(bench: Bench) -> None:
    second = bench.series(pet(), "pet")
    assert refusal(bench.perform(work_on(bench, card(inputs=[PET_ROLE])))) == (
        "the model torso-ct needs a series in the role pet: name it under roles in the rule torso"
    )
    assert refusal(bench.perform(work_on(bench, card(), {"pet": second}))) == (
        "the model torso-ct 1.0.0 has no role pet: take it out of the rule torso"
    )
    assert bench.engine.runs == []


def test_parameters_reach_the_engine_and_the_story(bench: Bench) -> None:
    outcome = bench.perform(work_on(bench, card(), parameters={"minimum_volume_ml": 0.004}))
    assert isinstance(outcome, JobFinished)
    assert bench.engine.parameters == [{"overlap": 0.25, "minimum_volume_ml": 0.004}]
    assert outcome.details["parameters"] == {"overlap": 0.25, "minimum_volume_ml": 0.004}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"overlap": 1.5}, "overlap: 1.5 is not below 1"),
        ({"speed": 3}, "speed is no parameter of it; it takes overlap, minimum_volume_ml"),
        ({"minimum_volume_ml": "much"}, "minimum_volume_ml: 'much' is not a number"),
    ],
)
def test_parameters_that_the_model_does_not_take_are_refused(
    bench: Bench, parameters: dict[str, Any], words: str
) -> None:
    reason = refusal(bench.perform(work_on(bench, card(), parameters=parameters)))
    assert reason == (
        f"the rule torso asks the model torso-ct 1.0.0 for what it cannot do: {words}; "
        "correct the rule and rerun the study"
    )
    assert bench.engine.runs == []


def test_a_kind_that_the_model_does_not_give_is_noted(bench: Bench) -> None:
    outcome = bench.perform(work_on(bench, card(), objects=("SEG", "MAP")))
    assert isinstance(outcome, JobFinished)
    assert outcome.note == "the rule wants MAP, which torso-ct does not give"
    assert [r.kind for r in outcome.results] == ["SEG", "SR"]


def test_the_same_result_again_is_the_first_file(bench: Bench) -> None:
    """A later job, of another revision of the rule: the files, dates and digests of the first stay."""
    first = bench.perform(work_on(bench, card()))
    assert isinstance(first, JobFinished)
    written = [call for call in bench.store.calls if call.startswith("put_result")]
    again = replace(
        work_on(bench, card(), earlier=first.results),
        job_id="j-2",
        rule_revision=3,
        created_at=datetime(2026, 11, 21, tzinfo=UTC),
    )
    second = bench.perform(again)
    assert isinstance(second, JobFinished)
    assert second.results == first.results
    assert [call for call in bench.store.calls if call.startswith("put_result")] == written
    changed = bench.perform(replace(again, parameters={"overlap": 0.5}))
    assert isinstance(changed, JobFinished)
    assert not {r.sop_instance_uid for r in changed.results} & {r.sop_instance_uid for r in first.results}


def test_a_file_that_was_lost_is_written_anew(bench: Bench) -> None:
    first = bench.perform(work_on(bench, card()))
    assert isinstance(first, JobFinished)
    bench.store.path(first.results[0].path).unlink()
    second = bench.perform(work_on(bench, card(), earlier=first.results))
    assert isinstance(second, JobFinished)
    assert second.results == first.results  # the job's own date: the same bytes
    assert bench.store.path(first.results[0].path).is_file()
