"""Of 300 images of 512 x 512: how much of the wait is not the network, beside the script of a researcher?

The same network, card, Orthanc and way of timing as `benchmarks.main_job.run`; the CT is made (noise at 0.9 mm, which
is the hardest there is for what encodes masks). From the end of storescu's association to the last result in Orthanc.

    python -m benchmarks.main_job.large [--rounds 3]

With another overlap the network sees more windows and computes for longer, as larger ones do; the node is alone then.

    python -m benchmarks.main_job.large --overlap 0.5
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.main_job.run import OVERLAP, PEERS, WORK, engine, peak_memory, prepare_peers, set_up_node, stage_times
from tests.e2e.running_node import RunningNode
from tests.servers import Orthanc, free_port

PYTHON = WORK / "venv" / "bin" / "python"
STUDIES = WORK / "data" / "ct300"  # s0 to s3, made with the peers' other data
SHARE_MOST, RATIO_MOST = 0.10, 0.20  # of issue 4


@contextmanager
def naive_script(folder: Path, model: str, orthanc: Orthanc) -> Iterator[tuple[int, Path]]:
    """The researcher's script as a warm service: its port, and the file where it notes its stages."""
    port, marks = free_port(), folder / "naive.marks"
    (folder / "in").mkdir()
    command = [str(PYTHON), str(PEERS / "naive.py"), "--port", str(port), "--dir", str(folder / "in")]
    model_file = str(WORK / "models" / model / "model.ts")
    command += ["--model", model_file, "--pacs", f"127.0.0.1:{orthanc.dicom_port}:ORTHANC", "--marks", str(marks)]
    with (folder / "naive.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(port, process)
            yield port, marks
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"the script ended with status {process.returncode}")


def sent(port: int, ae_title: str, orthanc: Orthanc, expected: int, study: Path) -> float:
    """Seconds from the end of the association to the last of so many results in Orthanc."""
    command = [sys.executable, str(PEERS / "e2e.py"), "--port", str(port), "--aet", ae_title]
    command += ["--http", str(orthanc.http_port), "--expect", str(expected), str(study)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if len(found["got"]) != expected:
        raise SystemExit(f"{ae_title} gave {found['got']}")
    return float(found["result_s"])


def naive_networks(marks: Path) -> list[float]:
    """Seconds of the sliding window of each study, in order."""
    rows = [line.split() for line in marks.read_text().splitlines()]
    ends = {name: [float(row[1]) for row in rows if row[0] == name] for name in ("pre.end", "swi.end")}
    return [end - begin for begin, end in zip(ends["pre.end"], ends["swi.end"], strict=True)]


def report(name: str, seconds: Sequence[float], network_s: float) -> float:
    """The rest: what is not the network."""
    whole = statistics.median(seconds)
    rest = whole - network_s
    print(f"  {name:23}{whole:6.2f} s   network {network_s:6.2f} s   the rest {rest:6.2f} s, {rest / whole:.2f}")
    return rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--model", choices=("unet", "thr", "both"), default="both")
    parser.add_argument("--overlap", type=float, default=OVERLAP, help="of the node's windows")
    given = parser.parse_args()
    if not PEERS.is_dir():
        raise SystemExit("../shared/peers is absent: there is nothing to measure against")
    prepare_peers()
    with (
        tempfile.TemporaryDirectory(prefix="main-job-large-") as scratch,
        Orthanc(Path(scratch) / "orthanc") as orthanc,
        ExitStack() as beside,
    ):
        script = None
        if given.overlap == OVERLAP:
            script = beside.enter_context(naive_script(Path(scratch), given.model, orthanc))
        node = set_up_node(Path(scratch), given.model, orthanc.dimse, given.overlap)
        with node, peak_memory(node) as peak:
            ours, theirs = measured(node, orthanc, given.rounds, script)
            stages, ran_on = stage_times(node), engine(node)
    print(f"released → results in Orthanc, 300 images, median of {given.rounds} (load {os.getloadavg()[0]:.1f}):")
    rest = report("dicomnode (SEG and SR)", ours, stages["infer: network"])
    print(f"the goal for the rest is {SHARE_MOST} of the whole")
    if script is not None:
        their_rest = report(
            "naive script (SEG)", [whole for whole, _ in theirs], statistics.median(n for _, n in theirs)
        )
        print(f"the rest is {rest / their_rest:.2f} of the script's (goal {RATIO_MOST})")
    print("stages, median seconds: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.items()))
    print(f"the node's engine: {ran_on}")
    print(f"the node's peak memory {peak['bytes'] / 1e6:.0f} MB (all processes)")


def measured(
    node: RunningNode, orthanc: Orthanc, rounds: int, script: tuple[int, Path] | None
) -> tuple[list[float], list[tuple[float, float]]]:
    """The node's seconds, and the script's with those of its network; the first round is a warm-up and left out."""
    ours, theirs = [], []
    for number in range(rounds + 1):
        study = STUDIES / f"s{number}"
        if script is not None:
            theirs.append(sent(script[0], "NAIVE", orthanc, 1, study))
        ours.append(sent(node.port, "DICOMNODE", orthanc, 2, study))
    networks = [] if script is None else naive_networks(script[1])
    return ours[1:], list(zip(theirs, networks, strict=True))[1:]


if __name__ == "__main__":
    main()
