"""How large the pixels of a single image are in the patient."""

from __future__ import annotations

from typing import Any

import pytest

from dicomnode.imaging.pixel_size import pixel_size
from tests.made_images import image, ultrasound_region


@pytest.mark.parametrize(
    ("modality", "attributes", "mm", "at_detector"),
    [
        ("DX", {"PixelSpacing": [0.15, 0.15], "ImagerPixelSpacing": [0.2, 0.2]}, (0.15, 0.15), False),
        ("DX", {"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), True),  # what the detector has
        ("DX", {"PixelSpacing": [0.2, 0.1], "PixelSpacingCalibrationType": "GEOMETRY"}, (0.2, 0.1), False),
        ("CR", {"PixelSpacing": [0.3, 0.3], "ImagerPixelSpacing": None}, (0.3, 0.3), True),
        ("US", {"PixelSpacing": [0.3, 0.2], "ImagerPixelSpacing": None}, (0.3, 0.2), False),
        ("MG", {"EstimatedRadiographicMagnificationFactor": 1}, (0.2, 0.1), False),
        ("MG", {"EstimatedRadiographicMagnificationFactor": 1.6}, (0.125, 0.0625), False),
    ],
)  # fmt: skip
def test_what_the_header_says(
    modality: str, attributes: dict[str, Any], mm: tuple[float, float], at_detector: bool
) -> None:
    found = pixel_size(image(modality=modality, **attributes))
    assert found is not None
    assert found.mm == pytest.approx(mm)
    assert found.at_detector is at_detector


@pytest.mark.parametrize("attributes", [{}, {"PixelSpacing": [0, 0]}, {"ImagerPixelSpacing": None}])
def test_a_detector_alone_says_nothing_of_the_patient(attributes: dict[str, Any]) -> None:
    assert pixel_size(image(**attributes)) is None


def test_ultrasound_has_it_with_its_one_region() -> None:
    found = pixel_size(
        image(modality="US", ImagerPixelSpacing=None, SequenceOfUltrasoundRegions=[ultrasound_region()])
    )
    assert found is not None
    assert found.mm == pytest.approx((0.2, 0.3))
    doppler = ultrasound_region()
    doppler.PhysicalUnitsYDirection = 7  # cm/s
    for regions in ([doppler], [ultrasound_region(), ultrasound_region()]):
        assert pixel_size(image(modality="US", ImagerPixelSpacing=None, SequenceOfUltrasoundRegions=regions)) is None
