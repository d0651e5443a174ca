"""Addresses of destinations: read, refused, shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.destination import (
    Destination,
    DimseAddress,
    StowAddress,
    parse_address,
    parse_dimse,
    parse_stow,
    without_password,
)
from dicomnode.errors import InvalidDestination


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ORTHANC@127.0.0.1:4242", DimseAddress("ORTHANC", "127.0.0.1", 4242)),
        ("MY PACS@pacs.local:104", DimseAddress("MY PACS", "pacs.local", 104)),
        ("A@[::1]:104", DimseAddress("A", "::1", 104)),
    ],
)
def test_a_dimse_address_and_back(text: str, address: DimseAddress) -> None:
    assert parse_dimse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "ORTHANC", "ORTHANC@host", "@host:104", "A@host:0", "A@host:65536", "A" * 17 + "@h:1", "A\\B@h:1"]
)
def test_no_dimse_address(text: str) -> None:
    with pytest.raises(InvalidDestination):
        parse_dimse(text)


def test_a_stow_address_loses_its_last_slash() -> None:
    assert parse_stow(" https://pacs/dicom-web/ ") == StowAddress("https://pacs/dicom-web")


@pytest.mark.parametrize(
    "text", ["", "pacs/dicom-web", "ftp://pacs", "http://", "http://pacs:x/", "http://pacs:0", "http://pacs?a=b"]
)
def test_no_stow_address(text: str) -> None:
    with pytest.raises(InvalidDestination):
        parse_stow(text)


@given(st.text("abcXYZ019-._~!$&'()*+,;=:%", min_size=1, max_size=20))
def test_a_password_is_kept_and_never_shown(password: str) -> None:
    url = f"http://node:{password}#@pacs:8042/x".replace("#", "")
    destination = Destination("pacs", StowAddress(url))
    assert destination.shown == "http://node:***@pacs:8042/x"
    assert parse_address(destination.kind, str(destination.address)) == destination.address
    assert "***" in repr(destination)


@pytest.mark.parametrize("text", ["http://pacs:8042/x", "http://node@pacs/x", "A@h:104", "http://pacs/a:b@c"])
def test_what_has_no_password_is_shown_whole(text: str) -> None:
    assert without_password(text) == text


def test_a_refused_url_does_not_repeat_its_password() -> None:
    with pytest.raises(InvalidDestination) as refused:
        parse_stow("ftp://node:secret@pacs/x")
    assert "secret" not in str(refused.value)
