"""A model card and a provenance for tests of encoding, and results made with them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread

from dicomnode.domain.model_card import parse_model_card
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.seg import encode_segmentation
from dicomnode.encoding.sr import encode_report
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.measure import measure
from dicomnode.imaging.volume import VolumePlan, plan_volume
from tests.made_series import classic, f_mask, pixels


def _code(value: str, meaning: str) -> dict[str, str]:
    return {"value": value, "scheme": "SCT", "meaning": meaning}


ANATOMY, TISSUE = _code("123037004", "Anatomical Structure"), _code("85756007", "Tissue")

CARD = parse_model_card(
    {
        "name": "torso-ct",
        "version": "1.0.0",
        "manufacturer": "maker of models",
        "intended_use": "tests",
        "limits": "tests",
        "input": {"modality": ["CT"], "spacing_mm": [3, 3, 3], "intensity": {"from": [-1000, 1000]}},
        "network": {"file": "model.onnx", "window": [96, 96, 96]},
        "output": {
            "segments": [
                {
                    "number": 1,
                    "name": "Lungs",
                    "category": ANATOMY,
                    "type": _code("39607008", "Lung"),
                    "colour": [0, 151, 206],
                },
                {
                    "number": 2,
                    "name": "Bone",
                    "category": TISSUE,
                    "type": _code("272673000", "Bone"),
                    "colour": [241, 214, 145],
                },
            ]
        },
    }
)

MADE = Provenance(
    node_version="0.1.0",
    device_serial_number="DICOMNODE",
    model_digest="ab" * 32,
    engine="OpenVINO 2026.4 CPU",
    precision="fp32",
    rule_name="torso",
    rule_revision=2,
    created_at=datetime(2026, 11, 20, 10, 11, 12, 345678),
)


def two_fs(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Segment 1 an "F", segment 2 what is under its last slices; both asymmetric, (slice, row, column) uint8."""
    labels = f_mask(shape)
    labels[-2:, : shape[1] // 2] *= 2
    return labels


def result(
    series: Sequence[Dataset] | None = None, labels: npt.NDArray[np.uint8] | None = None, **provenance: Any
) -> tuple[VolumePlan, npt.NDArray[np.uint8], Dataset | None, Dataset]:
    """(plan, labels, SEG, SR) of a series and a label map."""
    plan = plan_volume(classic(5) if series is None else series)
    labels = two_fs(plan.geometry.shape) if labels is None else labels
    made = replace(MADE, **provenance)
    statistics = measure(labels, pixels(plan.geometry.shape), plan.geometry, plan.rescale, [1, 2])
    file = encode_segmentation(labels, plan, CARD, made)
    with odd_values_accepted():
        segmentation = None if file is None else dcmread(io.BytesIO(file.content))
    return plan, labels, segmentation, encode_report(statistics, plan, CARD, made, segmentation)
