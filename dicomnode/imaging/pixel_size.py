"""How large the pixels of a single image are in the patient, as far as its header says (PS3.3 10.7.1.3).

A projection radiograph is larger at the detector than what it shows. Pixel Spacing is what people calibrated, or,
where it equals Imager Pixel Spacing, what the detector has. Imager Pixel Spacing alone is the detector's; over the
Estimated Radiographic Magnification Factor it is the patient's, as mammography measures (IHE MAMMO, Image Display).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from dicomnode.imaging.headers import first_number, items, numbers, text, whole

_PROJECTION = frozenset({"CR", "DX", "MG", "IO", "PX", "RF", "XA", "RG"})
_TISSUE_2D, _CENTIMETRES = 1, 3  # Region Spatial Format; Physical Units X and Y Direction (PS3.3 C.8.5.5.1)


@dataclass(frozen=True, slots=True)
class PixelSize:
    """`mm`: between rows, between columns; `basis`: which attribute says it, in words."""

    mm: tuple[float, float]
    basis: str
    at_detector: bool = False  # not in the patient, who is nearer to the tube: what is measured comes out too large

    @property
    def mm2(self) -> float:
        return self.mm[0] * self.mm[1]


def pixel_size(header: Dataset) -> PixelSize | None:
    """None where the header says nothing, or only what its detector has."""
    spacing, imager = _above_zero(header, "PixelSpacing"), _above_zero(header, "ImagerPixelSpacing")
    if spacing is not None:
        return _of_spacing(header, spacing, imager)
    factor = first_number(header, "EstimatedRadiographicMagnificationFactor")
    if imager is not None and factor is not None and factor > 0:
        words = f"Imager Pixel Spacing over the Estimated Radiographic Magnification Factor of {factor:g}"
        return PixelSize((imager[0] / factor, imager[1] / factor), words)
    return _of_functional_groups(header) or _of_ultrasound(header)


def _of_spacing(header: Dataset, spacing: tuple[float, float], imager: tuple[float, float] | None) -> PixelSize:
    """Calibrated where it says how, or differs from the detector's; a radiograph that says neither is not."""
    kind = text(header, "PixelSpacingCalibrationType").upper()
    calibrated = bool(kind) or (imager is not None and not np.allclose(spacing, imager, rtol=1e-4))
    detector = text(header, "Modality") in _PROJECTION and not calibrated
    words = f"Pixel Spacing, calibrated by {kind.lower()}" if kind else "Pixel Spacing"
    return PixelSize(spacing, f"{words}, not calibrated" if detector else words, detector)


def _of_functional_groups(header: Dataset) -> PixelSize | None:
    """Of an enhanced object whose frames have one in common (PS3.3 C.7.6.16.2.1)."""
    for shared in items(header, "SharedFunctionalGroupsSequence"):
        for measures in items(shared, "PixelMeasuresSequence"):
            if (spacing := _above_zero(measures, "PixelSpacing")) is not None:
                return PixelSize(spacing, "Pixel Spacing")
    return None


def _of_ultrasound(header: Dataset) -> PixelSize | None:
    """Of an image with one region, of tissue: of several each has its own scale (PS3.3 C.8.5.5)."""
    regions = items(header, "SequenceOfUltrasoundRegions")
    if len(regions) != 1:
        return None
    (region,) = regions
    units = [whole(region, f"PhysicalUnits{axis}Direction") for axis in "XY"]
    across, down = (first_number(region, f"PhysicalDelta{axis}") for axis in "XY")
    if whole(region, "RegionSpatialFormat") != _TISSUE_2D or units != [_CENTIMETRES] * 2 or not across or not down:
        return None
    return PixelSize((abs(down) * 10, abs(across) * 10), "Physical Delta of the ultrasound region")


def _above_zero(header: Dataset, keyword: str) -> tuple[float, float] | None:
    found = numbers(header, keyword, 2)
    return (found[0], found[1]) if found is not None and min(found) > 0 else None
