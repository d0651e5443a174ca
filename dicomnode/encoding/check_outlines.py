"""Whether what is drawn goes round what was found: of each segment, in each slice, to the same four edges.

A contour that was moved, flipped or turned, or lies on another slice, has other edges; one whose edges are right and
whose line is not would have to be drawn wrong on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dicomnode.encoding.refusal import refuse
from dicomnode.imaging.masks import LabelMap

Points = npt.NDArray[np.float64]
_TOLERANCE_PIXELS = 0.05  # outlines lie half a pixel around the centres; what is more is no rounding


def check_outlines(
    labels: Sequence[LabelMap] | LabelMap, drawn: Mapping[tuple[int, int], Iterable[Points]], what: str
) -> None:
    """`labels`: a plane a slice, (row, column) uint8. `drawn`: (segment, slice) → lines of (row, column) in pixels.

    0 is the centre of the first pixel. Raises NonConformant naming the segment and the slice, counted from 1.
    """
    wanted = _edges_of(labels)
    if wanted.keys() != drawn.keys():
        segment, k = min(wanted.keys() ^ drawn.keys())
        refuse(
            f"{what} of segment {segment} in slice {k + 1} is {'absent' if (segment, k) in wanted else 'too many'}"
        )
    for (segment, k), lines in drawn.items():
        points = np.concatenate([np.reshape(line, (-1, 2)) for line in lines])
        edges = np.concatenate([points.min(0), points.max(0)])
        if np.abs(edges - wanted[segment, k]).max() > _TOLERANCE_PIXELS:
            refuse(f"{what} of segment {segment} in slice {k + 1} is not where the segment is")


def _edges_of(labels: Sequence[LabelMap] | LabelMap) -> dict[tuple[int, int], Points]:
    """(segment, slice) → least row and column, greatest row and column, to the pixels' outer edges."""
    found = {}
    for k, plane in enumerate(labels):
        for segment in np.flatnonzero(np.bincount(plane.ravel())).tolist():
            if segment:
                mask = plane == segment
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                edges = [rows[0] - 0.5, columns[0] - 0.5, rows[-1] + 0.5, columns[-1] + 0.5]
                found[segment, k] = np.array(edges)
    return found
