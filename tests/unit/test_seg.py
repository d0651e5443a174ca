"""A label map becomes a SEG that says the same, in the source's own planes, whoever reads it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode.domain.model_card import Segment
from dicomnode.encoding.check import check_segmentation
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.seg import coded, encode_segmentation
from dicomnode.encoding.source import source_frames
from dicomnode.errors import EncodingError
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.volume import plan_volume
from tests.made_results import CARD, MADE, result, two_fs
from tests.made_series import AXIAL, CORONAL, OBLIQUE, SAGITTAL, classic, enhanced

SOURCES: dict[str, Callable[[], list[Dataset]]] = {
    "axial": classic,
    "reversed": lambda: classic()[::-1],
    "coronal": lambda: classic(orientation=CORONAL),
    "sagittal": lambda: classic(orientation=SAGITTAL),
    "oblique": lambda: classic(orientation=OBLIQUE, spacing=(0.7, 0.9)),
    "tilted": lambda: classic(tilt_degrees=18.5),
    "MR": lambda: classic(modality="MR"),
    "PET": lambda: classic(modality="PT"),
    "odd number of pixels": lambda: classic(rows=13, columns=15),
    "enhanced CT": lambda: [enhanced()],
    "enhanced MR in another order": lambda: [enhanced(modality="MR", order=[3, 0, 4, 1, 2], orientation=OBLIQUE)],
    "two enhanced": lambda: [enhanced(4, name="1", first=3), enhanced(3, name="0")],
}


def written(dataset: Dataset | None) -> Dataset:
    assert dataset is not None
    with odd_values_accepted():
        return dcmread(io.BytesIO(to_part10_bytes(dataset)))


def masks_in_space(seg: Dataset) -> dict[tuple[int, tuple[float, ...]], np.ndarray]:
    """What PS3.3 C.7.6.16 and C.8.20 say is where: (segment, position of the plane) → (row, column) mask."""
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    size = seg.Rows * seg.Columns
    found = {}
    for k, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = tuple(round(float(v), 3) for v in group.PlanePositionSequence[0].ImagePositionPatient)
        found[segment, place] = bits[k * size : (k + 1) * size].reshape(seg.Rows, seg.Columns)
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_every_voxel_is_where_it_was(name: str) -> None:
    plan, labels, seg, _ = result(SOURCES[name]())
    found = masks_in_space(written(seg))

    for k, frame in enumerate(plan.frames):
        place = tuple(round(v, 3) for v in frame.position_mm)
        for segment in (1, 2):
            expected = labels[k] == segment
            if expected.any():
                np.testing.assert_array_equal(found.pop((segment, place)), expected)
    assert found == {}


@pytest.mark.parametrize("segments", [[0, 1, 2], [0, 2, 2], [1, 2, 1]], ids=["both", "one of two", "everywhere"])
@pytest.mark.parametrize("name", SOURCES)
def test_frames_are_what_highdicom_makes_of_the_whole_label_map(name: str, segments: list[int]) -> None:
    plan = plan_volume(SOURCES[name]())
    labels = np.array(segments, np.uint8)[two_fs(plan.geometry.shape)]
    seg = result(SOURCES[name](), labels)[2]
    sources = source_frames(plan)
    made: Dataset = hd.seg.Segmentation(
        source_images=list(sources.headers),
        pixel_array=labels,
        segmentation_type="BINARY",
        segment_descriptions=[_description(s) for s in CARD.segments],
        series_instance_uid="2.25.1",
        series_number=1,
        sop_instance_uid="2.25.2",
        instance_number=1,
        manufacturer="dicomnode",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    sources.mend(made)

    assert seg is not None
    assert written(seg).NumberOfFrames == made.NumberOfFrames
    assert written(seg).PerFrameFunctionalGroupsSequence == written(made).PerFrameFunctionalGroupsSequence
    assert written(seg).SharedFunctionalGroupsSequence == written(made).SharedFunctionalGroupsSequence
    bits = made.NumberOfFrames * made.Rows * made.Columns
    for ours, theirs in zip(_bits(seg, bits), _bits(made, bits), strict=True):
        assert ours == theirs


def _bits(seg: Dataset, count: int) -> list[int]:
    bits: list[int] = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little", count=count).tolist()
    return bits


def _description(segment: Segment) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name,
        segmented_property_category=coded(segment.category),
        segmented_property_type=coded(segment.type),
        algorithm_type="MANUAL",
    )


@pytest.mark.parametrize("segments", [1, 255])
def test_from_one_segment_to_as_many_as_there_can_be(segments: int) -> None:
    numbered = tuple(replace(CARD.segments[0], number=n, name=f"S{n}") for n in range(1, segments + 1))
    card = replace(CARD, output=replace(CARD.output, segments=numbered))
    plan = plan_volume(classic(5, rows=13, columns=15))
    labels = (np.arange(5 * 13 * 15) % (segments + 1)).astype(np.uint8).reshape(5, 13, 15)
    file = encode_segmentation(labels, plan, card, MADE)

    assert file is not None
    seg = dcmread(io.BytesIO(file.content))
    check_segmentation(seg, plan)
    read = hd.seg.Segmentation.from_dataset(seg, copy=False)
    volume = read.get_volume(combine_segments=True)
    to_ours = np.linalg.inv(plan.geometry.affine) @ volume.affine
    indices = np.indices(volume.array.shape).reshape(3, -1)
    ours = np.rint(to_ours[:3, :3] @ indices + to_ours[:3, 3:]).astype(int)
    np.testing.assert_array_equal(labels[tuple(ours)], volume.array.ravel())


def test_what_does_not_fit_an_element_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.encoding.seg_file._LONGEST", 100)
    with pytest.raises(EncodingError, match="fewer segments"):
        result()


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"tilted"}))
def test_highdicom_reads_the_label_map_back_in_patient_space(name: str) -> None:
    plan, labels, seg, _ = result(SOURCES[name]())
    read = hd.seg.Segmentation.from_dataset(written(seg), copy=False)
    volume = read.get_volume(combine_segments=True)

    # every voxel of the volume that was read, by way of the patient, to the voxel of ours that lies there
    to_ours = np.linalg.inv(plan.geometry.affine) @ volume.affine
    indices = np.indices(volume.array.shape).reshape(3, -1)
    ours = np.rint(to_ours[:3, :3] @ indices + to_ours[:3, 3:]).astype(int)
    np.testing.assert_array_equal(labels[tuple(ours)], volume.array.ravel())
    assert np.count_nonzero(volume.array) == np.count_nonzero(labels)


@pytest.mark.parametrize("name", ["enhanced CT", "enhanced MR in another order", "two enhanced"])
def test_frames_name_the_source_frame_they_come_from(name: str) -> None:
    plan, _, seg, _ = result(SOURCES[name]())
    by_source = {(f.sop_instance_uid, f.number): f for f in plan.frames}
    for group in written(seg).PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        frame = by_source[source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber]
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, frame.position_mm)
    [series] = written(seg).ReferencedSeriesSequence
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence} == {
        h.SOPInstanceUID for h in plan.headers
    }
    assert len(series.ReferencedInstanceSequence) == len(plan.headers)


def test_an_empty_mask_is_no_segmentation() -> None:
    plan = plan_volume(classic())
    assert encode_segmentation(np.zeros(plan.geometry.shape, np.uint8), plan, CARD, MADE) is None


def test_frames_without_voxels_are_left_out() -> None:
    labels = np.zeros((5, 12, 16), np.uint8)
    labels[1, 3, 4], labels[3, 2:4, 4] = 1, 2
    _, _, seg, _ = result(labels=labels)

    assert written(seg).NumberOfFrames == 2
    assert [s.SegmentLabel for s in written(seg).SegmentSequence] == ["Lungs", "Bone"]


def test_the_same_result_is_the_same_object_byte_for_byte() -> None:
    first, again = (to_part10_bytes(r) for r in (result()[2], result()[2]) if r is not None)
    assert first == again


@pytest.mark.parametrize(
    "change",
    [{"model_digest": "cd" * 32}, {"rule_name": "other"}, {"precision": "bf16"}, {"parameters": {"overlap": 0.5}}],
)
def test_another_way_of_making_it_is_another_object(change: dict[str, object]) -> None:
    assert written(result(**change)[2]).SOPInstanceUID != written(result()[2]).SOPInstanceUID


@pytest.mark.parametrize(
    "change", [{"rule_revision": 3}, {"job_id": "j-8"}, {"parameters": {"overlap": 0.25, "minimum_volume_ml": 0.0}}]
)
def test_what_changes_nothing_of_the_result_makes_no_other_object(change: dict[str, object]) -> None:
    """Another revision of the rule, another job, and parameters that are named and left as the card has them."""
    for one, other in zip(result(**change)[2:], result()[2:], strict=True):
        assert written(one).SOPInstanceUID == written(other).SOPInstanceUID


def test_the_same_mask_on_other_images_is_another_object() -> None:
    """One slice is another instance: its reference is another, so the object must be; so for an empty report."""
    empty = np.zeros((5, 12, 16), np.uint8)
    changed = classic()
    changed[2].SOPInstanceUID = "2.25.777"
    assert written(result(changed)[2]).SOPInstanceUID != written(result()[2]).SOPInstanceUID
    assert result(changed, empty)[3].SOPInstanceUID != result(None, empty)[3].SOPInstanceUID
    longer = result(classic(6), np.zeros((6, 12, 16), np.uint8))[3]
    assert longer.SOPInstanceUID != result(None, empty)[3].SOPInstanceUID  # nothing found in six images, not in five


def test_the_parameters_are_named() -> None:
    _, _, seg, sr = result(parameters={"overlap": 0.5, "minimum_volume_ml": 0.0})
    [algorithm] = written(seg).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    for words in ("parameter overlap=0.5", "parameter minimum_volume_ml=0.0"):
        assert words in algorithm.AlgorithmParameters
    texts = [str(e.value) for e in sr.iterall() if e.keyword == "TextValue"]
    assert {"parameter overlap: 0.5", "parameter minimum_volume_ml: 0.0"} <= set(texts)


def test_another_mask_is_another_object_of_the_same_findings() -> None:
    labels = two_fs((5, 12, 16))
    labels[0, 0, 0] = 1
    one, other = written(result()[2]), written(result(labels=labels)[2])
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert [s.TrackingUID for s in one.SegmentSequence] == [s.TrackingUID for s in other.SegmentSequence]


def test_it_says_who_made_it() -> None:
    seg = written(result(job_id="j-7")[2])

    assert (seg.Manufacturer, seg.ManufacturerModelName, seg.DeviceSerialNumber) == (
        "dicomnode",
        "torso-ct",
        "DICOMNODE",
    )
    assert list(seg.SoftwareVersions) == ["dicomnode 0.1.0", "torso-ct 1.0.0"]
    assert (seg.SeriesDescription, seg.SeriesNumber) == ("torso-ct 1.0.0 SEG", 4001)
    assert (seg.ContentDate, seg.ContentTime) == ("20261120", "101112.345678")
    [ours] = [e for e in seg.ContributingEquipmentSequence if e.Manufacturer == "maker of models"]
    for words in ("OpenVINO 2026.4 CPU", "fp32", "torso revision 2", "ab" * 32, "job: j-7"):
        assert words in ours.ContributionDescription
    [algorithm] = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("torso-ct", "1.0.0")
    lung = seg.SegmentSequence[0]
    assert lung.SegmentedPropertyTypeCodeSequence[0].CodeValue == "39607008"
    assert len(lung.RecommendedDisplayCIELabValue) == 3


def test_it_belongs_to_the_patient_and_the_study() -> None:
    plan, _, seg, _ = result()
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "ReferringPhysicianName"):
        assert written(seg)[keyword].value == plan.first[keyword].value
    assert written(seg).FrameOfReferenceUID == plan.first.FrameOfReferenceUID


def test_what_the_source_lacks_is_there_and_empty() -> None:
    series = classic()
    for d in series:
        for keyword in (
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "StudyID",
            "AccessionNumber",
            "SliceThickness",
        ):
            delattr(d, keyword)
    before = [d.to_json() for d in series]

    seg = written(result(series)[2])

    assert seg.PatientName == ""
    assert seg.PatientSex == ""
    assert [d.to_json() for d in series] == before


def test_odd_source_values_are_taken_or_left_but_stop_nothing() -> None:
    with odd_values_accepted():
        series = classic(
            PatientBirthDate="00000000",
            PatientSex="UNKNOWN",
            PatientAge="60",
            StudyTime="25:61",
            PatientName="x" * 100,
            SpecificCharacterSet="ISO-8859-1",
        )
        seg = written(result(series)[2])
        assert (seg.PatientBirthDate, seg.PatientSex, seg.StudyTime) == ("", "", "")
        assert "PatientAge" not in seg
        assert str(seg.PatientName) == "x" * 100


@pytest.mark.parametrize("shape", [(4, 12, 16), (5, 12, 15)])
def test_the_label_map_must_fit(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="label map"):
        encode_segmentation(np.ones(shape, np.uint8), plan_volume(classic()), CARD, MADE)


CHARSETS = Path(__file__).parents[3] / "shared" / "data" / "charset"


@pytest.mark.real_data
@pytest.mark.skipif(not CHARSETS.is_dir(), reason="../shared/data/charset is not there")
def test_names_in_every_script_stay_as_they_are() -> None:
    tried = 0
    for path in sorted(CHARSETS.glob("*.dcm")):
        with odd_values_accepted():
            source = dcmread(path, force=True)
            if "PatientName" not in source or "SOPClassUID" not in source:
                continue
            series = classic()
            for d in series:
                d.SpecificCharacterSet, d.PatientName = source.get("SpecificCharacterSet"), source.PatientName
                del d.ReferringPhysicianName
            seg = written(result(series)[2])
            assert seg.PatientName == source.PatientName, path.name
            assert seg.PatientName.ideographic == source.PatientName.ideographic
        tried += 1
    assert tried >= 9


def test_the_spacing_between_slices_is_along_the_normal() -> None:
    plan, _, seg, _ = result(SOURCES["tilted"]())
    measures = written(seg).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(2.5, abs=1e-5)
    assert plan.geometry.spacing_mm[0] == pytest.approx(2.5 / np.cos(np.radians(18.5)), abs=1e-5)
    assert (
        tuple(
            float(v)
            for v in written(seg)
            .SharedFunctionalGroupsSequence[0]
            .PlaneOrientationSequence[0]
            .ImageOrientationPatient
        )
        == AXIAL
    )
