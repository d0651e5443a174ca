"""How large the series of a job are, from the headers of two images each: before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from dicomnode.domain.admission import Extent
from dicomnode.domain.study import Series, StoredInstance
from dicomnode.errors import CannotDecode
from dicomnode.imaging.headers import read_instances, value
from dicomnode.ports import InstanceStore, JobWork


@dataclass(frozen=True, slots=True)
class SeriesSizes:
    """Called with a job, gives the extents of its series, the main one first; none when they cannot be read.

    Then the job begins without being asked what it needs, and says itself what is wrong.
    """

    store: InstanceStore

    def __call__(self, work: JobWork) -> tuple[Extent, ...]:
        roles = [work.inputs[role.name] for role in work.model.card.roles if role.name in work.inputs]
        try:
            return tuple(self._extent(series) for series in (work.series, *roles))
        except (CannotDecode, OSError):
            return ()

    def _extent(self, series: Series) -> Extent:
        if not series.instances:
            return Extent(0)
        ends = {instance.path: instance for instance in (series.instances[0], series.instances[-1])}
        headers = self._headers(list(ends.values()))
        first = headers[0]
        rows, columns = _whole(first, "Rows"), _whole(first, "Columns")
        images = len(series.instances) * max(_whole(first, "NumberOfFrames"), 1)
        return Extent(rows * columns * images, rows * columns * _pixel_mm2(first) * _length_mm(headers, images))

    def _headers(self, instances: Sequence[StoredInstance]) -> list[Dataset]:
        return [read.header for read in read_instances([self.store.path(i.path) for i in instances])]


def _whole(header: Dataset, keyword: str) -> int:
    found = value(header, keyword, 0)
    return int(found) if str(found).strip().isdigit() else 0


def _pixel_mm2(header: Dataset) -> float:
    """0 where the header does not say it, as in the enhanced objects, which have it with each frame."""
    spacing = _numbers(header, "PixelSpacing", 2)
    return float(spacing.prod()) if spacing is not None else 0.0


def _length_mm(headers: Sequence[Dataset], images: int) -> float:
    """Of the stack: between its two ends, and half a slice beyond each (PS3.3 C.7.6.2)."""
    places = [_numbers(header, "ImagePositionPatient", 3) for header in headers]
    if len(places) < 2 or places[0] is None or places[1] is None:
        return 0.0
    between = float(np.linalg.norm(places[1] - places[0]))
    return between * images / max(images - 1, 1)


def _numbers(header: Dataset, keyword: str, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    found = value(header, keyword)
    try:
        numbers = np.array([float(number) for number in found], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) else None
