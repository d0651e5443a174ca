"""A segmentation as the encoders of its further forms need it."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard, Segment
from dicomnode.domain.quantity import quantity
from dicomnode.encoding.outcome import Outcome
from dicomnode.encoding.provenance import Provenance, texts_of
from dicomnode.encoding.references import Further, UsedImages, study_and_series
from dicomnode.encoding.results import EncodedResult
from dicomnode.encoding.seg_frames import LabelMap
from dicomnode.encoding.source import SourceFrames, source_frames
from dicomnode.encoding.sr import shown, unit_in_words
from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.measure import SegmentStatistics
from dicomnode.imaging.render import Volume, Window, key_slices, window_of
from dicomnode.imaging.volume import VolumePlan


@dataclass(frozen=True, slots=True)
class Look:
    """How a slice is shown: what its values mean, which of them are grey, and how it lies."""

    rescale: Rescale  # of the values in `volume`
    window: Window  # in the modality's units after it
    proportions: tuple[float, float]  # of a pixel: its height, its width
    patient_orientation: tuple[str, ...] | None  # directions of the rows and of the columns (PS3.3 C.7.6.1.1.1)
    inverted: bool = False  # low values are bright (PS3.3 C.7.6.3.1.2)
    laterality: str = ""  # Image Laterality (PS3.3 C.7.6.1), where it is known


class Marks(Outcome):
    """Label maps and values, a plane for each frame of the plan, (row, column) uint8 and int16 stored values."""

    labels: LabelMap | Sequence[LabelMap]
    volume: Volume | Sequence[Volume]

    slice_word: ClassVar[str] = "slice"

    @abstractmethod
    def sources(self) -> SourceFrames:
        """New ones: what is made of them is theirs to mend."""

    @abstractmethod
    def look(self, k: int) -> Look:
        """Of a slice."""

    @abstractmethod
    def own_rescale(self, k: int) -> Rescale:
        """Of a slice as its file has it."""

    @property
    @abstractmethod
    def page_slices(self) -> list[int]:
        """Those to show first, the most important ones first."""

    @property
    @abstractmethod
    def head(self) -> Sequence[str]:
        """Of the table of measurements, behind the segment's name: five words."""

    @abstractmethod
    def rows(self) -> list[tuple[Segment, Sequence[str]]]:
        """Of the table of measurements."""

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

    def digest(self) -> str:
        """Of the label map."""
        content = hashlib.sha256()
        for plane in self.labels:
            content.update(np.ascontiguousarray(plane).data)
        return content.hexdigest()

    @property
    def looked_at(self) -> str:
        return quantity(len(self.labels), self.slice_word)


@dataclass(frozen=True, eq=False)
class Findings(Marks):
    """Label map and volume, (slice, row, column) in the plan's grid."""

    labels: LabelMap
    volume: Volume
    statistics: Sequence[SegmentStatistics]
    plan: VolumePlan
    card: ModelCard
    made: Provenance
    segmentation: Dataset | None  # as of `segmentations`
    further: Further = field(default_factory=dict)

    @property
    def segmentations(self) -> Sequence[Dataset]:
        return [] if self.segmentation is None else [self.segmentation]

    def sources(self) -> SourceFrames:
        return source_frames(self.plan, texts_of(self.card, self.made))

    @cached_property
    def window(self) -> Window:
        """One for all slices."""
        return window_of(self.plan.first, self.volume, self.plan.rescale, self.plan.modality)

    def look(self, k: int) -> Look:
        frame = self.plan.frames[k]
        between_rows, between_columns = frame.spacing_mm
        orientation = patient_orientation(frame.orientation)
        return Look(self.plan.rescale, self.window, (between_rows, between_columns), orientation)

    def own_rescale(self, k: int) -> Rescale:
        return self.plan.frames[k].rescale

    @property
    def page_slices(self) -> list[int]:
        """Each segment's largest slice, the largest segments first."""
        largest = sorted(self.statistics, key=lambda s: -s.volume_ml)
        return [self.key_slices[s.segment_number] for s in largest if s.segment_number in self.key_slices]

    @property
    def head(self) -> Sequence[str]:
        return ["volume", f"mean ({unit_in_words(self.plan.unit)})", "SD", "least", "most"]

    def rows(self) -> list[tuple[Segment, Sequence[str]]]:
        by_number = {s.segment_number: s for s in self.statistics}
        return [(s, _row(by_number[s.number])) for s in self.card.segments]


def _row(found: SegmentStatistics) -> Sequence[str]:
    return (
        ["not found", "", "", "", ""] if found.mean is None else [f"{shown(found.volume_ml):g} mL", *in_words(found)]
    )


def in_words(found: SegmentStatistics) -> list[str]:
    """Mean, standard deviation, least and most of what the voxels measure."""
    values = (found.mean, found.standard_deviation, found.minimum, found.maximum)
    return ["" if v is None else f"{shown(v):g}" for v in values]


def patient_orientation(orientation: Sequence[float]) -> tuple[str, str]:
    """Directions of the rows and of the columns, of LPS cosines (PS3.3 C.7.6.1.1.1): ("L", "P") of most CT."""
    along = ("LR", "PA", "HF")
    rows, columns = (np.array(orientation[i : i + 3]) for i in (0, 3))
    names = [along[int(i)][0 if v[i] > 0 else 1] for v in (rows, columns) for i in [np.abs(v).argmax()]]
    return names[0], names[1]


def reference(result: EncodedResult, plan: UsedImages) -> Dataset:
    """What another object has to know of a result to name it (PS3.3 C.17.2.1)."""
    item = Dataset()
    item.StudyInstanceUID, item.SeriesInstanceUID = study_and_series(plan)[0], result.series_instance_uid
    item.SOPClassUID, item.SOPInstanceUID = result.sop_class_uid, result.sop_instance_uid
    return item
