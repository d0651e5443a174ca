"""How many images a second from DICOM files to their classes: this node beside the stock way, in the same rounds?

Both take the same files (512 × 512, int16, as a scanner writes them) and the same weights. The node: its own
InferStage and engine, `sample_data/models/slice-ct-region` as it is. The stock way: pydicom's pixel_array and the
rescale, MONAI's ScaleIntensityRange and Resize (area, its default), and the network in eager torch, 32 images at a
time. Classes of all are compared. Each run is a process of its own that is held to as many cores as threads; loading
the network and a first batch, in which kernels are chosen, are not counted.

    python -m benchmarks.classifier.run [--images 1000] [--threads 1 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import torch

from dicomnode.adapters.triton.installation import find_server
from dicomnode.ports import InferenceEngine
from sample_data.dicom_files import StudyUids, axial_images, save
from sample_data.protocols import PROTOCOLS
from sample_data.region_net import HU_FROM, SIZE, RegionNet
from sample_data.scanner import make_scan
from sample_data.train_regions import PACKAGE

_BATCH = 32
Runs = dict[tuple[str, int], list[dict[str, Any]]]  # by way and threads, of each round
Scores = npt.NDArray[np.float32]  # (image, class) probabilities
Way = Callable[[list[Path]], tuple[Scores, Mapping[str, float]]]


def write_images(folder: Path, count: int) -> list[Path]:
    """So many files of one invented scan, again and again with numbers of their own."""
    folder.mkdir(parents=True)
    protocol = PROTOCOLS["chest-abdomen"]
    made = axial_images(make_scan(protocol, 5), protocol, StudyUids(protocol.name, 5))
    paths = []
    for number in range(count):
        image = made[number % len(made)]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.{1000 + number}"
        image.InstanceNumber = number + 1
        image.ImagePositionPatient = [*image.ImagePositionPatient[:2], 2.0 * number]
        paths.append(folder / f"{number:04d}.dcm")
        save(image, paths[-1])
    return paths


# ------------------------------------------------------------------------------------------------------ the ways


@contextmanager
def by_the_node(threads: int, scratch: Path) -> Iterator[Way]:
    """Through its own stages, as a job goes, up to the probabilities; the network in this process."""
    from dicomnode.adapters.triton.in_process import InProcessEngine

    with InProcessEngine(scratch, threads) as engine:
        yield _through(engine)


@contextmanager
def by_the_node_and_triton(threads: int, scratch: Path) -> Iterator[Way]:
    """As the node runs by default: the network in Triton, the images in shared memory."""
    from dicomnode.adapters.triton.engine import TritonEngine
    from dicomnode.adapters.triton.server import TritonServer

    with TritonServer(scratch, threads), TritonEngine(scratch, threads) as engine:
        yield _through(engine)


def _through(engine: InferenceEngine) -> Way:
    from dicomnode.adapters.instance_store import FolderInstanceStore
    from dicomnode.adapters.model_store import package_digest, read_card
    from dicomnode.adapters.system_clock import SystemClock
    from dicomnode.domain.study import Series, StoredInstance
    from dicomnode.ports import JobWork, ModelVersion
    from dicomnode.stages.infer import InferStage

    card = read_card(PACKAGE)
    model = ModelVersion(0, card.name, card.version, package_digest(PACKAGE), PACKAGE, card, True)

    def way(paths: list[Path]) -> tuple[Scores, Mapping[str, float]]:
        instances = tuple(
            StoredInstance(f"2.25.{n}", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", str(path), n)
            for n, path in enumerate(paths)
        )
        series = Series("2.25.1", "2.25.2", "CT", "A", "B", instances)
        work = JobWork("", series, model, "benchmark", 1, (), 1, datetime.now(UTC))
        found = InferStage(FolderInstanceStore(paths[0].parent), engine, SystemClock(), 600).classify(work)
        return found.scores, found.timings_s

    return way


@contextmanager
def by_stock_parts(threads: int, scratch: Path) -> Iterator[Way]:
    """What a researcher writes; the network's normalisation is folded into its convolutions, as it is in the ONNX."""
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.array import ScaleIntensityRange
    from monai.transforms.spatial.array import Resize
    from monai.transforms.utility.array import EnsureChannelFirst

    net = eager_network()
    prepare = Compose(
        [
            EnsureChannelFirst(channel_dim="no_channel"),
            ScaleIntensityRange(*HU_FROM, 0.0, 1.0, clip=True),
            Resize(SIZE),
        ]
    )

    def image(path: Path) -> torch.Tensor:
        dataset = pydicom.dcmread(path)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        made: torch.Tensor = prepare(hu.astype(np.float32)).as_tensor()
        return made

    def way(paths: list[Path]) -> tuple[Scores, Mapping[str, float]]:
        found, prepared_s = [], 0.0
        with torch.inference_mode():
            for first in range(0, len(paths), _BATCH):
                begun = time.perf_counter()
                batch = torch.stack([image(path) for path in paths[first : first + _BATCH]])
                prepared_s += time.perf_counter() - begun
                found.append(net(batch).softmax(1))
        return torch.cat(found).numpy(), {"read and prepare": prepared_s}

    yield way


