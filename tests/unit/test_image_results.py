"""Masks of single images as SEG and SR: what they say, where, and what the gate refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO

from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.encoding.check_images import check_image_report, check_image_segmentation
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.results import EncodedResult
from dicomnode.encoding.results_of_images import encode_image_results
from dicomnode.encoding.seg_masks import overlap, read_masks, together
from dicomnode.errors import NonConformant
from dicomnode.imaging.decode import read_frames
from dicomnode.imaging.headers import read_instances
from dicomnode.imaging.images import ImagesPlan, plan_images
from dicomnode.imaging.masked_images import MaskedInstance, RegionStatistics, masked_instances, measured
from dicomnode.imaging.masks import SegmentMasks
from tests.made_images import cine, f_plane, image
from tests.made_series import write
from tests.output_cards import document, segment
from tests.unit.test_sr import groups, within

MADE = Provenance("0.1", "NODE", "ab" * 32, "engine", "fp32", "rule", 1, datetime(2026, 11, 20, tzinfo=UTC))


def card(**output: Any) -> ModelCard:
    segments = [{**segment(1), "diameter": True}, segment(2)]
    return parse_model_card(document("flat", {"segments": segments, **output}, of_images=True))


class Marked:
    """Images on disk, read as a job would, with the F on each; `empty`: numbers of those with nothing."""

    def __init__(self, folder: Path, images: Sequence[Dataset], empty: Sequence[int] = (), **output: Any) -> None:
        self.card = card(**output)
        instances = read_instances(write(images, folder))
        self.plan: ImagesPlan = plan_images([one.header for one in instances])
        values, masks = [], []
        for stack in self.plan.stacks:
            values.append(np.zeros(stack.shape, dtype=np.int16))
            read_frames(stack, instances, values[-1])
            labels = np.stack([f_plane(stack.shape[1:]) * (k not in empty) for k in stack.indices]).astype(np.uint8)
            odds = np.stack([np.where(labels == n, 255, 20 * (labels > 0)) for n in (1, 2)]).astype(np.uint8)
            overlap = self.card.masks.overlap
            masks.append(SegmentMasks(None if overlap else labels, odds))
        self.instances: list[MaskedInstance] = masked_instances(self.plan, values, masks)
        self.statistics: list[RegionStatistics] = measured(self.instances, [1, 2], {1})
        self.results: tuple[EncodedResult, ...] = encode_image_results(
            self.instances, self.statistics, self.plan, self.card, MADE
        )

    def of(self, kind: str) -> list[Dataset]:
        return [pydicom.dcmread(DicomBytesIO(bytes(r.content))) for r in self.results if r.kind == kind]


def raw_frames(segmentation: Dataset) -> npt.NDArray[np.uint8]:
    """(frame, row, column) from the bytes alone, by no library (PS3.5 8.1.1)."""
    bits = np.unpackbits(np.frombuffer(segmentation.PixelData, np.uint8), bitorder="little")
    shape = (int(segmentation.NumberOfFrames), int(segmentation.Rows), int(segmentation.Columns))
    return bits[: int(np.prod(shape))].reshape(shape)


def test_an_f_on_a_radiograph_is_where_it_was_put(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image(shape=(43, 29))])  # 43 × 29 pixels end within a byte
    (made,) = marked.of("SEG")
    plane = f_plane((43, 29))
    np.testing.assert_array_equal(raw_frames(made), [plane == 1, plane == 2])
    read = hd.seg.Segmentation.from_dataset(made)
    source = str(marked.plan.first.SOPInstanceUID)
    found = read.get_pixels_by_source_instance([source], combine_segments=True)
    np.testing.assert_array_equal(found[0], plane)


def test_it_has_no_place_but_that_of_its_image(tmp_path: Path) -> None:
    (made,) = Marked(tmp_path, [image(modality="MG", ImageLaterality="R", PatientOrientation=["P", "FL"])]).of("SEG")
    assert "FrameOfReferenceUID" not in made
    for group in (*made.SharedFunctionalGroupsSequence, *made.PerFrameFunctionalGroupsSequence):
        assert not {"PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"} & set(group.dir())
    assert (list(made.PatientOrientation), made.ImageLaterality) == (["P", "FL"], "R")


def test_views_of_several_sizes_have_a_segmentation_each(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image(1, (40, 24)), image(2, (24, 40)), image(3, (40, 24))], empty=[1])
    made = marked.of("SEG")
    assert [(s.Rows, s.Columns) for s in made] == [(40, 24), (40, 24)]
    assert len({s.SeriesInstanceUID for s in made}) == 2
    named = [s.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID for s in made]
    assert named == [frame.sop_instance_uid for k, frame in enumerate(marked.plan.frames) if k != 1]
    (report,) = marked.of("SR")
    absent = [g for g in groups(report) if any(within(g, "Presence of property"))]
    assert len(absent) == 2  # both segments of the second image
    assert len({s.TrackingUID for one in made for s in one.SegmentSequence}) == 4


def test_frames_of_a_cine_are_frames_of_one_segmentation(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [cine(4)], empty=[2])
    (made,) = marked.of("SEG")
    sources = [
        g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for g in made.PerFrameFunctionalGroupsSequence
    ]
    assert sources == [1, 2, 4, 1, 2, 4]
    plane = f_plane((21, 35))
    np.testing.assert_array_equal(raw_frames(made), [plane == 1] * 3 + [plane == 2] * 3)
    found = hd.seg.Segmentation.from_dataset(made).get_pixels_by_source_frame(
        str(marked.plan.first.SOPInstanceUID), [1, 2, 4], combine_segments=True
    )
    np.testing.assert_array_equal(found, [plane] * 3)


def test_probabilities_are_kept_as_they_are(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image()], kind="both")
    assert [r.kind for r in marked.results] == ["SEG", "SEG-PROB", "SR"]
    (made,) = marked.of("SEG-PROB")
    plane = f_plane((43, 29))
    pixels = np.frombuffer(made.PixelData, np.uint8)[: 2 * plane.size].reshape(2, *plane.shape)
    np.testing.assert_array_equal(pixels, [np.where(plane == n, 255, 20 * (plane > 0)) for n in (1, 2)])


def test_masks_that_overlap(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image()], channels="independent")
    plane = f_plane((43, 29))
    np.testing.assert_array_equal(raw_frames(marked.of("SEG")[0]), [plane == 1, plane == 2])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_measurements_are_of_the_files_own_values(tmp_path: Path, photometric: str) -> None:
    """A model sees MONOCHROME1 inverted; the radiologist's measuring tool does not."""
    one = image(
        PhotometricInterpretation=photometric, RescaleSlope=2, RescaleIntercept=-5, RescaleType="US",
        EstimatedRadiographicMagnificationFactor=1.25,
    )  # fmt: skip
    marked = Marked(tmp_path, [one])
    (report,) = marked.of("SR")
    plane, values = f_plane((43, 29)) == 1, one.pixel_array * 2.0 - 5.0
    group = groups(report)[0]
    numbers = [i.MeasuredValueSequence[0] for i in group.ContentSequence if i.ValueType == "NUM"]
    inside = values[plane]
    expected = [plane.sum() * 0.16 * 0.08, inside.mean(), inside.min(), inside.max(), inside.std()]
    np.testing.assert_allclose([float(one.NumericValue) for one in numbers], expected, rtol=1e-5)
    units = [one.MeasurementUnitsCodeSequence[0].CodeValue for one in numbers]
    assert units == ["mm2", "1", "1", "1", "1"]


