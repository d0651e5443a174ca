"""Instances, models, rules and results to fill a State with, and a queue that only remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicomnode.domain.destination import Destination, parse_dimse, parse_stow
from dicomnode.domain.job import Priority
from dicomnode.domain.model_card import Code, InputSpec, ModelCard, NetworkSpec, Output, Segment
from dicomnode.domain.result import StoredResult
from dicomnode.domain.study import ReceivedInstance, Series
from dicomnode.ports import JobFinished, NewJob, State

STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = f"{STUDY}.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
EXPLICIT = "1.2.840.10008.1.2.1"

ARCHIVE = Destination("archive", parse_dimse("ARCHIVE@192.0.2.1:104"))
WEB = Destination("web", parse_stow("http://192.0.2.2/dicom-web"))


@dataclass
class RecordingQueue:
    """A WorkQueue that keeps what is put into it, also when the transaction is rolled back afterwards."""

    enqueued_jobs: list[tuple[str, float]] = field(default_factory=list)  # job id, delay in seconds
    machines: list[str] = field(default_factory=list)  # of each of them: whose workers it is for, "" anybody's
    enqueued_deliveries: list[tuple[str, float]] = field(default_factory=list)

    def add_job(
        self,
        session: Any,
        job_id: str,
        run: int,
        *,
        priority: int,
        since: datetime,
        machine: str,
        delay_s: float,
    ) -> None:
        self.enqueued_jobs.append((job_id, delay_s))
        self.machines.append(machine)

    def add_delivery(
        self, session: Any, delivery_id: str, run: int, *, destination: str, priority: int, delay_s: float
    ) -> None:
        self.enqueued_deliveries.append((delivery_id, delay_s))


def instance(number: int, series: str = SERIES, **changes: Any) -> ReceivedInstance:
    made = ReceivedInstance(
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid=CT_IMAGE,
        transfer_syntax_uid=EXPLICIT,
        study_instance_uid=STUDY,
        series_instance_uid=series,
        path=f"{series}/{number}.dcm",
        size_bytes=1000 + number,
        sha256=f"{number:064x}",
        received_at=datetime(2026, 1, 2, tzinfo=UTC),
        calling_ae_title="SCANNER",
        called_ae_title="NODE",
        modality="CT",
        manufacturer="ACME",
        instance_number=number,
        series_number=3,
        series_description="Thorax",
        patient_id="P-17",
        accession_number="A-23",
        study_date="20260102",
        study_description="CT thorax",
    )
    return replace(made, **changes)


def model_card(name: str = "torso-ct", version: str = "1.0.0") -> ModelCard:
    code = Code("39607008", "SCT", "Lung")
    return ModelCard(
        name=name,
        version=version,
        manufacturer="ACME",
        family="machine learning",
        intended_use="tests",
        limits="everything else",
        input=InputSpec(("CT",), "RAS", (3.0, 3.0, 3.0), (-1000.0, 1000.0), (0.0, 1.0), True, (0.0, 0.0, 0.0)),
        network=NetworkSpec("model.onnx", "auto", "fp32", (96, 96, 96), 0.25, "constant"),
        output=Output(segments=(Segment(1, "Lungs", code, code, (0, 151, 206)),)),
    )


def new_job(
    state: State, *, destinations: tuple[str, ...] = ("archive",), rule: str = "torso", version: str = "1.0.0"
) -> NewJob:
    """A decision for the rule and the model, which are made if they are not there."""
    return NewJob(
        rule=state.add_rule(rule, {"name": rule}),
        model=state.add_model(model_card(version=version), version.ljust(64, "0"), Path("/models/torso-ct")),
        priority=Priority.ROUTINE,
        destinations=destinations,
    )


def complete(state: State, series: str = SERIES, images: int = 3) -> Series:
    """The series, received and found complete."""
    state.record_instances([instance(n, series) for n in range(1, images + 1)])
    found = state.complete_series(series, 0)
    assert found is not None
    return found


def routed(state: State, series: str = SERIES, **options: Any) -> str:
    """The id of a job on a new series."""
    (job_id,) = state.record_routing(complete(state, series), [new_job(state, **options)], "the rule says so", {})
    return job_id


def results(tag: str = "1", series: str = SERIES) -> tuple[StoredResult, ...]:
    return tuple(
        StoredResult(kind, SEGMENTATION, f"{series}.9{tag}.{n}", f"{series}.9{tag}", f"{tag}/{kind}", 10, "0" * 64)
        for n, kind in enumerate(("SEG", "SR"))
    )


def finished(tag: str = "1", series: str = SERIES, **more: Any) -> JobFinished:
    return JobFinished(results(tag, series), **more)


def succeeded(state: State, series: str = SERIES, **options: Any) -> str:
    """The id of a job on a new series that gave a SEG and an SR."""
    job_id = routed(state, series, **options)
    assert state.start_job(job_id) is not None
    state.finish_job(job_id, finished(series=series))
    return job_id
