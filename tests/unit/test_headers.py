"""Odd values are taken as they come, and nothing of that is left behind."""

from __future__ import annotations

import threading
import warnings

import pytest
from pydicom import Dataset, config

from dicomnode.imaging.headers import items, numbers, odd_values_accepted, text, value, whole


def switches() -> tuple[object, ...]:
    settings = config.settings
    return list(warnings.filters), settings.reading_validation_mode, settings.writing_validation_mode


def test_threads_that_overlap_put_everything_back() -> None:
    before = switches()
    inside, leave = threading.Barrier(3), [threading.Event(), threading.Event()]

    def work(event: threading.Event) -> None:
        with odd_values_accepted():
            inside.wait(10)
            event.wait(10)

    threads = [threading.Thread(target=work, args=(event,)) for event in leave]
    for thread in threads:
        thread.start()
    inside.wait(10)
    leave[0].set()
    threads[0].join()
    warnings.warn("the other thread is still inside", stacklevel=1)
    leave[1].set()
    threads[1].join()

    assert switches() == before
    with pytest.raises(UserWarning, match="outside"):
        warnings.warn("outside", stacklevel=1)


def test_an_error_inside_puts_everything_back() -> None:
    before = switches()
    with pytest.raises(KeyError), odd_values_accepted():
        raise KeyError
    assert switches() == before


def broken() -> Dataset:
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    d = Dataset()
    for tag, vr, content in (
        (0x00280010, "US", b"\1\0\2\0"),
        (0x00280008, "IS", b"1A"),
        (0x00180050, "DS", b"nan "),
        (0x00200037, "DS", b"1\\0\\x "),
        (0x00100010, "PN", b"\xff\xfe"),
    ):
        d[Tag(tag)] = RawDataElement(Tag(tag), vr, len(content), content, 0, False, True)
    return d


def test_values_that_cannot_be_read_are_absent() -> None:
    with odd_values_accepted():
        d = broken()
        assert whole(d, "Rows") is None
        assert whole(d, "NumberOfFrames") is None
        assert numbers(d, "SliceThickness", 1) is None
        assert numbers(d, "ImageOrientationPatient", 3) is None
        assert items(d, "PixelMeasuresSequence") == []
        assert text(d, "Modality") == ""
        assert value(d, "Modality", "?") == "?"
        assert text(d, "PatientName")