def eager_network() -> torch.nn.Module:
    """The package's network in eager torch, with the weights of its ONNX."""
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(str(PACKAGE / "models/model.onnx")).graph
    values = [torch.from_numpy(to_array(weights).copy()) for weights in graph.initializer]
    net = RegionNet()
    layers: list[torch.nn.Module] = []
    for weight, bias in zip(values[2::2], values[3::2], strict=True):
        conv = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, stride=2, padding=1)
        conv.weight.data, conv.bias.data = weight, bias  # type: ignore[union-attr]
        layers += [conv, torch.nn.ReLU()]
    net.features = torch.nn.Sequential(*layers)
    net.line.weight.data, net.line.bias.data = values[0], values[1]
    return net.eval()


WAYS = {"node": by_the_node, "node, Triton": by_the_node_and_triton, "stock": by_stock_parts}


# ------------------------------------------------------------------------------------------------------ measuring


def one(way: str, threads: int, folder: Path) -> dict[str, Any]:
    """In a process of its own, on as many cores as threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    paths = sorted(folder.glob("*.dcm"))
    with tempfile.TemporaryDirectory() as scratch, WAYS[way](threads, Path(scratch)) as classify:
        classify(paths[:_BATCH])
        begun = time.perf_counter()
        scores, parts = classify(paths)
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "parts": dict(parts), "classes": scores.argmax(1).tolist(), "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    """Of this process since it began; getrusage would count its parent before exec, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def measure(folder: Path, ways: list[str], threads: list[int], rounds: int) -> Runs:
    found: Runs = {(way, n): [] for n in threads for way in ways}
    for _ in range(rounds):
        for way, n in found:
            command = [sys.executable, "-m", "benchmarks.classifier.run", "--one", way, "--threads", str(n)]
            ran = subprocess.run(
                [*command, "--folder", str(folder)], capture_output=True, text=True, check=True, timeout=600
            )
            found[way, n].append(json.loads(ran.stdout.splitlines()[-1]))
    return found


def table(found: Runs, images: int) -> str:
    lines = [
        "| threads | way | images a second | slowest and fastest round | × stock | same class as stock | peak MB |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for (way, n), runs in found.items():
        rates = [images / run["seconds"] for run in runs]
        stock = found.get(("stock", n), runs)
        ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(runs, stock, strict=True))
        same = np.mean(np.array(runs[0]["classes"]) == np.array(stock[0]["classes"]))
        lines.append(
            f"| {n} | {way} | {statistics.median(rates):.0f} | {min(rates):.0f} to {max(rates):.0f} | {ratio:.2f} "
            f"| {same:.1%} | {max(run['peak_mb'] for run in runs):.0f} |"
        )
    return "\n".join(lines)


def parts(found: Runs) -> str:
    """Seconds of the parts of each way's median round."""
    lines = []
    for (way, n), runs in found.items():
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        words = ", ".join(f"{part} {s:.2f}" for part, s in middle["parts"].items())
        lines.append(f"{way}, {n} threads: {middle['seconds']:.2f} s ({words})")
    return "\n".join(lines)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--one", choices=tuple(WAYS), help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.threads[0], given.folder)))
        return 0
    ways = [way for way in WAYS if "Triton" not in way or find_server() is not None]
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch) / "images", given.images)
        load = os.getloadavg()[0]
        found = measure(Path(scratch) / "images", ways, given.threads, given.rounds)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start")
    print(table(found, given.images))
    print(parts(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
