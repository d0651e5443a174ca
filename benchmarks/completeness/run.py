"""How long from the last image to the start of the job, by each signal that a series, or a study, is complete?

A synthetic CT of 300 slices goes by a real association to a running node; the clock runs from the last C-STORE
response to the job's start as the database has it. For a job of a model that looks at CT and PET, which needs the
whole study, a PET follows by an association of its own. Archives that are asked have the same instances before.

    python -m benchmarks.completeness.run [--rounds 3] [--slices 300] [--ways STUDY-FIND STUDY-MPPS]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from benchmarks.main_job.run import CARD
from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.domain.job import ACTIVE_JOB_STATES
from dicomnode.ports import JobView
from tests.adapters.state_material import RecordingQueue
from tests.e2e.running_node import RunningNode
from tests.made_series import classic
from tests.raw_scu import CT, EXPLICIT, RawScu
from tests.servers import DcmQrScp, Orthanc, ServerFailed, orthanc_missing

STARTS_WITHIN_S = 90.0
PAUSE_S = 3.0  # between the series of a study
# ../shared/peers/README.md: last image → start of processing, as they come
PEERS = {
    "naive script, at the release (cuts what comes in two associations)": "0 s",
    "dicom-ai-router": "3 s",
    "MONAI Informatics Gateway": "5 s and the upload",
    "mercure, series": "60 s",
    "Orthanc, StableAge": "60 s",
    "dcm4chee, polling": "up to 60 s",
    "mercure, study": "900 s",
}
# A network and a grid as small as can be: what is timed is over before it runs
SMALL = {
    **CARD,
    "input": {**CARD["input"], "spacing_mm": [20, 20, 20]},
    "network": {"file": "model.ts", "window": [16, 16, 16], "overlap": 0.25},
}
WITH_PET = {
    **SMALL,
    "name": "fusion",
    "inputs": [{"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 1000]}}],
}
OF_STUDY = "fusion"  # the Study Description of what the rule of the whole study is about
RULES = [
    {"name": "peer", "when": {"Modality": "CT", "not": {"StudyDescription": OF_STUDY}}, "model": "peer"},
    {
        "name": "fusion",
        "when": {"Modality": "CT", "StudyDescription": OF_STUDY},
        "roles": {"pet": {"when": {"Modality": "PT"}}},
        "model": "fusion",
    },
]
KINDS = (CT, str(PositronEmissionTomographyImageStorage))


@dataclass(frozen=True)
class Scan:
    images: list[Dataset]
    small: list[Dataset]  # the same instances with a few pixels, for archives that are only asked


@dataclass(frozen=True)
class Bench:
    node: RunningNode
    state: SqlState
    dcmqrscp: DcmQrScp
    orthanc: Orthanc | None
    ct: Scan
    pet: Scan


@dataclass(frozen=True)
class Sent:
    """When the last response came, and what is to be kept open until the job has started."""

    study: str
    at: datetime


Way = Callable[[Bench, str], AbstractContextManager[Sent]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="completeness-") as folder, bench(Path(folder), arguments.slices) as made:
        measured: dict[str, list[tuple[float, str]]] = {title: [] for title in arguments.ways}
        for number in range(arguments.rounds + 1):
            for title in arguments.ways:
                if archive_of(title) == "orthanc" and made.orthanc is None:
                    continue
                seconds, signal = timed(made, title, WAYS[title])
                if number:  # the first round warms up
                    measured[title].append((seconds, signal))
                    print(f"{title:16} {signal:10} {seconds:6.2f} s", flush=True)
    report(measured)


@contextmanager
def bench(folder: Path, slices: int) -> Iterator[Bench]:
    node = RunningNode(folder / "home", engine="in-process", quiet_period_s=5.0)
    for channels, card in enumerate((SMALL, WITH_PET), start=1):
        node.run("models", "add", str(package(folder / card["name"], card, channels)))
    (folder / "rules.yaml").write_text(yaml.safe_dump_all(RULES))
    node.run("rules", "add", str(folder / "rules.yaml"))
    with DcmQrScp(folder / "dcmqrscp") as dcmqrscp, maybe_orthanc(folder / "orthanc") as orthanc:
        add_sources(node, dcmqrscp, orthanc)
        with node, open_state(f"sqlite:///{node.home / 'dicomnode.db'}", RecordingQueue()) as state:
            yield Bench(node, state, dcmqrscp, orthanc, scan(slices, "CT", 512), scan(slices, "PT", 128))


def package(folder: Path, card: dict[str, Any], channels: int) -> Path:
    folder.mkdir()
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    torch.jit.script(torch.nn.Conv3d(channels, 3, 1)).save(str(folder / "model.ts"))
    return folder


def add_sources(node: RunningNode, dcmqrscp: DcmQrScp, orthanc: Orthanc | None) -> None:
    for title in WAYS:
        if title.endswith("QUIET") and not title.startswith("STUDY"):
            node.run("sources", "add", title, "--no-release")
        elif archive_of(title) == "dcmqrscp":
            node.run("sources", "add", title, "--query-dimse", dcmqrscp.dimse)
        elif archive_of(title) == "orthanc" and orthanc is not None:
            by = ["--query-url", orthanc.dicomweb_url] if title.endswith("QIDO") else ["--query-dimse", orthanc.dimse]
            node.run("sources", "add", title, *by)


def archive_of(title: str) -> str:
    """Which archive is asked about what this sender sends; empty: none."""
    if title.endswith("DCMQRSCP"):
        return "dcmqrscp"
    return "orthanc" if title.endswith(("FIND", "QIDO")) else ""


def scan(slices: int, modality: str, rows: int) -> Scan:
    """Noise; both modalities lie in the same place."""
    values = np.random.default_rng(1).integers(0, 1000, (slices, rows, rows), dtype=np.int16)
    of_it: dict[str, Any] = {"modality": modality, "series": modality, "step_mm": 1.0}
    if modality == "PT":
        of_it |= {"Units": "CNTS", "RescaleSlope": 1, "RescaleIntercept": 0}
    millimetres = 400.0 / rows
    images = classic(slices, rows=rows, columns=rows, values=values, spacing=(millimetres, millimetres), **of_it)
    return Scan(images, classic(slices, **of_it))


@contextmanager
def maybe_orthanc(folder: Path) -> Iterator[Orthanc | None]:
    if missing := orthanc_missing():
        print(f"without Orthanc: {missing}")
        yield None
        return
    with Orthanc(folder, options={"DicomAlwaysAllowFind": True}) as server:
        yield server


# ----------------------------------------------------------------------------------------------- the senders


def new_study(*scans: Scan, description: str = "") -> str:
    """Gives all images new UIDs, so that nothing is known of them."""
    study = generate_uid()
    for one in scans:
        series = generate_uid()
        for image, small in zip(one.images, one.small, strict=True):
            image.StudyDescription = small.StudyDescription = description
            image.StudyInstanceUID = small.StudyInstanceUID = study
            image.SeriesInstanceUID = small.SeriesInstanceUID = series
            image.SOPInstanceUID = small.SOPInstanceUID = generate_uid()
    return study


def associated(port: int, calling: str, called: str) -> RawScu:
    """Of bare sockets: pynetdicom as a sender loses a response now and then on a busy machine."""
    contexts = {2 * number + 1: (kind, [EXPLICIT]) for number, kind in enumerate(KINDS)}
    return RawScu(port, contexts, calling=calling, called=called)


def send(association: RawScu, images: Sequence[Dataset]) -> datetime:
    """When the last response came."""
    for image in images:
        content, kind = encode(image, is_implicit_vr=False, is_little_endian=True), str(image.SOPClassUID)
        assert content is not None
        answer = association.store(content, str(image.SOPInstanceUID), kind, 2 * KINDS.index(kind) + 1)
        if answer.status != 0x0000:
            raise ServerFailed(f"C-STORE was answered {answer.status:04X}: {answer.comment}")
    return datetime.now(UTC)


@contextmanager
def released(bench: Bench, title: str) -> Iterator[Sent]:
    study = new_study(bench.ct)
    with associated(bench.node.port, title, "DICOMNODE") as association:
        at = send(association, bench.ct.images)
    yield Sent(study, at)


@contextmanager
def counted(bench: Bench, title: str) -> Iterator[Sent]:
    """The archive has all; the association stays open, as that of an archive that waits for more to send."""
    study = new_study(bench.ct)
    fill(bench, title, bench.ct)
    with associated(bench.node.port, title, "DICOMNODE") as association:
        yield Sent(study, send(association, bench.ct.images))


def fill(bench: Bench, title: str, *scans: Scan) -> None:
    archive = bench.dcmqrscp if archive_of(title) == "dcmqrscp" else bench.orthanc
    assert archive is not None
    with associated(archive.dicom_port, "FILL", archive.ae_title) as association:
        for one in scans:
            send(association, one.small)


@contextmanager
def study_released(bench: Bench, title: str) -> Iterator[Sent]:
    """Both series, an association each: nothing says that the study has no third one."""
    study = new_study(bench.ct, bench.pet, description=OF_STUDY)
    for one in (bench.ct, bench.pet):
        with associated(bench.node.port, title, "DICOMNODE") as association:
            at = send(association, one.images)
    yield Sent(study, at)


@contextmanager
def study_counted(bench: Bench, title: str) -> Iterator[Sent]:
    """As counted; the archive has said that there is a PET before it comes."""
    study = new_study(bench.ct, bench.pet, description=OF_STUDY)
    fill(bench, title, bench.ct, bench.pet)
    with sends_both(bench, title) as at:
        yield Sent(study, at)


@contextmanager
def sends_both(bench: Bench, title: str) -> Iterator[datetime]:
    """The CT, a pause in which it is complete, and the PET; the associations stay open."""
    with ExitStack() as open_ones:
        for one in (bench.ct, bench.pet):
            association = open_ones.enter_context(associated(bench.node.port, title, "DICOMNODE"))
            at = send(association, one.images)
            if one is bench.ct:
                time.sleep(PAUSE_S)
        yield at


@contextmanager
def modality(port: int, calling: str) -> Iterator[Association]:
    ae = AE(ae_title=calling)
    ae.add_requested_context(ModalityPerformedProcedureStep, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="DICOMNODE")
    if not association.is_established:
        raise ServerFailed(f"the node at port {port} takes no MPPS")
    try:
        yield association
    finally:
        association.release()


@contextmanager
def announced(bench: Bench, title: str) -> Iterator[Sent]:
    """A modality: the MPPS is completed once the last image was answered, and the association stays open."""
    study = new_study(bench.ct)
    with (
        step(bench, title, study, bench.ct) as complete,
        associated(bench.node.port, title, "DICOMNODE") as association,
    ):
        at = send(association, bench.ct.images)
        complete()
        yield Sent(study, at)


@contextmanager
def study_announced(bench: Bench, title: str) -> Iterator[Sent]:
    """As announced, one procedure step for both series."""
    study = new_study(bench.ct, bench.pet, description=OF_STUDY)
    with step(bench, title, study, bench.ct, bench.pet) as complete, sends_both(bench, title) as at:
        complete()
        yield Sent(study, at)


@contextmanager
def step(bench: Bench, title: str, study: str, *scans: Scan) -> Iterator[Callable[[], None]]:
    """An MPPS that is in progress; what is yielded completes it."""
    uid = generate_uid()
    with modality(bench.node.port, title) as steps:
        check(steps.send_n_create(step_begun(study), ModalityPerformedProcedureStep, uid)[0])
        yield lambda: check(steps.send_n_set(step_completed(*scans), ModalityPerformedProcedureStep, uid)[0])


def check(status: Dataset) -> None:
    if status.get("Status") != 0x0000:
        raise ServerFailed(f"the MPPS was answered {status}")


def step_begun(study: str) -> Dataset:
    """What PS3.4 Table F.7.2-1 wants of an N-CREATE, as far as it is known."""
    step, scheduled = Dataset(), Dataset()
    scheduled.StudyInstanceUID = study
    step.ScheduledStepAttributesSequence = [scheduled]
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.PerformedProcedureStepID = uuid.uuid4().hex[:16]
    step.PerformedStationAETitle = "MPPS"
    step.PerformedProcedureStepStartDate, step.PerformedProcedureStepStartTime = "20260102", "101112"
    step.Modality = "CT"
    step.PerformedSeriesSequence = []
    return step


def step_completed(*scans: Scan) -> Dataset:
    step = Dataset()
    step.PerformedProcedureStepStatus = "COMPLETED"
    step.PerformedProcedureStepEndDate, step.PerformedProcedureStepEndTime = "20260102", "101212"
    step.PerformedSeriesSequence = [performed_series(one.images) for one in scans]
    return step


def performed_series(images: Sequence[Dataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ReferencedImageSequence = [reference(image) for image in images]
    series.ReferencedNonImageCompositeSOPInstanceSequence = []
    return series


def reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


WAYS: dict[str, Way] = {
    "RELEASE": released,
    "DCMQRSCP": counted,
    "ORTHANC-FIND": counted,
    "ORTHANC-QIDO": counted,
    "MPPS": announced,
    "QUIET": released,
    "STUDY-DCMQRSCP": study_counted,
    "STUDY-FIND": study_counted,
    "STUDY-QIDO": study_counted,
    "STUDY-MPPS": study_announced,
    "STUDY-QUIET": study_released,
}
TITLES = {
    "RELEASE": "association released, stack contiguous",
    "DCMQRSCP": "counted by C-FIND, image by image (dcmqrscp)",
    "ORTHANC-FIND": "counted by C-FIND (Orthanc)",
    "ORTHANC-QIDO": "counted by QIDO-RS (Orthanc)",
    "MPPS": "MPPS completed",
    "QUIET": "quiet period of 5 s, nothing better",
    "STUDY-DCMQRSCP": "study counted by C-FIND, image by image (dcmqrscp)",
    "STUDY-FIND": "study counted by C-FIND (Orthanc)",
    "STUDY-QIDO": "study counted by QIDO-RS (Orthanc)",
    "STUDY-MPPS": "MPPS of the study completed",
    "STUDY-QUIET": "study's quiet period of 20 s, nothing better",
}


# ------------------------------------------------------------------------------------------------ the figures


def timed(bench: Bench, title: str, way: Way) -> tuple[float, str]:
    """Seconds to the job's start, and the signal that it was."""
    with way(bench, title) as sent:
        job = started(bench, sent.study)
    assert job.started_at is not None
    wait_idle(bench)
    kind = "study.complete" if title.startswith("STUDY") else "series.complete"
    told = next(event for event in bench.state.events(sent.study) if event.kind == kind)
    return (job.started_at - sent.at).total_seconds(), str(told.detail["signal"])


def started(bench: Bench, study: str) -> JobView:
    end = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < end:
        for job in bench.state.jobs(most=5):
            if job.study_instance_uid == study and job.started_at is not None:
                return job
        time.sleep(0.05)
    story = "\n".join(event.message for event in bench.state.events(study))
    raise ServerFailed(f"no job started:\n{story}\n{bench.node.shown()}")


def wait_idle(bench: Bench) -> None:
    """The next job is not to wait for this one."""
    while any(job.state in ACTIVE_JOB_STATES for job in bench.state.jobs(most=5)):
        time.sleep(0.1)


def report(measured: dict[str, list[tuple[float, str]]]) -> None:
    print("\nlast C-STORE response → start of the job")
    for title, found in measured.items():
        if found:
            seconds, signals = [s for s, _ in found], sorted({signal for _, signal in found})
            spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
            print(f"  {TITLES[title]:52} {statistics.median(seconds):6.2f} s  ({spread}; {', '.join(signals)})")
    print("peers as they come (../shared/peers/README.md):")
    for peer, wait in PEERS.items():
        print(f"  {peer:68} {wait}")


if __name__ == "__main__":
    main()
