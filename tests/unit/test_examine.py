"""`dicomnode check`: whole results are ok, and of broken ones everything that is wrong is said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from typer.testing import CliRunner

from dicomnode import bootstrap
from dicomnode.cli.context import Context
from dicomnode.cli.root import app
from dicomnode.config import Settings
from dicomnode.encoding.examine_file import Checked, Verdict, check_files, images_in
from dicomnode.encoding.examine_source import Sources
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.forms import FORMS, encode_form
from dicomnode.encoding.results import encode_results
from dicomnode.imaging.headers import odd_values_accepted
from tests.adapters.state_material import instance
from tests.made_series import CORONAL, OBLIQUE, classic, enhanced, write
from tests.unit.test_forms import findings

DATA = Path(__file__).parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
SOURCES: dict[str, Callable[[], list[Dataset]]] = {
    "axial": classic,
    "coronal": lambda: classic(orientation=CORONAL),
    "oblique": lambda: classic(orientation=OBLIQUE, spacing=(0.7, 0.9)),
    "enhanced": lambda: [enhanced(order=[3, 0, 4, 1, 2])],
}


def files_of(series: list[Dataset], folder: Path) -> dict[str, Path]:
    """Every kind of result of a series, as files in `results` beside the `source`."""
    of = findings(series)
    write(series, folder / "source")
    (folder / "results").mkdir()
    made = list(encode_results(of.labels, of.statistics, of.plan, of.card, of.made))
    for kind in FORMS:
        made += encode_form(of, kind)[:1]
    paths = {}
    for one in made:
        paths[one.kind] = folder / "results" / f"{one.kind}.dcm"
        paths[one.kind].write_bytes(one.content)
    return paths


@pytest.mark.parametrize("name", SOURCES)
def test_every_result_of_the_node_is_ok(name: str, tmp_path: Path) -> None:
    paths = files_of(SOURCES[name](), tmp_path)
    assert len(paths) == 9
    images = images_in([tmp_path / "source"])
    found = list(check_files([tmp_path / "results"], lambda references: images, "there"))
    assert [(one.file, one.wrong, one.notes) for one in found] == [(one.file, (), ()) for one in found]
    assert {one.verdict for one in found} == {Verdict.OK}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return files_of(classic(), tmp_path_factory.mktemp("made"))


def checked(made: dict[str, Path], kind: str, spoil: Callable[[Dataset], None], folder: Path) -> Checked:
    dataset = dcmread(made[kind])
    with odd_values_accepted():
        spoil(dataset)
        file = folder / "spoilt.dcm"
        dcmwrite(file, dataset)
    images = images_in([made[kind].parent.parent / "source"])
    (found,) = check_files([file], lambda references: images, "there")
    return found


def first_source(d: Dataset) -> Dataset:
    found: Dataset = d.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    return found


def shift(d: Dataset) -> None:
    for group in d.PerFrameFunctionalGroupsSequence[:2]:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [v + 1.5 for v in place.ImagePositionPatient]


def measured(d: Dataset) -> Dataset:
    """The first number of a report."""
    stack = list(d.ContentSequence)
    while True:
        item: Dataset = stack.pop(0)
        if item.ValueType == "NUM":
            return item
        stack += item.get("ContentSequence", [])


SPOILT: dict[str, tuple[str, Callable[[Dataset], None], str]] = {
    "type 1 absent": ("SEG", lambda d: d.__delattr__("ContentLabel"), "ContentLabel is absent (type 1)"),
    "type 1 empty": ("SEG", lambda d: setattr(d, "ContentLabel", ""), "ContentLabel is empty (type 1)"),
    "type 2 absent": ("SR", lambda d: d.__delattr__("PatientBirthDate"), "PatientBirthDate is absent (type 2)"),
    "nested": (
        "SEG",
        lambda d: d.SegmentSequence[1].__delattr__("SegmentLabel"),
        "SegmentLabel in 1 item of SegmentSequence is absent (type 1)",
    ),
    "UID": ("RTSTRUCT", lambda d: setattr(d, "FrameOfReferenceUID", "1.a"), "FrameOfReferenceUID '1.a' is no UID"),
    "meta": (
        "SEG",
        lambda d: setattr(d, "SOPInstanceUID", "2.25.99"),
        "SOPInstanceUID is not the MediaStorageSOPInstanceUID of the file meta information (PS3.10 7.1)",
    ),
    "code": (
        "SEG",
        lambda d: setattr(d.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0], "CodeMeaning", ""),
        "a code in SegmentedPropertyTypeCodeSequence has no meaning",
    ),
    "pixels": ("SEG", lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "bytes of PixelData"),
    "frames": ("SEG-FULL", lambda d: setattr(d, "NumberOfFrames", 4), "NumberOfFrames is 4, but"),
    "segment": (
        "SEG",
        lambda d: setattr(
            d.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 7
        ),
        "1 frames are of segment 7, which is not described",
    ),
    "numbering": ("SEG", lambda d: setattr(d.SegmentSequence[1], "SegmentNumber", 1), "segments are numbered 1, 1"),
    "label": (
        "SEG-LABELMAP",
        lambda d: setattr(d, "PixelData", b"\x09" + d.PixelData[1:]),
        "pixels are of segment 9, not described",
    ),
    "bits": ("SEG", lambda d: setattr(d, "SegmentationType", "FRACTIONAL"), "1 bits a pixel do not go with"),
    "place": ("SEG", shift, "2 frames lie elsewhere than the images that they come from; frame"),
    "no place": (
        "SEG",
        lambda d: d.PerFrameFunctionalGroupsSequence[1].__delattr__("PlanePositionSequence"),
        "frame 2 has no valid ImagePositionPatient",
    ),
    "frame of reference": (
        "SEG",
        lambda d: setattr(d, "FrameOfReferenceUID", "2.25.5"),
        "FrameOfReferenceUID differs from the source's",
    ),
    "patient": ("SC", lambda d: setattr(d, "PatientID", "another"), "PatientID differs from the source's"),
    "study": ("PDF", lambda d: setattr(d, "StudyInstanceUID", "2.25.8"), "it is in another study than its source"),
    "SOP class": (
        "SEG",
        lambda d: setattr(first_source(d), "ReferencedSOPClassUID", "1.2.840.10008.5.1.4.1.1.4"),
        "is referenced with SOP class 1.2.840.10008.5.1.4.1.1.4, which it does not have",
    ),
    "frame number": (
        "SEG",
        lambda d: setattr(first_source(d), "ReferencedFrameNumber", 3),
        "frame 3 of instance",
    ),
    "number": (
        "SR",
        lambda d: setattr(measured(d).MeasuredValueSequence[0], "NumericValue", ""),
        "is a NUM whose NumericValue is no number",
    ),
    "floating point": (
        "SR",
        lambda d: setattr(measured(d).MeasuredValueSequence[0], "FloatingPointValue", None),
        "is a NUM with an empty FloatingPointValue",
    ),
    "relation": ("SR", lambda d: measured(d).__delattr__("RelationshipType"), "has the RelationshipType ''"),
    "evidence": (
        "SR",
        lambda d: d.__delattr__("CurrentRequestedProcedureEvidenceSequence"),
        "which is not in the evidence (PS3.3 C.17.2)",
    ),
    "region": (
        "RTSTRUCT",
        lambda d: setattr(d.ROIContourSequence[0], "ReferencedROINumber", 9),
        "ROIContourSequence names 1 regions that StructureSetROISequence does not have",
    ),
    "contour": (
        "RTSTRUCT",
        lambda d: setattr(d.ROIContourSequence[0].ContourSequence[0], "NumberOfContourPoints", 1),
        "1 contours have not three coordinates for each point",
    ),
    "layer": (
        "GSPS",
        lambda d: setattr(d.GraphicAnnotationSequence[0], "GraphicLayer", "ELSEWHERE"),
        "is on the layer 'ELSEWHERE', which is not described",
    ),
    "PDF": (
        "PDF",
        lambda d: setattr(d, "EncapsulatedDocument", b"%PDF-1.4 cut"),
        "the encapsulated document is no whole PDF",
    ),
    "key objects": ("KO", lambda d: d.ContentSequence.pop(), "are in the evidence, but not among the key objects"),
    "our own gate": (
        "SEG",
        lambda d: d.SegmentSequence[0].__delattr__("TrackingUID"),
        "TrackingUID of segment 1 is absent or empty (type 1)",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_wrong_is_said(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    kind, spoil, words = SPOILT[name]
    found = checked(made, kind, spoil, tmp_path)
    assert found.verdict is Verdict.WRONG
    assert any(words in what for what in found.wrong), found.wrong


def test_everything_is_said_and_not_only_the_first(made: dict[str, Path], tmp_path: Path) -> None:
    def spoil(d: Dataset) -> None:
        shift(d)
        d.PatientID, d.ContentLabel, d.PixelData = "another", "", d.PixelData[:-4]

    said = "; ".join(checked(made, "SEG", spoil, tmp_path).wrong)
    for words in ("PatientID differs", "ContentLabel is empty", "bytes of PixelData", "2 frames lie elsewhere"):
        assert words in said


def test_without_its_source_an_object_is_checked_by_itself(made: dict[str, Path]) -> None:
    assert next(check_files([made["SEG"]])) == Checked(str(made["SEG"]), Verdict.OK, "Segmentation Storage")


def test_of_images_that_are_not_there_it_is_said(made: dict[str, Path], tmp_path: Path) -> None:
    """As of a report whose segmentation is there, and whose images are not."""
    images = Sources({str(one.SOPInstanceUID): one for one in [dcmread(made["SEG"], stop_before_pixels=True)]})
    (found,) = check_files([made["SR"]], lambda references: images, "in that folder")
    assert found.verdict is Verdict.OK
    assert found.notes == ("5 of its 5 referenced images are not in that folder: not compared with them",)


@real_data
@pytest.mark.real_data
def test_other_makers_reports_without_their_images() -> None:
    images = images_in([DATA / "seg_sr"])
    (found,) = check_files([DATA / "seg_sr/dcmqi-sr-example/sr.dcm"], lambda references: images, "there")
    assert (found.wrong, len(found.notes)) == ((), 1)
    assert found.notes[0].startswith("191 of its 191 referenced images are not there")


def test_bytes_that_are_wrong_anywhere_make_nothing_fall_over(made: dict[str, Path], tmp_path: Path) -> None:
    chance = random.Random(4711)
    images = images_in([made["SEG"].parent.parent / "source"])
    for kind, path in made.items():
        content = path.read_bytes()
        for number in range(12):
            spoilt = bytearray(content[: chance.randrange(200, len(content))] if number % 3 == 0 else content)
            for _ in range(chance.choice([1, 3, 30])):
                spoilt[chance.randrange(132, min(len(spoilt), 6000))] = chance.randrange(256)
            file = tmp_path / f"{kind}-{number}.dcm"
            file.write_bytes(spoilt)
            (found,) = check_files([file], lambda references: images, "there")
            assert found.verdict in set(Verdict)


def invoke(*words: object) -> tuple[int, str]:
    ran = CliRunner().invoke(app, [str(word) for word in words], obj=Context(), env={"COLUMNS": "200"})
    return ran.exit_code, ran.output


def test_the_command_says_ok_or_all_that_is_wrong(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOMNODE_HOME", str(tmp_path / "no node"))
    results = made["SEG"].parent
    assert invoke("check", results, "--source", results.parent / "source")[0] == 0
    broken = dcmread(made["SR"])
    del broken.PatientBirthDate
    (tmp_path / "broken.dcm").write_bytes(to_part10_bytes(broken))
    (tmp_path / "no.txt").write_text("text")
    status, said = invoke("check", made["SEG"], tmp_path)
    assert status == 1
    assert f"{made['SEG']}: ok, Segmentation Storage" in said
    assert "broken.dcm: 1 fault, Comprehensive 3D SR Storage\n  ✗ PatientBirthDate is absent (type 2)" in said
    assert "no.txt: is no DICOM file" in said
    status, said = invoke("check", "--json", tmp_path / "broken.dcm")
    (row,) = json.loads(said)
    assert (status, row["verdict"], row["wrong"]) == (1, "wrong", ["PatientBirthDate is absent (type 2)"])
    assert not (tmp_path / "no node").exists(), "looking begins no node"


def test_the_nodes_own_store_has_the_source(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "node")
    monkeypatch.setenv("DICOMNODE_HOME", str(settings.home))
    with closing(bootstrap.state(settings)) as state:
        for number, file in enumerate(sorted((made["SEG"].parent.parent / "source").iterdir())):
            header = dcmread(file)
            place = bootstrap.instance_store(settings).path(f"instances/{file.name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
            one = replace(
                instance(number, path=f"instances/{file.name}"),
                sop_instance_uid=str(header.SOPInstanceUID),
                study_instance_uid=str(header.StudyInstanceUID),
                series_instance_uid=str(header.SeriesInstanceUID),
            )
            state.record_instances([one])
    dataset = dcmread(made["SEG"])
    shift(dataset)
    (tmp_path / "shifted.dcm").write_bytes(to_part10_bytes(dataset))
    status, said = invoke("check", made["SEG"], made["SR"], tmp_path / "shifted.dcm")
    assert status == 1
    assert f"{made['SEG']}: ok" in said
    assert f"{made['SR']}: ok" in said
    assert "2 frames lie elsewhere" in said
    assert "not compared" not in said


def test_images_are_no_results(made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_HOME", str(tmp_path / "no node"))
    found = list(check_files([made["SEG"].parent.parent / "source"]))
    assert {one.kind for one in found} == {"is an image, not a result (CT Image Storage)"}
    ran = CliRunner().invoke(app, ["check", str(made["SEG"].parent.parent / "source")], obj=Context())
    assert ran.exit_code != 0
    assert "there is no result among these files" in str(ran.exception)


@real_data
@pytest.mark.real_data
def test_other_makers_objects_are_ok() -> None:
    found = [one for one in check_files([DATA / "seg_sr"]) if one.verdict is not Verdict.SKIPPED]
    assert len(found) == 19
    assert {one.file: one.wrong for one in found if one.wrong} == {}


@real_data
@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["dcmqi-liver", "dcmqi-24x38x3"])
def test_other_makers_objects_lie_where_their_source_lies(folder: str) -> None:
    images = images_in([DATA / "seg_sr" / folder])
    found = list(check_files([DATA / "seg_sr" / folder], lambda references: images, "there"))
    results = [one for one in found if one.verdict is not Verdict.SKIPPED]
    assert results
    assert [(one.wrong, one.notes) for one in results] == [((), ())] * len(results)


@real_data
@pytest.mark.real_data
def test_broken_files_make_nothing_fall_over() -> None:
    found = list(check_files([DATA / "broken", DATA / "charset"]))
    assert len(found) > 250
    wrong = {Path(one.file).name: one.wrong for one in found if one.verdict is Verdict.WRONG}
    assert wrong["GH179A.dcm"] == ("there are Rows and Columns, but no pixels",)
