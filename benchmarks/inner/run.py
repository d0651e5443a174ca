"""What does it cost that a network is a model of Triton's own, called for each window, and not in its host?

One ONNX file, one server, the same library (ONNX Runtime) on both sides; interleaved rounds; labels compared.

    python -m benchmarks.inner.run [--rounds 5] [--threads 2] [--channels 16]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import UNet

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest, ModelVersion
from tests.asked import labelled
from tests.triton_models import axial, document, registered

SHAPE = (96, 192, 192)
WINDOW = (96, 96, 96)
GEOMETRY = axial(SHAPE, (2.0, 1.5, 1.5))
TIMEOUT_S = 300.0


def network(channels: int) -> torch.nn.Module:
    torch.manual_seed(0)
    widths = [channels, 2 * channels, 4 * channels, 8 * channels]
    return UNet(3, 1, 5, widths, strides=[2, 2, 2], num_res_units=2, norm="batch").eval()


def model(folder: Path, channels: int) -> ModelVersion:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(channels),
            (torch.zeros(1, 1, *WINDOW),),
            str(folder / "model.onnx"),
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    said = document("inner", 4, file="model.onnx", engine="onnxruntime", window=list(WINDOW))
    return registered(folder, said)


def once(
    engine: TritonEngine, version: ModelVersion
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], float]:
    """The label map, and the seconds that the host counted for the network's windows."""
    with engine.open(SHAPE) as session:
        session.volume[...] = np.random.default_rng(0).integers(-100, 200, SHAPE)
        with labelled(session, InferenceRequest(version, GEOMETRY, Rescale(1.0, 0.0), timeout_s=TIMEOUT_S)) as labels:
            return labels.copy(), session.timings_s["network"]


def measure(rounds: int, threads: int, channels: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").mkdir()
        version = model(Path(folder) / "model", channels)
        home = Path(folder) / "triton"
        with (
            TritonServer(home, threads),
            TritonEngine(home, threads, inner="local") as local,
            TritonEngine(home, threads, inner="bls") as bls,
        ):
            expected, found = once(local, version)[0], once(bls, version)[0]  # a first one each, not counted
            if not np.array_equal(found, expected):
                raise SystemExit(f"{(found != expected).mean():.4%} of the labels differ")
            seconds: dict[str, list[float]] = {"in its host": [], "called in Triton": []}
            for _ in range(rounds):
                seconds["in its host"].append(once(local, version)[1])
                seconds["called in Triton"].append(once(bls, version)[1])
            return seconds


def table(seconds: dict[str, list[float]]) -> str:
    base = seconds["in its host"]
    lines = ["| the network runs | median s | fastest s | × in its host |", "|---|---|---|---|"]
    for name, taken in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(base, taken, strict=True))
        lines.append(f"| {name} | {statistics.median(taken):.3f} | {min(taken):.3f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--channels", type=int, default=16)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    if find_server() is None:
        print("there is no tritonserver here", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    seconds = measure(given.rounds, given.threads, given.channels)
    if given.json:
        print(json.dumps(seconds))
    else:
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start")
        print(table(seconds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
