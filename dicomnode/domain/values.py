"""How the values of DICOM attributes compare: a table of what each VR (PS3.5 6.2) is, and one comparison a kind.

An attribute has several values as often as not; the comparisons here are of one value, and a condition is true
when any value makes it so. An operand is what stands in a rule: text or a number.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache

Operand = str | int | float


class Kind(StrEnum):
    NUMBER = "number"
    DATE = "date"
    TIME = "time"
    DATETIME = "date and time"
    AGE = "age"
    NAME = "person name"
    EXACT = "identifier"  # letter case counts
    CODE = "code"  # CS: one word a value
    TEXT = "text"
    FLAG = "true or false"  # facts only: no VR says so
    NONE = "no comparable value"  # sequences and bulk data: only `exists` asks for them


_VRS: Mapping[Kind, str] = {
    Kind.NUMBER: "DS IS US SS UL SL UV SV FL FD",
    Kind.DATE: "DA",
    Kind.TIME: "TM",
    Kind.DATETIME: "DT",
    Kind.AGE: "AS",
    Kind.NAME: "PN",
    Kind.EXACT: "AE UI AT",
    Kind.CODE: "CS",
    Kind.TEXT: "LO SH LT ST UC UT UR UN",
    Kind.FLAG: "FLAG",
    Kind.NONE: "SQ OB OW OD OF OL OV",
}
_KIND_OF_VR = {vr: kind for kind, vrs in _VRS.items() for vr in vrs.split()}

_ORDERED = frozenset({Kind.NUMBER, Kind.DATE, Kind.TIME, Kind.DATETIME, Kind.AGE, Kind.TEXT})
_CONTAINING = frozenset({Kind.CODE, Kind.TEXT, Kind.NAME, Kind.EXACT})
# The same words come again and again, as operands in every series and as values in most: what they compare as is
# worked out once, unless they are long.
_REMEMBERED_CHARACTERS_MOST = 128


def kind_of(vr: str) -> Kind:
    """Of a VR; one that nobody knows is text. "US or SS" and its like (PS3.6) count as the first of them."""
    return _KIND_OF_VR.get(vr) or _KIND_OF_VR.get(vr.split(" ")[0], Kind.TEXT)


def is_ordered(kind: Kind) -> bool:
    """Whether at_least, at_most and between mean anything. Text is ordered where it reads as a number."""
    return kind in _ORDERED


def has_contents(kind: Kind) -> bool:
    """Whether contains means anything."""
    return kind in _CONTAINING


class NotComparable(ValueError):
    """The text is no value of the kind; the message says so in words."""


@dataclass(frozen=True, slots=True)
class Span:
    """A value on an ordered scale, from its first to its last moment: a year is as long as all its days."""

    low: float
    high: float


def span_of(kind: Kind, value: object) -> Span:
    """Where a value or an operand lies on the scale of its kind; raises NotComparable."""
    is_short = isinstance(value, str) and len(value) <= _REMEMBERED_CHARACTERS_MOST
    return _remembered_span(kind, value) if is_short else _SPANS[kind](value)


@lru_cache(maxsize=4096)
def _remembered_span(kind: Kind, text: object) -> Span:
    return _SPANS[kind](text)


def equal(kind: Kind, value: object, operand: Operand) -> bool:
    if kind in _SPANS and kind is not Kind.TEXT:
        found, wanted = span_of(kind, value), span_of(kind, operand)
        return _at_most(wanted.low, found.low) and _at_most(found.high, wanted.high)
    text = normal(kind, operand)
    return any(normal(kind, writing) == text for writing in _writings(kind, value))


def _writings(kind: Kind, value: object) -> tuple[object, ...]:
    """Of a person's name each component group (alphabetic, ideographic, phonetic; PS3.5 6.2.1), and all together."""
    if kind is not Kind.NAME or "=" not in (text := text_of(value)):
        return (value,)
    return (text, *filter(None, text.split("=")))


def at_least(kind: Kind, value: object, operand: Operand) -> bool:
    return _at_most(span_of(kind, operand).low, span_of(kind, value).low)


def at_most(kind: Kind, value: object, operand: Operand) -> bool:
    return _at_most(span_of(kind, value).high, span_of(kind, operand).high)


def between(kind: Kind, value: object, first: Operand, last: Operand) -> bool:
    """Both ends included. Hours that end before they begin go over midnight: from 22:00 to 06:00."""
    after, before = at_least(kind, value, first), at_most(kind, value, last)
    return after or before if goes_over_midnight(kind, first, last) else after and before


def goes_over_midnight(kind: Kind, first: Operand, last: Operand) -> bool:
    return kind is Kind.TIME and span_of(kind, first).low > span_of(kind, last).high


def contains(kind: Kind, value: object, operand: Operand) -> bool:
    """A code is contained when it is a value; elsewhere the operand is a part of the text."""
    if kind is Kind.CODE:
        return normal(kind, value) == normal(kind, operand)
    wanted = normal(kind, operand)
    return any(wanted in normal(kind, writing) for writing in _writings(kind, value))


def overlap(one: Span, other: Span) -> bool:
    """Whether a value can lie in both."""
    return _at_most(one.low, other.high) and _at_most(other.low, one.high)


def normal(kind: Kind, value: object) -> str:
    """Text as it compares: composed, padding stripped, letter case ignored but in AE titles, UIDs and tags."""
    text = text_of(value)
    return _remembered_normal(kind, text) if len(text) <= _REMEMBERED_CHARACTERS_MOST else _normal(kind, text)


