"""A worker process for tests: `python -m tests.adapters.turn_worker URL FOLDER AT_ONCE`, until it is killed.

Its jobs write "JOB PID" to FOLDER/began when they begin, and run until FOLDER/go-JOB is there or they are told to
stop. Workers of one folder are of one host, whose 8 GB are shared: 1 GB is free, so that large series run alone.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from dicomnode.adapters.db.repositories import open_state
from dicomnode.adapters.ledger import FolderLedger
from dicomnode.adapters.queue import DbosQueue
from dicomnode.adapters.queue.engine import DbosJobEngine
from dicomnode.domain.admission import Extent
from dicomnode.ports import Delivered, DeliveryOutcome, DeliveryWork, JobOutcome, JobStopped, JobWork
from dicomnode.stages.admission import InTurn
from tests.adapters.fake_machine import FakeMachine
from tests.adapters.state_material import finished

LARGE = ".77"
"""Ending of the series that need more than is free beside any other."""


class Held:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def perform(self, work: JobWork) -> JobOutcome:
        with (self._folder / "began").open("a") as began:
            began.write(f"{work.job_id} {os.getpid()}\n")
        while not (self._folder / f"go-{work.job_id}").exists():
            if work.halt.wait(0.02):
                return JobStopped(work.halt.why)
        return finished(series=work.series.series_instance_uid)

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome:
        return Delivered("0x0000")


def sizes(work: JobWork) -> tuple[Extent, ...]:
    return (Extent(100_000_000 if work.series.series_instance_uid.endswith(LARGE) else 1),)


def main(url: str, folder: str, at_once: str) -> None:
    ledger, number = FolderLedger(Path(folder) / "promised"), int(at_once)
    turns = InTurn(number, FakeMachine(8e9, 1e9), sizes, windows_at_once=0, ledger=ledger)
    with (
        DbosQueue(url) as queue,
        open_state(url, queue) as state,
        DbosJobEngine(url, state, Held(Path(folder)), job_concurrency=number, admission=turns),
    ):
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
