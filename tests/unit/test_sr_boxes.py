"""Boxes in a report lie where they lie in the patient and on the slice; what was not found is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset

from dicomnode.domain.findings import VolumeBox, image_boxes, volume_boxes
from dicomnode.encoding.check_boxes import check_boxes
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.results import warm_up
from dicomnode.encoding.sr_boxes import encode_image_boxes, encode_volume_boxes
from dicomnode.errors import NonConformant
from dicomnode.imaging.images import plan_images
from dicomnode.imaging.regions import central_region, faces
from dicomnode.imaging.volume import VolumePlan, plan_volume
from tests.made_outputs import BOXES, BOXES_IMAGES, box_of, on_image, radiographs, twice
from tests.made_results import MADE
from tests.made_series import AXIAL, CORONAL, OBLIQUE, SAGITTAL, classic, enhanced
from tests.unit.test_sr import groups, name, number, within
from tests.unit.test_sr_classes import read

SOURCES: dict[str, Callable[[], list[Dataset]]] = {
    "axial": lambda: classic(6),
    "reversed": lambda: classic(6)[::-1],
    "sagittal": lambda: classic(6, orientation=SAGITTAL),
    "coronal": lambda: classic(6, orientation=CORONAL),
    "oblique, pixels not square": lambda: classic(6, orientation=OBLIQUE, spacing=(0.7, 0.9)),
    "enhanced": lambda: [enhanced(6, order=[3, 0, 4, 1, 2, 5])],
}
LOW, HIGH = (1, 2, 3), (3, 6, 9)  # slices 1 to 3, rows 2 to 6, columns 3 to 9


def inside(box: VolumeBox, plan: VolumePlan) -> npt.NDArray[np.bool_]:
    """(slice, row, column): whose centre the faces enclose."""
    centre = np.array(box.centre_mm)
    places = plan.geometry.affine[:3, :3] @ np.indices(plan.geometry.shape).reshape(3, -1)
    places += plan.geometry.affine[:3, 3:]
    result = np.ones(places.shape[1], bool)
    for face in faces(box):
        normal = np.cross(face[1] - face[0], face[3] - face[0])
        side = np.sign(normal @ (centre - face[0]))
        result &= (normal @ (places - face[0][:, None])) * side >= 0
    return result.reshape(plan.geometry.shape)


@pytest.mark.parametrize("source", SOURCES)
def test_faces_and_outline_lie_where_the_voxels_lie(source: str) -> None:
    plan = plan_volume(SOURCES[source]())
    box = box_of(plan.geometry, LOW, HIGH)
    wanted = np.zeros(plan.geometry.shape, bool)
    wanted[1:4, 2:7, 3:10] = True
    np.testing.assert_array_equal(inside(box, plan), wanted)
    region = central_region(box, plan)
    assert region.slice_index == 2
    np.testing.assert_allclose(region.outline.min(0), [3, 2], atol=0.02)  # from edge to edge
    np.testing.assert_allclose(region.outline.max(0), [10, 7], atol=0.02)
    np.testing.assert_array_equal(region.outline[0], region.outline[-1])
    spacing = plan.frames[0].spacing_mm
    sides = sorted([5 * spacing[0], 7 * spacing[1]])
    np.testing.assert_allclose([region.width_mm, region.length_mm, region.depth_mm], [*sides, 7.5], atol=1e-3)


def test_a_tilted_stack_has_its_outline_on_the_slice() -> None:
    """Of a box on the straightened grid: upright where the slices are shifted against each other."""
    plan = plan_volume(classic(6, tilt_degrees=18.5))
    place = plan.geometry.affine @ [2, 5, 6, 1]
    box = VolumeBox(0, 0.9, tuple(place[:3]), ((0, 0, 2.5), (0, 1.6, 0), (2.4, 0, 0)))  # type: ignore[arg-type]
    region = central_region(box, plan)
    assert region.slice_index == 2
    np.testing.assert_allclose(region.outline.mean(0), region.outline.mean(0))
    np.testing.assert_allclose((region.outline.min(0) + region.outline.max(0)) / 2, [6.5, 5.5], atol=0.02)
    assert (round(region.length_mm, 3), round(region.width_mm, 3), round(region.depth_mm, 3)) == (4.8, 3.2, 5.0)


def said(group: Dataset) -> str:
    return str(next(within(group, "Finding")).ConceptCodeSequence[0].CodeMeaning)


def uid(group: Dataset) -> str:
    return str(next(within(group, "Tracking Unique Identifier")).UID)


@pytest.mark.parametrize("source", SOURCES)
def test_a_finding_is_a_region_and_a_body_under_one_tracking_uid(source: str) -> None:
    plan = plan_volume(SOURCES[source]())
    report = encode_volume_boxes(twice(plan.geometry), plan, BOXES, MADE)
    check_boxes(report, plan, BOXES)
    found = groups(read(report))
    assert [said(g) for g in found] == ["Nodule", "Nodule", "Cyst", "Cyst"]
    assert uid(found[0]) == uid(found[1]) != uid(found[2]) == uid(found[3])
    (region,) = within(found[0], "Image Region")
    assert (region.GraphicType, len(region.GraphicData)) == ("POLYLINE", 10)
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    k = central_region(twice(plan.geometry)[0], plan).slice_index
    assert reference.ReferencedSOPInstanceUID == plan.frames[k].sop_instance_uid
    if source == "enhanced":
        assert reference.ReferencedFrameNumber == plan.frames[k].number
    assert [number(i) for i in within(found[0], "Probability")] == [(0.875, "1")]
    assert {n for n in ("Length", "Width") if list(within(found[0], n))} == {"Length", "Width"}
    surface = list(within(found[1], "Volume Surface"))
    assert [s.GraphicType for s in surface] == ["POLYGON"] * 6
    assert {s.ReferencedFrameOfReferenceUID for s in surface} == {str(plan.first.FrameOfReferenceUID)}
    assert number(next(within(found[1], "Depth"))) == (5.0, "mm")


def test_what_was_not_found_is_said_of_each_class() -> None:
    plan = plan_volume(classic(6))
    nothing = encode_volume_boxes([], plan, BOXES, MADE)
    check_boxes(nothing, plan, BOXES)
    found = groups(read(nothing))
    assert [said(g) for g in found] == ["Nodule", "Cyst"]
    for group in found:
        (presence,) = within(group, "Presence of property")
        assert presence.ConceptCodeSequence[0].CodeMeaning == "Absent"
    one = encode_volume_boxes([box_of(plan.geometry, LOW, HIGH)], plan, BOXES, MADE)
    check_boxes(one, plan, BOXES)
    assert [said(g) for g in groups(read(one))] == ["Nodule", "Nodule", "Cyst"]
    assert nothing.SOPInstanceUID != one.SOPInstanceUID


@pytest.mark.parametrize("spacing", [True, False])
def test_boxes_on_radiographs(spacing: bool) -> None:
    """In mm only where the image says how large a pixel is in the patient."""
    plan = plan_images(radiographs(2, spacing=spacing))
    report = encode_image_boxes([on_image(1), on_image(0, number=1)], plan, BOXES_IMAGES, MADE)
    check_boxes(report, plan, BOXES_IMAGES)
    first, second = groups(read(report))
    (region,) = within(first, "Image Region")
    assert region.GraphicData == [2, 3.5, 10, 3.5, 10, 6.25, 2, 6.25, 2, 3.5]
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == plan.frames[1].sop_instance_uid
    length = number(next(within(first, "Length")))
    assert length == (pytest.approx(6.4), "mm") if spacing else (8.0, "{pixels}")
    assert said(second) == "Cyst"


def test_the_same_boxes_are_the_same_object() -> None:
    plan = plan_volume(classic(6))
    rows = [[10.0001, 20.0, 30.0, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0.90001, 0]]
    noise = [[10.00011, 20.00002, 30.0, -1e-9, 0, 1, 0, 2, 0, 3, 0, 0, 0.900012, 0]]
    first, again = (encode_volume_boxes(volume_boxes(r), plan, BOXES, MADE) for r in (rows, noise))
    assert to_part10_bytes(first) == to_part10_bytes(again)
    (box,) = image_boxes([[1.0, 2.001, 3.0, 4.0, 5.0, 0.51239, 1.0]])
    assert (box.image, box.low, box.high, box.score, box.number) == (1, (2.0, 3.0), (4.0, 5.0), 0.5124, 1)


def test_the_encoder_warms_up_with_such_a_card() -> None:
    warm_up(BOXES, MADE)
    warm_up(BOXES_IMAGES, MADE)


def _item(report: Dataset, group: int, what: str) -> Any:
    return next(within(groups(report)[group], what))


def _drop(report: Dataset, group: int, what: str) -> None:
    place = groups(report)[group]
    place.ContentSequence = [item for item in place.ContentSequence if name(item) != what]


def _drop_group(report: Dataset, number: int) -> None:
    container = next(i for i in report.ContentSequence if name(i) == "Imaging Measurements")
    container.ContentSequence = [g for n, g in enumerate(container.ContentSequence) if n != number]


def _open_line(report: Dataset) -> None:
    region = _item(report, 0, "Image Region")
    region.GraphicData = [*region.GraphicData[:-2], 0.0, 0.0]


def _off_image(report: Dataset) -> None:
    region = _item(report, 0, "Image Region")
    region.GraphicData = [v + 100 for v in region.GraphicData]


def _other_image(report: Dataset) -> None:
    region = _item(report, 0, "Image Region")
    region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.9"


def _elsewhere(report: Dataset) -> None:
    for face in within(groups(report)[1], "Volume Surface"):
        face.GraphicData = [v + 500 for v in face.GraphicData]


def _other_frame(report: Dataset) -> None:
    _item(report, 1, "Volume Surface").ReferencedFrameOfReferenceUID = "2.25.9"


def _other_class(report: Dataset) -> None:
    _item(report, 0, "Finding").ConceptCodeSequence[0].CodeValue = "1"


def _too_probable(report: Dataset) -> None:
    _item(report, 0, "Probability").MeasuredValueSequence[0].NumericValue = "1.5"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_open_line, "no closed line"),
        (_off_image, "leaves its image"),
        (_other_image, "which is not in the evidence"),
        (_elsewhere, "leaves the source's volume"),
        (_other_frame, "another frame of reference"),
        (_other_class, "none of the card's classes"),
        (_too_probable, "1.5"),
        (lambda r: _drop(r, 0, "Tracking Unique Identifier"), "112040"),
        (lambda r: _drop(r, 0, "Image Region"), "neither shows where"),
        (lambda r: _drop_group(r, 0), "not one region on an image"),
        (lambda r: _drop_group(r, 2), "does not say of every class"),
        (lambda r: setattr(r, "StudyInstanceUID", "2.25.8"), "another study"),
    ],
)
def test_the_check_finds_what_is_wrong(spoil: Callable[[Dataset], None], words: str) -> None:
    plan = plan_volume(classic(6, orientation=AXIAL))
    report = encode_volume_boxes([replace(box_of(plan.geometry, LOW, HIGH), score=0.5)], plan, BOXES, MADE)
    check_boxes(report, plan, BOXES)
    spoil(report)
    with pytest.raises(NonConformant, match=words):
        check_boxes(report, plan, BOXES)
