"""`dicomnode up`: a whole node on this host, and what it has to say while it runs."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from dicomnode import bootstrap
from dicomnode.config import Settings, as_environment
from dicomnode.errors import DatabaseAway, StateError
from dicomnode.node.listening import cannot_listen
from dicomnode.node.process import stop_on_signals
from dicomnode.node.status import NODE, roles_of
from dicomnode.node.supervisor import Role, Supervisor, forget_ready, wait_ready, write_ready, write_starting
from dicomnode.ports import Event, State

READY_TIMEOUT_S = 300.0
FEED_POLL_S = 0.5
# Receivers of a node whose supervisor was killed end by themselves, but not in the same moment.
PORT_PATIENCE_S = 5.0
_PORT_POLL_S = 0.2

Tone = Literal["good", "bad", "plain", "quiet"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line for the screen."""

    at: datetime
    text: str
    tone: Tone


Say = Callable[[Line], None]


def run_node(settings: Settings, say: Say) -> None:
    """Blocks until SIGINT or SIGTERM. Raises when the node cannot start at all."""
    bootstrap.prepare_home(settings)
    with _only_one(settings), _reserved_port(settings) as port:
        settings = replace(settings, dicom_port=port)
        state = bootstrap.open_state(settings)
        stop = stop_on_signals()
        _say(say, f"starting; everything is kept under {settings.home}", "quiet")
        roles = roles_of(settings)
        with _told(settings, roles):
            _supervise(settings, state, roles, say, stop)
        _say(say, "stopped", "quiet")


@contextmanager
def _told(settings: Settings, roles: Sequence[Role]) -> Iterator[None]:
    """`dicomnode status` is told which processes are to come, and that they do: nothing of before a power cut."""
    for role in roles:
        write_starting(settings.run_folder, role.name, "waits for the database")
    _tell(settings, roles, was_ready=False)
    try:
        yield
    finally:
        for name in (NODE, *(role.name for role in roles)):
            forget_ready(settings.run_folder, name)


def _tell(settings: Settings, roles: Sequence[Role], **facts: bool) -> None:
    names = [role.name for role in roles]
    write_ready(settings.run_folder, NODE, roles=names, dicom_port=settings.dicom_port, **facts)


def _tell_stopping(settings: Settings, roles: Sequence[Role]) -> None:
    with suppress(OSError):  # a full disk must not keep a node from stopping
        _tell(settings, roles, stopping=True)


def _supervise(settings: Settings, state: State, roles: Sequence[Role], say: Say, stop: threading.Event) -> None:
    try:
        bootstrap.migrate_database(settings)
    except DatabaseAway as error:
        _say(say, f"images are accepted and jobs wait, for {error}", "bad")
    feed = threading.Thread(target=_feed, args=(state, say, stop), name="feed", daemon=True)
    greeting = threading.Thread(target=_greet, args=(settings, state, say, stop), name="greeting", daemon=True)
    feed.start()
    greeting.start()
    environment = {**os.environ, **as_environment(settings)}
    folders = settings.log_folder, settings.run_folder
    ended = partial(_tell_stopping, settings, roles)
    Supervisor(roles, environment, *folders, lambda text: _say(say, text, "bad"), ended).run(stop)
    feed.join()


def _say(say: Say, text: str, tone: Tone) -> None:
    say(Line(datetime.now(UTC), text, tone))


def _greet(settings: Settings, state: State, say: Say, stop: threading.Event) -> None:
    roles = roles_of(settings)
    if not wait_ready(settings.run_folder, [role.name for role in roles], READY_TIMEOUT_S, stop):
        if not stop.is_set():
            _say(say, f"not ready after {READY_TIMEOUT_S:.0f} s; the logs are in {settings.log_folder}", "bad")
        return
    _tell(settings, roles, was_ready=True)
    _say(say, f"ready: {settings.ae_title} listens on {settings.dicom_host} port {settings.dicom_port}", "good")
    try:
        with bootstrap.database_errors():
            for lacking, command in _lacking(state):
                _say(say, f"no {lacking} yet: {command}", "plain")
    except DatabaseAway:
        return  # the feed says so


def _lacking(state: State) -> Iterator[tuple[str, str]]:
    """What an administrator still has to add before results can come."""
    if not state.models():
        yield "model", "dicomnode models add FOLDER"
    if not state.destinations():
        yield "destination", "dicomnode destinations add NAME --dimse AET@HOST:PORT"
    if not state.rules():
        yield "rule", "dicomnode rules add FILE"


def _feed(state: State, say: Say, stop: threading.Event) -> None:
    """Prints the events of all processes as they come, from the database, and says when that is away."""
    last: int | None = None
    away = False
    while not stop.wait(FEED_POLL_S):
        try:
            with bootstrap.database_errors():
                last = state.last_event_number() if last is None else last
                events = state.events_after(last)
        except DatabaseAway as error:
            if not away:
                _say(say, f"the database is away; images are still accepted, jobs wait: {error}", "bad")
            away = True
            continue
        if away:
            _say(say, "the database is back", "good")
            away = False
        for number, event in events:
            last = number
            say(Line(event.at, _with_place(event), tone_of(event.kind)))


def _with_place(event: Event) -> str:
    return f"{event.message}  [study {event.study_instance_uid}]" if event.study_instance_uid else event.message


def tone_of(kind: str) -> Tone:
    word = kind.rpartition(".")[2]
    if word in {"failed", "refused", "conflict", "aborted", "rejected", "down", "lost"}:
        return "bad"
    return "good" if word in {"sent", "accepted", "committed", "recovered", "finished", "succeeded"} else "plain"


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """One node a home: two would restart each other's Triton."""
    file = (settings.run_folder / "node.lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"a node is already running on {settings.home}; stop it, or give another --home"
            ) from None
        yield


@contextmanager
def _reserved_port(settings: Settings) -> Iterator[int]:
    """Holds the port, without listening, so that receivers that restart find it free; resolves port 0.

    The port is shared among the node's receivers, and the kernel would share it with those of another home too.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            _wait_until_ours_alone(settings.dicom_host, settings.dicom_port)
            holder.bind((settings.dicom_host, settings.dicom_port))
        except OSError as error:
            raise cannot_listen(error, settings.dicom_host, settings.dicom_port) from error
        yield holder.getsockname()[1]


def _wait_until_ours_alone(host: str, port: int) -> None:
    """Raises OSError when another program holds the port, one that shares it included."""
    end = time.monotonic() + PORT_PATIENCE_S
    while True:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended do not count
                probe.bind((host, port))
                return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
        time.sleep(_PORT_POLL_S)
