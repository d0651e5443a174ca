"""Evidence of series that nobody read from files."""

from __future__ import annotations

from typing import Any

from dicomnode.domain.rules import FACTS
from dicomnode.domain.study import Element, Evidence
from dicomnode.imaging.attributes import keyword_vrs


def evidence(uid: str, *, no_image: str = "", **values: Any) -> Evidence:
    """A series with these attributes and facts, by keyword; a tuple is several values."""
    header: dict[str, Element] = {}
    facts: dict[str, Element] = {}
    for name, value in values.items():
        vr = FACTS.get(name) or keyword_vrs()[name]
        several = value if isinstance(value, tuple) else () if value is None else (value,)
        (facts if name in FACTS else header)[name] = Element(vr, several)
    return Evidence(uid, 1, header, facts, True, no_image)
