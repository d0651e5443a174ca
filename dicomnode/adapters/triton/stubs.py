"""The processes that run models inside Triton: which one is at which call, and how to end it.

Triton cancels a call by asking: a process that never looks, since it is inside one long layer or one whole network,
goes on for nobody and keeps all others of its model waiting. Such a process can only be ended.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Stub:
    """A model's process, as it wrote down itself (hosts.calls)."""

    pid: int
    calls: frozenset[str]


class Stubs:
    """`folder`: where the models' processes write what they are at, a file each, called as the model in Triton."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stub(self, name: str) -> Stub | None:
        try:
            pid, *calls = (self._folder / name).read_text(encoding="ascii").split()
            return Stub(int(pid), frozenset(calls))
        except (OSError, ValueError):
            return None

    def lives(self, name: str) -> bool:
        """Whether the model's process is seen to run; in another container than ours it is not."""
        stub = self.stub(name)
        return stub is not None and _process(stub, name) is not None

    def wait_idle(self, name: str, call: str, grace_s: float) -> bool:
        """Whether the model's process has left the call, after so long at the most."""
        deadline = time.monotonic() + grace_s
        while (stub := self.stub(name)) is not None and call in stub.calls and _process(stub, name) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def end(self, name: str, call: str, net: str = "") -> int | None:
        """Ends the model's process if it is still at the call; its number. Its memory goes with it.

        `net`: of a network that the model calls and nobody else does. Its processes would go on computing.
        """
        stub = self.stub(name)
        if stub is None or call not in stub.calls or (process := _process(stub, name)) is None:
            return None
        with contextlib.suppress(psutil.Error):
            called = [child for child in _siblings(process) if net and _runs(child, f"/{net}")]
            for each in (process, *called):
                each.kill()
        return stub.pid


def end_loading(entry: Path, after_s: float) -> list[int]:
    """Ends the processes of an entry of the repository that began so long ago; their numbers.

    What still loads has written nothing down of itself. Triton waits for it for ever, but loads it anew when asked.
    """
    ended, begun_before = [], time.time() - after_s + 1
    for process in psutil.process_iter(["create_time"]):
        if process.info["create_time"] < begun_before and _runs(process, f"{entry}/"):
            with contextlib.suppress(psutil.Error):
                process.kill()
                ended.append(process.pid)
    return ended


def _siblings(process: psutil.Process) -> list[psutil.Process]:
    """With itself, all that the same server runs."""
    server = process.parent()
    return [] if server is None else server.children()


def _runs(process: psutil.Process, place: str) -> bool:
    """Whether a stub was given a program in that place, the beginning of a path or a part of it."""
    with contextlib.suppress(psutil.Error):
        return any(place in argument for argument in process.cmdline()[1:2])
    return False


def _process(stub: Stub, name: str) -> psutil.Process | None:
    """The process itself; None when it ended, or when its number is another's now."""
    try:
        process = psutil.Process(stub.pid)
        is_it = any(f"/{name}/" in argument for argument in process.cmdline())
        return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None
