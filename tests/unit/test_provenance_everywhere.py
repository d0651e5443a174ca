"""Every object that the node can write says who made it, with what, of what, and what it takes the place of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.kinds import SOP_CLASSES
from dicomnode.encoding.provenance import Predecessor, Provenance, contributing_equipment
from dicomnode.imaging.volume import plan_volume
from tests.every_result import EARLIER, FIRST, WITH, every
from tests.made_results import CARD, MADE
from tests.made_series import classic

SOURCE = classic()[0]

Every = Mapping[str, tuple[str, ModelCard, list[Dataset]]]


@pytest.fixture(scope="module")
def results() -> Every:
    return every(WITH)


def objects(results: Every) -> Iterator[tuple[str, str, ModelCard, Dataset]]:
    for name, (kind, card, found) in results.items():
        for dataset in found:
            yield name, kind, card, dataset


def model_of(dataset: Dataset, name: str) -> Dataset:
    [found] = [e for e in dataset.ContributingEquipmentSequence if e.get("ManufacturerModelName") == name]
    assert isinstance(found, Dataset)
    return found


def test_there_is_one_of_every_kind(results: Every) -> None:
    assert {kind for kind, _, _ in results.values()} == set(SOP_CLASSES)
    assert all(dataset.SOPClassUID == SOP_CLASSES[kind] for _, kind, _, dataset in objects(results))


def test_the_node_and_its_version(results: Every) -> None:
    for name, _, card, dataset in objects(results):
        assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("dicomnode", card.name), name
        assert list(dataset.SoftwareVersions) == ["dicomnode 0.1.0", f"{card.name} {card.version}"], name
        assert (dataset.DeviceSerialNumber, dataset.StationName) == ("DICOMNODE", "DICOMNODE"), name


def test_the_model(results: Every) -> None:
    for name, _, card, dataset in objects(results):
        ours = model_of(dataset, card.name)
        assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102", name
        assert (ours.Manufacturer, ours.SoftwareVersions) == (card.manufacturer, card.version), name
        assert (ours.DeviceSerialNumber, ours.ContributionDateTime[:14]) == ("ab" * 32, "20261120101112"), name
        assert ours.DeviceUID.startswith("2.25."), name


def test_the_model_before_it(results: Every) -> None:
    for name, _, card, dataset in objects(results):
        first = model_of(dataset, "lungs")
        assert (first.Manufacturer, first.SoftwareVersions) == ("another maker", "2.0"), name
        assert first.DeviceSerialNumber == "ef" * 32, name
        assert first.DeviceUID != model_of(dataset, card.name).DeviceUID, name


def test_what_has_no_attribute_of_its_own_is_in_words(results: Every) -> None:
    for name, kind, card, dataset in objects(results):
        words = dict(part.split(": ", 1) for part in model_of(dataset, card.name).ContributionDescription.split("; "))
        [earlier] = [p for p in EARLIER if p.kind == kind]
        assert {key: words[key] for key in list(words)[:8]} == {
            "family": card.family,
            "digest": "ab" * 32,
            "engine": "OpenVINO 2026.4 CPU",
            "precision": "fp32",
            "rule": "torso revision 2",
            "job": "j-7",
            "source series": SOURCE.SeriesInstanceUID,
            "supersedes series": earlier.series_instance_uid,
        }, name
        assert words["parameter threshold"] == "0.25", name


def test_the_algorithm_of_each_segment_and_of_each_measurement_group(results: Every) -> None:
    for name, kind, card, dataset in objects(results):
        if kind.startswith("SEG"):
            described = [s for s in dataset.SegmentSequence if s.SegmentNumber]  # 0 is the background
            identified = [s.SegmentationAlgorithmIdentificationSequence[0] for s in described]
            assert {(i.AlgorithmName, i.AlgorithmVersion) for i in identified} == {(card.name, card.version)}, name
            assert all("ab" * 32 in i.AlgorithmParameters for i in identified), name
        if kind == "SR":
            for group in _groups(dataset):
                said = {i.ConceptNameCodeSequence[0].CodeMeaning: i.get("TextValue") for i in group.ContentSequence}
                assert (said["Algorithm Name"], said["Algorithm Version"]) == (card.name, card.version), name


def _groups(report: Dataset) -> list[Dataset]:
    [measured] = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"]
    return list(measured.ContentSequence)


def test_the_source_series_and_its_images(results: Every) -> None:
    images = {str(one.SOPInstanceUID) for one in classic()}
    for name, kind, _, dataset in objects(results):
        assert dataset.StudyInstanceUID == SOURCE.StudyInstanceUID, name
        series, instances = _sources(kind, dataset)
        if kind != "PDF":  # its IOD names instances only
            assert SOURCE.SeriesInstanceUID in series, name
        assert instances & images, name
        if kind in ("SR", "PDF", "MAP", "RTSTRUCT") and "image" not in name:
            assert images <= instances, name


def _sources(kind: str, dataset: Dataset) -> tuple[set[str], set[str]]:
    """(series, instances) that an object's own attributes name."""
    if kind == "PDF":
        return set(), {str(one.ReferencedSOPInstanceUID) for one in dataset.SourceInstanceSequence}
    if kind == "RTSTRUCT":
        [of_study] = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
        listed = of_study.RTReferencedSeriesSequence
    elif kind in ("SR", "KO"):
        listed = [
            s for study in dataset.CurrentRequestedProcedureEvidenceSequence for s in study.ReferencedSeriesSequence
        ]
    else:
        listed = dataset.ReferencedSeriesSequence
    lists = ("ContourImageSequence", "ReferencedSOPSequence", "ReferencedInstanceSequence", "ReferencedImageSequence")
    named = {str(r.ReferencedSOPInstanceUID) for one in listed for of in lists for r in one.get(of, [])}
    return {str(one.SeriesInstanceUID) for one in listed}, named


