"""A real CT with its PET: what a model of both marks is what a calculation by coordinates alone marks."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import Dataset
from scipy import ndimage

from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.domain.study import Series, StoredInstance
from dicomnode.ports import JobFinished, JobWork
from dicomnode.stages.deliver import DeliverStage
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.infer import InferStage
from dicomnode.stages.work import Work
from tests.adapters.fake_sink import FakeSink
from tests.triton_models import Both, document, package, registered

STUDY = Path(__file__).parents[3] / "shared" / "data" / "multi" / "sts_002"
SUV, HU = 2.5, 0.0  # what the model asks for: the middle of each range

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not STUDY.is_dir(), reason="../shared/data is not there"),
]


def files(name: str) -> list[Path]:
    return sorted(path for path in (STUDY / name / "image").iterdir() if path.suffix == ".dcm")


def stored(name: str, root: Path) -> Series:
    """The series as if it had been received."""
    (root / name).mkdir(parents=True)
    instances = []
    for path in files(name):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        shutil.copy(path, root / name / path.name)
        place, syntax = f"{name}/{path.name}", str(header.file_meta.TransferSyntaxUID)
        number = int(header.InstanceNumber)
        instances.append(StoredInstance(str(header.SOPInstanceUID), str(header.SOPClassUID), syntax, place, number))
    study, series = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
    return Series(study, series, str(header.Modality), "SCANNER", "NODE", tuple(instances))


def by_position(name: str) -> tuple[npt.NDArray[np.float64], list[float], list[float], list[Dataset]]:
    """(slice, row, column) in modality units, the first voxel's (z, y, x) in mm, the steps, the slices."""
    slices = sorted((pydicom.dcmread(p) for p in files(name)), key=lambda d: float(d.ImagePositionPatient[2]))
    values = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])
    first, second = slices[:2]
    origin = [float(v) for v in first.ImagePositionPatient[::-1]]
    step = [float(second.ImagePositionPatient[2]) - origin[0], *map(float, first.PixelSpacing)]
    return values, origin, step, slices


def expected() -> tuple[npt.NDArray[np.bool_], list[Dataset]]:
    """On the CT's grid: dense, and hot where the PET is read at the same place in the patient."""
    ct, origin, step, slices = by_position("ct")
    pet, pet_origin, pet_step, _ = by_position("pet")
    index = np.indices(ct.shape).astype(float)
    places = [(o + i * s - p) / t for i, o, s, p, t in zip(index, origin, step, pet_origin, pet_step, strict=True)]
    return (ct > HU) & (ndimage.map_coordinates(pet, places, order=1, mode="nearest") > SUV), slices


def mask_of(segmentation: Dataset, slices: list[Dataset]) -> npt.NDArray[np.bool_]:
    heights = [float(d.ImagePositionPatient[2]) for d in slices]
    mask = np.zeros((len(slices), slices[0].Rows, slices[0].Columns), dtype=bool)
    for group, frame in zip(segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True):
        height = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        mask[int(np.argmin(np.abs(np.array(heights) - height)))] |= frame > 0
    return mask


def model_document(step: list[float]) -> dict[str, Any]:
    pet = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 2 * SUV]}}
    card = dict(document("both", 1, inputs=[pet], spacing_mm=[step[2], step[1], step[0]], window=[64, 64, 32]))
    card["input"]["intensity"] = {"from": [HU - 200, HU + 200]}
    return card


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_model_of_ct_and_pet_marks_what_is_dense_and_hot(tmp_path: Path) -> None:
    wanted, slices = expected()
    package(tmp_path / "model", Both(), "both", 1)
    model = registered(tmp_path / "model", model_document(by_position("ct")[2]))
    store, clock = FolderInstanceStore(tmp_path / "store"), SystemClock()
    ct, pet = (stored(name, tmp_path / "store") for name in ("ct", "pet"))
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        infer = InferStage(store, engine, clock, 120.0)
        encode = EncodeStage(store, clock, device_serial_number="NODE")
        job = JobWork("j", ct, model, "both", 1, (), 1, datetime(2026, 11, 20, tzinfo=UTC), inputs={"pet": pet})
        outcome = Work(infer, encode, DeliverStage(FakeSink(), store)).perform(job)
    assert isinstance(outcome, JobFinished), outcome
    found = mask_of(pydicom.dcmread(store.path(outcome.results[0].path)), slices)
    assert wanted.sum() > 10_000
    assert (found != wanted).sum() < 0.002 * wanted.sum()
