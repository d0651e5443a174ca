"""What a model gave, as the encoders of its further forms need it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import highdicom as hd
from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.quantity import quantity
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
from dicomnode.encoding.references import Further
from dicomnode.encoding.source import identity_header, source_series_number
from dicomnode.imaging.images import ImagesPlan
from dicomnode.imaging.volume import VolumePlan


class Outcome(ABC):
    """Of one model on one series."""

    plan: VolumePlan | ImagesPlan
    card: ModelCard
    made: Provenance
    further: Further  # the series that the model was given beside the plan's

    @property
    @abstractmethod
    def segmentations(self) -> Sequence[Dataset]:
        """Their attributes without frames and pixels; none where nothing was found."""

    @abstractmethod
    def digest(self) -> str:
        """Of what was found: another one is another object."""

    @property
    @abstractmethod
    def looked_at(self) -> str:
        """How many slices or images."""

    def uids(self, kind: str) -> tuple[str, str]:
        """(Series, SOP) Instance UIDs."""
        return result_uids(kind, self.plan, self.further, self.card, self.made, self.digest())

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


Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Statements(Outcome):
    """Of a model whose results are words and numbers: classes, measurements, boxes, what a map measures.

    `tables` are rows by the names of their columns, as `dicomnode jobs show` has them; `words` stand before them.
    """

    tables: Sequence[Sequence[Row]]
    words: Sequence[str]
    plan: VolumePlan | ImagesPlan
    card: ModelCard
    made: Provenance
    further: Further = field(default_factory=dict)

    @property
    def segmentations(self) -> Sequence[Dataset]:
        return []

    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.tables, self.words], default=list).encode()).hexdigest()

    @property
    def looked_at(self) -> str:
        return quantity(len(self.plan.frames), "image")
