"""Which of several series is taken, by preferences of which each decides what the ones before leave open.

The lowest series number and then the UID have the last word, so that the same series give the same answer in
whatever order they came and on every host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicomnode.domain.rules import Choice, Preference
from dicomnode.domain.study import Evidence, Header
from dicomnode.domain.values import Kind, NotComparable, equal, printable, span_of, text_of

# Steps measured from positions differ in their last digits: what differs by less is the same.
_SAME_MM = 0.001
_MICROSECONDS_A_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Rank:
    """How good a series is by one preference: the lower number is preferred, None is unknown and comes last."""

    number: float | None
    words: str  # as it is told: 1.25 mm, 300 instances

    @property
    def key(self) -> tuple[bool, float]:
        return (self.number is None, self.number or 0.0)


@dataclass(frozen=True, slots=True)
class Selection:
    """The series taken, and in words why it and none of the others."""

    series_instance_uid: str
    words: str
    passed_over: Mapping[str, str] = field(default_factory=dict)  # Series Instance UID → why not

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {"series": self.series_instance_uid, "words": self.words, "passed_over": dict(self.passed_over)}


def select(preferences: Sequence[Preference], candidates: Sequence[Evidence]) -> Selection:
    """One of the candidates, of which there is at least one."""
    asked = (*preferences, Preference(Choice.LOWEST_NUMBER))
    best, *others = sorted(candidates, key=lambda c: _key(asked, c))
    if not others:
        return Selection(best.series_instance_uid, "the only series that fits")
    choice, own, other = _difference(asked, best, others[0])
    return Selection(
        best.series_instance_uid,
        f"chosen: {choice}, {own} against {other} of {series_name(others[0])}",
        {other.series_instance_uid: _passed_over(asked, best, other) for other in others},
    )


def series_name(evidence: Evidence) -> str:
    """As in "CT series 3": by modality and number, never by free text; by its UID where it has no number."""
    modality, number = _first(evidence.header, "Modality"), _first(evidence.header, "SeriesNumber")
    kind = printable(text_of(modality))[:16] if modality is not None else "the"
    return f"{kind} series {evidence.series_instance_uid if number is None else printable(text_of(number))[:12]}"


def _passed_over(asked: Sequence[Preference], best: Evidence, other: Evidence) -> str:
    choice, chosen, own = _difference(asked, best, other)
    return f"{series_name(best)} was chosen: {choice}, {chosen} against {own}"


def _key(asked: Sequence[Preference], candidate: Evidence) -> tuple[tuple[tuple[bool, float], ...], str]:
    return tuple(_rank(p, candidate).key for p in asked), candidate.series_instance_uid


def _difference(asked: Sequence[Preference], best: Evidence, other: Evidence) -> tuple[str, str, str]:
    """The first preference that tells them apart, and what each has, in words."""
    for preference in asked:
        own, others = _rank(preference, best), _rank(preference, other)
        if own.key != others.key:
            return _CHOICES[preference.choice][0], own.words, others.words
    return "lowest Series Instance UID", best.series_instance_uid, other.series_instance_uid


def _rank(preference: Preference, candidate: Evidence) -> Rank:
    return _CHOICES[preference.choice][1](preference, candidate)


# ---------------------------------------------------------------------------------------------- preferences


def _thickness(_: Preference, candidate: Evidence) -> Rank:
    """From slice to slice, measured; of what is no volume, Slice Thickness (0018,0050)."""
    value_mm = _number(candidate.facts, "MeasuredSliceSpacing") or _number(candidate.header, "SliceThickness")
    if value_mm is None or value_mm <= 0:
        return Rank(None, "an unknown thickness")
    return Rank(round(value_mm / _SAME_MM), f"{value_mm:.4g} mm")


def _instances(_: Preference, candidate: Evidence) -> Rank:
    count = _number(candidate.facts, "NumberOfInstances")
    if count is None:
        return Rank(None, "an unknown number")
    return Rank(-count, f"{count:.0f} instance{'s' if count != 1 else ''}")


def _kernel(preference: Preference, candidate: Evidence) -> Rank:
    """Convolution Kernel (0018,1210) may have several values, as Siemens' Br40d and 3: one is enough."""
    element = candidate.header.get("ConvolutionKernel")
    values = element.values if element else ()
    wanted = (i for i, w in enumerate(preference.values) if any(equal(Kind.TEXT, v, w) for v in values))
    words = "\\".join(printable(text_of(v))[:16] for v in values[:4]) or "no kernel"
    return Rank(next(wanted, None), words)


def _moment(_: Preference, candidate: Evidence) -> Rank:
    """Of the series, else of its acquisition: (0008,0021) and (0008,0031), (0008,0022) and (0008,0032)."""
    for prefix in ("Series", "Acquisition"):
        days = _low(Kind.DATE, candidate.header, f"{prefix}Date")
        if days is not None:
            date, time = (text_of(_first(candidate.header, f"{prefix}{part}") or "") for part in ("Date", "Time"))
            microseconds = _low(Kind.TIME, candidate.header, f"{prefix}Time") or 0
            return Rank(-(days * _MICROSECONDS_A_DAY + microseconds), printable(f"{date} {time}".strip()))
    return Rank(None, "an unknown time")


def _series_number(_: Preference, candidate: Evidence) -> Rank:
    number = _number(candidate.header, "SeriesNumber")
    return Rank(None, "no number") if number is None else Rank(number, f"{number:.0f}")


_CHOICES: Mapping[Choice, tuple[str, Callable[[Preference, Evidence], Rank]]] = {
    Choice.THINNEST_SLICES: ("thinnest slices", _thickness),
    Choice.MOST_INSTANCES: ("most instances", _instances),
    Choice.KERNEL: ("preferred kernel", _kernel),
    Choice.LATEST: ("latest", _moment),
    Choice.LOWEST_NUMBER: ("lowest series number", _series_number),
}


def _first(header: Header, name: str) -> object | None:
    return next(iter(header[name].values), None) if name in header else None


def _number(header: Header, name: str) -> float | None:
    return _low(Kind.NUMBER, header, name)


def _low(kind: Kind, header: Header, name: str) -> float | None:
    """The first value, on the scale of its kind; None when there is none that makes sense."""
    value = _first(header, name)
    try:
        return None if value is None else span_of(kind, value).low
    except NotComparable:
        return None
