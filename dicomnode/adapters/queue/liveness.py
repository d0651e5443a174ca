"""Which executors are dead, so that what they left running is taken over."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import psutil

from dicomnode.ports import Executor, Pulse

# A start time is derived from the boot time, which a correction of the clock moves.
_SAME_START_S = 2.0


def this_executor() -> Executor:
    """This process, under a new id: what an earlier process of this host left is never mistaken for ours."""
    process = psutil.Process()
    host = socket.gethostname()
    return Executor(
        id=f"{host[:24]}-{process.pid}-{secrets.token_hex(4)}",
        host="/".join((host[:64], _boot_id(), _pid_namespace())),
        pid=process.pid,
        pid_started=process.create_time(),
    )


def dead_executors(
    suspects: Collection[str],
    pulses: Sequence[Pulse],
    me: Executor,
    *,
    threshold_s: float,
    patient: bool,
    runs: Callable[[Executor], bool],
) -> set[str]:
    """Of the executors that hold work, those that are dead.

    A process of this host is known to be dead at once (`runs` looks). One elsewhere, or one here that hangs, is
    taken for dead once its heartbeat is older than the threshold, and only when we are `patient`, that is when
    we have watched for one threshold: after an outage of the database every heartbeat is old.
    """
    known = {pulse.executor.id: pulse for pulse in pulses}
    return {
        suspect
        for suspect in suspects
        if suspect != me.id and _is_dead(known.get(suspect), me, threshold_s, patient, runs)
    }


def _is_dead(
    pulse: Pulse | None, me: Executor, threshold_s: float, patient: bool, runs: Callable[[Executor], bool]
) -> bool:
    if pulse is not None and pulse.executor.host == me.host and not runs(pulse.executor):
        return True
    return patient and (pulse is None or pulse.age_s > threshold_s)


def runs_here(executor: Executor) -> bool:
    """Whether the process still runs on this host; its pid may be another's by now."""
    try:
        process = psutil.Process(executor.pid)
        same = abs(process.create_time() - executor.pid_started) < _SAME_START_S
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _boot_id() -> str:
    return _first_line(Path("/proc/sys/kernel/random/boot_id"))[:8]


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
