"""What the node writes, read back by dcmqi: the same voxels in the patient, the same measurements.

And the other way round: what dcmqi and others wrote says the same to us as to its makers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread

from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.findings import Findings
from dicomnode.encoding.forms import encode_form
from dicomnode.encoding.results import encode_map_results, encode_results
from dicomnode.encoding.seg import encode_segmentation
from dicomnode.encoding.sr import encode_report
from dicomnode.imaging.headers import read_instances, text
from dicomnode.imaging.measure import measure
from dicomnode.imaging.volume import VolumePlan, plan_volume
from tests import dcmqi_readers, reference_objects, round_trip
from tests.made_outputs import BOTH, MAP, OVERLAP, exclusive, overlapping, values
from tests.made_results import CARD, MADE, two_fs
from tests.made_series import classic, pixels
from tests.unit.test_seg import SOURCES
from tests.unit.test_seg_masks_kinds import encoded

DATA = Path(__file__).parents[3] / "shared" / "data"
SEG_SR = DATA / "seg_sr"
# A grid of slices that are shifted against each other is no image of ITK's
VOLUMES = {name: make for name, make in SOURCES.items() if name != "tilted"}

pytestmark = pytest.mark.skipif(dcmqi_readers.programs() is None, reason="dcmqi (PyPI) is not installed")
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


def labels_of(file: Path, plan: VolumePlan, folder: Path) -> npt.NDArray[np.uint8]:
    """(slice, row, column) in the plan's grid, of segments that do not overlap."""
    shape = plan.geometry.shape
    found = np.zeros(shape, np.uint8)
    for volume in dcmqi_readers.segmentation(file, folder):
        there = dcmqi_readers.onto(volume, plan.geometry.affine, shape)
        assert set(np.unique(there)) <= {0, *volume.segments}
        found[there > 0] = there[there > 0]
    return found


def findings(plan: VolumePlan, stored: npt.NDArray[np.int16]) -> Findings:
    labels = two_fs(plan.geometry.shape)
    file = encode_segmentation(labels, plan, CARD, MADE)
    assert file is not None
    statistics = measure(labels, stored, plan.geometry, plan.rescale, [1, 2])
    return Findings(labels, stored, statistics, plan, CARD, MADE, file.header)


def check_kinds(of: Findings, folder: Path, *kinds: str) -> None:
    """Every voxel of these kinds of SEG, and the numbers of the SR."""
    results = list(encode_results(of.labels, of.statistics, of.plan, of.card, of.made))
    for kind in kinds:
        results += encode_form(of, kind)
    for result in results:
        file = folder / f"{result.kind}.dcm"
        file.write_bytes(result.content)
        if result.kind != "SR":
            np.testing.assert_array_equal(labels_of(file, of.plan, folder / result.kind), of.labels, result.kind)
    check_report(of, folder)


def check_report(of: Findings, folder: Path) -> None:
    said = dcmqi_readers.report(folder / "SR.dcm", folder / "SR")
    assert of.segmentation is not None
    for group, found, segment in zip(said["Measurements"], of.statistics, of.card.segments, strict=True):
        assert group["ReferencedSegment"] == segment.number
        assert group["segmentationSOPInstanceUID"] == of.segmentation.SOPInstanceUID
        assert group["SourceSeriesForImageSegmentation"] == text(of.plan.first, "SeriesInstanceUID")
        assert group["Finding"]["CodeValue"] == segment.type.value
        assert group["TrackingUniqueIdentifier"] == of.segmentation.SegmentSequence[segment.number - 1].TrackingUID
        volume = next(one for one in group["measurementItems"] if one["quantity"]["CodeValue"] == "118565006")
        assert volume["units"]["CodeValue"] == "mL"
        assert float(volume["value"]) == pytest.approx(found.volume_ml, rel=1e-3)


@pytest.mark.parametrize("name", VOLUMES)
def test_every_kind_is_the_label_map_in_the_patient(name: str, tmp_path: Path) -> None:
    plan = plan_volume(VOLUMES[name]())
    check_kinds(findings(plan, pixels(plan.geometry.shape)), tmp_path, "SEG-LABELMAP", "SEG-FULL")


