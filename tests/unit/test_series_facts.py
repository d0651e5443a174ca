"""What the headers of a series say together, and that they are read only when a rule asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.age import age_in_years
from dicomnode.domain.conditions import explain
from dicomnode.domain.rule_reading import parse_condition
from dicomnode.domain.rules import FACTS, FACTS_OF_ALL_HEADERS, facts_in
from dicomnode.domain.study import Element, Header
from dicomnode.imaging.series_facts import facts_of_all_headers
from tests.unit.test_complete_route import CARD, Node

DATA = Path(__file__).parents[3] / "shared" / "data"
AXIAL = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]


def write_slice(path: Path, number: int, **changes: Any) -> Path:
    """A CT slice of 2 × 2 pixels, 5 mm above the one before."""
    dataset = Dataset()
    attributes = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SOPInstanceUID": f"1.2.{number}",
        "StudyInstanceUID": "1",
        "SeriesInstanceUID": "1.1",
        "FrameOfReferenceUID": "1.9",
        "Modality": "CT",
        "InstanceNumber": number,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [0, 0, 5 * number],
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [1, 1],
        "Rows": 2,
        "Columns": 2,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelData": bytes(8),
        **changes,
    }
    for keyword, value in attributes.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def facts_of(paths: list[Path]) -> Header:
    return facts_of_all_headers(paths, FACTS)


def _slices(folder: Path, numbers: list[int], **changes: Any) -> list[Path]:
    return [write_slice(folder / f"{number}.dcm", number, **changes) for number in numbers]


def test_a_stack(tmp_path: Path) -> None:
    facts = facts_of(_slices(tmp_path, [1, 2, 3, 4]))
    assert {name: element.values for name, element in facts.items()} == {
        "IsAVolume": (True,),
        "IsLocalizer": (False,),
        "Orientation": ("axial",),
        "MeasuredSliceSpacing": (5.0,),
    }


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    facts = facts_of(_slices(tmp_path, [1, 2, 3, 5, 6]))
    assert facts["IsAVolume"].values == (False,)
    assert facts["IsAVolume"].note.startswith("missing-slices: 1 slice is missing")
    assert facts["MeasuredSliceSpacing"].values == ()
    said = explain(parse_condition({"IsAVolume": True}), {}, facts).words()
    assert said.startswith("IsAVolume is false, not true (missing-slices: 1 slice is missing: steps of 5.00 mm")
    said = explain(parse_condition({"MeasuredSliceSpacing": {"at_most": 3}}), {}, facts).words()
    assert said == "MeasuredSliceSpacing is not known (no volume: missing-slices)"


def test_a_tilted_gantry_is_measured_along_the_normal(tmp_path: Path) -> None:
    paths = [write_slice(tmp_path / f"{n}.dcm", n, ImagePositionPatient=[0, 1.5 * n, 5 * n]) for n in range(1, 6)]
    assert facts_of(paths)["MeasuredSliceSpacing"].values == (5.0,)


def test_localizers_alone_and_beside_a_stack(tmp_path: Path) -> None:
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": CORONAL}
    alone = _slices(tmp_path, [8, 9], **scout)
    facts = facts_of(alone)
    assert (facts["IsLocalizer"].values, facts["Orientation"].values) == ((True,), ("coronal",))
    assert facts["IsAVolume"].note.startswith("localizer: ")
    facts = facts_of([*alone, *_slices(tmp_path, [1, 2, 3])])
    assert facts["IsLocalizer"] == Element("FLAG", (False,), "2 of 5 images are")
    assert facts["Orientation"].values == ("axial",)
    assert facts["IsAVolume"].values == (True,)


def test_several_orientations(tmp_path: Path) -> None:
    paths = [*_slices(tmp_path, [1, 2]), *_slices(tmp_path, [3], ImageOrientationPatient=CORONAL)]
    assert facts_of(paths)["Orientation"] == Element("CS", ("axial", "coronal"), "2 axial, 1 coronal")


def test_images_that_are_nowhere(tmp_path: Path) -> None:
    facts = facts_of(_slices(tmp_path, [1, 2, 3], ImagePositionPatient=None))
    assert facts["Orientation"].values == ()
    assert "ImagePositionPatient" in facts["Orientation"].note


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"rubbish")
    facts = facts_of([*_slices(tmp_path, [1, 2, 3]), broken])
    assert set(facts) == FACTS_OF_ALL_HEADERS
    assert facts["IsAVolume"].values == (False,)
    assert all("broken.dcm" in element.note for element in facts.values())


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    gone = [tmp_path / "gone.dcm"]
    assert facts_of_all_headers(gone, {"NumberOfInstances", "CallingAETitle"}) == {}
    assert set(facts_of_all_headers(_slices(tmp_path, [1]), {"Orientation"})) == {"Orientation"}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "orientation", "spacing", "reason"),
    [
        ("ct/crlm-1004", ("axial",), (5.0,), ""),
        ("ct/ge-head-tilt18-variable-spacing", ("axial",), (), "uneven-spacing"),
        ("ct/missing-slice-noise", ("axial",), (), "missing-slices"),
        ("ct/lidc-0002-part", ("axial",), (1.25,), ""),
    ],
)
def test_real_series(folder: str, orientation: tuple[str, ...], spacing: tuple[float, ...], reason: str) -> None:
    paths = [p for p in sorted((DATA / folder).rglob("*")) if p.is_file() and p.read_bytes()[128:132] == b"DICM"]
    if not paths:
        pytest.skip("../shared/data is not there")
    facts = facts_of(paths)
    assert facts["Orientation"].values == orientation
    assert facts["IsAVolume"].note.partition(":")[0] == reason
    assert facts["MeasuredSliceSpacing"].values == pytest.approx(spacing, abs=0.01)


# ----------------------------------------------------------------------------------------------------- age


def _header(**values: str) -> Header:
    vrs = {"PatientAge": "AS", "PatientBirthDate": "DA", "StudyDate": "DA"}
    return {name: Element(vrs[name], (value,) if value else ()) for name, value in values.items()}


@pytest.mark.parametrize(
    ("header", "years"),
    [
        (_header(PatientAge="045Y"), 45),
        (_header(PatientAge="018M"), 1.5),
        (_header(PatientAge="040M"), 3),
        (_header(PatientAge="024M"), 2),
        (_header(PatientAge="052Y", PatientBirthDate="20000101", StudyDate="20240101"), 52),
        (_header(PatientAge="old", PatientBirthDate="20000101", StudyDate="20240101"), 24),
        (_header(PatientBirthDate="20060131", StudyDate="20240130"), 17),
        (_header(PatientBirthDate="20060131", StudyDate="20240131"), 18),
        (_header(PatientBirthDate="20040229", StudyDate="20220228"), 17),
        (_header(PatientBirthDate="20230110", StudyDate="20230709"), 5 / 12),
        (_header(PatientBirthDate="20240131", StudyDate="20240131"), 0),
    ],
)
def test_ages(header: Header, years: float) -> None:
    assert age_in_years(header).values == pytest.approx((years,))


@pytest.mark.parametrize(
    "header",
    [
        {},
        _header(PatientAge=""),
        _header(PatientBirthDate="2006", StudyDate="20240131"),
        _header(PatientBirthDate="20240131", StudyDate="20060131"),
        _header(PatientBirthDate="20060131"),
    ],
)
def test_an_age_that_nobody_knows(header: Header) -> None:
    element = age_in_years(header)
    assert element.values == ()
    assert element.note


# ------------------------------------------------------------------------------------------------- routing


def test_facts_of_a_condition_are_found_wherever_they_stand() -> None:
    when = {"all": [{"Modality": "CT"}, {"not": {"any": [{"IsAVolume": True}, {"AgeInYears": {"at_most": 17}}]}}]}
    assert facts_in(parse_condition(when)) == {"IsAVolume", "AgeInYears"}


def test_a_series_is_routed_by_its_facts(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.model()
    node.destination("pacs")
    node.rule("stacks", {"IsAVolume": True, "Orientation": "axial"}, model=CARD["name"])
    for number in (1, 2, 3):
        node.receive("1.1", number)
        write_slice(node.store.path(f"1.1.{number}.dcm"), number)
    node.receive("1.2", 1, PatientAge="045Y")
    node.sweep()
    assert node.why("1.1") == "rule stacks matched: IsAVolume is true; Orientation is 'axial'"
    assert "IsAVolume is false, not true (single-slice: one image of one frame is no volume)" in node.why("1.2")


def test_headers_are_left_alone_when_nothing_depends_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("all headers were read")

    node = Node(tmp_path)
    node.rule("adults", {"AgeInYears": {"at_least": 18}, "NumberOfInstances": 1})
    node.rule("off", {"IsAVolume": True}, enabled=False)
    node.rule("mr", {"all": [{"Modality": "MR"}, {"IsAVolume": True}]})
    node.rule("either", {"any": [{"Modality": "CT"}, {"Orientation": "axial"}]})
    monkeypatch.setattr("dicomnode.imaging.series_facts.read_instances", refuse)
    node.receive(PatientAge="045Y")
    node.sweep()
    assert "rule adults matched: AgeInYears is 45, at least 18; NumberOfInstances is 1" in node.why()
    assert "Rule either matched: Modality is 'CT'; but" in node.why()
    assert node.why().endswith("Rule mr did not match: Modality is 'CT', not 'MR'")
    (said,) = [r for r in node.routed("1.1")["rules"] if r["rule"] == "mr"]
    assert "not looked at" in said["when"]["all"][1]["words"]
