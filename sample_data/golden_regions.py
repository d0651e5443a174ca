"""Writes the sample classifier's golden case: `python -m sample_data.golden_regions`.

Invented sections that no training has seen, six of each region; what is expected is what ONNX Runtime gives for them
in single precision on one thread. `difference_most` allows for the noise of other kernels, not for lower precisions
that move a probability by more.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from dicomnode.adapters.model_store import CARD_FILE, package_digest, read_card
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.domain.golden import CASES_FILE, GOLDEN_FOLDER
from dicomnode.domain.model_card import card_document
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.imaging.golden import GivenVolume
from dicomnode.ports import ModelVersion
from dicomnode.stages.accept import AcceptStage
from sample_data.region_slices import REGIONS, invented
from sample_data.train_regions import PACKAGE

SEED = 90_002  # trainings use small numbers
_OF_EACH = 6
DIFFERENCE_MOST = 0.02


def write_golden(package: Path) -> None:
    folder = package / GOLDEN_FOLDER
    folder.mkdir(exist_ok=True)
    images = sections()
    np.savez_compressed(folder / "sections.npz", volume=images, slope=np.float64(1), intercept=np.float64(0))
    np.savez_compressed(folder / "sections-scores.npz", scores=expected_scores(package, images))
    case = {
        "name": "sections",
        "input": "sections.npz",
        "expected": "sections-scores.npz",
        "difference_most": DIFFERENCE_MOST,
    }
    text = yaml.safe_dump({"cases": [case]}, sort_keys=False)
    (folder / CASES_FILE).write_text(f"# Written by python -m sample_data.golden_regions\n{text}", encoding="utf-8")


def sections() -> npt.NDArray[np.int16]:
    """(image, row, column) int16 HU, the regions in their order; every second pixel, to keep the package small."""
    made = invented(SEED, 1)
    chosen = [np.flatnonzero(made.regions == region) for region in range(len(REGIONS))]
    return np.concatenate([made.hu[own[:: len(own) // _OF_EACH][:_OF_EACH], ::2, ::2] for own in chosen])


def expected_scores(package: Path, images: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """(image, class) float32 probabilities by the reference engine."""
    card = read_card(package)
    reference = dataclasses.replace(card, network=dataclasses.replace(card.network, engine="onnxruntime"))
    count, rows, columns = images.shape
    given = GivenVolume(images, Placement(VolumeGeometry((count, rows, columns), np.eye(4)), Rescale(1.0, 0.0)))
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "package"
        shutil.copytree(package, copy)
        (copy / CARD_FILE).write_text(yaml.safe_dump(dict(card_document(reference))), encoding="utf-8")
        model = ModelVersion(0, card.name, card.version, package_digest(copy), copy, reference, active=False)
        with InProcessEngine(Path(scratch), threads=1) as engine:
            answer = AcceptStage(engine, SystemClock(), timeout_s=600).run_volumes(model, [given]).answer
    return np.asarray(answer, dtype=np.float32)


if __name__ == "__main__":
    write_golden(PACKAGE)
