"""UIDs, AE titles and addresses at the boundary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from dicomnode.domain.destination import Destination, DimseAddress, parse_dimse, parse_stow
from dicomnode.domain.identifiers import deterministic_uid, is_ae_title, is_uid
from dicomnode.errors import InvalidDestination


@given(st.lists(st.text(), min_size=1))
def test_a_deterministic_uid_is_valid_and_always_the_same(parts: list[str]) -> None:
    uid = deterministic_uid(*parts)
    assert UID(uid).is_valid
    assert is_uid(uid)
    assert uid == deterministic_uid(*parts)


def test_parts_are_not_run_together() -> None:
    assert deterministic_uid("1.2", "3") != deterministic_uid("1.2.", "3") != deterministic_uid("1.23")


@pytest.mark.parametrize("uid", ["", ".", "1.", ".1", "1..2", "../../etc", "1.2a", "1/2", "1." * 32 + "1", "1.2\n"])
def test_what_could_not_be_a_file_name_is_no_uid(uid: str) -> None:
    assert not is_uid(uid)


@pytest.mark.parametrize(("title", "fine"), [("CT_1", True), ("A" * 17, False), ("  ", False), ("A\\B", False)])
def test_ae_titles(title: str, fine: bool) -> None:
    assert is_ae_title(title) is fine


def test_addresses_print_as_they_are_read() -> None:
    for text in ("ORTHANC@127.0.0.1:4242", "PACS@[::1]:104", "PACS 2@pacs.hospital.example:11112"):
        assert str(parse_dimse(text)) == text
    assert str(parse_stow("http://127.0.0.1:8042/dicom-web/")) == "http://127.0.0.1:8042/dicom-web"


@pytest.mark.parametrize("text", ["ORTHANC", "@h:1", "A@h", "A@h:0", "A@h:70000", "A" * 17 + "@h:1", "A@h:x"])
def test_what_is_no_dimse_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidDestination):
        parse_dimse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:8042", "ftp://host/", "http://"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(InvalidDestination):
        parse_stow(text)


def test_a_destination_has_a_name() -> None:
    with pytest.raises(InvalidDestination):
        Destination("main pacs", DimseAddress("A", "h", 1))
