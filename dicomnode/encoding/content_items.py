"""Codes and references as content items and evidence have them (PS3.3 8.8, C.17)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from dicomnode.imaging.headers import items, text


def code_of(item: Dataset, keyword: str = "ConceptNameCodeSequence") -> tuple[str, str]:
    """(value, scheme) of the first code (PS3.3 8.8); empty when there is none."""
    codes = items(item, keyword)
    return (text(codes[0], "CodeValue"), text(codes[0], "CodingSchemeDesignator")) if codes else ("", "")


def evidence_of(report: Dataset, keyword: str = "CurrentRequestedProcedureEvidenceSequence") -> Iterator[Dataset]:
    """References to instances (PS3.3 C.17.2)."""
    for study in items(report, keyword):
        for series in items(study, "ReferencedSeriesSequence"):
            yield from items(series, "ReferencedSOPSequence")
