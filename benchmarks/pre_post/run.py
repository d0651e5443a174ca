"""What happens before and after the network, by the node and by the plain MONAI transforms chain: time and memory.

The same stored values, the same fixed network of almost no work (an average and three thresholds), the same windows;
each side in processes of its own, interleaved. Counted is all that is not the network: orientation, resampling,
intensities, cutting and blending the windows, argmax, resampling back. The label maps are compared.

    python -m benchmarks.pre_post.run [--rounds 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.adapters.triton.hosts import cores, cpu_name
from dicomnode.domain.model_card import InputSpec, NetworkSpec
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.headers import read_instances

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct"
SERIES = ("crlm-1004", "lidc-0002-part")
SYNTHETIC = {
    "120 x 512 x 512, 2.5 mm": ((120, 512, 512), (2.5, 0.7, 0.7)),
    "300 x 512 x 512, 1 mm": ((300, 512, 512), (1.0, 0.8, 0.8)),
}
SPACING_MM, WINDOW, OVERLAP, CLASSES = (1.5, 1.5, 2.0), (96, 96, 96), 0.25, 3
INPUT = InputSpec(("CT",), "RAS", SPACING_MM, (-57.0, 164.0), (0.0, 1.0), True, (0.0, 0.0, 0.0))
NETWORK = NetworkSpec("none", "torch", "fp32", WINDOW, OVERLAP, "constant")
Volume = npt.NDArray[np.int16]


@dataclass
class Run:
    """Of one process: seconds without the network's own, and the highest resident memory in MB."""

    before_s: float = 0.0
    windows_s: float = 0.0
    after_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    empty_mb: float = 0.0

    @property
    def wall_s(self) -> float:
        return self.before_s + self.windows_s + self.after_s


class Thresholds:
    """Three classes by fixed values of a smoothed image; counts what it takes, to be left out."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        wall, cpu = time.perf_counter(), time.process_time()
        smooth = torch.nn.functional.avg_pool3d(windows, 3, stride=1, padding=1, count_include_pad=False)
        scores = torch.cat([-((smooth - centre) ** 2) for centre in (0.1, 0.5, 0.9)], 1)
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        return scores


# ---------------------------------------------------------------------------------------------- the two sides


def node(volume: Volume, geometry: VolumeGeometry, threads: int) -> tuple[npt.NDArray[np.uint8], Run]:
    from dicomnode.adapters.triton.hosts.torch_threads import one_thread
    from dicomnode.imaging.inference import intensity, model_input, model_labels, source_labels
    from dicomnode.imaging.resample import model_grid
    from dicomnode.imaging.windows import WindowedNetwork, at_once

    network, marks = Thresholds(), [_now()]
    with torch.no_grad():
        grid = model_grid(geometry, INPUT.orientation, INPUT.spacing_mm)
        image = model_input(torch.from_numpy(volume), grid, intensity(INPUT, 1.0, -1024.0), threads)
        marks.append(_now())
        with one_thread():  # as beside an engine with threads of its own
            found = model_labels(image, WindowedNetwork(at_once(network)), NETWORK, CLASSES, OVERLAP)
        marks.append(_now())
        labels = source_labels(found, grid, threads)
    marks.append(_now())
    return labels.numpy(), _run(marks, network)


def monai(volume: Volume, geometry: VolumeGeometry, threads: int) -> tuple[npt.NDArray[np.uint8], Run]:
    """The chain of the Model Zoo's bundles, as a researcher writes it."""
    from monai.data.meta_tensor import MetaTensor
    from monai.inferers.utils import sliding_window_inference
    from monai.transforms import AsDiscreted, Compose, Invertd, Orientationd, ScaleIntensityRanged, Spacingd

    axes = (("L", "R"), ("P", "A"), ("I", "S"))
    before = Compose(
        [
            Orientationd(keys="image", axcodes=INPUT.orientation, labels=axes),
            Spacingd(keys="image", pixdim=SPACING_MM, mode="bilinear"),
            ScaleIntensityRanged(keys="image", a_min=-57, a_max=164, b_min=0.0, b_max=1.0, clip=True),
        ]
    )
    after = Compose(
        [
            AsDiscreted(keys="pred", argmax=True),
            Invertd(keys="pred", transform=before, orig_keys="image", nearest_interp=True, to_tensor=True),
        ]
    )
    network, marks = Thresholds(), [_now()]
    with torch.no_grad():
        values = torch.from_numpy(volume.transpose(2, 1, 0)[None].astype(np.float32)) - 1024.0
        ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine[:, [2, 1, 0, 3]]
        data = before({"image": MetaTensor(values, affine=torch.from_numpy(ras))})
        marks.append(_now())
        data["pred"] = sliding_window_inference(data["image"][None], WINDOW, 4, network, overlap=OVERLAP)[0]
        marks.append(_now())
        labels = after(data)["pred"].numpy()[0].T.astype(np.uint8)
    marks.append(_now())
    return np.ascontiguousarray(labels), _run(marks, network)


SIDES: dict[str, Callable[[Volume, VolumeGeometry, int], tuple[npt.NDArray[np.uint8], Run]]] = {
    "monai": monai,
    "node": node,
}


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _run(marks: list[tuple[float, float]], network: Thresholds) -> Run:
    (t0, c0), (t1, _), (t2, _), (t3, c3) = marks
    return Run(t1 - t0, t2 - t1 - network.wall_s, t3 - t2, c3 - c0 - network.cpu_s)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def one(side: str, case: Path, answer: Path, threads: int) -> None:
    """In a process of its own: prints the figures, leaves the label map in `answer`."""
    torch.set_num_threads(threads)
    given = np.load(case / "affine.npy")
    volume: Volume = np.load(case / "volume.npy")
    slices, rows, columns = volume.shape
    geometry = VolumeGeometry((slices, rows, columns), given)
    # what is imported counts for neither: a small volume goes the same way first
    SIDES[side](volume[:2, :16, :16].copy(), VolumeGeometry((2, 16, 16), given), threads)
    empty = peak_mb()
    labels, run = SIDES[side](volume, geometry, threads)
    run.peak_mb, run.empty_mb = peak_mb(), empty
    np.save(answer, labels)
    print(json.dumps(asdict(run)))


