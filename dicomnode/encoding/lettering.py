"""Words in any script, drawn: on pictures, and on pages for what a PDF's own fonts do not have.

PDF readers bring Latin letters alone. Others are drawn by Pillow, whose Raqm shapes Arabic and orders what runs from
right to left, in the first of the machine's fonts that has a letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Where Debian's packages have them (also Ubuntu's); each is free (Bitstream Vera's terms, Apache 2.0, SIL OFL)
FONTS = (
    Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),  # fonts-dejavu-core: Latin, Greek, Cyrillic, Arabic
    Path("/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf"),  # fonts-droid-fallback: CJK
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"),  # fonts-noto-cjk
)
_ABSENT = "\uf8ff\U0010fffe"  # private, and no character: what a font draws for these it draws for all it lacks


def is_latin(words: str) -> bool:
    """Whether the fonts that every PDF reader has can show it (WinAnsiEncoding, PDF 32000 Annex D)."""
    try:
        words.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def can_show(words: str) -> bool:
    """Whether a font of this machine has every letter."""
    return is_latin(words) or all(_font_of(letter) is not None for letter in words)


def shown_name(name: str) -> str:
    """Of the groups of a person's name (PS3.5 6.2.1: alphabetic=ideographic=phonetic) those that can be shown."""
    groups = [" ".join(part for part in group.split("^") if part) for group in name.split("=")]
    return " = ".join(group for group in groups if group and can_show(group))


def shown_words(words: str, instead: str) -> str:
    return words if can_show(words) else instead


def draw_words(draw: ImageDraw.ImageDraw, place: tuple[float, float], words: str, size: float, fill: Colour) -> float:
    """Draws from `place`, the upper left corner, on; gives the pixels that it took along the line."""
    x, y = place
    for run, font in _runs(words, size):
        draw.text((x, y + size), run, fill=fill, font=font, anchor="ls")  # one line below letters of all fonts
        x += draw.textlength(run, font=font)
    return x - place[0]


def picture_of(words: str, size: float, width: float, fill: Colour = (0, 0, 0)) -> Image.Image:
    """The words on white, in lines of `width` pixels at most."""
    lines = _lines(words, size, width)
    step = round(size * 1.4)
    made = Image.new(
        "RGB", (max(1, round(max(_length(line, size) for line in lines)) + 1), step * len(lines)), "white"
    )
    for number, line in enumerate(lines):
        draw_words(ImageDraw.Draw(made), (0, number * step), line, size, fill)
    return made


def _lines(words: str, size: float, width: float) -> list[str]:
    """Broken between words; scripts without blanks, and what is too long, between letters."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if _length(longer, size) <= width:
            lines[-1] = longer
            continue
        lines += [""] * bool(lines[-1])
        for letter in word:
            if lines[-1] and _length(lines[-1] + letter, size) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _length(words: str, size: float) -> float:
    """Pixels along the line."""
    ruler = ImageDraw.Draw(Image.new("L", (1, 1)))
    return sum(ruler.textlength(run, font=font) for run, font in _runs(words, size))


def _runs(words: str, size: float) -> Iterator[tuple[str, Font]]:
    """Neighbours of one font together; blanks stay with what is before them, so that lines keep their direction."""
    if is_latin(words):
        yield words, _loaded(None, size)
        return
    run, of = "", None
    for letter in words:
        font = of if run and letter.isspace() else _font_of(letter)
        if run and font != of:
            yield run, _loaded(of, size)
            run = ""
        run, of = run + letter, font
    if run:
        yield run, _loaded(of, size)


@lru_cache(maxsize=4096)
def _font_of(letter: str) -> Path | None:
    """The first font that has it; None where none has."""
    return next((path for path in _fonts() if _has(path, letter)), None)


@lru_cache
def _fonts() -> Sequence[Path]:
    return tuple(path for path in FONTS if path.is_file())


def _has(path: Path, letter: str) -> bool:
    font = _loaded(path, 24)
    drawn = bytes(font.getmask(letter))
    return letter.isspace() or all(drawn != bytes(font.getmask(absent)) for absent in _ABSENT)


@lru_cache(maxsize=64)
def _loaded(path: Path | None, size: float) -> Font:
    """Pillow's own, which is Latin, where no font has the letters."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
