"""What is done before and after the network: on the GPU against on the CPU's threads; the same values, and how long.

A CT of 300 × 512 × 512 to a grid of 1.5 mm and its labels back, interleaved. From stored values in the host's memory
to the network's input on the GPU, and from labels there to labels in the host's memory: the copies are counted, as a
node without CUDA shared memory has them. On the CPU the network's input is copied to the GPU at the end.

    python -m benchmarks.pre_post.on_gpu [--rounds 5] [--shape 300 512 512]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from dicomnode.adapters.triton.hosts import cores
from dicomnode.imaging import on_device
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.inference import CPU, model_input, source_labels
from dicomnode.imaging.resample import Intensity, model_grid

SPACING_MM = (1.5, 1.5, 1.5)
HU = Intensity(gain=1 / 2000, offset=0.5, clip=(0.0, 1.0), outside=-1000.0)
CLOSE = 1e-6
Measure = Callable[[tuple[int, int, int], int, torch.device], list[str]]


def geometry_of(shape: tuple[int, int, int]) -> VolumeGeometry:
    """1 mm slices of 0.7 mm pixels, axial."""
    affine = np.zeros((4, 4))
    for axis, (patient, spacing_mm) in enumerate(((2, 1.0), (1, 0.7), (0, 0.7))):
        affine[patient, axis] = spacing_mm
    affine[3, 3] = 1.0
    return VolumeGeometry(shape, affine)


def timed(run: Callable[[], torch.Tensor], device: torch.device) -> tuple[float, torch.Tensor]:
    begun_s = time.perf_counter()
    found = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun_s, found


def measure(shape: tuple[int, int, int], rounds: int, device: torch.device) -> list[str]:
    """Lines of a table; raises SystemExit where values differ. The first round, which maps memory, is left out."""
    grid = model_grid(geometry_of(shape), "RAS", SPACING_MM)
    random = np.random.default_rng(0)
    volume = torch.from_numpy(random.integers(-1024, 2000, shape, dtype=np.int16))
    labels = torch.from_numpy(random.integers(0, 5, grid.shape, dtype=np.uint8))
    there, threads = labels.to(device), cores()
    ways: dict[str, dict[str, Callable[[], torch.Tensor]]] = {
        "before": {
            "CPU": lambda: model_input(volume, grid, HU, threads, CPU).to(device),
            "device": lambda: on_device.to_model(volume.to(device), grid, HU)[None, None],
        },
        "after": {
            "CPU": lambda: source_labels(there.cpu(), grid, threads),
            "device": lambda: on_device.to_source(there, grid).cpu(),
        },
    }
    lines = []
    for stage, both in ways.items():
        seconds: dict[str, list[float]] = {name: [] for name in both}
        for _ in range(rounds + 1):
            found = {}
            for name, run in both.items():
                took_s, found[name] = timed(run, device)
                seconds[name].append(took_s)
            differs = float((found["CPU"].float() - found["device"].float()).abs().max())
            if differs > (CLOSE if stage == "before" else 0):
                raise SystemExit(f"{stage} the network: values differ by {differs:g}")
        cpu, gpu = (statistics.median(seconds[name][1:]) for name in both)
        lines.append(f"{stage:8} CPU {cpu:.4f} s   {device.type} {gpu:.4f} s   {cpu / gpu:.1f} times as fast, equal")
    return lines


def main() -> None:
    run(__doc__, measure, [300, 512, 512], 5, f"to {SPACING_MM[0]} mm")


def run(what: str | None, measured: Measure, shape: list[int], rounds: int, words: str) -> None:
    """A command that shows the lines which `measured` gives of a volume, on a GPU beside the CPU."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--shape", type=int, nargs=3, default=shape)
    parser.add_argument("--device", default="cuda", help="cpu: only whether it runs")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    print(f"{' x '.join(map(str, given.shape))} {words}, {cores()} threads of the CPU, {name}")
    print("\n".join(measured(tuple(given.shape), given.rounds, device)))


if __name__ == "__main__":
    main()