# -------------------------------------------------------------------------------------------------- the cases


def cases(folder: Path) -> dict[str, Path]:
    """Volumes on disk by name: real series where they are at hand, and made ones."""
    made = {}
    for name in SERIES:
        if (REAL / name).is_dir():
            made[f"{name} (real)"] = _real(REAL / name, folder / name)
    for name, (shape, spacing_mm) in SYNTHETIC.items():
        made[name] = _kept(folder / name.replace(" ", "-"), phantom(shape), _axial(spacing_mm))
    return made


def _real(series: Path, folder: Path) -> Path:
    instances = read_instances([file for file in sorted(series.rglob("*")) if file.suffix == ".dcm"])
    plan = plan_instances(instances)
    stored = np.empty(plan.geometry.shape, dtype=np.int16)
    read_volume(plan, instances, stored)
    hounsfield = stored * plan.rescale.slope + plan.rescale.intercept
    return _kept(folder, (hounsfield + 1024).astype(np.int16), plan.geometry.affine)


def _axial(spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """(4, 4): (slice, row, column) to LPS mm, straight along the patient."""
    affine = np.diag([*spacing_mm, 1.0])
    return affine[[2, 1, 0, 3]]


def phantom(shape: tuple[int, int, int]) -> Volume:
    """A body of soft tissue with organs and bone in air, and noise: stored values, HU + 1024."""
    random = np.random.default_rng(0)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    body = (x[None, :] / 0.8) ** 2 + (y[:, None] / 0.6) ** 2
    volume = np.empty(shape, dtype=np.int16)
    for index, height in enumerate(z):
        plane = np.where(body < 1, 1024 + 40, 24).astype(np.float32)
        plane[(x[None, :] - 0.3) ** 2 + (y[:, None] + 0.1) ** 2 + height**2 < 0.06] = 1024 + 110
        plane[(x[None, :]) ** 2 + (y[:, None] - 0.4) ** 2 < 0.01] = 1024 + 400
        volume[index] = np.clip(plane + random.normal(0, 15, plane.shape), 0, 4095)
    return volume


def _kept(folder: Path, volume: Volume, affine: npt.NDArray[np.float64]) -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "volume.npy", volume)
    np.save(folder / "affine.npy", affine)
    return folder


# ------------------------------------------------------------------------------------------------- comparing


def measured(case: Path, rounds: int, threads: int) -> tuple[dict[str, list[Run]], dict[str, npt.NDArray[np.uint8]]]:
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in list(SIDES)[:: 1 if number % 2 else -1]:
            command = ["--one", side, "--case", str(case), "--threads", str(threads)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.pre_post.run", *command],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"},
            )
            runs[side].append(Run(**json.loads(done.stdout.splitlines()[-1])))
    return runs, {side: np.load(case / f"{side}.npy") for side in SIDES}


def dice(found: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> list[float]:
    """Of each label that the reference has."""
    numbers = [n for n in range(1, CLASSES) if (wanted == n).any()]
    return [
        float(2 * ((found == n) & (wanted == n)).sum() / ((found == n).sum() + (wanted == n).sum())) for n in numbers
    ]


def shown(name: str, runs: dict[str, list[Run]], labels: dict[str, npt.NDArray[np.uint8]]) -> dict[str, Any]:
    def middle(side: str, value: Callable[[Run], float]) -> float:
        return statistics.median(map(value, runs[side]))

    row: dict[str, Any] = {"case": name, "slices": len(labels["node"])}
    for key, value in (
        ("before_s", lambda r: r.before_s),
        ("windows_s", lambda r: r.windows_s),
        ("after_s", lambda r: r.after_s),
        ("wall_s", lambda r: r.wall_s),
        ("cpu_s", lambda r: r.cpu_s),
        ("beside_empty_mb", lambda r: r.peak_mb - r.empty_mb),
        ("peak_mb", lambda r: r.peak_mb),
    ):
        ours, theirs = middle("node", value), middle("monai", value)
        row[key] = {"node": round(ours, 3), "monai": round(theirs, 3), "ratio": round(ours / theirs, 3)}
    row["dice"] = [round(d, 6) for d in dice(labels["node"], labels["monai"])]
    row["labels_equal"] = float((labels["node"] == labels["monai"]).mean())
    print(f"\n{name}: {row['slices']} slices; Dice {row['dice']}, {row['labels_equal']:.7f} of the labels equal")
    for key, figures in row.items():
        if isinstance(figures, dict):
            print(f"  {key:16} node {figures['node']:9.3f}  MONAI {figures['monai']:9.3f}  {figures['ratio']:.3f}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", default="", help="cases whose name has these words")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--one", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.case, given.case / f"{given.one}.npy", given.threads)
        return
    print(f"{cpu_name()}, {given.threads} threads, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="pre-post-") as folder:
        rows = [
            shown(name, *measured(case, given.rounds, given.threads))
            for name, case in cases(Path(folder)).items()
            if given.only in name
        ]
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2))
    if any(min(row["dice"]) < 0.999 for row in rows if row["dice"]):
        raise SystemExit("the label maps are not those of the reference chain")


if __name__ == "__main__":
    main()
