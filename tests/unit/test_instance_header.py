"""Where in its stack an image lies, read at reception: as the header says, and nothing when it says nonsense."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicomnode.adapters.system_clock import SystemClock
from dicomnode.domain.completeness import Place
from dicomnode.domain.contiguity import look_at_stack
from dicomnode.encoding.part10 import Unreadable, first_elements
from dicomnode.stages.index import Arrival, AssociationEnd, Indexer
from dicomnode.stages.instance_header import Header, header_of_file, plane_and_position, read_header
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.made_series import AXIAL, CORONAL, OBLIQUE, SAGITTAL, classic, enhanced
from tests.recorder import Recorder
from tests.unit.test_receive_index import spool

DATA = Path(__file__).parents[3] / "shared" / "data"


def header(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Header:
    little = syntax != ExplicitVRBigEndian
    content = encode(dataset, is_implicit_vr=syntax == ImplicitVRLittleEndian, is_little_endian=little)
    assert content is not None
    return read_header([content], syntax)


def one(**attributes: Any) -> Dataset:
    return classic(1, **attributes)[0]


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
def test_the_images_of_a_stack_lie_in_one_plane_in_equal_steps(orientation: tuple[float, ...]) -> None:
    found = [header(image) for image in classic(6, orientation=orientation, step_mm=2.5)]
    assert len({one.plane for one in found}) == 1
    places = [one.position_mm for one in found if one.position_mm is not None]
    assert np.allclose(np.abs(np.diff(places)), 2.5, atol=1e-4)


def test_a_plane_is_a_word_that_fits_its_column() -> None:
    assert header(one()).plane == "0.00/0.00/1.00"
    assert header(one(orientation=CORONAL)).plane == "0.00/1.00/0.00"
    assert header(one(orientation=SAGITTAL)).plane == "-1.00/0.00/0.00"
    assert len("-0.99/-0.99/-0.99") <= 32


def test_a_tilted_stack_is_one_too() -> None:
    found = [header(image) for image in classic(6, tilt_degrees=18)]
    places = [one.position_mm for one in found if one.position_mm is not None]
    assert np.allclose(np.diff(places), 2.5, atol=1e-4)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_in_every_encoding(syntax: str) -> None:
    assert header(one(), syntax).position_mm == pytest.approx(30.25)


def test_frames() -> None:
    found = header(enhanced(5))
    assert (found.number_of_frames, found.plane, found.position_mm) == (5, "", None)
    assert header(one()).number_of_frames == 1


def test_how_many_images_are_announced() -> None:
    assert header(one()).images_announced is None
    assert header(one(ImagesInAcquisition=300)).images_announced == 300
    assert header(one(modality="PT", NumberOfSlices=48)).images_announced == 48
    assert header(one(modality="PT", NumberOfSlices=48, ImagesInAcquisition=96)).images_announced == 96
    assert header(one(modality="CT", NumberOfSlices=48)).images_announced is None, "an attribute of PET and NM"


def test_a_number_of_slices_in_big_endian() -> None:
    dataset = Dataset()
    dataset.Modality, dataset.NumberOfSlices = "PT", 300
    assert header(dataset, ExplicitVRBigEndian).images_announced == 300


@pytest.mark.parametrize(
    ("position", "orientation"),
    [
        ([1.0, 2.0], [1, 0, 0, 0, 1, 0]),
        ([1.0, 2.0, math.nan], [1, 0, 0, 0, 1, 0]),
        ([1.0, 2.0, 1e30], [1, 0, 0, 0, 1, 0]),
        ([1.0, 2.0, 3.0], [1, 0, 0, 1, 0, 0]),
        ([1.0, 2.0, 3.0], [0, 0, 0, 0, 0, 0]),
        ([1.0, 2.0, 3.0], [1e200, 0, 0, 0, 1e200, 0]),
        ([1.0, 2.0, 3.0], [1, 0, 0, 0, 1]),
        ([], []),
    ],
)
def test_a_place_that_is_none(position: list[float], orientation: list[float]) -> None:
    assert plane_and_position(position, orientation) == ("", None)


@given(st.lists(st.floats(allow_nan=True), max_size=7), st.lists(st.floats(allow_nan=True), max_size=7))
def test_whatever_numbers_come(position: list[float], orientation: list[float]) -> None:
    word, place = plane_and_position(position, orientation)
    assert (word == "") == (place is None)
    assert len(word) <= 32
    assert place is None or math.isfinite(place)


_ELEMENTS = {
    0x00200032: b"DS",
    0x00200037: b"DS",
    0x00201002: b"IS",
    0x00280008: b"IS",
}


def raw(values: dict[int, bytes]) -> bytes:
    """Explicit VR little endian."""
    out = b""
    for tag, value in sorted({0x00080060: b"CT", 0x00200013: b"7 "}.items() | values.items()):
        vr = _ELEMENTS.get(tag, b"CS" if tag == 0x00080060 else b"IS")
        out += (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr
        out += len(value).to_bytes(2, "little") + value
    return out


@given(st.dictionaries(st.sampled_from(sorted(_ELEMENTS)), st.binary(max_size=60)))
def test_whatever_bytes_come_the_instance_is_kept(values: dict[int, bytes]) -> None:
    found = read_header([raw(values)], ExplicitVRLittleEndian)
    assert found.instance_number == 7
    assert 1 <= found.number_of_frames < 1 << 31
    assert found.images_announced is None or 0 < found.images_announced < 1 << 31


def test_a_data_set_that_is_damaged_behind_what_is_needed_is_kept() -> None:
    endless = b"\x20\x00\x32\x00SQ\x00\x00\xff\xff\xff\xff"  # a sequence of which nothing follows
    damaged = raw({}) + endless + b"\x00\x00"
    with pytest.raises(Unreadable):
        first_elements([damaged], ExplicitVRLittleEndian, [0x00280008])
    assert read_header([damaged], ExplicitVRLittleEndian).instance_number == 7


def test_the_index_knows_which_association_brought_what_and_how_it_ended(tmp_path: Path) -> None:
    store, state = FakeInstanceStore(tmp_path), Recorder()
    indexer = Indexer(store, state, SystemClock())  # type: ignore[arg-type]
    indexer.put(Arrival(spool(store, "1.2.1"), association="here/1/7"))
    indexer.put(AssociationEnd("here/1/7", "SENDER", "NODE", "aborted"))
    indexer.put(AssociationEnd("here/1/8", "ECHO", "NODE", "released"))
    indexer.start()
    assert indexer.flush(10)
    indexer.stop()
    assert [(row.association, row.number_of_frames) for row in state.rows.values()] == [("here/1/7", 1)]
    assert state.ended == [("here/1/7", "aborted")], "an association that brought nothing costs no transaction"


def test_the_end_of_an_association_is_recorded_again_after_an_outage(tmp_path: Path) -> None:
    store, state = FakeInstanceStore(tmp_path), Recorder()
    indexer = Indexer(store, state, SystemClock())  # type: ignore[arg-type]
    indexer.put(Arrival(spool(store, "1.2.1"), association="here/1/7"))
    indexer.start()
    assert indexer.flush(10)
    state.down = True
    state.tried.clear()
    indexer.put(AssociationEnd("here/1/7", "SENDER", "NODE", "released"))
    assert state.tried.wait(10)
    state.down = False
    assert indexer.flush(10)
    indexer.stop()
    assert state.ended == [("here/1/7", "released")]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("ct/crlm-1004", "41 instances without a gap"),
        ("ct/lidc-0002-part", "12 instances without a gap"),
        ("ct/ge-head-tilt18-variable-spacing", "two images are 1.08 mm apart, most 4.00 mm"),
        ("multi/sts_002/ct/image", "48 instances without a gap"),
        ("multi/sts_002/mr_t1/image", "35 instances without a gap"),
        ("multi/sts_002/pet/image", "48 instances without a gap, as many as the headers announce"),
        ("planar/mg", "1 instance"),
        ("us/stressecho-multiframe", "10 frames without a gap"),
    ],
)
def test_real_series(folder: str, words: str) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip("../shared/data is absent")
    series: dict[str, list[Header]] = defaultdict(list)
    for file in sorted((DATA / folder).rglob("*.dcm")):
        found = header_of_file(file)
        series[found.series_instance_uid].append(found)
    (headers,) = series.values()
    places = [
        Place(h.instance_number, h.plane, h.position_mm, h.number_of_frames, h.images_announced) for h in headers
    ]
    assert look_at_stack(places, headers[0].modality).words == words
