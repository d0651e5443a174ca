"""A worker process for tests: `python -m tests.adapters.job_worker URL LOG`, until it is killed.

Its handlers take a little time and write to LOG when they begin: "perform JOB" or "deliver DELIVERY".
A series whose UID ends in .666 kills the process that works on it, each time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from dicomnode.adapters.db.repositories import open_state
from dicomnode.adapters.queue import DbosQueue
from dicomnode.adapters.queue.engine import DbosJobEngine
from dicomnode.ports import Delivered, DeliveryOutcome, DeliveryWork, JobOutcome, JobWork
from tests.adapters.state_material import finished

POISON = ".666"


class SlowHandlers:
    """Handlers that succeed, and that a kill finds at work."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def perform(self, work: JobWork) -> JobOutcome:
        self._write(f"perform {work.job_id}")
        if work.series.series_instance_uid.endswith(POISON):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        return finished(series=work.series.series_instance_uid)

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome:
        self._write(f"deliver {work.delivery_id}")
        time.sleep(0.02)
        return Delivered("0x0000")

    def _write(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(line + "\n")


def main(url: str, log: str) -> None:
    with DbosQueue(url) as queue, open_state(url, queue) as state, DbosJobEngine(url, state, SlowHandlers(Path(log))):
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