def test_the_longest_line_is_drawn_on_the_image(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image(EstimatedRadiographicMagnificationFactor=1)])
    (report,) = marked.of("SR")
    (drawn,) = [g for g in groups(report) if any(within(g, "Long axis"))]
    axis = next(within(drawn, "Long axis"))
    (line,) = [i for i in axis.ContentSequence if i.ValueType == "SCOORD"]
    left, top, right, bottom = line.GraphicData
    length = float(axis.MeasuredValueSequence[0].NumericValue)
    assert length == pytest.approx(np.hypot((right - left) * 0.1, (bottom - top) * 0.2), rel=1e-4)
    # no two corners of its pixels are farther apart
    corners = np.argwhere(f_plane((43, 29)) == 1)[:, None] + [[0, 0], [0, 1], [1, 0], [1, 1]]
    apart = corners.reshape(-1, 1, 2) - corners.reshape(1, -1, 2)
    longest = np.hypot(*(apart * [0.2, 0.1]).reshape(-1, 2).T).max()
    assert longest - 0.25 < length <= longest
    image_of = line.ContentSequence[0].ReferencedSOPSequence[0]
    assert image_of.ReferencedSOPInstanceUID == marked.plan.first.SOPInstanceUID


def test_without_a_pixel_size_areas_are_pixels(tmp_path: Path) -> None:
    (report,) = Marked(tmp_path, [image()]).of("SR")
    value = next(within(groups(report)[0], "Area")).MeasuredValueSequence[0]
    assert value.NumericValue == (f_plane((43, 29)) == 1).sum()
    assert value.MeasurementUnitsCodeSequence[0].CodeValue == "{pixels}"


