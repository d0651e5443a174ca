"""A MONAI bundle as the Model Zoo has them, from a ZIP to labels: seconds, and the same in MONAI itself.

Two bundles with random weights: the structure of spleen_ct_segmentation, whose chain the node recognises, and one
whose chain is its own. The series: --slices of 512 × 512, made here. MONAI runs the bundle's transforms with
LoadImaged on the same DICOM files; both use as many threads as the machine has cores.

    python -m benchmarks.formats.run [--slices 60]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.adapters.model_store import ModelStore
from dicomnode.adapters.triton.hosts import cores
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.headers import read_instances
from dicomnode.ports import InferenceRequest, ModelVersion
from tests import model_bundles
from tests.asked import labelled
from tests.bundle_reference import dice, labels_of, write_series
from tests.integration.test_bundles import body
from tests.made_series import classic

BUNDLES: dict[str, Callable[[Path], Path]] = {"spleen": model_bundles.spleen, "own chain": model_bundles.normalised}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=60)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        series = made(folder / "series", given.slices)
        rows = [measured(folder, kind, make, series) for kind, make in BUNDLES.items()]
    figures = {"machine": platform.platform(), "cores": cores(), "load": os.getloadavg()[0], "slices": given.slices}
    print(json.dumps({**figures, "bundles": rows}, indent=2))


def made(folder: Path, slices: int) -> Path:
    """A body of noise in air."""
    values = np.repeat(np.repeat(body((slices, 64, 64), 1), 8, axis=1), 8, axis=2)
    return write_series(folder, classic(slices, rows=512, columns=512, spacing=(0.8, 0.8), values=values))


def measured(folder: Path, kind: str, make: Callable[[Path], Path], series: Path) -> dict[str, Any]:
    bundle = make(folder / kind)
    archive = shutil.make_archive(str(folder / "sent"), "zip", bundle)
    begun = time.perf_counter()
    card, digest, place = ModelStore(folder / "store").add(Path(archive))
    added = time.perf_counter()
    model = ModelVersion(1, card.name, card.version, digest, place, card, True)
    with InProcessEngine(folder / "engine") as engine:
        described = engine.describe(model)
        loaded = time.perf_counter()
        found = labels(engine, model, series)
        ran = time.perf_counter()
    wanted = labels_of(bundle, series)
    by_monai = time.perf_counter() - ran
    return {
        "bundle": kind,
        "chain": described["chain"],
        "engine": described["engine"],
        "add_s": round(added - begun, 2),
        "load_s": round(loaded - added, 2),
        "files_to_labels_s": round(ran - loaded, 2),
        "monai_s": round(by_monai, 2),
        "of_monai": round((ran - loaded) / by_monai, 3),
        "dice": [round(dice(found, wanted, n), 5) for n in range(len(card.segments) + 1)],
    }


def labels(engine: InProcessEngine, model: ModelVersion, series: Path) -> Any:
    """From the files, as a job does it."""
    instances = tuple(read_instances(sorted(series.glob("*.dcm"))))
    plan = plan_instances(instances)
    with engine.open(plan.geometry.shape) as session:
        read_volume(plan, instances, session.volume)
        with labelled(session, InferenceRequest(model, plan.geometry, plan.rescale, timeout_s=600)) as found:
            return found.copy()


if __name__ == "__main__":
    main(sys.argv[1:])
