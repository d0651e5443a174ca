"""What docs/ihe-air.md says of the reports, on one of every object that the node can write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SegmentationStorage,
)

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import groups_of
from dicomnode.encoding.content_items import code_of, evidence_of
from dicomnode.imaging.headers import items, text
from tests.every_result import WITH, every

Every = Mapping[str, tuple[str, ModelCard, list[Dataset]]]
# IODs that IHE's test plan names for an Evidence Creator's results
OF_AIR = {Comprehensive3DSRStorage, SegmentationStorage, ParametricMapStorage, KeyObjectSelectionDocumentStorage}
_TRACKING = [("112039", "DCM"), ("112040", "DCM")]
_ALGORITHM = [("111001", "DCM"), ("111003", "DCM"), ("111002", "DCM"), ("122405", "DCM"), ("111000", "DCM")]


@pytest.fixture(scope="module")
def results() -> Every:
    return every(WITH)


def reports(results: Every) -> Iterator[tuple[str, ModelCard, Dataset]]:
    for name, (kind, card, found) in results.items():
        if kind == "SR":
            yield name, card, found[0]


def codes_in(content: Sequence[Dataset]) -> set[tuple[str, str]]:
    return {code_of(item) for item in content}


def values(report: Dataset, code: str) -> list[Dataset]:
    return [item for item in items(report, "ContentSequence") if code_of(item) == (code, "DCM")]


def test_the_root_is_a_comprehensive_3d_sr_by_tid_1500(results: Every) -> None:
    for name, _, report in reports(results):
        assert report.SOPClassUID == Comprehensive3DSRStorage, name
        assert code_of(report) == ("126000", "DCM"), name
        [template] = report.ContentTemplateSequence
        assert (template.MappingResource, template.TemplateIdentifier) == ("DCMR", "1500"), name


def test_semantic_results_are_of_the_iods_of_the_test_plan(results: Every) -> None:
    for name, (kind, _, found) in results.items():
        if kind in ("SR", "SEG", "SEG-PROB", "SEG-FULL", "MAP", "KO"):
            assert {dataset.SOPClassUID for dataset in found} <= OF_AIR, name


def test_the_procedure_is_the_one_that_was_looked_at(results: Every) -> None:
    """And not the algorithm: a code of CID 100, by the images' modality."""
    wanted = {"SR: segments on images": codes.cid100.XRUnspecifiedBodyRegion}
    for name, card, report in reports(results):
        [procedure] = values(report, "121058")
        [code] = procedure.ConceptCodeSequence
        procedure_code = wanted.get(name, codes.cid100.CTUnspecifiedBodyRegion)
        assert (code.CodeValue, code.CodeMeaning) == (procedure_code.value, procedure_code.meaning), name
        assert card.name not in code.CodeMeaning, name


def test_the_observer_is_a_device_with_all_its_names(results: Every) -> None:
    for name, card, report in reports(results):
        assert [item.ConceptCodeSequence[0].CodeValue for item in values(report, "121005")] == ["121007"], name
        assert values(report, "121012")[0].UID.startswith("2.25."), name
        said = [values(report, code)[0].TextValue for code in ("121013", "121014", "121015", "121016")]
        assert said == ["DICOMNODE", "dicomnode", f"{card.name} {card.version}", "DICOMNODE"], name


def test_nobody_verified_it(results: Every) -> None:
    for name, _, report in reports(results):
        assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED"), name
        assert "VerifyingObserverSequence" not in report, name


def test_every_group_is_tracked_and_names_its_algorithm(results: Every) -> None:
    for name, _, report in reports(results):
        for group in groups_of(report):
            found = codes_in(items(group, "ContentSequence"))
            assert found >= {*_TRACKING, *_ALGORITHM}, name


def test_every_group_says_what_it_is_about(results: Every) -> None:
    """Images, a region, a segment, a surface, or that nothing was found or looked for (and then the evidence)."""
    answers = {("121054", "DCM"), ("373121007", "SCT")}  # Absent, Not Evaluated
    for name, _, report in reports(results):
        for group in groups_of(report):
            content = items(group, "ContentSequence")
            of_all = any(code_of(item) == ("image-share", "99DICOMNODE") for item in content)
            shown = bool(_kinds_in(group) & {"IMAGE", "SCOORD", "SCOORD3D"})
            said = {code_of(item, "ConceptCodeSequence") for item in content}
            assert shown or of_all or said & answers, name


def _kinds_in(item: Dataset) -> set[str]:
    """Value types of the content items below one."""
    parts = items(item, "ContentSequence")
    return {text(part, "ValueType") for part in parts}.union(*map(_kinds_in, parts))


def test_all_that_is_referenced_is_in_the_evidence_and_nothing_else_of_the_job_is_missing(results: Every) -> None:
    for name, _, report in reports(results):
        evidence = {text(item, "ReferencedSOPInstanceUID") for item in evidence_of(report)}
        assert set(_referenced(report)) <= evidence, name
    own = [results[kind][2][0].SOPInstanceUID for kind in ("SEG", "SEG-PROB")]
    listed = {text(item, "ReferencedSOPInstanceUID") for item in evidence_of(results["SR: segments"][2][0])}
    assert set(own) <= listed


def _referenced(item: Dataset) -> Iterator[str]:
    for part in items(item, "ContentSequence"):
        yield from (text(r, "ReferencedSOPInstanceUID") for r in items(part, "ReferencedSOPSequence"))
        yield from _referenced(part)


def test_codes_have_a_scheme_and_a_meaning(results: Every) -> None:
    for name, _, report in reports(results):
        for code in _codes(report):
            assert all(text(code, k) for k in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")), name


def _codes(dataset: Dataset) -> Iterator[Dataset]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                if element.keyword.endswith("CodeSequence"):
                    yield item
                yield from _codes(item)


def test_results_are_in_the_study_of_the_images_and_in_series_of_their_own(results: Every) -> None:
    seen: dict[str, set[str]] = {}
    for name, (kind, card, found) in results.items():
        assert len({dataset.SeriesInstanceUID for dataset in found}) == 1, name
        assert found[0].SeriesDescription == f"{card.name} {card.version} {'Perfusion' if kind == 'MAP' else kind}"
        seen.setdefault(found[0].SeriesInstanceUID, set()).add(kind)
    assert all(len(kinds) == 1 for kinds in seen.values())
