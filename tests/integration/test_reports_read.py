"""Every report that the node can write says to highdicom and to dcmqi what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from highdicom import sr
from pydicom import Dataset

from dicomnode.domain.classification import runs
from dicomnode.encoding.check import groups_of
from dicomnode.encoding.content_items import code_of
from dicomnode.encoding.results import encode_class_results, encode_measured_results
from dicomnode.encoding.sr_classes import spec_of
from dicomnode.imaging.box import Box
from dicomnode.imaging.headers import items, text
from dicomnode.imaging.volume import plan_volume
from tests import dcmqi_readers
from tests.every_result import CLASSES_SERIES, WITH, each
from tests.integration.test_conformance import DCIODVFY, complaints
from tests.made_outputs import MEASURED
from tests.made_series import classic

pytestmark = pytest.mark.skipif(dcmqi_readers.programs() is None, reason="dcmqi (PyPI) is not installed")

# Of a measurement group: (tracking UID, [(name, unit, value) of each measurement], codes of what was evaluated)
Said = tuple[str, list[tuple[str, str, float]], set[str]]
_PRESENCE = "121052"  # Presence of property


def reports() -> Iterator[tuple[str, bytes | bytearray]]:
    for name, _, result in each(WITH):
        if result.kind == "SR":
            yield name, result.content
    found = runs([[0.9, 0.06, 0.04]], spec_of(CLASSES_SERIES))
    plan, region = plan_volume(classic()), Box((1, 2, 3), (3, 7, 5))
    (result,) = encode_class_results(found, plan, CLASSES_SERIES, WITH, region=region)
    yield "SR: a class of a region", result.content
    (result,) = encode_measured_results([[1.5, 2.5]], plan, MEASURED, WITH, region=region)
    yield "SR: numbers of a region", result.content


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder, found = tmp_path_factory.mktemp("reports"), {}
    for number, (name, content) in enumerate(reports()):
        found[name] = folder / f"{number}.dcm"
        found[name].write_bytes(content)
    return found


def written(file: Path) -> list[Said]:
    """As the content items have it, in their order."""
    return [_said(group) for group in groups_of(sr.srread(file))]


def _said(group: Dataset) -> Said:
    content = items(group, "ContentSequence")
    tracking = next(str(item.UID) for item in content if code_of(item) == ("112040", "DCM"))
    measured = [
        (
            code_of(item)[0],
            code_of(item.MeasuredValueSequence[0], "MeasurementUnitsCodeSequence")[0],
            float(item.MeasuredValueSequence[0].NumericValue),
        )
        for item in content
        if text(item, "ValueType") == "NUM"
    ]
    presence = {code_of(i, "ConceptCodeSequence")[0] for i in content if code_of(i) == (_PRESENCE, "DCM")}
    return tracking, measured, presence


def test_dcmqi_reads_what_was_written(files: Mapping[str, Path], tmp_path: Path) -> None:
    for name, file in files.items():
        read = dcmqi_readers.report(file, tmp_path / file.stem)
        assert read["CompletionFlag"] == "COMPLETE", name
        assert [_by_dcmqi(group) for group in read["Measurements"]] == written(file), name


def _by_dcmqi(group: Mapping[str, Any]) -> Said:
    measured = [
        (m["quantity"]["CodeValue"], m["units"]["CodeValue"], float(m["value"])) for m in group["measurementItems"]
    ]
    presence = {
        one["conceptValue"]["CodeValue"]
        for one in group.get("qualitativeEvaluations", [])
        if one["conceptCode"]["CodeValue"] == _PRESENCE
    }
    return group["TrackingUniqueIdentifier"], measured, presence


def test_highdicom_reads_what_was_written(files: Mapping[str, Path]) -> None:
    for name, file in files.items():
        content = sr.srread(file).content
        assert isinstance(content, sr.MeasurementReport)
        groups = [
            *content.get_image_measurement_groups(),
            *content.get_planar_roi_measurement_groups(),
            *content.get_volumetric_roi_measurement_groups(),
        ]
        assert sorted(map(_by_highdicom, groups), key=str) == sorted(written(file), key=str), name


def _by_highdicom(group: Any) -> Said:
    measured = [(m.name.value, m.unit.value, m.value) for m in group.get_measurements()]
    presence = {e.value.value for e in group.get_qualitative_evaluations() if e.name.value == _PRESENCE}
    return group.tracking_uid, measured, presence


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_dciodvfy_has_nothing_against_them(files: Mapping[str, Path]) -> None:
    assert {name: complaints(file) for name, file in files.items()} == {name: [] for name in files}
