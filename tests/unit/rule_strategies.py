"""Rules, headers and facts for property tests."""

from __future__ import annotations

import string
from datetime import time
from typing import Any

from hypothesis import strategies as st

from dicomnode.domain.job import Priority
from dicomnode.domain.rules import (
    All,
    AnyOf,
    Choice,
    Comparison,
    Condition,
    Not,
    Operator,
    Origin,
    Preference,
    Role,
    Rule,
    RuleState,
    StudyConditions,
    Window,
)
from dicomnode.domain.study import Element, Header

# A handful of subjects, so that rules and headers meet
SUBJECTS = {
    "Modality": "CS",
    "ImageType": "CS",
    "SliceThickness": "DS",
    "Rows": "US",
    "EchoTime": "FL",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "AcquisitionDateTime": "DT",
    "PatientAge": "AS",
    "PatientName": "PN",
    "SeriesDescription": "LO",
    "StudyInstanceUID": "UI",
    "StationAETitle": "AE",
    "(0019,10,GEMS_ACQU_01)": "UN",
    "ReferencedImageSequence.ReferencedSOPInstanceUID": "UI",
    "NumberOfInstances": "IS",
    "ReceivedTimeOfDay": "TM",
    "IsAVolume": "FLAG",
    "Orientation": "CS",
    "AgeInYears": "DS",
}
_WORDS = [
    "CT",
    "MR",
    "AXIAL",
    "5",
    "5.0",
    "-1e3",
    "20240131",
    "2024",
    "143000",
    "045Y",
    "18M",
    "Doe^John",
    "1.2.3",
    "",
]
_PATTERNS = ["CT", "(?i)ax", "^5", r"\d+", "^$", "[A-Z]{2}"]

plain = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
texts = st.one_of(st.sampled_from(_WORDS), plain)
numbers = st.one_of(st.integers(-1000, 1000), st.floats(allow_nan=False, allow_infinity=False, width=32))
operands: st.SearchStrategy[Any] = st.one_of(texts.filter(lambda t: bool(t.strip())), numbers)
odd_values: st.SearchStrategy[Any] = st.one_of(
    texts, numbers, st.sampled_from([float("nan"), float("inf"), {}, "\0", "\ud800", "5\0", "x" * 5000])
)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    subject, operator = draw(st.sampled_from(sorted(SUBJECTS))), draw(st.sampled_from(Operator))
    if operator is Operator.EXISTS:
        return Comparison(subject, operator)
    if SUBJECTS[subject] == "FLAG":
        return Comparison(subject, Operator.EQUALS, (draw(st.booleans()),))
    if operator is Operator.MATCHES:
        return Comparison(subject, operator, (draw(st.sampled_from(_PATTERNS)),))
    counts = {Operator.ONE_OF: (1, 3), Operator.BETWEEN: (2, 2)}
    least, most = counts.get(operator, (1, 1))
    return Comparison(subject, operator, tuple(draw(st.lists(operands, min_size=least, max_size=most))))


def conditions() -> st.SearchStrategy[Condition]:
    def grow(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
        several = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.one_of(st.builds(All, several), st.builds(AnyOf, several), st.builds(Not, inner))

    return st.recursive(comparisons(), grow, max_leaves=8)


names = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
words = st.text(string.ascii_letters, min_size=1, max_size=8)
_several = st.lists(conditions(), max_size=2).map(tuple)
studies = st.builds(StudyConditions, has=_several, has_not=_several)


def _preferences(choice: Choice) -> st.SearchStrategy[Preference]:
    if choice is not Choice.KERNEL:
        return st.just(Preference(choice))
    kernels = plain.filter(lambda t: bool(t.strip()))
    return st.lists(kernels, min_size=1, max_size=3).map(lambda values: Preference(choice, tuple(values)))


choices = st.lists(
    st.sampled_from(Choice).flatmap(_preferences), max_size=3, unique_by=lambda preference: preference.choice
).map(tuple)
roles = st.lists(
    st.builds(Role, name=words, when=conditions(), origin=st.sampled_from(Origin), choose=choices),
    max_size=2,
    unique_by=lambda role: role.name,
).map(tuple)
clocks = st.builds(time, st.integers(0, 23), st.integers(0, 59))
windows = st.builds(Window, clocks, clocks).filter(lambda window: window.start != window.end)
parameters = st.dictionaries(words, st.booleans() | operands, max_size=2)
_descriptions = plain.filter(lambda t: not t or bool(t.strip()))


def rules() -> st.SearchStrategy[Rule]:
    return st.one_of(_rules_with_a_model(), _rules_that_only_stop())


def _rules_with_a_model() -> st.SearchStrategy[Rule]:
    return st.builds(
        Rule,
        name=names,
        when=conditions(),
        model=names,
        version=st.just("active") | names,
        description=_descriptions,
        order=st.integers(-1000, 1000),
        study=studies,
        choose=choices,
        roles=roles,
        parameters=parameters,
        priority=st.sampled_from(Priority),
        schedule=st.lists(windows, max_size=2).map(tuple),
        destinations=st.lists(names, max_size=2).map(tuple),
        results=st.lists(st.sampled_from(["SEG", "SR"]), max_size=2, unique=True).map(tuple),
        stop=st.booleans(),
        state=st.sampled_from(RuleState),
    )


def _rules_that_only_stop() -> st.SearchStrategy[Rule]:
    return st.builds(
        Rule,
        name=names,
        when=conditions(),
        description=_descriptions,
        order=st.integers(-1000, 1000),
        study=studies,
        stop=st.just(True),
        state=st.sampled_from(RuleState),
    )


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Some attributes there, some empty, some with values that are none of their VR's."""
    header: dict[str, Element] = {}
    for subject in draw(st.lists(st.sampled_from(sorted(SUBJECTS)), unique=True)):
        values = st.booleans() | odd_values if SUBJECTS[subject] == "FLAG" else odd_values
        note = draw(st.sampled_from(["", "", "why\0\ud800 " + "x" * 5000]))
        element = Element(SUBJECTS[subject], tuple(draw(st.lists(values, max_size=3))), note)
        sequence, _, inner = subject.rpartition(".") if not subject.startswith("(") else ("", "", subject)
        header[sequence or inner] = Element("SQ", ({inner: element}, {})) if sequence else element
    return header
