"""Every result is clean under dicom3tools' dciodvfy: the whole standard's opinion, not only our own."""

from __future__ import annotations

import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from dicomnode.encoding.forms import FORMS, encode_form
from dicomnode.encoding.results import EncodedResult, encode_results
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.headers import read_instances
from dicomnode.imaging.measure import measure
from dicomnode.imaging.volume import plan_volume
from tests.made_results import CARD, MADE, result, two_fs
from tests.made_series import CORONAL, OBLIQUE, classic, enhanced
from tests.unit.test_forms import findings

DATA = Path(__file__).parents[3] / "shared" / "data"
DCIODVFY = shutil.which("dciodvfy")

pytestmark = pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (Debian: dicom3tools) is not installed")

# Warnings looked at: names of one component and empty type 2 attributes are the source's own; a private coding
# scheme is no defined term (PS3.16 8.2 allows it) and is used where the standard has no code for a quantity.
# Which of a pair of organs it is nobody said, and the attribute says that.
# Contributing Equipment has a Device UID now (PS3.3 C.12.1.1.5), which dciodvfy of 2022 does not know either.
# QUANTITY is a derived pixel contrast since 2018 (PS3.3 C.8.16.1.4), which dciodvfy of 2022 does not know.
HARMLESS = (
    "Unrecognized defined term = <QUANTITY>",
    "/DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD",
    "</Laterality(0020,0060)> - is only permitted to be empty when actually unknown",
    "Retired Person Name form",
    "needed to build DICOMDIR",
    "Unrecognized defined term = <99DICOMNODE>",
)


def complaints(file: Path) -> list[str]:
    assert DCIODVFY is not None
    ran = subprocess.run([DCIODVFY, "-new", str(file)], capture_output=True, text=True, errors="replace", timeout=60)
    lines = (ran.stdout + ran.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "Warning")) and not any(h in line for h in HARMLESS)]


def check(
    series_files: list[Path] | None, folder: Path, source: list[Dataset] | None, *, empty: bool = False
) -> None:
    if series_files is None:
        plan, labels, _, _ = result(source)
        volume = np.zeros(plan.geometry.shape, np.int16)
    else:
        instances = read_instances(series_files)
        plan = plan_instances(instances)
        volume = np.empty(plan.geometry.shape, np.int16)
        read_volume(plan, instances, volume)
        labels = two_fs(plan.geometry.shape)
    if empty:
        labels = np.zeros_like(labels)
    statistics = measure(labels, volume, plan.geometry, plan.rescale, [1, 2])
    check_results(encode_results(labels, statistics, plan, CARD, MADE), folder, empty=empty)


def check_results(results: Sequence[EncodedResult], folder: Path, *, empty: bool = False) -> None:
    assert [r.kind for r in results] == (["SR"] if empty else ["SEG", "SR"])
    for r in results:
        file = folder / f"{r.kind}.dcm"
        file.write_bytes(r.content)
        assert complaints(file) == [], r.kind


def without(*keywords: str) -> list[Dataset]:
    series = classic()
    for d in series:
        for keyword in keywords:
            delattr(d, keyword)
    return series


MADE_SOURCES: dict[str, Callable[[], list[Dataset]]] = {
    "CT": classic,
    "reversed": lambda: classic()[::-1],
    "coronal": lambda: classic(orientation=CORONAL),
    "oblique, pixels not square": lambda: classic(orientation=OBLIQUE, spacing=(0.7, 0.9)),
    "tilted": lambda: classic(tilt_degrees=18.5),
    "MR": lambda: classic(modality="MR"),
    "PET": lambda: classic(modality="PT", Units="BQML"),
    "enhanced CT": lambda: [enhanced()],
    "enhanced MR": lambda: [enhanced(modality="MR", order=[3, 0, 4, 1, 2])],
    "two enhanced": lambda: [enhanced(4, name="1", first=3), enhanced(3, name="0")],
    "compressed with loss": lambda: classic(
        LossyImageCompression="01", LossyImageCompressionRatio=10, LossyImageCompressionMethod="ISO_15444_1"
    ),
    "type 2 absent": lambda: without("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "SliceThickness"),
    "in ISO 2022": lambda: classic(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"),
    "a sex that is none": lambda: classic(PatientSex="UNKNOWN", PatientAge="60"),
}


# dciodvfy of Debian does not know the Label Map Segmentation yet
@pytest.mark.parametrize("kind", sorted(set(FORMS) - {"SEG-LABELMAP"}))
@pytest.mark.parametrize("name", ["CT", "oblique, pixels not square", "PET", "enhanced MR", "type 2 absent"])
def test_every_form_conforms(name: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "form.dcm"
    for made in encode_form(findings(MADE_SOURCES[name]()), kind)[:2]:
        file.write_bytes(made.content)
        assert complaints(file) == []


@pytest.mark.parametrize("name", MADE_SOURCES)
def test_results_on_made_series_are_clean(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values are set on purpose
        source = MADE_SOURCES[name]()
    check(None, tmp_path, source)


def test_an_empty_result_is_clean(tmp_path: Path) -> None:
    check(None, tmp_path, None, empty=True)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("study", ["the same", "an earlier one"])
def test_results_of_two_series_are_clean(study: str, empty: bool, tmp_path: Path) -> None:
    """With parameters that are not the model's own choice, too."""
    attributes = {} if study == "the same" else {"StudyInstanceUID": "2.25.4711"}
    pet = plan_volume(classic(4, modality="PT", series="pet", Units="BQML", **attributes))
    plan, labels, _, _ = result()
    labels = labels * np.uint8(not empty)
    statistics = measure(labels, np.zeros(plan.geometry.shape, np.int16), plan.geometry, plan.rescale, [1, 2])
    made = replace(MADE, parameters={"overlap": 0.5, "minimum_volume_ml": 2.0, "kernel": "soft"})
    check_results(encode_results(labels, statistics, plan, CARD, made, {"pet": pet}), tmp_path, empty=empty)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_results_of_a_real_ct_with_pet_and_mr_are_clean(tmp_path: Path) -> None:
    plans = {}
    for name in ("ct", "pet", "mr_t1"):
        files = [p for p in sorted((DATA / "multi" / "sts_002" / name / "image").iterdir()) if p.name != "LICENSE"]
        plans[name] = plan_instances(read_instances(files))
    plan = plans.pop("ct")
    labels = two_fs(plan.geometry.shape)
    statistics = measure(labels, np.zeros(plan.geometry.shape, np.int16), plan.geometry, plan.rescale, [1, 2])
    check_results(encode_results(labels, statistics, plan, CARD, MADE, plans), tmp_path)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize(
    "folder",
    [
        "ct/crlm-1004",
        "ct/lidc-0002-part",
        "mr/qin-prostate-adc/pm-example-dcm.zip",
        "mr/t1-j2k-multifragment",
        "multi/sts_002/ct/image",
        "multi/sts_002/mr_t1/image",
        "multi/sts_002/pet/image",
        "seg_sr/dcmqi-liver/ct-3slice",
        "seg_sr/dcmqi-24x38x3/multiframe",
    ],
)
def test_results_on_real_series_are_clean(folder: str, tmp_path: Path) -> None:
    place = DATA / folder
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as archive:
            archive.extractall(tmp_path / "in")
        place = tmp_path / "in"
    files = [p for p in sorted(place.rglob("*")) if p.is_file() and p.name != "LICENSE"]
    check(files, tmp_path, None)
