"""Four models on one CT: one after the other against all at once, as one worker does it.

From DICOM files to SEG and SR files, by the node's own stages and a Triton of its own. Twice: `cpu`, the sample's
network as four models, and `delay`, four models that compute next to nothing and wait for each window, as for a GPU.
Rounds are interleaved; the volume is decoded anew in each of them, once for the four.

    python -m benchmarks.four_models.run [--rounds 3] [--slices 200] [--delay 0.25]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml

from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.adapters.model_store import ModelStore
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.hosts import cores, cpu_name
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.repository import SELF_TEST
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.domain.study import Series, StoredInstance
from dicomnode.ports import JobFinished, JobWork, ModelVersion
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.infer import InferStage
from tests import model_bundles
from tests.made_series import classic, write

COUNT = 4
AT_ONCE = (1, 2, 4)
TORSO = Path("sample_data/models/torso-ct")
WINDOW = [96, 96, 96]

# It refuses to be traced: a trace would not wait.
_WAITING = """\
import time

import torch


class Waiting(torch.nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.edge = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("it waits")
        time.sleep(self.seconds * len(x))
        return torch.cat([self.edge - x, x - self.edge], 1)
"""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.25, help="seconds that a window takes, as on a GPU")
    parser.add_argument("--only", choices=("cpu", "delay"), help="one of the two")
    given = parser.parse_args(arguments)
    if find_server() is None:
        sys.exit("there is no tritonserver here: pip install nvidia-pytriton")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        series = made(folder / "store", given.slices)
        makers = {"cpu": lambda place: copies(place), "delay": lambda place: waiting(place, given.delay)}
        found = {
            kind: measured(folder / kind, make(folder / kind), series, folder / "store", given.rounds)
            for kind, make in makers.items()
            if given.only in (None, kind)
        }
    machine = f"{cpu_name()}, {cores()} cores, {platform.system()}, load {os.getloadavg()[0]:.1f} at the end"
    print(json.dumps({"machine": machine, "slices": given.slices, "delay_s": given.delay, **found}, indent=2))


# --------------------------------------------------------------------------------------------------- what there is


def made(folder: Path, slices: int) -> Series:
    """A body of noise in air, 512 × 512 at 0.7 mm and 1.5 mm slices."""
    plane = np.hypot(*np.mgrid[-1:1:512j, -1.3:1.3:512j]) < 0.9
    noise = np.random.default_rng(0).normal(0, 120, (512, 512)).round()
    values = np.stack([np.where(plane, np.roll(noise, 7 * k), -1000) for k in range(slices)]).astype(np.int16)
    images = classic(slices, rows=512, columns=512, spacing=(0.7, 0.7), values=values)
    write(images, folder / "received")
    stored = tuple(
        StoredInstance(d.SOPInstanceUID, d.SOPClassUID, "1.2.840.10008.1.2.1", f"received/{n:03d}.dcm", n)
        for n, d in enumerate(images)
    )
    return Series(images[0].StudyInstanceUID, images[0].SeriesInstanceUID, "CT", "BENCHMARK", "NODE", stored)


def copies(folder: Path) -> list[ModelVersion]:
    """The sample model under four names: Triton runs each in a process of its own."""
    versions = []
    for number in range(COUNT):
        package = folder / f"package-{number}"
        shutil.copytree(TORSO, package)
        shutil.rmtree(package / "golden", ignore_errors=True)
        card = yaml.safe_load((package / "model.yaml").read_text())
        (package / "model.yaml").write_text(yaml.safe_dump({**card, "name": f"torso-{number}"}))
        versions.append(added(folder, package, number))
    return versions


def waiting(folder: Path, seconds: float) -> list[ModelVersion]:
    versions = []
    for number in range(COUNT):
        about = model_bundles.metadata(f"Waiting {number}", {"0": "background", "1": "spleen"})
        chain = model_bundles.inference(
            2,
            [*model_bundles.ORIENTED, model_bundles.SCALED, model_bundles.TYPED],
            [model_bundles.SOFTMAX, model_bundles.INVERTED, model_bundles.ARGMAX],
            network_def={"_target_": "scripts.waiting.Waiting", "seconds": seconds},
            inferer={"_target_": "SlidingWindowInferer", "roi_size": WINDOW, "sw_batch_size": 1, "overlap": 0.25},
        )
        package = folder / f"package-{number}"
        (package / "configs").mkdir(parents=True)
        (package / "models").mkdir()
        torch.save({"edge": torch.tensor(0.5)}, package / "models" / "model.pt")
        (package / "scripts").mkdir()
        (package / "configs" / "metadata.json").write_text(json.dumps(about))
        (package / "configs" / "inference.json").write_text(json.dumps(chain))
        (package / "scripts" / "__init__.py").write_text("")
        (package / "scripts" / "waiting.py").write_text(_WAITING)
        versions.append(added(folder, package, number))
    return versions


def added(folder: Path, package: Path, number: int) -> ModelVersion:
    card, digest, place = ModelStore(folder / "models").add(package)
    return ModelVersion(number + 1, card.name, card.version, digest, place, card, True)


# --------------------------------------------------------------------------------------------------------- measured


def measured(
    folder: Path, models: list[ModelVersion], series: Series, store_folder: Path, rounds: int
) -> dict[str, Any]:
    seconds: dict[int, list[float]] = {at_once: [] for at_once in AT_ONCE}
    with TritonServer(folder / "triton") as server, TritonEngine(folder / "triton") as engine:
        engine.prepare(models)
        performed(engine, models, series, store_folder, COUNT)  # memory is mapped, files are in the cache
        for _ in range(rounds):
            for at_once in AT_ONCE:
                seconds[at_once].append(performed(engine, models, series, store_folder, at_once))
        memory = peaks_mb(server)
        about = engine.describe(models[0])
    one = [f"{s:.2f}" for s in seconds[1]]
    return {
        "engine": {key: about[key] for key in ("engine", "precision", "device")},
        "one_after_the_other_s": one,
        **{
            f"{n}_at_once": {
                "s": [f"{s:.2f}" for s in seconds[n]],
                "of_one_after_the_other": ratio(seconds[n], seconds[1]),
            }
            for n in AT_ONCE[1:]
        },
        "peak_mb_of_each_model": memory,
    }


def ratio(some: Sequence[float], of: Sequence[float]) -> float:
    """The median over rounds: what else the machine did meanwhile changes from one to the next."""
    return round(statistics.median(a / b for a, b in zip(some, of, strict=True)), 3)


def performed(
    engine: TritonEngine, models: Sequence[ModelVersion], series: Series, folder: Path, at_once: int
) -> float:
    """Seconds for all models, from files to files; every result is there, or it raises."""
    store, clock = FolderInstanceStore(folder), SystemClock()
    infer, encode = InferStage(store, engine, clock, 600.0), EncodeStage(store, clock, device_serial_number="NODE")

    def job(model: ModelVersion) -> int:
        work = JobWork("", series, model, "benchmark", 1, (), 1, datetime.now(UTC))
        with infer.run(work) as inference:
            return len(JobFinished(encode.run(work, inference).results).results)

    begun = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        results = list(threads.map(job, models))
    took = time.perf_counter() - begun
    infer.close()
    if min(results) == 0:
        raise RuntimeError(f"a model gave nothing: {results}")
    return took


def peaks_mb(server: TritonServer) -> list[int]:
    """Of the processes that run models, what the system keeps as their highest resident size since their last run."""
    assert server.pid is not None
    commands = {p.pid: " ".join(p.cmdline()) for p in psutil.Process(server.pid).children(recursive=True)}
    stubs = [pid for pid, command in commands.items() if "model.py" in command and SELF_TEST not in command]
    lines = [line for pid in stubs for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sorted(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(sys.argv[1:])