def test_nothing_found_is_said_of_each_image(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image(1), image(2)], empty=[0, 1])
    assert [r.kind for r in marked.results] == ["SR"]
    assert len(groups(marked.of("SR")[0])) == 4


def test_the_same_again_is_the_same_object(tmp_path: Path) -> None:
    series = [image(1), image(2)]
    first, again = (Marked(tmp_path / name, series).results for name in ("a", "b"))
    assert [bytes(r.content) for r in first] == [bytes(r.content) for r in again]
    other = Marked(tmp_path / "c", series, empty=[1]).results
    assert other[0].sop_instance_uid == first[0].sop_instance_uid
    assert other[-1].sop_instance_uid != first[-1].sop_instance_uid


# ---------------------------------------------------------------------------------------------------- the gate


def _other_size(d: Dataset) -> None:
    d.Rows += 1


def _placed(d: Dataset) -> None:
    d.FrameOfReferenceUID = "2.25.7"


def _turned(d: Dataset) -> None:
    d.PatientOrientation = ["R", "F"]


def _other_side(d: Dataset) -> None:
    d.ImageLaterality = "L"


def _another_image(d: Dataset) -> None:
    d.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[
        0
    ].ReferencedSOPInstanceUID = "2.25.8"


def _another_series(d: Dataset) -> None:
    d.ReferencedSeriesSequence[0].SeriesInstanceUID = "2.25.9"


def _measured(d: Dataset) -> None:
    d.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [Dataset()]


def _no_such_segment(d: Dataset) -> None:
    d.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 3


def _twice(d: Dataset) -> None:
    d.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1


def _not_indexed(d: Dataset) -> None:
    del d.PerFrameFunctionalGroupsSequence[0].FrameContentSequence


def _wrongly_indexed(d: Dataset) -> None:
    d.PerFrameFunctionalGroupsSequence[1].FrameContentSequence[0].DimensionIndexValues = 1


def _of_two_segments(d: Dataset) -> None:
    d.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence.append(Dataset())


def _secondary(d: Dataset) -> None:
    d.ImageType = ["DERIVED", "SECONDARY"]


def _without_loss(d: Dataset) -> None:
    d.LossyImageCompression = "00"


def _inverted(d: Dataset) -> None:
    d.PhotometricInterpretation = "MONOCHROME1"


LOSSY = {
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 12,
    "LossyImageCompressionMethod": "ISO_10918_1",
}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_secondary, "ImageType of the segmentation"),
        (_without_loss, "LossyImageCompression of the segmentation is '00', not '01'"),
        (_inverted, "PhotometricInterpretation of the segmentation"),
        (_other_size, "44 × 29 pixels, its image has 43 × 29"),
        (_placed, "FrameOfReferenceUID"),
        (_turned, "PatientOrientation differs"),
        (_other_side, "ImageLaterality differs"),
        (_another_image, "does not name the image that it was made of"),
        (_another_series, "ReferencedSeriesSequence"),
        (_measured, "PixelMeasuresSequence without a frame of reference"),
        (_no_such_segment, "segment 3, which is not described"),
        (_twice, "repeats segment 1"),
        (_not_indexed, "frame 1 has 0 DimensionIndexValues"),
        (_wrongly_indexed, "frame 2 has the DimensionIndexValues of another"),
        (_of_two_segments, "frame 1 is of segment None"),
    ],
)
def test_what_does_not_lie_on_its_image_is_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    marked = Marked(tmp_path, [image(ImageLaterality="R", **LOSSY)])
    (made,) = marked.of("SEG")
    length = len(made.PixelData)
    check_image_segmentation(made, marked.instances[0], marked.plan, pixel_bytes=length)
    spoil(made)
    with pytest.raises(NonConformant, match=words):
        check_image_segmentation(made, marked.instances[0], marked.plan, pixel_bytes=length)


