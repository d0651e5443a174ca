"""A number for every voxel as a Parametric Map (PS3.3 A.75): float32, coded, in the source's own planes."""

from __future__ import annotations

import hashlib

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom.pm import DerivedPixelContrastValues, ImageFlavorValues, ParametricMap, RealWorldValueMapping
from pydicom import Dataset
from pydicom.sr.coding import Code as SrCode
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.domain.map_output import MapOutput
from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.anatomy import frame_anatomy
from dicomnode.encoding.provenance import (
    MANUFACTURER,
    Provenance,
    contributing_equipment,
    local,
    result_series_number,
    result_uids,
    series_description,
    software_versions,
    texts_of,
)
from dicomnode.encoding.references import NONE, Further, add_references
from dicomnode.encoding.seg import coded, set_creation
from dicomnode.encoding.source import SourceFrames, source_frames, source_series_number
from dicomnode.errors import EncodingError
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.render import Window
from dicomnode.imaging.volume import VolumePlan

FloatMap = npt.NDArray[np.float32]
_SH_MOST = 16  # characters of a short string (PS3.5 6.2)
_BYTES_MOST = 0xFFFFFFFE  # of one element (PS3.5 7.1.1)


def encode_map(
    values: FloatMap, plan: VolumePlan, card: ModelCard, made: Provenance, further: Further = NONE
) -> Dataset:
    """`values`: (slice, row, column) float32 in the plan's grid, in the card's unit. Raises EncodingError."""
    if values.shape != plan.geometry.shape or values.dtype != np.float32:
        raise ValueError(f"a map of {plan.geometry.shape} float32 is needed, not {values.shape} {values.dtype}")
    if not np.isfinite(values).all():
        raise EncodingError("the map has values that are no numbers")
    if values.nbytes > _BYTES_MOST:
        raise EncodingError(f"the map takes {values.nbytes} bytes, more than a DICOM element holds ({_BYTES_MOST})")
    with odd_values_accepted():
        sources = source_frames(plan, texts_of(card, made))
        content = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
        uids = result_uids("MAP", plan, further, card, made, content)
        found = _parametric_map(values, sources, uids, plan, card, made)
        sources.mend(found)
        add_references(found, plan, further)
        sources.set_character_set(found)
        found.setdefault("ContentCreatorName", None)  # type 2 (PS3.3 10.9)
        # dcmqi's reader, by which 3D Slicer loads maps, ends at once where this macro is absent
        found.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [frame_anatomy(plan.first)]
        _sort_frames(found, values, plan)
        set_creation(found, card, made)
        _make_repeatable(found)
    return found


def map_of(card: ModelCard) -> MapOutput:
    spec = card.map
    assert spec is not None  # encode.EncodeStage is given only cards that have one
    return spec


def _parametric_map(
    values: FloatMap,
    sources: SourceFrames,
    uids: tuple[str, str],
    plan: VolumePlan,
    card: ModelCard,
    made: Provenance,
) -> Dataset:
    moment, spec = local(made.created_at), map_of(card)
    low, high = float(values.min()), float(values.max())
    found: Dataset = ParametricMap(
        source_images=list(sources.headers),
        pixel_array=values,
        series_instance_uid=uids[0],
        series_number=result_series_number(source_series_number(plan), "MAP"),
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=card.name,
        software_versions=software_versions(card, made),  # type: ignore[arg-type]  # any number of them
        device_serial_number=made.device_serial_number,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_meaning(spec, low, high)],
        voi_lut_transformations=[_window(low, high)],
        content_label="MAP",
        content_description=series_description(card, "map"),
        content_qualification="RESEARCH",
        image_flavor=ImageFlavorValues.VOLUME,
        derived_pixel_contrast=DerivedPixelContrastValues.QUANTITY,
        contributing_equipment=contributing_equipment(card, made, plan, "MAP", uids[0]),
        series_description=series_description(card, spec.name),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set=None,
        content_date=moment.date(),
        content_time=moment.time(),
        series_date=moment.date(),
        series_time=moment.time(),
    )
    return found


def _window(low: float, high: float) -> hd.VOILUTTransformation:
    window = Window((low + high) / 2, max(high - low, 1e-6))
    return hd.VOILUTTransformation(window.centre, window.width, voi_lut_function=window.function)


def _meaning(spec: MapOutput, low: float, high: float) -> RealWorldValueMapping:
    """What is stored is what is meant: slope 1, intercept 0 (PS3.3 C.7.6.16.2.11)."""
    return RealWorldValueMapping(
        lut_label=spec.name[:_SH_MOST],
        lut_explanation=spec.name,
        unit=SrCode(spec.unit, "UCUM", "no units" if spec.unit == "1" else spec.unit),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coded(spec.quantity),
    )


def _sort_frames(found: Dataset, values: FloatMap, plan: VolumePlan) -> None:
    """Along row × column, as the plan's slices are: highdicom sorts them the other way round.

    dcmqi's reader takes frames as they come and calls the lowest position the first one's.
    """
    normal = np.array(plan.frames[0].normal)

    def height_mm(group: Dataset) -> float:
        return float(normal @ np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float))

    groups = sorted(found.PerFrameFunctionalGroupsSequence, key=height_mm)
    for number, group in enumerate(groups, 1):
        group.FrameContentSequence[0].DimensionIndexValues = number
    found.PerFrameFunctionalGroupsSequence = groups
    found.FloatPixelData = values.astype("<f4", copy=False).tobytes()


def _make_repeatable(found: Dataset) -> None:
    """What highdicom draws at random, taken from the instance's UID."""
    organization = deterministic_uid("dimension organization", str(found.SOPInstanceUID))
    for item in (*found.DimensionOrganizationSequence, *found.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