def test_a_mask_elsewhere_is_noticed(tmp_path: Path) -> None:
    """That the comparison can fail: one voxel over, flipped, and one slice on."""
    plan = plan_volume(classic())
    of = findings(plan, pixels(plan.geometry.shape))
    (seg, *_) = encode_results(of.labels, of.statistics, plan, CARD, MADE)
    (tmp_path / "seg.dcm").write_bytes(seg.content)
    found = labels_of(tmp_path / "seg.dcm", plan, tmp_path / "s")
    for other in (
        np.roll(of.labels, 1, axis=2),
        of.labels[:, :, ::-1],
        of.labels[::-1],
        of.labels.swapaxes(0, 0)[:, ::-1],
    ):
        assert (found != other).any()


@pytest.mark.parametrize("name", ["axial", "oblique", "enhanced MR in another order"])
def test_probabilities_and_overlaps(name: str, tmp_path: Path) -> None:
    plan = plan_volume(VOLUMES[name]())
    shape = plan.geometry.shape
    for masks, card, kind in ((exclusive(shape), BOTH, "SEG-PROB"), (overlapping(shape), OVERLAP, "SEG")):
        file = tmp_path / f"{kind}.dcm"
        file.write_bytes(encoded(masks, plan, card)[kind].content)
        for number, volume in enumerate(dcmqi_readers.segmentation(file, tmp_path / kind), 1):
            there = dcmqi_readers.onto(volume, plan.geometry.affine, shape)
            if kind == "SEG":
                there = there == number
            np.testing.assert_array_equal(there, _wanted(masks, kind, number))


def _wanted(masks: Any, kind: str, number: int) -> npt.NDArray[Any]:
    if kind == "SEG-PROB":
        return np.asarray(masks.probabilities[number - 1])
    return np.asarray(masks.of(number), bool)


@pytest.mark.parametrize("name", ["axial", "reversed", "oblique", "coronal", "enhanced MR in another order"])
def test_maps(name: str, tmp_path: Path) -> None:
    plan = plan_volume(VOLUMES[name]())
    wanted = values(plan.geometry.shape)
    (made, _) = encode_map_results(wanted, plan, MAP, MADE)
    (tmp_path / "map.dcm").write_bytes(made.content)
    found, meaning = dcmqi_readers.parametric_map(tmp_path / "map.dcm", tmp_path / "m")
    np.testing.assert_array_equal(dcmqi_readers.onto(found, plan.geometry.affine, plan.geometry.shape), wanted)
    assert meaning["QuantityValueCode"]["CodeValue"] == "113055"
    assert meaning["MeasurementUnitsCode"]["CodeValue"] == "ml/(100.g.min)"


@real_data
@pytest.mark.real_data
@pytest.mark.parametrize("folder", round_trip.SERIES)
def test_reports_of_real_series(folder: str, tmp_path: Path) -> None:
    of = findings(*round_trip.series(DATA / folder, tmp_path / "in"))
    report = encode_report(of.statistics, of.plan, of.card, of.made, of.segmentation)
    (tmp_path / "SR.dcm").write_bytes(to_part10_bytes(report))
    check_report(of, tmp_path)


# ------------------------------------------------------------------------------------- what others wrote, to us


@real_data
@pytest.mark.real_data
@pytest.mark.parametrize("name", reference_objects.SEGMENTATIONS)
def test_reference_segmentations_lie_where_their_makers_say(name: str, tmp_path: Path) -> None:
    alike = reference_objects.voxels_alike(SEG_SR / name, tmp_path / "s")
    assert len(set(alike.values())) == 1
    assert min(min(counts) for counts in alike.values()) > 0


@real_data
@pytest.mark.real_data
def test_the_reference_with_its_makers_label_map() -> None:
    folder = SEG_SR / "dcmqi-24x38x3"
    plan = plan_volume([one.header for one in read_instances(sorted((folder / "image").iterdir()))])
    theirs = dcmqi_readers.onto(
        dcmqi_readers.nrrd(folder / "nrrd" / "label.nrrd"), plan.geometry.affine, plan.geometry.shape
    )
    ours = np.zeros(plan.geometry.shape, np.uint8)
    index = {tuple(np.round(frame.position_mm, 3)): k for k, frame in enumerate(plan.frames)}
    for affine, plane in round_trip.frames_in_patient(dcmread(folder / "seg" / "label.seg"))[1]:
        ours[index[tuple(np.round(affine[:, 2], 3))]] = plane
    np.testing.assert_array_equal(ours, theirs > 0)


@real_data
@pytest.mark.real_data
@pytest.mark.parametrize("name", reference_objects.REPORTS)
def test_reference_reports_say_the_same_to_us(name: str, tmp_path: Path) -> None:
    assert reference_objects.measurements_alike(SEG_SR / name, tmp_path / "r") >= 3