def test_the_predecessor_where_the_kind_has_an_attribute_for_it(results: Every) -> None:
    for name, kind, _, dataset in objects(results):
        [earlier] = [p for p in EARLIER if p.kind == kind]
        found = [
            str(r.ReferencedSOPInstanceUID)
            for study in dataset.get("PredecessorDocumentsSequence", [])
            for series in study.ReferencedSeriesSequence
            for r in series.ReferencedSOPSequence
        ]
        found += [str(r.ReferencedSOPInstanceUID) for r in dataset.get("PredecessorStructureSetSequence", [])]
        assert found == ([earlier.sop_instance_uid] if kind in ("SR", "PDF", "RTSTRUCT") else []), name


def equipment(made: Provenance) -> Dataset:
    found: Dataset = contributing_equipment(CARD, made, plan_volume(classic()), "SEG", "2.25.7")[0]
    return found


def test_another_model_is_another_device() -> None:
    assert equipment(WITH).DeviceUID == equipment(replace(WITH, job_id="j-8", engine="other")).DeviceUID
    assert equipment(WITH).DeviceUID != equipment(replace(WITH, model_digest="cd" * 32)).DeviceUID


def test_a_result_does_not_take_its_own_place() -> None:
    """As after late images that the volume leaves out, when the first file is lost."""
    first = every(MADE)
    kept = tuple(_as_predecessor(kind, found[0]) for kind, _, found in first.values())
    again = every(replace(MADE, predecessors=kept))
    for name, (kind, card, found) in again.items():
        own = _as_predecessor(kind, found[0])
        assert own in kept, name
        assert own.sop_instance_uid not in str(found[0].get("PredecessorDocumentsSequence", "")), name
        assert own.series_instance_uid not in _superseded(found[0], card), name


def _superseded(dataset: Dataset, card: ModelCard) -> str:
    parts = model_of(dataset, card.name).ContributionDescription.split("; ")
    return next((part for part in parts if part.startswith("supersedes")), "")


def _as_predecessor(kind: str, dataset: Dataset) -> Predecessor:
    return Predecessor(
        str(dataset.StudyInstanceUID),
        str(dataset.SeriesInstanceUID),
        str(dataset.SOPClassUID),
        str(dataset.SOPInstanceUID),
        kind,
    )


def test_of_a_long_story_the_end_is_cut_off() -> None:
    told = replace(FIRST, said="what it said" * 200)
    words = equipment(replace(WITH, before=(told,) * 3)).ContributionDescription
    assert len(words) == 1024
    assert f"job: j-7; source series: {SOURCE.SeriesInstanceUID}; supersedes series: 2.25.9.1; " in words
