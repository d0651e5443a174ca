"""What a parametric map says in numbers, as a TID 1500 report (PS3.16) that refers to the map.

One measurement group (TID 1501) of the map: its least value, mean and highest value. Readers of reports find the map
by it, and a map that takes another's place has a predecessor by it, which the map's own IOD has no attribute for.
"""

from __future__ import annotations

import hashlib

import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.parametric_map import FloatMap, map_of
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.seg import coded
from dicomnode.encoding.sr import algorithm_identification, shown
from dicomnode.encoding.sr_groups import report_around, tracked


def encode_map_report(
    values: FloatMap, found: Dataset, plan: UsedImages, card: ModelCard, made: Provenance, further: Further = NONE
) -> Dataset:
    """`values`: (slice, row, column) float32, in the card's unit; `found`: the map of them."""
    spec = map_of(card)
    unit = SrCode(spec.unit, "UCUM", "no units" if spec.unit == "1" else spec.unit)
    numbers = (
        (codes.SCT.Minimum, values.min()),
        (codes.SCT.Mean, values.mean(dtype=np.float64)),
        (codes.SCT.Maximum, values.max()),
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked(plan, card, spec.name),
        algorithm_id=algorithm_identification(card, made),
        measurements=[
            sr.Measurement(name=coded(spec.quantity), value=shown(float(value)), unit=unit, derivation=derivation)
            for derivation, value in numbers
        ],
        source_images=[sr.SourceImageForMeasurementGroup(str(found.SOPClassUID), str(found.SOPInstanceUID))],
    )
    digest = hashlib.sha256(str(found.SOPInstanceUID).encode()).hexdigest()
    return report_around([group], digest, plan, card, made, further, [found])
