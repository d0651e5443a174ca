"""Which engine runs a network fastest on this machine, and how right is it?

The sample networks on every engine and precision that reads them here, with one thread and with two, in interleaved
rounds of one process: windows of the 3D U-Net, a whole volume through the sliding window, and images of the slice
classifier. The peer is torch in eager mode, as a researcher runs the same weights. Answers are compared with its.

    python -m benchmarks.engines.run [--rounds 5] [--threads 1 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from dicomnode.adapters.triton.hosts import cpu_name
from dicomnode.adapters.triton.hosts.calibration import windows_of
from dicomnode.adapters.triton.hosts.networks import ConversionFailed, LoadedNetwork, NetworkInputs, load_network
from dicomnode.adapters.triton.hosts.torch_threads import one_thread
from dicomnode.domain.engines import candidates
from dicomnode.domain.model_card import ModelCard, NetworkSpec, parse_model_card
from dicomnode.errors import InvalidModelPackage
from dicomnode.imaging.inference import model_labels
from sample_data.net import TorsoNet

TORSO, REGIONS = (Path("sample_data/models") / name for name in ("torso-ct", "slice-ct-region"))
VOLUME = (160, 160, 96)  # model axes; 12 windows of 96
IMAGES = 32
Run = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Way:
    """An engine on a task: `run` gives scores or labels for `samples` windows, volumes or images."""

    name: str
    run: Run
    samples: int


def card_of(package: Path) -> ModelCard:
    return parse_model_card(yaml.safe_load((package / "model.yaml").read_text(encoding="utf-8")))


def eager_torso(threads: int) -> LoadedNetwork:
    """The U-Net with its trained weights, as torch runs it by itself."""
    torch.set_num_threads(threads)
    net = TorsoNet().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        net.load_state_dict(torch.jit.load(TORSO / "models" / "model.ts").state_dict())

    def run(windows: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(threads)
        with torch.no_grad():
            found: torch.Tensor = net(windows)
            return found

    return LoadedNetwork(run, torch.device("cpu"), 1, {"engine": "torch eager", "precision": "f32"})


def on_every_engine(
    package: Path, files: Sequence[str], takes: NetworkInputs, cache: Path, threads: int
) -> Iterator[LoadedNetwork]:
    card = card_of(package)
    for file in files:
        for engine, precision in candidates(dataclasses.replace(card.network, file=file), has_gpu=False):
            spec = dataclasses.replace(card.network, file=file, engine=engine, precision=precision)
            try:
                yield _pinned(
                    load_network(package, spec, cache, threads, takes, _shown(package, card, cache)), threads
                )
            except (ConversionFailed, InvalidModelPackage) as error:
                print(f"  {engine} {precision} ({file}): left out: {error}", flush=True)


def _shown(package: Path, card: ModelCard, cache: Path) -> Callable[[], list[list[torch.Tensor]]] | None:
    """What int8 is calibrated with; single images have no windows."""
    if card.input.size is not None:
        return None
    from dicomnode.adapters.triton.hosts.model import Host, HostSettings

    host = Host(None, HostSettings(package, cache, 1))
    return lambda: list(windows_of(package, card, host._golden_image))  # type: ignore[arg-type]


def _pinned(network: LoadedNetwork, threads: int) -> LoadedNetwork:
    """torch's number of threads is the process's: it is set before each call."""
    inner = network.run

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(threads)
        found: torch.Tensor = inner(*inputs)
        return found

    return dataclasses.replace(network, run=run)


def name_of(network: LoadedNetwork) -> str:
    """Without the release, which the node records and a table has no room for."""
    words = [word for word in network.info["engine"].split() if not word[0].isdigit()]
    return f"{' '.join(words)} {network.info['precision']}"


def window_way(network: LoadedNetwork, spec: NetworkSpec) -> Way:
    windows = torch.rand((network.batch, 1, *spec.window), generator=torch.Generator().manual_seed(1))
    return Way(name_of(network), lambda: network(windows)[:1].argmax(1), network.batch)


def volume_way(network: LoadedNetwork, spec: NetworkSpec, image: torch.Tensor) -> Way:
    def run() -> torch.Tensor:
        windowed = network.windowed(before_each=lambda: None)
        with torch.no_grad(), one_thread(network.has_own_threads):
            return model_labels(image, windowed, spec, len(card_of(TORSO).segments) + 1, spec.overlap)

    return Way(name_of(network), run, 1)


def timed(ways: Sequence[Way], rounds: int) -> dict[str, tuple[float, float]]:
    """By way: samples per second, the median, and the share of labels that are the first way's."""
    answers = {way.name: way.run().clone() for way in ways}  # warms up, too
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            begun = time.perf_counter()
            way.run()
            seconds[way.name].append((time.perf_counter() - begun) / way.samples)
    reference = answers[ways[0].name]
    return {
        way.name: (
            1 / statistics.median(seconds[way.name]),
            float((answers[way.name] == reference).float().mean()),
        )
        for way in ways
    }


def shown(task: str, threads: int, found: dict[str, tuple[float, float]]) -> None:
    (peer, _), *_ = found.values()
    print(f"\n{task}, {threads} thread{'s' if threads > 1 else ''}")
    for name, (rate, equal) in found.items():
        print(
            f"  {name:24} {rate:9.3f} /s  {rate / peer:5.2f} times torch eager  labels equal {equal:.5f}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    spec = card_of(TORSO).network
    image = torch.rand((1, 1, *VOLUME), generator=torch.Generator().manual_seed(2))
    kept: dict[str, dict[str, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for threads in given.threads:
            files = ("models/model.ts", "models/model.onnx")
            found = [eager_torso(threads), *on_every_engine(TORSO, files, NetworkInputs(), Path(folder), threads)]
            networks = list({name_of(network): network for network in found}.values())
            for task, ways in (
                ("3D U-Net, windows of 96x96x96", [window_way(n, spec) for n in networks]),
                (f"3D U-Net, a volume of {VOLUME}", [volume_way(n, spec, image) for n in networks]),
            ):
                kept[f"{task}, {threads}"] = timed(ways, given.rounds)
                shown(task, threads, kept[f"{task}, {threads}"])
    if given.json:
        given.json.write_text(json.dumps(kept, indent=2))


if __name__ == "__main__":
    main()
