"""Words in any script are drawn as they are read, or not at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread

from dicomnode.encoding import lettering
from dicomnode.encoding.lettering import FONTS, can_show, draw_words, picture_of, shown_name, shown_words
from dicomnode.encoding.one_page import encode_one_page
from tests.made_series import classic
from tests.real_data import folder_of
from tests.unit.test_forms import findings

YAMADA = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046"
ARABIC = "\u0642\u0628\u0627\u0646\u064a"
with_fonts = pytest.mark.skipif(
    not all(path.is_file() for path in FONTS[:2]),
    reason="fonts-dejavu-core and fonts-droid-fallback are not installed",
)


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_font_of", lambda letter: None)


@pytest.mark.usefixtures("no_fonts")
def test_without_fonts_a_name_is_what_of_it_is_latin() -> None:
    assert shown_name(YAMADA) == "Yamada Tarou"
    assert shown_name("M\u00fcller^J\u00f6rg") == "M\u00fcller J\u00f6rg"
    assert shown_name(ARABIC) == ""
    assert shown_words(ARABIC, "segment 3") == "segment 3"
    assert shown_words("Lunge", "segment 3") == "Lunge"


@with_fonts
def test_what_fonts_have_can_be_shown() -> None:
    ideographs, kana = "\u5c71\u7530 \u592a\u90ce", "\u3084\u307e\u3060 \u305f\u308d\u3046"
    assert shown_name(YAMADA) == f"Yamada Tarou = {ideographs} = {kana}"
    assert can_show(ARABIC)
    assert can_show("\u041b\u044e\u043a\u0441")
    assert not can_show("\U0010fffd")


@with_fonts
def test_arabic_letters_are_joined() -> None:
    joined, apart = (_drawn(words) for words in (ARABIC, "\u200c".join(ARABIC)))
    assert joined.shape[1] < apart.shape[1]


def _drawn(words: str) -> npt.NDArray[np.uint8]:
    return np.asarray(picture_of(words, 24, 1000))


@with_fonts
def test_long_words_are_broken_into_lines() -> None:
    narrow, wide = (picture_of("\u5c71\u7530" * 20, 20, width) for width in (100, 2000))
    assert narrow.width <= 101
    assert narrow.height > 5 * wide.height
    assert np.asarray(narrow).min() == 0


def test_what_is_drawn_stays_in_its_line() -> None:
    sheet = Image.new("RGB", (300, 60))
    length = draw_words(ImageDraw.Draw(sheet), (10, 10), "Leber, gro\u00df", 20, (255, 255, 255))
    pixels = np.asarray(sheet).max(-1)
    assert pixels[:10].max() == pixels[40:].max() == pixels[:, :9].max() == 0
    assert 60 < length < 290
    assert pixels.max() > 200


@with_fonts
@pytest.mark.real_data
@pytest.mark.parametrize("file", ["chrArab", "chrGreek", "chrH31", "chrI2", "chrRuss", "chrX1", "chrX2"])
def test_a_patients_name_is_on_the_page(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dcmread(folder_of("charset") / f"{file}.dcm")
    series = classic()
    for image in series:
        image.SpecificCharacterSet, image.PatientName = source.SpecificCharacterSet, source.PatientName
    drawn: list[str] = []

    def noted(words: str, size: float, width: float) -> Image.Image:
        drawn.append(words)
        return picture_of(words, size, width)

    monkeypatch.setattr("dicomnode.encoding.one_page.picture_of", noted)
    page = encode_one_page(findings(series))
    assert page.PatientName == source.PatientName
    (line,) = drawn
    assert line.startswith(f"Patient: {shown_name(str(source.PatientName))}, P-1")
    shown = [part for group in str(source.PatientName).split("=")[:2] for part in group.split("^")]
    assert all(part in line for part in shown)
