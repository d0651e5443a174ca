"""Headers out of DICOM data sets, broken ones included."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.domain.conditions import explain
from dicomnode.domain.rule_reading import parse_condition
from dicomnode.domain.study import Element
from dicomnode.errors import CannotDecode
from dicomnode.imaging.attributes import SEQUENCE_DEPTH_MOST, SEQUENCE_ITEMS_MOST, header_of, keyword_vrs, read_header
from dicomnode.imaging.headers import read_instances

ASKS = parse_condition(
    {
        "any": [
            {"Modality": "CT", "SliceThickness": {"between": [0, 5]}, "PatientName": {"matches": "^A"}},
            {"StudyDate": {"at_least": "2020"}, "PatientAge": {"at_least": 18}, "StudyTime": {"at_most": "12:00"}},
            {"PixelSpacing": {"at_most": 1}, "SeriesDescription": {"contains": "torso"}, "Rows": 512},
        ]
    }
)
DATA = Path(__file__).parents[3] / "shared" / "data"


def _raw(keyword: str, vr: str, value: bytes) -> RawDataElement:
    return RawDataElement(Tag(keyword), vr, len(value), value, 0, False, True)


def _with_raw(*elements: RawDataElement) -> Dataset:
    dataset = Dataset()
    for element in elements:
        dataset[element.tag] = element  # type: ignore[assignment]
    return dataset


def test_values_as_json_has_them() -> None:
    dataset = Dataset()
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SliceThickness = "1.25"
    dataset.PixelSpacing = ["0.7", "0.8"]
    dataset.InstanceNumber = "12"
    dataset.Rows = 512
    dataset.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    dataset.BodyPartExamined = ""
    dataset.FrameIncrementPointer = 0x00181063
    assert header_of(dataset) == {
        "Modality": Element("CS", ("CT",)),
        "ImageType": Element("CS", ("ORIGINAL", "PRIMARY", "AXIAL")),
        "SliceThickness": Element("DS", (1.25,)),
        "PixelSpacing": Element("DS", (0.7, 0.8)),
        "InstanceNumber": Element("IS", (12,)),
        "Rows": Element("US", (512,)),
        "PatientName": Element("PN", ("Yamada^Tarou=山田^太郎=やまだ^たろう",)),
        "BodyPartExamined": Element("CS", ()),
        "FrameIncrementPointer": Element("AT", ("00181063",)),
    }
    assert all(type(v) is float for v in header_of(dataset)["PixelSpacing"].values)


def test_sequences_become_headers() -> None:
    item = Dataset()
    item.CodeValue = "T-D1100"
    dataset = Dataset()
    dataset.AnatomicRegionSequence = Sequence([item, Dataset()])
    assert header_of(dataset) == {
        "AnatomicRegionSequence": Element("SQ", ({"CodeValue": Element("SH", ("T-D1100",))}, {}))
    }


def test_deep_and_long_sequences_are_cut_off() -> None:
    innermost = Dataset()
    for _ in range(SEQUENCE_DEPTH_MOST + 3):
        outer = Dataset()
        outer.ContentSequence = Sequence([innermost])
        innermost = outer
    depth, header = 0, header_of(innermost)
    while "ContentSequence" in header:
        depth, header = depth + 1, header["ContentSequence"].values[0]  # type: ignore[assignment]
    assert depth == SEQUENCE_DEPTH_MOST
    many = Dataset()
    many.ContentSequence = Sequence([Dataset() for _ in range(SEQUENCE_ITEMS_MOST + 5)])
    assert len(header_of(many)["ContentSequence"].values) == SEQUENCE_ITEMS_MOST


def test_bulk_data_and_group_lengths_are_left_out() -> None:
    dataset = Dataset()
    dataset.PixelData = b"\0\1"
    dataset["PixelData"].VR = "OW"
    dataset.add_new(0x00080000, "UL", 4)
    assert header_of(dataset) == {}


def test_private_attributes_by_creator_whatever_their_block() -> None:
    header = {}
    for block in (0x10, 0x2B):
        dataset = Dataset()
        dataset.add_new((0x0019, block), "LO", "GEMS_ACQU_01 ")
        dataset.add_new((0x0019, block << 8 | 0xAB), "DS", "2.5")
        dataset.add_new((0x0019, 0x7701), "LO", "nobody reserved this block")
        header = header_of(dataset)
        assert header == {"(0019,ab,GEMS_ACQU_01)": Element("DS", (2.5,))}


def test_private_text_without_a_vr_is_text() -> None:
    dataset = Dataset()
    dataset.add_new((0x0019, 0x0010), "LO", "ACME")
    dataset.add_new((0x0019, 0x1001), "UN", b"FAST\\12.5 ")
    dataset.add_new((0x0019, 0x1002), "UN", b"\x00\x01\xff\x80")
    assert header_of(dataset) == {"(0019,01,ACME)": Element("UN", ("FAST", "12.5"))}


def test_broken_values_stay_text_and_hide_nothing() -> None:
    dataset = _with_raw(
        _raw("SliceThickness", "DS", b"thick "),
        _raw("PixelSpacing", "DS", b"0.7\\0,8"),
        _raw("InstanceNumber", "IS", b"1.5 "),
        _raw("Rows", "US", b"\x01"),
        _raw("Modality", "CS", b"CT"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = header_of(dataset)
    assert header["Rows"] == Element("US", ())
    assert header["SliceThickness"].values == ("thick",)
    assert header["PixelSpacing"].values == (0.7, "0,8")
    assert header["InstanceNumber"].values == (1.5,)
    assert header["Modality"].values == ("CT",)


def _file(dataset: Dataset, syntax: str) -> bytes:
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_file_is_read_without_its_pixels(tmp_path: Path, syntax: str) -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Buc^Jérôme"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = 2, 2, 16
    dataset.PixelData = bytes(8)
    dataset["PixelData"].VR = "OW"
    path = tmp_path / "a.dcm"
    path.write_bytes(_file(dataset, syntax)[:-4])  # pixels cut off
    header = read_header(path)
    assert header["PatientName"].values == ("Buc^Jérôme",)
    assert header["Rows"] == Element("US", (2,))
    assert header["TransferSyntaxUID"].values == (str(syntax),)
    assert "PixelData" not in header


@pytest.mark.parametrize("content", [b"", b"{}", bytes(200)])
def test_what_is_no_dicom_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(CannotDecode, match=r"a\.dcm"):
        read_header(path)


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotDecode):
        read_header(tmp_path / "gone.dcm")


def test_the_dictionary_has_vrs_by_keyword() -> None:
    vrs = keyword_vrs()
    assert (vrs["SliceThickness"], vrs["Modality"], vrs["Rows"]) == ("DS", "CS", "US")
    assert "" not in vrs


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_every_real_file_gives_a_header_or_a_named_refusal() -> None:
    read = refused = 0
    for path in sorted(p for p in DATA.rglob("*") if p.is_file()):
        try:
            header = read_header(path)
        except CannotDecode:
            refused += 1
            continue
        read += 1
        assert all(isinstance(element.values, tuple) for element in header.values()), path
        explanation = explain(ASKS, header, {})
        (explanation.words() + json.dumps(explanation.document(), allow_nan=False, ensure_ascii=False)).encode()
    # MANIFEST.md: 588 files with texts, archives and label maps among them
    assert read > 500
    assert refused < 60


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("chrArab", "قباني^لنزار"),
        ("chrFren", "Buc^Jérôme"),
        ("chrGerm", "Äneas^Rüdiger"),
        ("chrGreek", "Διονυσιος"),
        ("chrH31", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrI2", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("chrRuss", "Люкceмбypг"),
        ("chrX1", "Wang^XiaoDong=王^小東"),
        ("chrX2", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_in_every_charset(name: str, person: str) -> None:
    assert read_header(DATA / "charset" / f"{name}.dcm")["PatientName"].values == (person,)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_a_header_is_what_pydicom_reads() -> None:
    path = next((DATA / "ct" / "crlm-1004").glob("*.dcm"))
    dataset, header = pydicom.dcmread(path, stop_before_pixels=True), read_header(path)
    assert header["ImagePositionPatient"].values == tuple(map(float, dataset.ImagePositionPatient))
    assert set(header) >= {e.keyword for e in dataset if e.keyword and e.VR != "SQ" and not str(e.VR).startswith("O")}


def test_items_nested_without_end_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128).save_as(path)
    content_sequence, item = b"\x40\x00\x30\xa7\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with path.open("ab") as file:
        file.write((content_sequence + item) * 2000)

    for read in (read_header, lambda file: read_instances([file])):
        with pytest.raises(CannotDecode, match=r"a\.dcm cannot be read.*: its sequences are nested too deeply"):
            read(path)