def test_frames_of_a_cine_are_indexed_in_their_order(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [cine(4)], empty=[2])
    (made,) = marked.of("SEG")
    first, second, *_ = made.PerFrameFunctionalGroupsSequence
    first.FrameContentSequence, second.FrameContentSequence = second.FrameContentSequence, first.FrameContentSequence
    with pytest.raises(NonConformant, match="not in the order of the slices"):
        check_image_segmentation(made, marked.instances[0], marked.plan, pixel_bytes=len(made.PixelData))


def test_loss_is_that_of_the_image_and_of_no_other(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image(1), image(2, **LOSSY)], kind="both")
    for kind in ("SEG", "SEG-PROB"):
        plain, lossy = marked.of(kind)
        found = (lossy.LossyImageCompression, lossy.LossyImageCompressionRatio, lossy.LossyImageCompressionMethod)
        assert (plain.LossyImageCompression, found) == ("00", ("01", 12, "ISO_10918_1"))


def _references(report: Dataset) -> list[Dataset]:
    return [next(within(g, "Referenced Segmentation Frame")).ReferencedSOPSequence[0] for g in groups(report)[:1]]


def _other_frame(report: Dataset) -> None:
    _references(report)[0].ReferencedFrameNumber = 2  # which is of the other segment


def _no_frame(report: Dataset) -> None:
    _references(report)[0].ReferencedFrameNumber = 9


def _no_segmentation(report: Dataset) -> None:
    _references(report)[0].ReferencedSOPInstanceUID = "2.25.8"


def _other_image(report: Dataset) -> None:
    next(within(groups(report)[0], "Source Image for Segmentation")).ReferencedSOPSequence[
        0
    ].ReferencedSOPInstanceUID = "2.25.8"


def _one_less(report: Dataset) -> None:
    container = next(i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010")
    del container.ContentSequence[-1]


def _line(report: Dataset) -> Dataset:
    (line,) = next(within(groups(report)[1], "Long axis")).ContentSequence[-1:]
    assert isinstance(line, Dataset)
    return line


def _off_the_image(report: Dataset) -> None:
    _line(report).GraphicData = [-1.0, 0.0, 5.0, 5.0]


def _no_graphic(report: Dataset) -> None:
    _line(report).GraphicType = "SPLINE"


def _another_graphic(report: Dataset) -> None:
    _line(report).GraphicType = "POINT"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_other_frame, "a frame of another segment"),
        (_no_frame, "frame 9, which the segmentation does not have"),
        (_no_segmentation, "which is not in the evidence"),
        (_other_image, "which is not in the evidence"),
        (_one_less, "does not say of every image once"),
        (_no_graphic, "'SPLINE', which there is not"),
        (_another_graphic, "is a POINT of 2 points, 1 are needed"),
        (_off_the_image, "leaves its image"),
    ],
)
def test_a_report_of_something_else_is_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    marked = Marked(tmp_path, [image()])
    (report,), (made,) = marked.of("SR"), marked.of("SEG")
    made_of = {str(marked.plan.first.SOPInstanceUID): made}
    check_image_report(report, marked.statistics, marked.plan, marked.card, made_of)
    spoil(report)
    with pytest.raises(NonConformant, match=words):
        check_image_report(report, marked.statistics, marked.plan, marked.card, made_of)


def test_the_number_of_an_area_is_above_zero(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image()])
    spoiled = [replace(one, pixels=-one.pixels) for one in marked.statistics]
    with pytest.raises(NonConformant, match="below zero"):
        encode_image_results(marked.instances, spoiled, marked.plan, marked.card, MADE)


# ------------------------------------------------------------------------------------------- two versions compared


def test_masks_of_two_versions_are_compared_image_by_image(tmp_path: Path) -> None:
    series = [image(1, (40, 24)), image(2, (24, 40))]
    found = []
    for name, empty in (("a", []), ("b", [1])):
        marked = Marked(tmp_path / name, series, empty)
        for number, result in enumerate(r for r in marked.results if r.kind == "SEG"):
            (tmp_path / f"{name}{number}.dcm").write_bytes(result.content)
        found.append(together([read_masks(path) for path in sorted(tmp_path.glob(f"{name}?.dcm"))]))
    both = overlap(*found, "Class 1")
    pixels = [(f_plane(shape) == 1).sum() for shape in ((40, 24), (24, 40))]
    assert (both.first, both.second, both.both) == (sum(pixels), pixels[0], pixels[0])
