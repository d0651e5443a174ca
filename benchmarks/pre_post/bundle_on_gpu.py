"""A MONAI bundle that brings its own chain: its transforms on the GPU against on the CPU's threads, and their labels.

Orientationd, Spacingd to 1.5 × 1.5 × 2 mm, NormalizeIntensityd, CropForegroundd; windows of 96³, a small UNet of
random weights in float32; softmax, argmax, Invertd by nearest neighbour. The same bundle on a machine with a GPU and
without one: seconds before and after the network, as the host measures them; the network's own are not compared.

    python -m benchmarks.pre_post.bundle_on_gpu [--rounds 3] [--shape 100 512 512]
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.pre_post import on_gpu
from dicomnode.adapters.triton.hosts import cores
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.inference import CPU
from dicomnode.ports import InferenceRequest, ModelVersion
from tests import model_bundles
from tests.bundle_answers import on
from tests.bundle_reference import dice
from tests.integration.test_bundles import added, body
from tests.triton_models import axial

LEAST = 0.999  # Dice
Shape = tuple[int, int, int]
Labels = npt.NDArray[np.uint8]


def bundle_in(folder: Path) -> ModelVersion:
    """The bundle in the registry, in float32: half precision gives other labels where scores are close."""
    bundle = model_bundles.normalised(folder / "bundle")
    file = bundle / "configs" / "inference.json"
    chain = json.loads(file.read_text())
    chain["evaluator"]["amp"] = False
    chain["inferer"].update(roi_size=[96, 96, 96], overlap=0.25)
    chain["preprocessing"]["transforms"][3]["pixdim"] = [1.5, 1.5, 2.0]
    file.write_text(json.dumps(chain))
    return added(folder / "store", bundle)


def answers(
    model: ModelVersion, values: npt.NDArray[np.int16], rounds: int, device: torch.device
) -> tuple[Labels, Mapping[str, float]]:
    """Labels, and the median seconds of each part; the first round, which maps memory, is left out."""
    shape: Shape = values.shape  # type: ignore[assignment]
    request = InferenceRequest(model, axial(shape, (2.0, 0.7, 0.7)), Rescale(1.0, -1000.0), timeout_s=1800)
    spent = []
    with (
        tempfile.TemporaryDirectory() as folder,
        on(device),
        InProcessEngine(Path(folder), cores()) as engine,
        engine.open(shape) as session,
    ):
        session.volume[...] = values
        for _ in range(rounds + 1):
            with session.ask(request) as found:
                labels = found["LABELMAP"].copy()
            spent.append(session.timings_s)
    return labels, {part: statistics.median(one[part] for one in spent[1:]) for part in spent[0]}


def measure(shape: Shape, rounds: int, device: torch.device) -> list[str]:
    """Lines of a table; raises SystemExit where labels differ."""
    values = body(shape, 3)
    with tempfile.TemporaryDirectory() as folder:
        model = bundle_in(Path(folder))
        wanted, cpu_s = answers(model, values, rounds, CPU)
        found, gpu_s = answers(model, values, rounds, device)
    alike = [dice(found, wanted, label) for label in np.unique(wanted).tolist()]
    if min(alike) < LEAST:
        raise SystemExit(f"labels differ: Dice {alike}")
    least = f"Dice {min(alike):.6f} and more"
    return [
        f"{part:8} CPU {cpu_s[part]:.3f} s   {device.type} {gpu_s[part]:.3f} s   "
        f"{cpu_s[part] / gpu_s[part]:.1f} times as fast, {least}"
        for part in ("before", "after")
    ]


def main() -> None:
    on_gpu.run(__doc__, measure, [100, 512, 512], 3, "by a bundle's own transforms")


if __name__ == "__main__":
    main()
