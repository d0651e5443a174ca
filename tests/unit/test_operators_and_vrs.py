"""Every operator on every VR (PS3.5 6.2): what is true, what is false, what never applies, and odd values."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.conditions import explain
from dicomnode.domain.rule_reading import parse_condition
from dicomnode.domain.rules import ORDERING, Comparison, Operator
from dicomnode.domain.study import Element, Header
from dicomnode.domain.values import Kind, NotComparable, has_contents, is_ordered, kind_of, span_of, text_of
from dicomnode.errors import CannotDecode, InvalidRule
from dicomnode.imaging.attributes import keyword_vrs, read_header

DATA = Path(__file__).parents[3] / "shared" / "data"

# PS3.5 table 6.2-1, all of them
VRS = "AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV"
# An operator's operand that is true of the value, and one that is false; None: it never applies
Said = Mapping[str, tuple[Any, Any] | None]

_NUMBER: Said = {
    "equals": ("12.0", 13),
    "one_of": ([1, 12], [1, 13]),
    "contains": None,
    "matches": ("^12$", "^2"),
    "at_least": (12, 12.5),
    "at_most": ("12", 11.9),
    "between": ([12, 13], [13, 14]),
}
_TEXT: Said = {
    "equals": ("thin ABDOMEN", "thin"),
    "one_of": (["x", "Thin Abdomen"], ["thin", "abdomen"]),
    "contains": ("ABDO", "thorax"),
    "matches": ("(?i)^thin", "^thin"),
    "at_least": None,
    "at_most": None,
    "between": None,
}
_TEXT_OF_A_NUMBER: Said = {**_NUMBER, "equals": ("12", "12.0"), "contains": ("2", "3")}
_IDENTIFIER: Said = {
    "equals": ("1.2.AB", "1.2.ab"),
    "one_of": (["1.2", "1.2.AB"], ["1.2", "1.2.ab"]),
    "contains": (".AB", ".ab"),
    "matches": (r"\.AB$", r"\.ab$"),
    "at_least": None,
    "at_most": None,
    "between": None,
}
_NOTHING: Said = dict.fromkeys(_NUMBER)
_NUMBERS = ["DS", "IS", "FL", "FD", "US", "SS", "UL", "SL", "UV", "SV"]
_TEXTS = ["LO", "SH", "LT", "ST", "UC", "UT", "UR", "UN"]

# (VR, a value, what is said of it)
ROWS: list[tuple[str, object, Said]] = [
    *((vr, 12, _NUMBER) for vr in _NUMBERS),
    *((vr, "12", _NUMBER) for vr in ("DS", "IS")),
    *((vr, "Thin Abdomen", _TEXT) for vr in _TEXTS),
    *((vr, "12", _TEXT_OF_A_NUMBER) for vr in _TEXTS),
    *((vr, "1.2.AB", _IDENTIFIER) for vr in ("AE", "UI", "AT")),
    *((vr, {}, _NOTHING) for vr in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV")),
    (
        "CS",
        "Axial",
        {**_TEXT, "equals": ("AXIAL", "AXI"), "one_of": (["axial"], ["AX", "IAL"]), "contains": ("axial", "axi"),
         "matches": ("^Ax", "^ax")},
    ),
    (
        "PN",
        "Äneas^Rüdiger^^^",
        {**_TEXT, "equals": ("ÄNEAS^rüdiger", "Äneas"), "one_of": (["x", "äneas^RÜDIGER^"], ["Äneas", "Rüdiger"]),
         "contains": ("rüd", "rud"), "matches": (r"\^R", "^R")},
    ),
    (
        "DA",
        "20240131",
        {"equals": ("2024-01", "2024-02"), "one_of": (["2023", "2024"], ["2023", 2022]), "contains": None,
         "matches": ("0131$", "2024-01"), "at_least": (20240131, "2024-02"), "at_most": ("2024", "2024-01-30"),
         "between": (["2024-01-31", "2024-01-31"], ["2024-02", "2025"])},
    ),
    (
        "TM",
        "223005.5",
        {"equals": ("22:30", "22:31"), "one_of": (["10", "22"], ["10", "23"]), "contains": None,
         "matches": ("^2230", "22:30"), "at_least": ("22:30", "22:31"), "at_most": (22, "22:29"),
         "between": (["22:00", "06:00"], ["06:00", "22:00"])},
    ),
    (
        "DT",
        "20240131223005+0100",
        {"equals": ("2024-01-31 21:30+0000", "2024-01-31 22:30+0000"), "one_of": (["2023", "2024"], ["2023"]),
         "contains": None, "matches": (r"\+0100$", "21:30"), "at_least": ("20240131", "20240201"),
         "at_most": ("2024-02-01", "2024-01-30"), "between": (["2024", "2024"], ["2023", "2023"])},
    ),
    (
        "AS",
        "018M",
        {"equals": (1.5, 18), "one_of": ([1, "18M"], [1, 18]), "contains": None, "matches": ("M$", "^18"),
         "at_least": ("1Y", 2), "at_most": (2, "17M"), "between": ([1, 2], [2, 18])},
    ),
]  # fmt: skip
# What is no value of its VR, beside which a good one still counts
ODD: list[object] = ["", "rubbish", "9.9.9", "99-99", "\ud800", "\0", float("nan"), float("inf"), {}, None, b"\xff"]


def _holds(said: Any, header: Header) -> bool:
    return explain(parse_condition({"Attribute": said}), header, {}).holds


def _cases() -> Iterator[tuple[str, object, str, Any, bool]]:
    for vr, value, said in ROWS:
        for operator, operands in said.items():
            if operands is not None:
                yield vr, value, operator, operands[0], True
                yield vr, value, operator, operands[1], False


def test_the_table_is_complete() -> None:
    assert {vr for vr, _, _ in ROWS} == set(VRS.split())
    for _, _, said in ROWS:
        assert {*said, "exists"} == set(Operator)
    assert {vr.split(" ")[0] for vr in keyword_vrs().values()} <= set(VRS.split())


@pytest.mark.parametrize(("vr", "value", "operator", "operand", "holds"), list(_cases()))
def test_what_is_true_and_what_is_false(vr: str, value: object, operator: str, operand: Any, holds: bool) -> None:
    assert _holds({operator: operand}, {"Attribute": Element(vr, (value,))}) is holds
    among_odd_ones = {"Attribute": Element(vr, (*ODD[:3], value, *ODD[3:]))}
    assert _holds({operator: operand}, among_odd_ones) is holds
    assert not _holds({operator: operand}, {"Attribute": Element(vr, ())})
    assert not _holds({operator: operand}, {})


@pytest.mark.parametrize(("vr", "value", "said"), ROWS)
def test_what_never_applies_is_false_and_refused_when_it_is_read(vr: str, value: object, said: Said) -> None:
    keyword = next((k for k, known in sorted(keyword_vrs().items()) if known.startswith(vr)), "")
    for operator in (name for name, operands in said.items() if operands is None):
        operand = [1, 2] if operator == "between" else ["1"] if operator == "one_of" else "1"
        assert not _holds({operator: operand}, {"Attribute": Element(vr, (value,))})
        applies = operator in ORDERING and is_ordered(kind_of(vr))  # of text: where it reads as a number
        if keyword and not applies:
            with pytest.raises(InvalidRule):
                parse_condition({keyword: {operator: operand}}, keyword_vrs())


@pytest.mark.parametrize(("vr", "value"), [(vr, value) for vr, value, _ in ROWS])
def test_exists_asks_for_a_value_alone(vr: str, value: object) -> None:
    assert _holds({"exists": True}, {"Attribute": Element(vr, (value,))})
    assert _holds({"exists": False}, {"Attribute": Element(vr, ())})
    assert _holds({"exists": False}, {})


@pytest.mark.parametrize("vr", VRS.split())
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_values_raise_nothing_and_are_in_no_range(vr: str, odd: object) -> None:
    header = {"Attribute": Element(vr, (odd,))}
    for operator, operand in [("at_least", "1"), ("at_most", "1"), ("between", ["1", "2"])]:
        assert not _holds({operator: operand}, header)
    for said in ({"equals": "0"}, {"one_of": ["0", 1]}, {"contains": "0"}, {"matches": "^0$"}):
        assert not _holds(said, header)
    assert _holds({"exists": True}, header)


# ------------------------------------------------------------------------------------------- between over midnight


@pytest.mark.parametrize(
    ("time", "holds"),
    [("22", True), ("215959", False), ("2200", True), ("235959.999999", True), ("000000", True), ("0600", True),
     ("060059", True), ("060100", False), ("1200", False), ("25", False), ("", False)],
)  # fmt: skip
def test_hours_that_end_before_they_begin_go_over_midnight(time: str, holds: bool) -> None:
    header = {"StudyTime": Element("TM", (time,))}
    when = parse_condition({"StudyTime": {"between": ["22:00", "06:00"]}}, keyword_vrs())
    assert explain(when, header, {}).holds is holds
    fact = parse_condition({"ReceivedTimeOfDay": {"between": ["22:00", "06:00"]}}, keyword_vrs())
    assert explain(fact, {}, {"ReceivedTimeOfDay": Element("TM", (time,))}).holds is holds


def test_only_hours_go_over_midnight() -> None:
    for when in (
        {"StudyDate": {"between": ["2024", "2023"]}},
        {"AcquisitionDateTime": {"between": ["2024", "2023"]}},
    ):
        with pytest.raises(InvalidRule, match="comes after"):
            parse_condition(when, keyword_vrs())
    assert not _holds({"between": [5, 3]}, {"Attribute": Element("DS", (4.0,))})


@pytest.mark.parametrize("thickness", [5, 5.0, "5", "5.00"])
def test_a_millionth_more_or_less_is_the_same_however_the_number_is_written(thickness: object) -> None:
    for value in (4.9999999, 5.0000001, 5):
        header = {"Attribute": Element("DS", (value,))}
        assert all(_holds({operator: thickness}, header) for operator in ("equals", "at_least", "at_most"))
    assert not _holds({"equals": thickness}, {"Attribute": Element("DS", (4.9999,))})


def test_whole_numbers_are_exact_and_as_long_as_they_come() -> None:
    assert not _holds({"equals": 10**12}, {"Attribute": Element("UV", (10**12 + 1,))})
    assert not _holds({"at_most": 5}, {"Attribute": Element("IS", (10**400,))})
    assert not _holds({"at_least": 0.5}, {"Attribute": Element("IS", (-(10**400),))})


# ------------------------------------------------------------------------------------------------------ real data


def _attributes(header: Header, path: str = "") -> Iterator[tuple[str, Element]]:
    """Every attribute with its path, those in sequences too."""
    for name, element in header.items():
        yield f"{path}{name}", element
        for value in element.values:
            if isinstance(value, Mapping):
                yield from _attributes(value, f"{path}{name}.")


def _true_of_itself(kind: Kind, value: object) -> Iterator[tuple[Operator, tuple[Any, ...]]]:
    """What has to be true of an attribute that has this value."""
    yield Operator.EXISTS, ()
    if isinstance(value, Mapping) or kind is Kind.NONE:
        return
    text = text_of(value)
    operand: Any = value if isinstance(value, int | float) else text
    pattern = re.escape(text[:40])
    if len(pattern) < 180 and len(text) < 1000 and text.isprintable():
        yield Operator.MATCHES, (pattern,)
    if has_contents(kind):
        yield Operator.CONTAINS, (text if kind is Kind.CODE else text.casefold() if kind is Kind.TEXT else text[:5],)
    try:
        if is_ordered(kind):
            span_of(kind, value)
            yield from ((o, (operand,)) for o in (Operator.AT_LEAST, Operator.AT_MOST))
            yield Operator.BETWEEN, (operand, operand)
        yield from ((o, (operand,)) for o in (Operator.EQUALS, Operator.ONE_OF))
    except NotComparable:
        return


def _headers(*folders: str) -> list[tuple[Path, Header]]:
    read = []
    for path in sorted(p for folder in folders for p in (DATA / folder).rglob("*") if p.is_file()):
        try:
            read.append((path, read_header(path)))
        except CannotDecode:
            continue
    return read


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_every_real_value_odd_and_broken_ones_too_is_what_it_is() -> None:
    files, seen = _headers("charset", "broken"), 0
    for path, header in files:
        for subject, element in _attributes(header):
            for value in element.values[:8]:
                for operator, operands in _true_of_itself(kind_of(element.vr), value):
                    seen += 1
                    assert explain(Comparison(subject, operator, operands), header, {}).holds, (
                        path,
                        subject,
                        operator,
                    )
    # MANIFEST.md: 273 files, of which a dozen are no DICOM
    assert len(files) > 230
    assert seen > 20_000


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_every_operator_meets_every_real_value_without_an_error() -> None:
    operations: list[tuple[Operator, tuple[Any, ...]]] = [
        (Operator.EQUALS, ("1",)), (Operator.ONE_OF, (1, "x")), (Operator.CONTAINS, ("1",)),
        (Operator.MATCHES, (r"\d",)), (Operator.AT_LEAST, (1,)), (Operator.AT_MOST, ("1",)),
        (Operator.BETWEEN, ("0001", "2359")), (Operator.EXISTS, ()),
    ]  # fmt: skip
    for path, header in _headers("charset", "broken"):
        for (subject, _), (operator, operands) in itertools.product(_attributes(header), operations):
            explanation = explain(Comparison(subject, operator, operands), header, {})
            assert explanation.words().encode("utf-8"), path


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("file", "equal", "part"),
    [
        ("chrArab", "قباني^لنزار", "لنزار"),
        ("chrFren", "BUC^JE\u0301RO\u0302ME", "jérôme"),
        ("chrGerm", "äneas^rüdiger", "RÜDIGER"),
        ("chrGreek", "ΔΙΟΝΥΣΙΟΣ", "διον"),
        ("chrH31", "yamada^tarou", "TAROU"),
        ("chrI2", "HONG^GILDONG", "gild"),
        ("chrRuss", "Люкceмбypг".upper(), "люк"),  # some of its letters are Latin
        ("chrX1", "wang^xiaodong^^", "Xiao"),
        ("chrX2", "WANG^XIAODONG", "xiao"),
    ],
)
def test_names_compare_in_every_charset(file: str, equal: str, part: str) -> None:
    header = read_header(DATA / "charset" / f"{file}.dcm")
    for said in (equal, ["Roe^Jane", equal], {"contains": part}, {"matches": f"(?i){part}"}):
        assert explain(parse_condition({"PatientName": said}, keyword_vrs()), header, {}).holds
    for said in (part[:2], ["Roe^Jane"], {"contains": "roe"}, {"matches": "^[0-9]"}):
        assert not explain(parse_condition({"PatientName": said}, keyword_vrs()), header, {}).holds
