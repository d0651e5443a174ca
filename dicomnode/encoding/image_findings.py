"""Masks of single images as the encoders of their further forms need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from dicomnode.domain.model_card import ModelCard, Segment
from dicomnode.encoding.findings import Look, Marks, in_words
from dicomnode.encoding.provenance import Provenance, texts_of
from dicomnode.encoding.references import Further
from dicomnode.encoding.seg_images import laterality, patient_orientation
from dicomnode.encoding.source import SourceFrames, copy_lossy, identity_header
from dicomnode.encoding.sr import shown, unit_in_words
from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.headers import numbers, text, value
from dicomnode.imaging.images import ImageFrame, ImagesPlan, is_inverted
from dicomnode.imaging.masked_images import MaskedInstance, RegionStatistics
from dicomnode.imaging.render import window_of

_PAGE_MOST = 6


@dataclass(frozen=True, eq=False)
class ImageFindings(Marks):
    """`instances` are of label maps, all frames of the plan's instances in their order."""

    instances: Sequence[MaskedInstance]
    statistics: Sequence[RegionStatistics]
    plan: ImagesPlan
    card: ModelCard
    made: Provenance
    segmentations: Sequence[Dataset] = ()
    further: Further = field(default_factory=dict)

    slice_word: ClassVar[str] = "image"

    @cached_property
    def labels(self) -> list[npt.NDArray[np.uint8]]:  # type: ignore[override]  # frozen, as it is
        """(row, column) each."""
        every = (one.masks.labels for one in self.instances)
        return [plane for labels in every if labels is not None for plane in labels]

    @cached_property
    def volume(self) -> list[npt.NDArray[np.int16]]:  # type: ignore[override]
        """(row, column) each."""
        return [plane for one in self.instances for plane in one.values]

    @cached_property
    def _frames(self) -> list[tuple[MaskedInstance, int]]:
        """Of each plane the instance, and which of its frames it is."""
        return [(one, k) for one in self.instances for k in range(len(one.frames))]

    def alone(self) -> list[ImageFindings]:
        """Each instance by itself; those on which nothing was found are left out."""
        found = []
        for one in self.instances:
            plan = replace(self.plan, headers=(one.header,), frames=_of_first(one.frames), stacks=())
            alone = replace(self, instances=[one], plan=plan)
            found += [alone] if alone.slices else []
        return found

    def sources(self) -> SourceFrames:
        """A stand-in for each frame: of a SOP class without a frame of reference, which highdicom asks others for."""
        shared = identity_header(self.plan.first, texts_of(self.card, self.made))
        references: dict[str, tuple[str, str, int | None]] = {}
        headers = []
        for number, (one, k) in enumerate(self._frames, 1):
            header, stand_in = Dataset(), f"2.25.{number}"
            header.update(shared)
            header.Modality, header.SOPClassUID = text(one.header, "Modality"), ComputedRadiographyImageStorage
            header.Rows, header.Columns = self.labels[number - 1].shape
            header.SOPInstanceUID = stand_in
            copy_lossy(one.header, header)
            frame = one.frames[k].number if one.is_multi_frame else None
            references[stand_in] = (text(one.header, "SOPClassUID"), text(one.header, "SOPInstanceUID"), frame)
            headers.append(header)
        return SourceFrames(tuple(headers), references, value(shared, "SpecificCharacterSet"))

    def look(self, k: int) -> Look:
        instance, frame = self._frames[k]
        header, rescale = instance.header, instance.rescales[frame]
        window = window_of(header, self.volume[k][None], rescale, self.plan.modality)
        orientation = patient_orientation(header)
        side = laterality(header)
        return Look(
            rescale,
            window,
            proportions(header),
            None if orientation is None else tuple(orientation),
            is_inverted(header),
            side,
        )

    def own_rescale(self, k: int) -> Rescale:
        instance, frame = self._frames[k]
        return instance.frames[frame].own

    @property
    def page_slices(self) -> list[int]:
        """Where most is marked."""
        return sorted(self.slices, key=lambda k: -np.count_nonzero(self.labels[k]))[:_PAGE_MOST]

    @property
    def head(self) -> Sequence[str]:
        return ["area", f"mean ({unit_in_words(self.plan.unit)})", "SD", "least", "most"]

    def rows(self) -> list[tuple[Segment, Sequence[str]]]:
        """What was found first, image by image; then what was found nowhere."""
        segments = {segment.number: segment for segment in self.card.segments}
        there = [one for one in self.statistics if one.pixels]
        absent = [s for s in self.card.segments if all(one.segment_number != s.number for one in there)]
        found = [(segments[one.segment_number], [_where(one), *in_words(one.values)]) for one in there]
        return [*found, *((segment, ["not found", "", "", "", ""]) for segment in absent)]


def _of_first(frames: Sequence[ImageFrame]) -> tuple[ImageFrame, ...]:
    """Of the one header that there is."""
    return tuple(replace(frame, instance=0) for frame in frames)


def _where(found: RegionStatistics) -> str:
    area = f"{found.pixels} pixels" if found.area_mm2 is None else f"{shown(found.area_mm2):g} mm²"
    return f"{area}, image {found.image + 1}"


def proportions(header: Dataset) -> tuple[float, float]:
    """Height and width of a pixel, of which here only the ratio counts (PS3.3 C.7.6.3.1.7)."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        found = numbers(header, keyword, 2)
        if found is not None and min(found) > 0:
            return found[0], found[1]
    return 1.0, 1.0
