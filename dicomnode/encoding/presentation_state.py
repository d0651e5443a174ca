"""The segments' outlines over the source's own images, as a Grayscale Softcopy Presentation State (PS3.3 A.33.1)."""

from __future__ import annotations

from collections.abc import Iterator

import highdicom as hd
import numpy as np
from highdicom.pr import AnnotationUnitsValues, GraphicAnnotation, GraphicLayer, GraphicObject, GraphicTypeValues
from highdicom.pr.content import SoftcopyVOILUTTransformation, TextObject
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.model_card import Segment
from dicomnode.encoding.findings import Marks
from dicomnode.encoding.provenance import MANUFACTURER, series_description, software_versions
from dicomnode.encoding.secondary_capture import WARNING
from dicomnode.encoding.source import SourceFrames
from dicomnode.errors import EncodingError
from dicomnode.imaging.contours import Outline, outlines
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.render import Window

_KIND = "GSPS"


def encode_presentation_state(findings: Marks) -> Dataset:
    """A layer for each segment that was found, in its colour; on each slice a closed line for each outline."""
    with odd_values_accepted():
        sources = findings.sources()
        uids = findings.uids(_KIND)
        layers = {s.number: _layer(s, order) for order, s in enumerate(findings.found, 1)}
        look = findings.look(findings.slices[0])
        shape = "INVERSE" if look.inverted else "IDENTITY"  # (PS3.3 C.11.6)
        state: Dataset = hd.pr.GrayscaleSoftcopyPresentationState(
            referenced_images=_images(findings, sources),
            series_instance_uid=uids[0],
            series_number=findings.series_number(_KIND),
            sop_instance_uid=uids[1],
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=findings.card.name,
            software_versions=software_versions(findings.card, findings.made),  # type: ignore[arg-type]
            device_serial_number=findings.made.device_serial_number,
            content_label="AI RESULT",
            content_description=WARNING,
            graphic_layers=list(layers.values()),
            graphic_annotations=list(_annotations(findings, sources, layers)),
            voi_lut_transformations=[_shown(look.window)],
            presentation_lut_transformation=hd.PresentationLUTTransformation(shape),
            contributing_equipment=findings.contributing_equipment(_KIND, uids[0]),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        state.SeriesDescription = series_description(findings.card, _KIND)
        state.Laterality = None  # type 2C (PS3.3 C.7.3.1): nobody knows whether what was found is one of a pair
        _name_frames(state, sources)
        sources.mend(state)
        sources.set_character_set(state)
        findings.complete(state)
        del state.ContentDate, state.ContentTime  # of images and documents; here it is the Presentation Creation's
        state.PresentationCreationDate = state.InstanceCreationDate
        state.PresentationCreationTime = state.InstanceCreationTime
    return state


def _images(findings: Marks, sources: SourceFrames) -> list[Dataset]:
    """Those with a segment, with what their pixels mean, which the state has to say again (PS3.4 N.2.1)."""
    rescales = {findings.own_rescale(k) for k in findings.slices}
    if len(rescales) > 1:
        raise EncodingError(
            "the images differ in their rescale: one presentation state cannot show them all; "
            "take GSPS out of the destination's profile or of the rule's results for this model"
        )
    (rescale,) = rescales
    images = [sources.headers[k] for k in findings.slices]
    for image in images:
        image.SamplesPerPixel = 1
        image.RescaleSlope, image.RescaleIntercept = rescale.slope, rescale.intercept
        image.RescaleType = "HU" if findings.plan.modality == "CT" else "US"
    return images


def _shown(window: Window) -> SoftcopyVOILUTTransformation:
    return SoftcopyVOILUTTransformation(window.centre, window.width, voi_lut_function=window.function)


def _name_frames(state: Dataset, sources: SourceFrames) -> None:
    """An outline lies on one frame of a multi-frame image (PS3.3 C.10.5)."""
    for annotation in state.GraphicAnnotationSequence:
        for item in annotation.ReferencedImageSequence:
            _, _, frame = sources.references.get(str(item.ReferencedSOPInstanceUID), ("", "", None))
            if frame is not None:
                item.ReferencedFrameNumber = frame


def _layer(segment: Segment, order: int) -> GraphicLayer:
    """Its name is a code string (PS3.3 C.10.7); the segment's own name is the description."""
    return GraphicLayer(
        layer_name=f"SEGMENT {segment.number}",
        order=order,
        description=segment.name,
        display_color=hd.color.CIELabColor.from_rgb(*segment.colour),
    )


def _annotations(
    findings: Marks, sources: SourceFrames, layers: dict[int, GraphicLayer]
) -> Iterator[GraphicAnnotation]:
    key_slices = findings.key_slices
    for k in findings.slices:
        for segment in findings.found:
            lines = outlines(findings.labels[k] == segment.number)
            if lines:
                named = [_name(segment, lines[0])] if key_slices[segment.number] == k else None
                yield GraphicAnnotation(
                    referenced_images=[sources.headers[k]],
                    graphic_layer=layers[segment.number],
                    graphic_objects=[graphic for line in lines for graphic in _graphics(line)],
                    text_objects=named,
                )


def _graphics(outline: Outline) -> Iterator[GraphicObject]:
    """In pixels from the image's corner, which is half a pixel before the first centre (PS3.3 C.10.5.1.1)."""
    for points in (outline.outer, *outline.holes):
        closed = np.vstack([points, points[:1]])
        yield GraphicObject(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=(closed[:, ::-1] + 0.5).clip(0).astype(np.float32),
            units=AnnotationUnitsValues.PIXEL,
        )


def _name(segment: Segment, outline: Outline) -> TextObject:
    row, column = outline.outer[outline.outer[:, 0].argmin()]
    return TextObject(
        text_value=segment.name,
        units=AnnotationUnitsValues.PIXEL,
        anchor_point=(float(column + 0.5), float(row + 0.5)),
        anchor_point_visible=False,
    )
