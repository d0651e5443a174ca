"""How long from the last image to the SEG in the PACS, beside what users would pick instead?

One run, interleaved rounds, the same CT, the same network: the naive script, MONAI Deploy App SDK and this node,
each sending to the same Orthanc. The peers are scripts in ../shared/peers; without them this benchmark cannot run.

    python -m benchmarks.main_job.run [--rounds 6] [--model unet]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.e2e.running_node import RunningNode

ROOT = Path(__file__).parents[2]
PEERS = ROOT.parent / "shared" / "peers"
WORK = Path(os.environ.get("W", Path(tempfile.gettempdir()) / "dicomnode-peers"))
ORTHANC = "ORTHANC@127.0.0.1:21242"

OVERLAP = 0.25  # of windows

# The same pre- and post-processing as ../shared/peers/naive.py
CARD: dict[str, Any] = {
    "name": "peer",
    "version": "1",
    "manufacturer": "peer",
    "intended_use": "timing beside peers",
    "limits": "the network is random: its masks mean nothing",
    "input": {
        "modality": ["CT"],
        "orientation": "RAS",
        "spacing_mm": [1.5, 1.5, 2.0],
        "intensity": {"from": [-57, 164], "to": [0, 1], "clip": True},
    },
    "network": {"file": "model.ts", "window": [96, 96, 96], "overlap": OVERLAP},
    "output": {
        "segments": [
            {
                "number": number,
                "name": name,
                "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
                "type": {"value": value, "scheme": "SCT", "meaning": name},
                "colour": colour,
            }
            for number, name, value, colour in (
                (1, "Liver", "10200004", [221, 130, 101]),
                (2, "Bone", "272673000", [241, 214, 145]),
            )
        ]
    },
}
RULE = {"name": "peer", "when": {"Modality": "CT"}, "model": "peer"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="a multiple of 3, at most 6")
    parser.add_argument("--model", choices=("unet", "thr", "both"), default="unet")
    arguments = parser.parse_args()
    if not PEERS.is_dir():
        raise SystemExit("../shared/peers is absent: there is nothing to measure against")
    prepare_peers()
    with tempfile.TemporaryDirectory(prefix="main-job-") as folder:
        node = set_up_node(Path(folder), arguments.model)
        with node, peak_memory(node) as peak:
            figures = side_by_side(node, arguments)
            stages, ran_on = stage_times(node), engine(node)
            shutil.copy(newest_segmentation(node), WORK / "node.dcm")
    report(figures, stages, peak["bytes"], dice(arguments.model))
    print(f"the node's engine: {ran_on}")


def prepare_peers() -> None:
    """The first run builds two virtual environments, models and data (minutes)."""
    subprocess.run(
        ["bash", "-c", 'NEED_SDK=1; . "$0"', str(PEERS / "common.sh")],
        env={**os.environ, "W": str(WORK)},
        check=True,
    )
    # MONAI's Orientationd, which the naive script uses, needs nibabel; its environment is made without
    python = WORK / "venv" / "bin" / "python"
    if subprocess.run([str(python), "-c", "import nibabel"], capture_output=True, check=False).returncode:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "nibabel"], check=True)


def set_up_node(folder: Path, model: str, destination: str = ORTHANC, overlap: float = OVERLAP) -> RunningNode:
    package = folder / "package"
    package.mkdir()
    card = {**CARD, "network": {**CARD["network"], "overlap": overlap}}
    (package / "model.yaml").write_text(yaml.safe_dump(card))
    shutil.copy(WORK / "models" / model / "model.ts", package)
    rule = folder / "rule.yaml"
    rule.write_text(yaml.safe_dump(RULE))
    node = RunningNode(folder / "home")
    node.run("models", "add", str(package))
    node.run("rules", "add", str(rule))
    node.run("destinations", "add", "orthanc", "--dimse", destination)
    return node


@contextmanager
def peak_memory(node: RunningNode) -> Iterator[dict[str, int]]:
    """Highest sum of proportional set sizes of all the node's processes, Triton and shared memory included."""
    peak = {"bytes": 0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            peak["bytes"] = max(peak["bytes"], sum(map(_pss, node.processes())))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _pss(process: psutil.Process) -> int:
    """From smaps_rollup: psutil adds up each mapping, which takes a tenth of a core here."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except OSError:  # it ended meanwhile
        return 0
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


def side_by_side(node: RunningNode, arguments: argparse.Namespace) -> dict[str, Any]:
    environment = {
        **os.environ,
        "W": str(WORK),
        "NODE": f"dicomnode {node.port} DICOMNODE 2",
        "REPS": str(arguments.rounds),
        "MODEL": arguments.model,
    }
    done = subprocess.run(
        ["bash", str(PEERS / "run_side_by_side.sh")], env=environment, capture_output=True, text=True, check=False
    )
    found = re.search(r"^SIDE_BY_SIDE (.*)$", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(f"the peers did not finish:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}\n{node.shown()}")
    return {**json.loads(found[1]), "node's SEG": segmentation_times()}


def segmentation_times() -> list[float]:
    """Seconds from the release to the node's SEG in Orthanc, a round each, as e2e.py saw its two results come."""
    rounds = map(json.loads, (WORK / "sbs" / "node.e2e").read_text().splitlines())
    return [one["first_s"] if one["got"][0] == "SEG" else one["result_s"] for one in rounds]


def stage_times(node: RunningNode) -> dict[str, float]:
    """Median over the jobs, the first (the warm-up) left out."""
    jobs = [node.json("jobs", "show", job["job_id"]) for job in node.json("jobs", "list")]
    timings = [job["timings_s"] for job in sorted(jobs, key=lambda job: str(job["created_at"]))[1:]]
    return {stage: statistics.median(t[stage] for t in timings) for stage in timings[0]}


def engine(node: RunningNode) -> str:
    """Of the last job, as the node records it."""
    newest = max(node.json("jobs", "list"), key=lambda job: str(job["created_at"]))
    return ", ".join(
        str(value) for value in node.json("jobs", "show", newest["job_id"])["details"]["engine"].values()
    )


def newest_segmentation(node: RunningNode) -> Path:
    """Of the study that the peers' masks are kept of: the last one."""
    newest = max(node.json("jobs", "list"), key=lambda job: str(job["created_at"]))
    results = node.json("jobs", "show", newest["job_id"])["results"]
    return node.home / "store" / next(str(result["path"]) for result in results if result["kind"] == "SEG")


def dice(model: str) -> str:
    command = [str(WORK / "venv" / "bin" / "python"), str(PEERS / "dice.py")]
    done = subprocess.run(
        [*command, str(WORK / f"naive_{model}.dcm"), str(WORK / "node.dcm")],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def report(figures: dict[str, Any], stages: dict[str, float], peak_bytes: int, overlap: str) -> None:
    naive, sdk = figures["naive"], figures["sdk"]
    ours, with_report_s = figures["node's SEG"], statistics.median(figures["node"]["all"])
    ours_s, sdk_s = statistics.median(ours), sdk["folder_to_SEG_in_PACS_s"]
    to_naive = statistics.median(o / n for o, n in zip(ours, naive["all"], strict=True))
    print(f"released → SEG in Orthanc, median of {len(ours)} rounds, {figures['model']}:")
    print(f"  naive script            {statistics.median(naive['all']):6.2f} s   peak {naive['peak_rss_mb']:.0f} MB")
    print(f"  MONAI Deploy App SDK    {sdk_s:6.2f} s   peak {sdk['peak_rss_mb']:.0f} MB")
    print(f"  dicomnode               {ours_s:6.2f} s   peak {peak_bytes / 1e6:.0f} MB (all processes)")
    print(f"  with its SR, which peers have not {with_report_s:6.2f} s")
    print(f"ratio to the naive script {to_naive:.3f}, to MONAI Deploy {ours_s / sdk_s:.3f}")
    print("stages, median seconds: " + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items()))
    print("naive script's mask against the node's:\n" + overlap)


if __name__ == "__main__":
    main()
