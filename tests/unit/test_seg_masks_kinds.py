"""Masks that overlap and probabilities as segmentations: read back voxel for voxel, and checked."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset, dcmread

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_segmentation
from dicomnode.encoding.results import EncodedResult, encode_results, warm_up
from dicomnode.errors import NonConformant
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.masks import SegmentMasks, drop_small_parts
from dicomnode.imaging.measure import measure_masks
from dicomnode.imaging.volume import VolumePlan, plan_volume
from tests.made_outputs import BOTH, OVERLAP, PROBABILITIES, exclusive, overlapping
from tests.made_results import MADE
from tests.made_series import classic, pixels
from tests.unit.test_sr import groups, name, within
from tests.unit.test_sr_boxes import SOURCES


def encoded(masks: SegmentMasks, plan: VolumePlan, card: ModelCard) -> dict[str, EncodedResult]:
    statistics = measure_masks(masks, pixels(plan.geometry.shape), plan.geometry, plan.rescale, [1, 2])
    return {result.kind: result for result in encode_results(masks, statistics, plan, card, MADE)}


def contents(results: dict[str, EncodedResult]) -> dict[str, bytes]:
    return {kind: result.content for kind, result in results.items()}


def read(result: EncodedResult) -> Dataset:
    with odd_values_accepted():
        return dcmread(io.BytesIO(result.content))


def by_segment(result: EncodedResult, plan: VolumePlan) -> npt.NDArray[np.uint8]:
    """(segment, slice, row, column) as highdicom reads the file, at the plan's slices."""
    seg = hd.seg.segread(io.BytesIO(result.content))
    found = np.zeros((2, *plan.geometry.shape), np.uint8)
    slices = {tuple(np.round(f.position_mm, 3)): k for k, f in enumerate(plan.frames)}
    frames = seg.pixel_array.reshape(-1, *plan.geometry.shape[1:])
    shared = seg.SharedFunctionalGroupsSequence[0]
    for pixels_of, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else shared
        number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = tuple(np.round(group.PlanePositionSequence[0].ImagePositionPatient, 3))
        found[number - 1, slices[place]] = pixels_of
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_masks_that_overlap_are_one_binary_segmentation(source: str) -> None:
    plan = plan_volume(SOURCES[source]())
    masks = overlapping(plan.geometry.shape)
    results = encoded(masks, plan, OVERLAP)
    assert list(results) == ["SEG", "SR"]
    found = by_segment(results["SEG"], plan)
    np.testing.assert_array_equal(found, [masks.of(1), masks.of(2)])
    assert (found.sum(0) == 2).any()
    assert read(results["SEG"]).SegmentationType == "BINARY"


@pytest.mark.parametrize("source", SOURCES)
def test_probabilities_are_a_fractional_segmentation(source: str) -> None:
    plan = plan_volume(SOURCES[source]())
    masks = exclusive(plan.geometry.shape)
    results = encoded(masks, plan, BOTH)
    assert list(results) == ["SEG", "SEG-PROB", "SR"]
    np.testing.assert_array_equal(by_segment(results["SEG-PROB"], plan), masks.probabilities)
    np.testing.assert_array_equal(by_segment(results["SEG"], plan), [masks.of(1), masks.of(2)])
    made = read(results["SEG-PROB"])
    kind = (made.SegmentationType, made.SegmentationFractionalType, made.MaximumFractionalValue)
    assert kind == ("FRACTIONAL", "PROBABILITY", 255)
    assert made.SeriesNumber != read(results["SEG"]).SeriesNumber


def test_probabilities_alone_are_what_the_report_refers_to() -> None:
    plan = plan_volume(classic(5))
    results = encoded(overlapping(plan.geometry.shape), plan, PROBABILITIES)
    assert list(results) == ["SEG-PROB", "SR"]
    (reference,) = within(groups(read(results["SR"]))[0], "Referenced Segment")
    uid = reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert uid == results["SEG-PROB"].sop_instance_uid


