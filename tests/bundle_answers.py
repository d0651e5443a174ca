"""What bundles answer to one made volume, in this thread, on a device and on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dicomnode.adapters.triton.hosts import bundle_classify, bundle_host
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.imaging.geometry import Placement, Rescale
from dicomnode.imaging.inference import CPU
from dicomnode.ports import InferenceRequest, ModelVersion
from tests import model_bundles
from tests.adapters.crossings import Crossings
from tests.integration.test_bundles import SHAPE, added, body
from tests.triton_models import axial

PLACE = Placement(axial(SHAPE, (2.2, 1.6, 1.6)), Rescale(1.0, -1000.0))
VOXELS = int(np.prod(SHAPE))
Change = Callable[[dict[str, Any]], object]


class Answered:
    """What an engine answered, and what it says of itself; `crossings` are of the last run."""

    def __init__(self, folder: Path, model: ModelVersion, crossings: Crossings, runs: int = 1) -> None:
        further = len(model.card.roles)
        request = InferenceRequest(model, PLACE.geometry, PLACE.rescale, timeout_s=300, further=[PLACE] * further)
        with InProcessEngine(folder, 1) as engine, engine.open(SHAPE, [SHAPE] * further) as session:
            for number, volume in enumerate([session.volume, *session.further]):
                volume[...] = body(SHAPE, 3 + number)
            for _ in range(runs):
                crossings.forget()
                with session.ask(request) as found:
                    self.arrays: dict[str, npt.NDArray[Any]] = {name: a.copy() for name, a in found.items()}
            self.chain = engine.describe(model)["chain"]


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Bundles are loaded onto `device`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (bundle_host, bundle_classify):
            patch.setattr(module, "device_here", lambda: device)
        yield


def of_cpu(folder: Path, model: ModelVersion) -> Answered:
    """As on a machine without a GPU."""
    with on(CPU):
        return Answered(folder, model, Crossings())


def changed(tmp_path: Path, change: Change, make: model_bundles.Maker = model_bundles.normalised) -> ModelVersion:
    """A bundle with another inference.json."""
    bundle = make(tmp_path / "bundle")
    file = bundle / "configs" / "inference.json"
    chain = json.loads(file.read_text())
    change(chain)
    file.write_text(json.dumps(chain))
    return added(tmp_path / "store", bundle)


def transforms(chain: dict[str, Any], when: str) -> list[dict[str, Any]]:
    """Those "pre" or "post" the network, of an inference.json."""
    found: list[dict[str, Any]] = chain[f"{when}processing"]["transforms"]
    return found
