"""The node's receive part alone, in so many processes on one port, with SQLite under a new home; ends on SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from dicomnode import bootstrap
from dicomnode.config import Settings


def serve(home: Path, port: int, ae_title: str) -> None:
    settings = Settings(home=home, dicom_port=port, dicom_host="127.0.0.1", ae_title=ae_title)
    state = bootstrap.state(settings)
    stage = bootstrap.receive_stage(settings, state)
    stage.indexer.start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with bootstrap.storage_scp(settings, stage, state, bootstrap.known_sources(state), f"benchmark/{os.getpid()}"):
        print("ready", flush=True)
        stop.wait()
    print("indexed" if stage.indexer.flush(60) else "not indexed", flush=True)
    stage.indexer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--ae-title", default="PERF")
    parser.add_argument("--without-fsync", action="store_true", help="what durability costs; never in earnest")
    arguments = parser.parse_args()
    if arguments.without_fsync:
        os.fsync = lambda handle: None
    # itself the last one; the first makes the database before the others come
    command = [sys.executable, "-m", __spec__.name, str(arguments.home), str(arguments.port)]
    others = []
    for _ in range(arguments.processes - 1):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        assert other.stdout is not None
        other.stdout.readline()
        others.append(other)
    try:
        serve(arguments.home, arguments.port, arguments.ae_title)
    finally:
        for other in others:
            other.terminate()
            other.communicate()


if __name__ == "__main__":
    main()
