"""Who is taken for dead: at once on this host, elsewhere only after patience."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from dicomnode.adapters.queue.liveness import dead_executors, runs_here, this_executor
from dicomnode.ports import Executor, Pulse

ME = Executor("me", "here", 1, 1.0)
NEIGHBOUR = Executor("neighbour", "here", 2, 1.0)
FAR = Executor("far", "there", 3, 1.0)


@pytest.mark.parametrize(
    ("suspect", "age_s", "runs", "patient", "dead"),
    [
        (NEIGHBOUR, 0.0, False, False, True),  # its process is gone: no need to wait
        (NEIGHBOUR, 0.0, True, True, False),
        (NEIGHBOUR, 99.0, True, True, True),  # it hangs
        (NEIGHBOUR, 99.0, True, False, False),  # or the database was away
        (FAR, 0.0, False, True, False),  # a pid means nothing on another host
        (FAR, 99.0, True, True, True),
        (FAR, 99.0, True, False, False),
        (ME, 99.0, False, True, False),
    ],
)
def test_who_is_dead(suspect: Executor, age_s: float, runs: bool, patient: bool, dead: bool) -> None:
    found = dead_executors(
        {suspect.id}, [Pulse(suspect, age_s)], ME, threshold_s=20.0, patient=patient, runs=lambda executor: runs
    )
    assert found == ({suspect.id} if dead else set())


@pytest.mark.parametrize("patient", [False, True])
def test_one_that_nothing_is_known_of_is_dead_after_patience(patient: bool) -> None:
    found = dead_executors({"unknown"}, [], ME, threshold_s=20.0, patient=patient, runs=lambda executor: True)
    assert found == ({"unknown"} if patient else set())


def test_this_process_runs_and_one_that_had_its_pid_before_does_not() -> None:
    me = this_executor()
    assert me.pid == os.getpid()
    assert runs_here(me)
    assert not runs_here(replace(me, pid_started=me.pid_started - 60))
    assert this_executor().id != me.id


def test_a_process_that_ended_does_not_run_even_before_its_parent_noticed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    executor = Executor("child", "here", child.pid, psutil.Process(child.pid).create_time())
    assert runs_here(executor)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    assert not runs_here(executor)
    child.communicate()
    assert not runs_here(executor)
