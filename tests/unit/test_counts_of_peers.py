"""What peers write where a number of instances belongs: what is no count is none, and ends nothing."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicomnode.adapters.dicomweb import qido
from dicomnode.adapters.dimse import query_scu

MOST = 2**31 - 1


def answered(value: bytes) -> Dataset:
    """As it comes over the network: read when it is asked for."""
    tag = Tag(0x00201209)
    dataset = Dataset()
    dataset._dict[tag] = RawDataElement(tag, "IS", len(value), value, 0, True, True)
    return dataset


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (b"300 ", 300),
        (b"0 ", 0),
        (str(MOST).encode(), MOST),
        (str(MOST + 1).encode(), None),
        (b"9999999999", None),
        (b"-5", None),
        (b"3\\4 ", None),
        (b"1.5 ", None),
        (b"12abc ", None),
        (b"", None),
    ],
)
def test_c_find(value: bytes, count: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
    assert query_scu._number(answered(value), "NumberOfSeriesRelatedInstances") == count


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (300, 300),
        ("300", 300),
        (0, 0),
        (MOST, MOST),
        (MOST + 1, None),
        (10**30, None),
        ("9" * 30, None),
        ("9" * 5000, None),
        (-5, None),
        ("-5", None),
        (1.5, None),
        ("many", None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_qido_rs(value: Any, count: int | None) -> None:
    assert qido._number({"00201209": {"vr": "IS", "Value": [value]}}, "00201209") == count
