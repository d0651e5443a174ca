"""MPPS and IAN data sets as modalities and archives send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = f"{STUDY}.1"
MPPS_UID, IAN_UID = f"{STUDY}.900", f"{STUDY}.901"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.33"


def made(**attributes: Any) -> Dataset:
    data_set = Dataset()
    for keyword, value in attributes.items():
        setattr(data_set, keyword, value)
    return data_set


def begun(*studies: str) -> Dataset:
    """The N-CREATE of a modality that begins (PS3.4 Table F.7.2-1), with a patient's name in Latin 1."""
    steps = [
        made(StudyInstanceUID=study, AccessionNumber="A1", RequestedProcedureID="P1") for study in studies or (STUDY,)
    ]
    return made(
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Prüfer^Hänschen",
        PatientID="4711",
        PerformedProcedureStepID="S1",
        PerformedStationAETitle="CT1",
        PerformedProcedureStepStartDate="20260301",
        PerformedProcedureStepStartTime="120000",
        PerformedProcedureStepStatus="IN PROGRESS",
        Modality="CT",
        ScheduledStepAttributesSequence=Items(steps),
        PerformedSeriesSequence=Items([]),
    )


def ended(
    images: Mapping[str, Sequence[str]], others: Mapping[str, Sequence[str]] | None = None, status: str = "COMPLETED"
) -> Dataset:
    """The N-SET of a modality that has ended: Series Instance UID → SOP Instance UIDs."""
    others = others or {}
    series = [
        made(
            SeriesInstanceUID=uid,
            PerformingPhysicianName="Dr^Who",
            ReferencedImageSequence=references(CT_IMAGE, images.get(uid, ())),
            ReferencedNonImageCompositeSOPInstanceSequence=references(SR, others.get(uid, ())),
        )
        for uid in dict.fromkeys([*images, *others])
    ]
    return made(
        PerformedProcedureStepStatus=status,
        PerformedProcedureStepEndDate="20260301",
        PerformedProcedureStepEndTime="121500",
        PerformedSeriesSequence=Items(series),
    )


def references(sop_class: str, uids: Sequence[str]) -> Items:
    return Items([made(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid) for uid in uids])


def available(images: Mapping[str, Sequence[str]], availability: str = "ONLINE") -> Dataset:
    """An Instance Availability Notification (PS3.4 Table R.3.2-1)."""
    series = []
    for uid, instances in images.items():
        named = references(CT_IMAGE, instances)
        for one in named:
            one.InstanceAvailability, one.RetrieveAETitle = availability, "PACS"
        series.append(made(SeriesInstanceUID=uid, ReferencedSOPSequence=named))
    return made(
        StudyInstanceUID=STUDY,
        ReferencedPerformedProcedureStepSequence=Items([]),
        ReferencedSeriesSequence=Items(series),
    )