def _normal(kind: Kind, text: str) -> str:
    text = unicodedata.normalize("NFC", text).strip(" \0")
    if kind is Kind.NAME:
        text = "^".join(part.strip() for part in text.split("^")).rstrip("^=")
    return text if kind is Kind.EXACT else text.casefold()


_remembered_normal = lru_cache(maxsize=4096)(_normal)


def text_of(value: object) -> str:
    """A value as a regular expression sees it, and as it is shown: 5, not 5.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def printable(text: str) -> str:
    """Control characters and lone surrogates become U+FFFD: databases, JSON and terminals refuse them."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def _at_most(low: float, high: float) -> bool:
    """low <= high, the last digits of a decimal or a 32 bit float aside: 0.70000001 mm is 0.7 mm."""
    exact = isinstance(low, int) and isinstance(high, int)
    return low <= high or (not exact and math.isclose(low, high, rel_tol=1e-6, abs_tol=1e-9))


_WHOLE_NUMBERS_UNDER = 10**300  # those that a float can be compared with


def _number(value: object) -> Span:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _WHOLE_NUMBERS_UNDER:
        return Span(value, value)
    if isinstance(value, float) and math.isfinite(value):
        return Span(value, value)
    try:
        number = float(text_of(value))
    except ValueError:
        raise NotComparable(f"{text_of(value)!r} is no number") from None
    if not math.isfinite(number):
        raise NotComparable(f"{text_of(value)!r} is no finite number")
    return Span(number, number)


# PS3.5 6.2, DA: YYYYMMDD. The dots of ACR-NEMA are still met; hyphens are how people write a date in a rule.
_DATE = re.compile(r"(\d{4})(?:([-.]?)(\d\d)(?:\2(\d\d))?)?")
# PS3.5 6.2, TM: HHMMSS.FFFFFF, cut off anywhere; colons in rules and in ACR-NEMA.
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?")
# PS3.5 6.2, DT: YYYYMMDDHHMMSS.FFFFFF&ZZXX
_DATETIME = re.compile(r"(\d{4}(?:-?\d\d(?:-?\d\d)?)?)(?:[T ]?(\d\d[\d:.]*))?(?:([+-])(\d\d):?(\d\d))?")
# PS3.5 6.2, AS: nnnD, nnnW, nnnM, nnnY; rules may leave out the zeros.
_AGE = re.compile(r"(\d{1,3})([DWMY]?)")
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_MICROSECONDS_A_DAY = 86_400_000_000


def _date(value: object) -> Span:
    """In days; a year or a month spans its days."""
    text = text_of(value).strip(" \0")
    match = _DATE.fullmatch(text)
    if not match:
        raise NotComparable(f"{text!r} is no date such as 20240131 or 2024-01-31")
    year, month, day = int(match[1]), match[3], match[4]
    try:
        first = date(year, int(month or 1), int(day or 1))
        if day:
            return Span(first.toordinal(), first.toordinal())
        return Span(first.toordinal(), _first_of_next(year, int(month) if month else 12) - 1)
    except ValueError:
        raise NotComparable(f"{text!r} is no date of the calendar") from None


def _first_of_next(year: int, month: int) -> int:
    return date(year + month // 12, month % 12 + 1, 1).toordinal()


def _time(value: object) -> Span:
    """In microseconds since midnight; an hour or a minute spans its seconds."""
    text = text_of(value).strip(" \0")
    match = _TIME.fullmatch(text)
    # PS3.5 6.2: seconds go up to 60, for leap seconds
    if not match or int(match[1]) > 23 or int(match[2] or 0) > 59 or int(match[3] or 0) > 60:
        raise NotComparable(f"{text!r} is no time such as 1430 or 14:30")
    low = ((int(match[1]) * 60 + int(match[2] or 0)) * 60 + int(match[3] or 0)) * 1_000_000
    if match[4]:
        low += int(match[4].ljust(6, "0"))
        return Span(low, low + int(10 ** (6 - len(match[4]))) - 1)
    long_s = 1 if match[3] else 60 if match[2] else 3600
    return Span(low, low + long_s * 1_000_000 - 1)


def _datetime(value: object) -> Span:
    """In microseconds, UTC where an offset is given (PS3.5 6.2), else as the clock on the wall said."""
    text = text_of(value).strip(" \0")
    match = _DATETIME.fullmatch(text)
    if not match:
        raise NotComparable(f"{text!r} is no date and time such as 20240131143000 or 2024-01-31 14:30")
    days = _date(match[1])
    hours = _time(match[2]) if match[2] else Span(0, _MICROSECONDS_A_DAY - 1)
    offset = 0
    if match[3]:
        offset = (int(match[4]) * 60 + int(match[5])) * 60_000_000 * (-1 if match[3] == "-" else 1)
    return Span(
        days.low * _MICROSECONDS_A_DAY + hours.low - offset, days.high * _MICROSECONDS_A_DAY + hours.high - offset
    )


def _age(value: object) -> Span:
    """In years. A bare number in a rule is years."""
    if isinstance(value, int | float):
        return _number(value)
    text = text_of(value).strip(" \0").upper()
    if match := _AGE.fullmatch(text):
        years = int(match[1]) * _YEARS[match[2]]
        return Span(years, years)
    raise NotComparable(f"{text!r} is no age such as 045Y, 18M or 45 (years)")


_SPANS: Mapping[Kind, Callable[[object], Span]] = {
    Kind.NUMBER: _number,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.DATETIME: _datetime,
    Kind.AGE: _age,
    Kind.TEXT: _number,
}
