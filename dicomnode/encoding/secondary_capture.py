"""Slices with the segments drawn over them, as Secondary Captures (PS3.3 A.8.1): for viewers of nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.domain.model_card import Segment
from dicomnode.encoding.findings import Look, Marks
from dicomnode.encoding.lettering import draw_words, shown_words
from dicomnode.encoding.provenance import MANUFACTURER, series_description
from dicomnode.encoding.references import add_source_frame
from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.render import Picture, Window, picture, spread

WARNING = "AI result, not for primary diagnosis"
IMAGES_MOST = 100
_KIND = "SC"
_WHITE, _AMBER = (255, 255, 255), (255, 200, 0)
_LINE = 24  # of 512 pixels: one line of words
_NAMED_MOST = 12  # segments below an image


def encode_secondary_captures(findings: Marks) -> list[Dataset]:
    """An RGB image of each slice with a segment, at most IMAGES_MOST of them, each segment's largest among them."""
    with odd_values_accepted():
        return list(_images(findings))


def _images(findings: Marks) -> Iterator[Dataset]:
    slices = spread(findings.slices, IMAGES_MOST, list(findings.key_slices.values()))
    for number, (k, shown) in enumerate(pictures(findings, slices), 1):
        yield _image(k, number, shown, findings)


def _image(k: int, number: int, shown: Picture, findings: Marks) -> Dataset:
    plan, sources = findings.plan, findings.sources()
    series_uid, _ = findings.uids(_KIND)
    image: Dataset = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=sources.headers[k],
        pixel_array=shown,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom knows the first letter of each, and is given a true one below
        series_instance_uid=series_uid,
        series_number=findings.series_number(_KIND),
        sop_instance_uid=deterministic_uid("secondary capture", series_uid, str(k)),
        instance_number=number,
        manufacturer=MANUFACTURER,
        contributing_equipment=findings.contributing_equipment(_KIND, series_uid),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    sources.set_character_set(image)
    image.ImageType = ["DERIVED", "SECONDARY", "OVERLAY"]
    image.SeriesDescription = series_description(findings.card, _KIND)
    image.BurnedInAnnotation = "YES"
    image.ImageComments = WARNING
    image.DerivationDescription = f"Segments of {findings.card.name} {findings.card.version} drawn over the image"
    look = findings.look(k)
    image.PatientOrientation = None if look.patient_orientation is None else list(look.patient_orientation)
    if look.laterality:
        image.ImageLaterality = look.laterality
    else:
        image.Laterality = None  # type 2C (PS3.3 C.7.3.1): nobody knows whether what was found is one of a pair
    findings.complete(image)
    image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture = (
        image.InstanceCreationDate,
        image.InstanceCreationTime,
    )
    add_source_frame(image, plan, k)
    return image


def pictures(findings: Marks, slices: Sequence[int]) -> Iterator[tuple[int, Picture]]:
    """(slice, picture) of each, with the names of its segments and the warning beside it."""
    named = {k: _segments_in(findings, k) for k in slices}
    lines = min(_NAMED_MOST, max(map(len, named.values())))
    for k in slices:
        yield k, _with_words(_drawn(k, findings), k, named[k], lines, findings)


def _segments_in(findings: Marks, k: int) -> list[Segment]:
    there = set(np.unique(findings.labels[k]).tolist())
    return [segment for segment in findings.card.segments if segment.number in there]


def _drawn(k: int, findings: Marks) -> Picture:
    look = findings.look(k)
    rescale, window = _as_shown(look)
    colours = {segment.number: segment.colour for segment in findings.card.segments}
    return picture(findings.volume[k], findings.labels[k], rescale, window, colours, look.proportions)


def _as_shown(look: Look) -> tuple[Rescale, Window]:
    """Of what shows low values bright the same the other way round."""
    if not look.inverted:
        return look.rescale, look.window
    return Rescale(-look.rescale.slope, -look.rescale.intercept), Window(-look.window.centre, look.window.width)


def _with_words(shown: Picture, k: int, named: Sequence[Segment], lines: int, findings: Marks) -> Picture:
    """Above and below the image, so that no pixel of it is hidden."""
    image = Image.fromarray(shown)
    line = max(12, max(image.size) * _LINE // 512)
    sheet = Image.new("RGB", (image.width, image.height + line * (2 + lines)))
    sheet.paste(image, (0, line))
    draw = ImageDraw.Draw(sheet)
    draw_words(draw, (line // 4, line // 8), WARNING, line * 0.7, _AMBER)
    below = image.height + line
    words = f"{findings.card.name} {findings.card.version}, {findings.slice_word} {k + 1} of {len(findings.labels)}"
    draw_words(draw, (line // 4, below + line // 8), words, line * 0.7, _WHITE)
    for row, segment in enumerate(named[:lines], 1):
        top = below + line * row
        more = f" and {len(named) - lines} more" if row == lines < len(named) else ""
        draw.rectangle((line // 4, top + line // 5, line, top + line - line // 5), fill=segment.colour)
        name = shown_words(segment.name, f"segment {segment.number}")
        draw_words(draw, (line + line // 2, top + line // 8), name + more, line * 0.7, _WHITE)
    return np.asarray(sheet)
