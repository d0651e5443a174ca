"""A segmentation as the encoders of its further forms need it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import highdicom as hd
import numpy as np
from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard, Segment
from dicomnode.encoding.provenance import (
    Provenance,
    contributing_equipment,
    local,
    result_series_number,
    result_uids,
    series_description,
    set_equipment,
    texts_of,
)
from dicomnode.encoding.references import Further, study_and_series
from dicomnode.encoding.results import EncodedResult
from dicomnode.encoding.seg_frames import LabelMap
from dicomnode.encoding.source import SourceFrames, identity_header, source_frames, source_series_number
from dicomnode.imaging.measure import SegmentStatistics
from dicomnode.imaging.render import Volume, key_slices
from dicomnode.imaging.volume import VolumePlan


@dataclass(frozen=True, eq=False)
class Findings:
    """Label map and volume, (slice, row, column) in the plan's grid, uint8 and int16 stored values."""

    labels: LabelMap
    volume: Volume
    statistics: Sequence[SegmentStatistics]
    plan: VolumePlan
    card: ModelCard
    made: Provenance
    segmentation: Dataset | None  # its attributes without frames and pixels; None where nothing was found
    further: Further = field(default_factory=dict)

    @cached_property
    def slices(self) -> list[int]:
        """Those in which there is a segment."""
        return [k for k, plane in enumerate(self.labels) if plane.any()]

    @cached_property
    def key_slices(self) -> dict[int, int]:
        """Of each segment that was found the slice in which it is largest."""
        return key_slices(self.labels, [segment.number for segment in self.card.segments])

    @property
    def found(self) -> list[Segment]:
        return [segment for segment in self.card.segments if segment.number in self.key_slices]

    def sources(self) -> SourceFrames:
        """New ones: what is made of them is theirs to mend."""
        return source_frames(self.plan, texts_of(self.card, self.made))

    def uids(self, kind: str) -> tuple[str, str]:
        """(Series, SOP) Instance UIDs; the content is that of the label map."""
        content = hashlib.sha256(np.ascontiguousarray(self.labels).data).hexdigest()
        return result_uids(kind, self.plan, self.further, self.card, self.made, content)

    def series_number(self, kind: str) -> int:
        return result_series_number(source_series_number(self.plan), kind)

    def contributing_equipment(self, kind: str, series_instance_uid: str) -> list[hd.ContributingEquipment]:
        return contributing_equipment(self.card, self.made, self.plan, kind, series_instance_uid)

    def document(self, kind: str, sop_class_uid: str, modality: str) -> Dataset:
        """An object of the source's patient and study (PS3.3 C.7.1 to C.7.5, C.12.1), as of this node."""
        moment, uids = local(self.made.created_at), self.uids(kind)
        dataset = identity_header(self.plan.first, texts_of(self.card, self.made))
        dataset.pop("InstitutionName", None)  # of the source's equipment
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class_uid, uids[1]
        dataset.Modality, dataset.SeriesInstanceUID = modality, uids[0]
        dataset.SeriesNumber, dataset.InstanceNumber = self.series_number(kind), 1
        dataset.SeriesDescription = series_description(self.card, kind)
        dataset.SeriesDate, dataset.SeriesTime = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
        dataset.ContributingEquipmentSequence = self.contributing_equipment(kind, uids[0])
        self.complete(dataset)
        return dataset

    def complete(self, dataset: Dataset) -> None:
        """Equipment and the moment of creation, which libraries leave out or take from the clock."""
        moment = local(self.made.created_at)
        set_equipment(dataset, self.card, self.made)
        dataset.InstanceCreationDate = moment.strftime("%Y%m%d")
        dataset.InstanceCreationTime = moment.strftime("%H%M%S.%f")
        dataset.ContentDate, dataset.ContentTime = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
        for library in dataset.ContributingEquipmentSequence[1:]:
            library.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")


def reference(result: EncodedResult, plan: VolumePlan) -> Dataset:
    """What another object has to know of a result to name it (PS3.3 C.17.2.1)."""
    item = Dataset()
    item.StudyInstanceUID, item.SeriesInstanceUID = study_and_series(plan)[0], result.series_instance_uid
    item.SOPClassUID, item.SOPInstanceUID = result.sop_class_uid, result.sop_instance_uid
    return item
