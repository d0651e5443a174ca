"""How old a patient was at a study, from what headers say of it."""

from __future__ import annotations

import math
from datetime import date

from dicomnode.domain.study import Element, Header
from dicomnode.domain.values import Kind, NotComparable, span_of

# From here on people count whole years, and PatientAge gives nothing finer; under it, months.
_WHOLE_YEARS_FROM = 2.0


def age_in_years(header: Header) -> Element:
    """Patient's Age (0010,1010); else from Patient's Birth Date (0010,0030) to Study Date (0008,0020), PS3.3 C.7.

    From two years on completed years, as people count them: "17 or younger" holds until the 18th birthday.
    """
    if (stated := _stated(header)) is not None:
        return Element("DS", (_as_counted(stated),))
    born, studied = _day(header, "PatientBirthDate"), _day(header, "StudyDate")
    if born is None or studied is None:
        return Element("DS", (), "no PatientAge, and no PatientBirthDate with StudyDate")
    if studied < born:
        return Element("DS", (), "no PatientAge, and StudyDate lies before PatientBirthDate")
    months = (studied.year - born.year) * 12 + studied.month - born.month - (studied.day < born.day)
    return Element("DS", (_as_counted(months / 12),))


def _as_counted(years: float) -> float:
    return float(math.floor(years + 1e-9)) if years >= _WHOLE_YEARS_FROM - 1e-9 else years


def _stated(header: Header) -> float | None:
    for value in header["PatientAge"].values if "PatientAge" in header else ():
        try:
            return span_of(Kind.AGE, value).low
        except NotComparable:
            continue
    return None


def _day(header: Header, keyword: str) -> date | None:
    """A whole date; of a year or a month alone no age follows."""
    for value in header[keyword].values if keyword in header else ():
        try:
            span = span_of(Kind.DATE, value)
        except NotComparable:
            continue
        if span.low == span.high:
            return date.fromordinal(int(span.low))
    return None
