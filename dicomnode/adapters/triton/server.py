"""Runs tritonserver and keeps it running: the supervisor, one process role of a node.

It starts the server, proves it with a self-test, and then watches: a server that dies is started anew at once, one
that stops answering is killed first. Models are not its business: each client loads what it needs and finds out
by itself when that is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from dicomnode.adapters.triton.client import Client, LostStub, self_test
from dicomnode.adapters.triton.dead_stubs import DeadStubs
from dicomnode.adapters.triton.hosts import cores
from dicomnode.adapters.triton.inner_choice import write_about
from dicomnode.adapters.triton.installation import (
    Installation,
    copy_backends,
    find_server,
    has_gpu,
    probe_stub,
    server_environment,
)
from dicomnode.adapters.triton.leftovers import (
    backend_folders,
    kept,
    remove_backend_folder,
    remove_folder,
    sweep_backend_folders,
    sweep_folders,
)
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import SELF_TEST, touch, write_self_test
from dicomnode.adapters.triton.shared_memory import sweep, sweep_all
from dicomnode.errors import EngineUnavailable, InferenceError, OutOfResources

log = logging.getLogger(__name__)

START_S = 120.0  # a cold disk and a busy machine
HEALTH_EVERY_S = 5.0
HEALTH_ANSWER_S = 20.0
FAILURES_MOST = 3
DEAD_STUB_S = 2.0  # Triton has reported a stub that ended by then, unless it waits for it for ever
_WATCH_S = 0.1
_BACKOFF_MOST_S = 30.0
_EXIT_S = 3  # nothing is lost by ending sooner: jobs that were in flight are tried again
_MIB = 1 << 20

# Run before the server in its process: dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG = 1),
# however that ends. A program of its own instead of preexec_fn, which may deadlock in a process with threads.
_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the supervisor is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class TritonServer:
    """The Triton of one folder. `with TritonServer(folder, threads):` or `serve_forever(stop)`, not both.

    `threads`: CPU threads a model may use, 0 for all cores. `http_port` opens HTTP beside the socket, on the
    loopback; only benchmarks want it.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 0,
        *,
        http_port: int | None = None,
        installation: Installation | None = None,
    ) -> None:
        self.place = Place(Path(folder))
        self._threads = threads or cores()
        self._http_port = http_port
        self._installation = installation
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._failure: EngineUnavailable | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ----------------------------------------------------------------------------------------- as a context

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Supervises in a thread; returns when the server has passed its self-test, else raises why not."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._serve_thread, name="triton-supervisor")
        self._thread.start()
        while not self._ready.wait(_WATCH_S):
            if not self._thread.is_alive():
                raise self._failure or EngineUnavailable("Triton's supervisor ended")

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _serve_thread(self) -> None:
        try:
            self.serve_forever(self._stop)
        except EngineUnavailable as error:
            self._failure = error

    @property
    def pid(self) -> int | None:
        """Of the server that runs now."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def wait_ready(self, timeout_s: float) -> bool:
        return self._ready.wait(timeout_s)

    # ------------------------------------------------------------------------------------------ the role

    def serve_forever(self, stop: threading.Event) -> None:
        """Keeps a server running until `stop` is set. Raises EngineUnavailable if the first start fails.

        The calling thread must live as long as the server: the server dies with it.
        """
        installation = self._installation or find_server()
        if installation is None:
            raise EngineUnavailable(
                "there is no tritonserver for this platform; set TRITON_SERVER_PATH, or use the engine in-process"
            )
        self.place.make()
        with self._only_one():
            self._clear_up()
            self._sweep()
            write_about(self.place.about, copy_backends(installation, self.place.backends), gpu=has_gpu())
            environment = server_environment(installation, self._threads, self.place.plain)
            probe_stub(self.place.plain_backends, environment)
            write_self_test(self.place.repository)
            self._supervise(installation, environment, stop)

    def _supervise(self, installation: Installation, environment: dict[str, str], stop: threading.Event) -> None:
        pause_s, proven = 0.0, False
        while not stop.wait(pause_s):
            started = time.monotonic()
            try:
                self._run_once(installation, environment, stop)
            except (InferenceError, OutOfResources) as error:
                if not proven and not self._ready.is_set():
                    raise EngineUnavailable(f"Triton did not start: {error}{self._log_tail()}") from error
                log.warning("Triton is started anew: %s", error)
            finally:
                # one that still starts heeds no signal for a while, and has nothing to finish
                grace_s = _EXIT_S + 2 if self._ready.is_set() else 0.0
                proven = proven or self._ready.is_set()
                self._ready.clear()
                self._clear_up(grace_s)
            lived_s = time.monotonic() - started
            pause_s = 0.0 if lived_s > _BACKOFF_MOST_S else min(max(2 * pause_s, 0.25), _BACKOFF_MOST_S)

    def _run_once(self, installation: Installation, environment: dict[str, str], stop: threading.Event) -> None:
        """One life of the server: returns when told to stop, raises when it died or fell silent."""
        self.place.link()
        before = backend_folders()
        with self._log() as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self._command(installation)],
                env=environment,
                cwd=self.place.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.place.group.write_text(str(self._process.pid))
        client = Client(self.place.url)
        try:
            self._prove(client, stop)
            self._note_backend_folder(before)
            self._watch(client, stop)
        finally:
            client.close()

    def _command(self, installation: Installation) -> list[str]:
        place = self.place
        http = ["--allow-http=false"]
        if self._http_port is not None:
            http = ["--allow-http=true", "--http-address=127.0.0.1", f"--http-port={self._http_port}"]
        return [
            str(installation.program),
            f"--model-repository={place.plain_repository}",
            "--model-control-mode=explicit",
            f"--load-model={SELF_TEST}",
            "--disable-auto-complete-config",
            # else one model that cannot be loaded makes the server say for ever that it is not ready
            "--strict-readiness=false",
            *http,
            "--allow-metrics=false",
            f"--grpc-address={place.address}",
            f"--grpc-port={place.port}",
            f"--backend-directory={place.plain_backends}",
            f"--backend-config=python,shm-region-prefix-name={place.server_prefix}",
            # one step for a whole CT instead of hundreds
            f"--backend-config=python,shm-growth-byte-size={64 * _MIB}",
            f"--exit-timeout-secs={_EXIT_S}",
        ]

    # --------------------------------------------------------------------------------------------- watching

    def _prove(self, client: Client, stop: threading.Event) -> None:
        deadline = time.monotonic() + START_S
        well = time.monotonic()
        while not client.is_ready():
            self._check_alive()
            if stop.wait(_WATCH_S):
                return
            if not self._has_dead_child():
                well = time.monotonic()
            elif time.monotonic() > well + DEAD_STUB_S:
                raise EngineUnavailable("the Python stub of its self-test ended at once")
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"it was not ready within {START_S:g} s")
        self_test(client, self.place.client_prefix, SELF_TEST, timeout_s=HEALTH_ANSWER_S)
        self._ready.set()
        log.info("Triton is ready: %s, process %d", client.server(), self._process.pid if self._process else 0)

    def _watch(self, client: Client, stop: threading.Event) -> None:
        failures, checked, dead = 0, time.monotonic(), DeadStubs(self.place.server_prefix)
        while not stop.wait(_WATCH_S):
            self._check_alive()
            if time.monotonic() - checked < HEALTH_EVERY_S:
                continue
            failures = 0 if self._healthy(client) else failures + 1
            if self._process is not None:
                dead.look(self._process.pid)
            if failures == FAILURES_MOST:
                raise EngineUnavailable(f"it failed {failures} health checks in a row")
            checked = time.monotonic()

    def _check_alive(self) -> None:
        if self._process is not None and (status := self._process.poll()) is not None:
            raise EngineUnavailable(f"tritonserver ended with status {status}")

    def _has_dead_child(self) -> bool:
        """Whether a stub ended that Triton has not asked about: it waits for some of them for ever."""
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self._process.pid).children() if self._process else []
            return any(child.status() == psutil.STATUS_ZOMBIE for child in children)
        return False

    def _healthy(self, client: Client) -> bool:
        """A real tiny inference: a server whose stub is dead still says that it is ready."""
        try:
            self_test(client, self.place.client_prefix, SELF_TEST, values=16, timeout_s=HEALTH_ANSWER_S)
            client.forget_dead_clients(self.place.client_prefix)
        except LostStub:
            touch(self.place.repository, SELF_TEST)
            with contextlib.suppress(InferenceError):
                client.load(SELF_TEST, START_S)
            return False
        except (InferenceError, OutOfResources) as error:
            log.warning("Triton's health check failed: %s", error)
            return False
        return True

    # ------------------------------------------------------------------------------------------- clearing up

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        with self.place.lock.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise EngineUnavailable(f"another process runs the Triton of {self.place.folder}") from error
            with kept(self.place.socket_folder, self.place.link):
                yield
                remove_folder(self.place.socket_folder)

    def _clear_up(self, grace_s: float = 0.0) -> None:
        """Ends the server and its stubs, whoever started them, and removes their shared memory and socket."""
        if self._process is not None:
            _end(self._process, grace_s)
            self._process = None
        _kill_group_left_behind(self.place)
        sweep_all(self.place.server_prefix)
        sweep(self.place.client_prefix)
        self.place.socket.unlink(missing_ok=True)
        remove_backend_folder(self.place.backend_folder)

    def _sweep(self) -> None:
        """What others left who cannot do it any more."""
        swept = [*sweep_folders(self.place.socket_folder), *sweep_backend_folders()]
        if swept:
            log.info("removed what dead servers left: %s", ", ".join(map(str, swept)))

    def _note_backend_folder(self, before: set[Path]) -> None:
        """Triton says its name to nobody. Of two servers that start in the same moment it is left to be swept."""
        made = backend_folders() - before
        if len(made) == 1:
            self.place.backend_folder.write_text(str(made.pop()))

    def _log(self) -> IO[bytes]:
        """The server's log; that of the life before is kept beside it."""
        if self.place.log.exists():
            self.place.log.replace(self.place.log.with_suffix(".before.log"))
        return self.place.log.open("wb")

    def _log_tail(self) -> str:
        """The server's own words about why it did not start."""
        with contextlib.suppress(OSError):
            lines = self.place.log.read_text(errors="replace").splitlines()
            errors = [line for line in lines if line.startswith(("E", "bash:"))] or lines
            return "".join(f"\n  {line[:300]}" for line in errors[-5:])
        return ""


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Asks the server to end, then kills its whole group: stubs outlive a server that was killed."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kill_group_left_behind(place: Place) -> None:
    """Kills what a supervisor that was killed itself left running, and nothing that took its number since."""
    try:
        group = int(place.group.read_text())
    except (OSError, ValueError):
        return
    mark = str(place.socket_folder)  # in the command of the server and of every stub
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.info["pid"]) == group and mark in command:
                os.kill(process.info["pid"], signal.SIGKILL)
    place.group.unlink(missing_ok=True)