@pytest.mark.parametrize("card", [OVERLAP, BOTH, PROBABILITIES])
def test_nothing_found_is_a_report_that_says_so(card: ModelCard) -> None:
    plan = plan_volume(classic(5))
    shape = plan.geometry.shape
    labels = None if card.masks.overlap else np.zeros(shape, np.uint8)
    masks = SegmentMasks(labels, np.full((2, *shape), 100, np.uint8))
    results = encoded(masks, plan, card)
    assert list(results) == ["SR"]
    for group in groups(read(results["SR"])):
        (presence,) = within(group, "Presence of property")
        assert presence.ConceptCodeSequence[0].CodeMeaning == "Absent"
        assert "Volume" not in {name(item) for item in group.ContentSequence}


def test_each_segment_is_measured_by_itself() -> None:
    plan = plan_volume(classic(5))
    masks, volume = overlapping(plan.geometry.shape), pixels(plan.geometry.shape)
    for found in measure_masks(masks, volume, plan.geometry, plan.rescale, [1, 2]):
        mask = masks.of(found.segment_number)
        assert found.voxels == mask.sum()
        assert found.mean == pytest.approx(volume[mask].mean() - 1000)


def test_a_threshold_is_where_a_probability_counts() -> None:
    probabilities = np.array([0, 76, 77, 127, 128, 255], np.uint8).reshape(1, 1, 1, 6)
    for threshold, wanted in ((0.5, [0, 0, 0, 0, 1, 1]), (0.3, [0, 0, 1, 1, 1, 1]), (0.0, [0, 1, 1, 1, 1, 1])):
        np.testing.assert_array_equal(SegmentMasks(None, probabilities, threshold).of(1).ravel(), wanted)


def test_small_parts_lose_their_probability() -> None:
    probabilities = np.zeros((1, 1, 4, 6), np.uint8)
    probabilities[0, 0, 0:2, 0:3], probabilities[0, 0, 3, 5], probabilities[0, 0, 3, 0] = 200, 200, 50
    masks = SegmentMasks(None, probabilities)
    drop_small_parts(masks, 1000.0, 2.0)
    assert (masks.of(1).sum(), probabilities[0, 0, 3, 5], probabilities[0, 0, 3, 0]) == (6, 0, 50)
    labels = (probabilities[0] > 100).astype(np.uint8)
    labels[0, 3, 5] = 1
    both = SegmentMasks(labels, np.where(labels, 200, 9)[None].astype(np.uint8))
    drop_small_parts(both, 1000.0, 2.0)
    assert both.probabilities is not None
    assert (labels.sum(), both.probabilities[0, 0, 3, 5], both.probabilities[0, 0, 2, 2]) == (6, 0, 9)


def test_the_same_masks_are_the_same_objects() -> None:
    plan = plan_volume(classic(5))
    masks = exclusive(plan.geometry.shape)
    first, again = encoded(masks, plan, BOTH), encoded(masks, plan, BOTH)
    assert contents(first) == contents(again)
    assert masks.probabilities is not None
    other = encoded(replace(masks, probabilities=masks.probabilities // 2), plan, BOTH)
    assert contents(other)["SEG"] == contents(first)["SEG"]
    assert other["SEG-PROB"].sop_instance_uid != first["SEG-PROB"].sop_instance_uid


def test_the_encoder_warms_up_with_such_a_card() -> None:
    for card in (OVERLAP, BOTH, PROBABILITIES):
        warm_up(card, MADE)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: setattr(d, "SegmentationType", "BINARY"), "the segmentation's type is BINARY PROBABILITY"),
        (lambda d: setattr(d, "SegmentationFractionalType", "OCCUPANCY"), "type is FRACTIONAL OCCUPANCY"),
        (lambda d: setattr(d, "MaximumFractionalValue", 100), "255 stands for"),
        (lambda d: setattr(d, "BitsAllocated", 1), "8 bits are stored in 1"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "bytes of pixel data"),
    ],
)
def test_the_check_finds_what_is_wrong(spoil: Callable[[Dataset], None], words: str) -> None:
    plan = plan_volume(classic(5))
    made = read(encoded(exclusive(plan.geometry.shape), plan, BOTH)["SEG-PROB"])
    check_segmentation(made, plan, fractional=True)
    with pytest.raises(NonConformant, match="type is FRACTIONAL"):
        check_segmentation(made, plan)
    spoil(made)
    with pytest.raises(NonConformant, match=words):
        check_segmentation(made, plan, fractional=True)
