"""Keeps a node's processes running: one `dicomnode run ROLE` each, started again when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

RESTART_FIRST_S = 0.5
RESTART_MOST_S = 30.0
STEADY_AFTER_S = 60.0
STOP_GRACE_S = 20.0
POLL_S = 0.1
_STDERR_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Role:
    """A process of the node; `name` is unique in it, as in "receiver-1"."""

    name: str
    arguments: tuple[str, ...]  # after `dicomnode`


def ready_file(run_folder: Path, name: str) -> Path:
    return run_folder / f"{name}.json"


def write_ready(run_folder: Path, name: str, **facts: object) -> None:
    """Says that a role does its work now; read by `dicomnode status` and by whoever waits for the node."""
    _write(run_folder, name, facts)


def write_starting(run_folder: Path, name: str, doing: str) -> None:
    """Says what a role does before it is ready, as in "loads the models"."""
    _write(run_folder, name, {"doing": doing})


def write_troubles(run_folder: Path, name: str, troubles: Mapping[str, str]) -> None:
    """Adds to what this process said what of its work it cannot do, and why."""
    facts = read_said(run_folder, name)
    if facts is not None and facts["pid"] == os.getpid():
        _write(run_folder, name, {**facts, "troubles": dict(troubles)})


def write_down(run_folder: Path, name: str, why: str) -> None:
    """Says of another process, which is gone, why it is; as in "ended with status 1"."""
    _write(run_folder, name, {"down": why})


def _write(run_folder: Path, name: str, facts: Mapping[str, object]) -> None:
    file = ready_file(run_folder, name)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"pid": os.getpid(), "since": time.time(), **facts}))
    part.replace(file)


def forget_ready(run_folder: Path, name: str) -> None:
    """Takes back what this process said; not what the one says that took over while this one was still ending."""
    facts = read_said(run_folder, name)
    if facts is not None and facts["pid"] == os.getpid():
        ready_file(run_folder, name).unlink(missing_ok=True)


def read_ready(run_folder: Path, name: str) -> dict[str, object] | None:
    """What a role said when it was ready; None when it is not, or its process is gone."""
    facts = read_said(run_folder, name)
    return None if facts is None or "doing" in facts or "down" in facts else facts


def read_said(run_folder: Path, name: str) -> dict[str, object] | None:
    """What was said of a role last, ready or not yet; None when the process that said it is gone."""
    try:
        facts: dict[str, object] = json.loads(ready_file(run_folder, name).read_text())
        os.kill(int(str(facts["pid"])), 0)
    except (OSError, ValueError, KeyError):
        return None
    return facts


def wait_ready(run_folder: Path, names: Sequence[str], timeout_s: float, stop: threading.Event) -> bool:
    end = time.monotonic() + timeout_s
    while not stop.is_set() and time.monotonic() < end:
        if all(read_ready(run_folder, name) for name in names):
            return True
        stop.wait(POLL_S)
    return False


class _Child:
    """One role's process, over its restarts."""

    def __init__(self, role: Role, environment: Mapping[str, str], log_folder: Path, run_folder: Path) -> None:
        self.role, self._run_folder = role, run_folder
        self._environment, self._log = dict(environment), log_folder / f"{role.name}.stderr"
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._backoff_s = RESTART_FIRST_S
        self._not_before = 0.0

    def start_if_due(self) -> bool:
        if self._process is not None or time.monotonic() < self._not_before:
            return False
        # The child's standard input is a pipe that nobody writes to: its end tells the child that we are gone,
        # however we went, so that nothing is left behind holding the port or the accelerator.
        self._set_aside_long_log()
        self._say_of_it(write_starting, "starts")  # Python takes a second before it says so itself
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dicomnode", *self.role.arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        self._started = time.monotonic()
        return True

    def _say_of_it(self, write: Callable[[Path, str, str], None], words: str) -> None:
        with suppress(OSError):  # a full disk must not end who starts the processes
            write(self._run_folder, self.role.name, words)

    def _set_aside_long_log(self) -> None:
        """A process that cannot start says why each time, for days perhaps."""
        if self._log.exists() and self._log.stat().st_size > _STDERR_MOST_BYTES:
            self._log.replace(self._log.with_suffix(".stderr.before"))

    def ended(self) -> int | None:
        """The exit status, once, when the process has ended; the restart is then due after the backoff."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        if time.monotonic() - self._started > STEADY_AFTER_S:
            self._backoff_s = RESTART_FIRST_S
        self._not_before = time.monotonic() + self._backoff_s
        self._say_of_it(write_down, f"ended with {_words(status)}, is started again")
        self._backoff_s = min(self._backoff_s * 2, RESTART_MOST_S)
        self._close()
        return status

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, end: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


class Supervisor:
    """Runs roles until told to stop; `say` gets one line about each thing that happens to a process.

    In `run_folder` it says of processes what they cannot say themselves: that they are begun, and that they ended.
    `stopping` is called before it ends them all.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        environment: Mapping[str, str],
        log_folder: Path,
        run_folder: Path,
        say: Callable[[str], None],
        stopping: Callable[[], None] = lambda: None,
    ) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self._children = [_Child(role, environment, log_folder, run_folder) for role in roles]
        self._log_folder, self._say, self._stopping = log_folder, say, stopping

    def run(self, stop: threading.Event) -> None:
        """Returns once `stop` is set and every process has ended."""
        try:
            while not stop.wait(POLL_S):
                self._look()
        finally:
            self._end()

    def _look(self) -> None:
        for child in self._children:
            if (status := child.ended()) is not None:
                name = child.role.name
                self._say(
                    f"{name} ended with {_words(status)}; starting it again (log: {self._log_folder / name}.log)"
                )
            child.start_if_due()

    def _end(self) -> None:
        self._stopping()
        for child in self._children:
            child.ask_to_stop()
        end = time.monotonic() + STOP_GRACE_S
        for child in self._children:
            child.wait(end)


def _words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
