"""Writes a sample package's golden case: `python -m sample_data.golden`.

The volume is a coarse scan of an invented patient whom no training has seen. What is expected is what the package's
TorchScript file gives, run by torch in single precision on one thread: other engines and precisions have to agree.
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
from dicomnode.imaging.geometry import Placement, Rescale
from dicomnode.imaging.golden import GivenVolume
from dicomnode.ports import ModelVersion
from dicomnode.stages.accept import AcceptStage
from sample_data.export import PACKAGE
from sample_data.protocols import CHEST_ABDOMEN
from sample_data.scanner import make_scan

SEED = 90_001  # trainings use small numbers
PROTOCOL = dataclasses.replace(
    CHEST_ABDOMEN, name="golden", low_mm=0, high_mm=176, step_mm=11, thickness_mm=8, pixel_mm=6.5, matrix=56
)
DICE_LEAST = 0.998  # bfloat16 and other kernels move a few voxels of a border; this is one in 500


def write_golden(package: Path) -> None:
    folder = package / GOLDEN_FOLDER
    folder.mkdir(exist_ok=True)
    scan = make_scan(PROTOCOL, SEED, canvas_mm=4.0)
    given = GivenVolume(scan.hu, Placement(scan.geometry, Rescale(1.0, 0.0)))
    np.savez_compressed(
        folder / "trunk.npz",
        volume=scan.hu,
        affine=scan.geometry.affine,
        slope=np.float64(1),
        intercept=np.float64(0),
    )
    np.savez_compressed(folder / "trunk-labels.npz", labels=expected_labels(package, given))
    case = {"name": "trunk", "input": "trunk.npz", "expected": "trunk-labels.npz", "dice_least": DICE_LEAST}
    text = yaml.safe_dump({"cases": [case]}, sort_keys=False)
    (folder / CASES_FILE).write_text(f"# Written by python -m sample_data.golden\n{text}", encoding="utf-8")


def expected_labels(package: Path, given: GivenVolume) -> npt.NDArray[np.uint8]:
    """(slice, row, column) uint8 by the reference engine."""
    card = read_card(package)
    network = dataclasses.replace(card.network, file="models/model.ts", engine="torchscript", precision="fp32")
    reference = dataclasses.replace(card, network=network)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "package"
        shutil.copytree(package, copy)
        (copy / CARD_FILE).write_text(yaml.safe_dump(dict(card_document(reference))), encoding="utf-8")
        model = ModelVersion(0, card.name, card.version, package_digest(copy), copy, reference, active=False)
        with InProcessEngine(Path(scratch), threads=1) as engine:
            return AcceptStage(engine, SystemClock(), timeout_s=600).run_volumes(model, [given]).labels


if __name__ == "__main__":
    write_golden(PACKAGE)
