"""How long does an instance take to be received, beside dcmtk's storescp and plain pynetdicom?

One run, interleaved rounds, the same CT instances by the same dcmtk storescu, 1 and 4 senders at once. This node
answers only when an instance is on the disk (fsync of the file and of its name); the peers never fsync.

    python -m benchmarks.receive.run [--rounds 3] [--instances 150]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from tests.servers import dcmtk, free_port

SENDERS = (1, 4)
RECEIVERS: dict[str, list[str]] = {
    "dcmtk": [],
    "pynetdicom": [],
    "node 1": [],
    "node 2": ["--processes", "2"],
    "node 1 without fsync": ["--without-fsync"],
}
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}  # dcmtk waits for delayed acknowledgements without it

PLAIN = """
import sys
from pynetdicom import AE, AllStoragePresentationContexts, evt
def store(event):
    with open(f"{sys.argv[2]}/{event.request.AffectedSOPInstanceUID}.dcm", "wb") as file:
        file.write(event.encoded_dataset())
    return 0x0000
ae = AE("PERF")
ae.maximum_pdu_size = 131072
ae.supported_contexts = AllStoragePresentationContexts
ae.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, store)])
"""


def command(receiver: str, port: int, folder: Path) -> list[str]:
    if receiver == "dcmtk":
        return [
            str(dcmtk("storescp")),
            "--fork",
            "-aet",
            "PERF",
            "--max-pdu",
            "131072",
            "-od",
            str(folder),
            str(port),
        ]
    if receiver == "pynetdicom":
        return [sys.executable, "-c", PLAIN, str(port), str(folder)]
    node = [sys.executable, "-m", "benchmarks.receive.receiver", str(folder), str(port)]
    return [*node, *RECEIVERS[receiver]]


def wait_for(port: int, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("a receiver did not start")


@contextmanager
def running(receiver: str, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(
        command(receiver, port, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        wait_for(port)
        time.sleep(2 if receiver == "node 2" else 0)  # its second process listens a little later
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)


def cpu_s(process: psutil.Process) -> float:
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return (
        sum(t.user + t.system for t in times)
        + process.cpu_times().children_user
        + process.cpu_times().children_system
    )


def send(port: int, series: list[Path]) -> float:
    """Seconds until all senders, one a series, are done."""
    begin = time.perf_counter()
    program = str(dcmtk("storescu"))
    senders = [
        subprocess.Popen([program, "-R", "-aec", "PERF", "127.0.0.1", str(port), "+sd", str(one)], env=ENVIRONMENT)
        for one in series
    ]
    if failed := [sender.args for sender in senders if sender.wait()]:
        raise SystemExit(f"a sender failed: {failed}")
    return time.perf_counter() - begin


def make_series(folder: Path, instances: int) -> Path:
    """A CT series of noise, 512 KiB an instance."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 4096, (512, 512), dtype=np.uint16)
    study, series = generate_uid(), generate_uid()
    for number in range(instances):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.InstanceNumber = study, series, number + 1
        one.PatientID, one.Modality = "PERF", "CT"
        one.Rows, one.Columns, one.SamplesPerPixel = 512, 512, 1
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.PhotometricInterpretation = "MONOCHROME2"
        one.PixelData = np.roll(noise, number).tobytes()
        one.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return folder


def measure(work: Path, rounds: int, instances: int, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    series = [make_series(work / f"s{n}", instances) for n in range(max(SENDERS))]
    wall: dict[tuple[str, int], list[float]] = {}
    cpu: dict[tuple[str, int], list[float]] = {}
    for round_ in range(rounds):
        for senders in SENDERS:
            for receiver in RECEIVERS:
                with running(receiver, work / "received") as (port, process):
                    before = cpu_s(process)
                    took = send(port, series[:senders])
                    used = cpu_s(process) - before
                per = 1000 / (instances * senders)
                wall.setdefault((receiver, senders), []).append(took * per)
                cpu.setdefault((receiver, senders), []).append(used * per)
                say(f"round {round_ + 1}, {receiver}, {senders} senders: {took * per:.2f} ms an instance")
    return {
        f"{receiver}, {senders} senders": {
            "ms": round(statistics.median(times), 2),
            "cpu_ms": round(statistics.median(cpu[receiver, senders]), 2),
            "times_dcmtk": round(statistics.median(times) / statistics.median(wall["dcmtk", senders]), 2),
        }
        for (receiver, senders), times in wall.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--instances", type=int, default=150)
    arguments = parser.parse_args()
    if dcmtk("storescp") is None:
        raise SystemExit("dcmtk is not installed (apt install dcmtk)")
    with tempfile.TemporaryDirectory(prefix="dicomnode-receive-") as folder:
        results = measure(Path(folder), arguments.rounds, arguments.instances, lambda line: print(line, flush=True))
    for name, f in results.items():
        print(f"{name:32} {f['ms']:7.2f} ms  {f['cpu_ms']:6.2f} ms CPU  {f['times_dcmtk']:5.2f} × dcmtk")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
