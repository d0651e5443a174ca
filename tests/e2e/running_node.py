"""A whole node as an administrator runs it: `dicomnode up` and the other commands, nothing reached into."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import psutil

from dicomnode.__main__ import main
from tests.servers import dcmtk, free_port

READY_TIMEOUT_S = 120.0


class NodeFailed(RuntimeError):
    """The message has the end of the node's screen."""


@contextmanager
def _exit_status_0() -> Iterator[None]:
    """The end that a command comes to with exit status 0."""
    try:
        yield
    except SystemExit as end:
        if end.code:
            raise NodeFailed(f"exit status {end.code}") from None


class RunningNode:
    """`with` starts it and stops it; `kill` ends it as a power cut would."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        self.port = free_port()
        self.settings: dict[str, object] = {
            "home": home,
            "dicom_host": "127.0.0.1",
            "dicom_port": self.port,
            "quiet_period_s": 0.5,
            **settings,
        }
        self.screen = home.parent / f"{home.name}.screen.txt"
        self._shown_before = 0  # bytes of the screen that an earlier start wrote
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DICOMNODE_")}
        return {**clean, **{f"DICOMNODE_{name.upper()}": str(value) for name, value in self.settings.items()}}

    def start(self) -> Self:
        self._shown_before = self.screen.stat().st_size if self.screen.exists() else 0
        with self.screen.open("ab") as screen:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dicomnode", "up"],
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                env=self.environment,
            )
        return self

    def wait_ready(self) -> Self:
        def is_ready() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise NodeFailed(f"the node ended:\n{self.shown()}")
            return b"ready: " in self.screen.read_bytes()[self._shown_before :]

        self.wait_until(is_ready, READY_TIMEOUT_S)
        return self

    def shown(self) -> str:
        return self.screen.read_text(errors="replace")[-20000:] if self.screen.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything under it, Triton included."""
        assert self._process is not None
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """kill -9 of every process at once."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, 20)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def kill_matching(self, words: str) -> list[int]:
        """kill -9 of the node's processes whose command line has these words."""
        killed = []
        for process in self.processes()[1:]:
            with suppress(psutil.NoSuchProcess):
                if words in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
        return killed

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NodeFailed(f"the node did not stop:\n{self.shown()}") from None
        finally:
            self._process = None

    def __enter__(self) -> Self:
        try:
            return self.start().wait_ready()
        except BaseException:  # nobody leaves what was not entered
            if self._process is not None and self._process.poll() is None:
                self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        elif self._process is not None:
            self.kill()

    # ------------------------------------------------------------------------------------------- commands

    def run(self, *arguments: str, status: int = 0) -> str:
        """What `dicomnode ARGUMENTS` prints; its exit status is checked."""
        done = subprocess.run(
            [sys.executable, "-m", "dicomnode", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != status:
            raise NodeFailed(f"dicomnode {' '.join(arguments)} gave {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def look(self, *arguments: str) -> Any:
        """What a command that changes nothing prints with --json, run in this process.

        To ask again and again in new ones would take the cores that the node works with.
        """
        return json.loads(self._run_here(*arguments, "--json"))

    def prepare(self, *commands: Sequence[str | Path]) -> None:
        """Runs `dicomnode COMMAND` for each, in this process, which has imported what they need; each has to succeed.

        For what stands before a file's tests begin. test_main_job prepares its node with processes, as people do.
        """
        with warnings.catch_warnings(action="ignore"):  # as in a process of its own; torch warns of what it reads
            for command in commands:
                self._run_here(*map(str, command))

    def _run_here(self, *arguments: str) -> str:
        command = patch.object(sys, "argv", ["dicomnode", *arguments])
        environment = patch.dict(os.environ, self.environment, clear=True)
        with environment, command, redirect_stdout(StringIO()) as printed, _exit_status_0():
            main()
        return printed.getvalue()

    def wait_until(self, happened: Callable[[], bool], timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > end:
                raise NodeFailed(f"it did not happen in {timeout_s} s; the node's screen:\n{self.shown()}")
            time.sleep(0.1)

    def wait_idle(self, timeout_s: float = 120.0) -> None:
        """Until nothing is being received, run or delivered."""

        def is_idle() -> bool:
            work = self.look("status")["work"]
            open_states = {
                "series": ("receiving", "complete"),
                "jobs": ("queued", "running"),
                "deliveries": ("queued", "sending", "waiting"),
            }
            return not any(work[noun].get(state, 0) for noun, states in open_states.items() for state in states)

        self.wait_until(is_idle, timeout_s)


def storescu(port: int, *places: Path, ae_title: str = "DICOMNODE", options: Sequence[str] = ("-R",)) -> int:
    """dcmtk's storescu; its exit status. Of folders, each .dcm file under them. `options` are storescu's."""
    program = dcmtk("storescu")
    assert program is not None
    files = [file for place in places for file in (sorted(place.rglob("*.dcm")) if place.is_dir() else [place])]
    command = [str(program), *options, "-aet", "SENDER", "-aec", ae_title, "127.0.0.1", str(port)]
    # without TCP_NODELAY each instance waits 50 ms for a delayed acknowledgement
    environment = {**os.environ, "TCP_NODELAY": "1"}
    done = subprocess.run(
        [*command, *files], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    print(done.stdout, done.stderr)  # shown where a test fails
    return done.returncode
