"""What all workers of a host have been promised of its memory: shared by a folder, given back however one ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dicomnode.adapters.ledger import FolderLedger
from dicomnode.domain.admission import WITHOUT_END, Extent, Room
from dicomnode.domain.job import Priority
from dicomnode.ports import Ledger
from dicomnode.stages.admission import InTurn, OwnLedger
from tests.adapters.fake_machine import FakeMachine
from tests.unit.test_admission import line, work


@pytest.fixture(params=["own", "folder"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return OwnLedger() if request.param == "own" else FolderLedger(tmp_path / "promised")


def promise(ledger: Ledger, size: float, free: float = 8e9) -> Callable[[], None]:
    with ledger.alone():
        return ledger.add(Room(size), Room(free))


def promised(ledger: Ledger) -> list[float]:
    with ledger.alone():
        return sorted(room.host_bytes for room in ledger.promised())


def test_promises_are_kept_until_they_are_given_back(ledger: Ledger) -> None:
    assert promised(ledger) == []
    one, two = promise(ledger, 1e9), promise(ledger, 2e9, free=7e9)
    assert promised(ledger) == [1e9, 2e9]
    assert ledger.free_before() == Room(8e9), "as it was when the first began"
    one()
    assert promised(ledger) == [2e9]
    two()
    assert promised(ledger) == []
    promise(ledger, 1e9, free=6e9)
    assert ledger.free_before() == Room(6e9)


def test_a_kind_without_end_is_kept_so(tmp_path: Path) -> None:
    ledger = FolderLedger(tmp_path / "promised")
    with ledger.alone():
        assert ledger.free_before() == WITHOUT_END
        ledger.add(Room(1.5), WITHOUT_END)
        assert (ledger.promised(), ledger.free_before()) == ([Room(1.5)], WITHOUT_END)


def _promises_and_waits(folder: Path, told: Connection) -> None:
    promise(FolderLedger(folder), 3e9)
    told.send("promised")
    signal.pause()


def test_what_a_process_was_promised_ends_with_it_however_it_dies(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=_promises_and_waits, args=(tmp_path, there))
    other.start()
    try:
        assert here.poll(60), "the other process did not begin"
        ledger = FolderLedger(tmp_path)
        promise(ledger, 1e9)
        assert promised(ledger) == [1e9, 3e9]
    finally:
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    assert promised(ledger) == [1e9]
    assert len(list(tmp_path.glob("*.promise"))) == 1


def worker(folder: Path) -> InTurn:
    """With room for one of its jobs, and not for two."""
    extent = Extent(1_000_000_000)
    ledger = FolderLedger(folder)
    return InTurn(2, FakeMachine(8e9, 8e9), lambda job: (extent,), look_every_s=0.01, ledger=ledger)


def test_two_workers_of_a_host_do_not_promise_the_same_memory(tmp_path: Path) -> None:
    with line(worker(tmp_path)) as first, line(worker(tmp_path)) as second:
        first.come("a")
        first.until(lambda: first.begun == ["a"])
        second.come("b", Priority.STAT)
        second.until(lambda: bool(second.said["b"]))
        assert second.said["b"][0].startswith("waits for memory: needs ")
        assert second.begun == []
        first.leave("a")
        second.until(lambda: second.begun == ["b"])


def test_two_workers_of_a_host_have_one_line_for_its_memory(tmp_path: Path) -> None:
    """The small one would fit beside the one that runs; the large one, which another worker has, came before it."""
    first, second, third = (worker(tmp_path) for _ in range(3))
    second.sizes = lambda job: (Extent(1_000),)
    second.windows_at_once = 0
    with line(first) as a, line(second) as b, line(third) as c:
        a.come("a")
        a.until(lambda: a.begun == ["a"])
        c.come("b large")
        c.until(lambda: bool(c.said["b large"]))
        b.come("c small")
        b.until(lambda: bool(b.said["c small"]))
        assert b.said["c small"][0] == "waits for memory: a job that goes before it waits for some too"
        b.come("urgent", Priority.STAT)
        b.until(lambda: b.begun == ["urgent"])
        a.leave("a")
        c.until(lambda: c.begun == ["b large"])
        b.leave("urgent")
        b.until(lambda: b.begun == ["urgent", "c small"])


def test_who_has_no_place_in_its_worker_keeps_no_other_worker_waiting(tmp_path: Path) -> None:
    first, second = worker(tmp_path), worker(tmp_path)
    first.at_once = 1
    first.sizes = second.sizes = lambda job: (Extent(1_000),)
    with line(first) as a, line(second) as b:
        a.come("a")
        a.come("b")
        b.come("c")
        b.until(lambda: b.begun == ["c"])
        assert a.begun == ["a"]


def _stands_and_waits(folder: Path, told: Connection) -> None:
    ledger = FolderLedger(folder)
    with ledger.alone():
        ledger.stand((1, 0.0, "dead"))
    told.send("stands")
    signal.pause()


def test_a_place_in_line_ends_with_its_process_and_others_notice(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=_stands_and_waits, args=(tmp_path, there))
    other.start()
    try:
        assert here.poll(60), "the other process did not begin"
        ledger = FolderLedger(tmp_path)
        with ledger.alone():
            leave = ledger.stand((2, 0.0, "lives"))
            assert ledger.first() == (1, 0.0, "dead")
        before = ledger.glance()
        assert ledger.glance() == before
    finally:
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    assert ledger.glance() != before
    with ledger.alone():
        assert ledger.first() == (2, 0.0, "lives")
        leave()
        assert ledger.first() is None


def test_a_job_that_never_begins_is_promised_nothing(tmp_path: Path) -> None:
    huge = InTurn(
        1, FakeMachine(8e9, 8e9), lambda job: (Extent(20_000_000_000),), ledger=FolderLedger(tmp_path / "promised")
    )
    with huge.admitted(work(), lambda words: True) as admitted:
        assert not admitted.may_begin
        assert promised(huge.ledger) == []
