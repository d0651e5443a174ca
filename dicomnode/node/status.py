"""What a node is doing now."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dicomnode.config import Settings
from dicomnode.domain.quantity import quantity
from dicomnode.node.supervisor import Role, read_said
from dicomnode.ports import Event

NODE = "node"  # the name under which `dicomnode up` itself says what it does

ProcessState = Literal["up", "starting", "down", "stopping", "stopped"]
State = Literal["running", "starting", "incomplete", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    name: str
    state: ProcessState
    doing: str = ""  # before it is up, as in "loads the models"; of one that is down, why
    pid: int | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What the processes on this host say; `work` and `database` are for those who ask the database too."""

    state: State  # incomplete: it was ready, and something of it is not any more
    running: bool  # images are accepted
    ae_title: str
    dicom_port: int
    home: str
    processes: tuple[ProcessStatus, ...]
    free_bytes: int | None  # None: there is no home
    work: Mapping[str, Mapping[str, int]]  # noun → state → how many
    database: str = ""  # why it could not be asked
    turned_away: tuple[Event, ...] = ()  # senders, those of last first
    troubles: tuple[str, ...] = ()  # what a process that is up cannot do, and why
    jobs_at_once: int = 0  # in each worker; one more that is STAT


def roles_of(settings: Settings) -> list[Role]:
    """The processes of a whole node on this host, in the order in which they start."""
    engine = [] if settings.engine == "in-process" else [Role("triton", ("run", "triton", "--supervised"))]
    return [
        *engine,
        *(_role("receiver", n) for n in range(1, settings.receivers + 1)),
        *(_role("worker", n) for n in range(1, settings.workers + 1)),
    ]


def _role(kind: str, number: int) -> Role:
    name = f"{kind}-{number}"
    return Role(name, ("run", kind, "--name", name, "--supervised"))


def read_status(
    settings: Settings,
    work: Mapping[str, Mapping[str, int]] | None = None,
    turned_away: Sequence[Event] = (),
    database: str = "",
) -> NodeStatus:
    said = _all_said(settings.run_folder)
    node = said.pop(NODE, None)
    stops = node is not None and bool(node.get("stopping"))
    processes = [_process(name, said.get(name), node) for name in _names(node, said)]
    if stops:
        processes = [_as_stopping(process) for process in processes]
    ports = [facts["dicom_port"] for facts in (*said.values(), node) if facts and "dicom_port" in facts]
    return NodeStatus(
        state="stopping" if stops else state_of(processes, was_ready=node is None or bool(node.get("was_ready"))),
        running=any(p.name.startswith("receiver") and p.state == "up" for p in processes),
        ae_title=settings.ae_title,
        dicom_port=int(str(ports[0])) if ports else settings.dicom_port,
        home=str(settings.home),
        processes=tuple(processes),
        free_bytes=shutil.disk_usage(settings.home).free if settings.home.is_dir() else None,
        work=work or {},
        database=database,
        turned_away=tuple(turned_away),
        troubles=tuple(_troubles(said)),
        jobs_at_once=settings.jobs_at_once,
    )


def jobs_in_words(settings: Settings) -> str:
    """How many run beside each other on this host."""
    each, workers = quantity(settings.jobs_at_once, "job"), settings.workers
    in_all = f", {settings.jobs_at_once * workers} in {workers} workers" if workers > 1 else ""
    return f"{each} at once in a worker{in_all}, and one more in each that is stat (setting jobs_at_once)"


def state_of(processes: Sequence[ProcessStatus], *, was_ready: bool) -> State:
    """`was_ready`: whether the node told that all of it was; roles that run alone tell nothing of the kind."""
    if not processes:
        return "stopped"
    if all(process.state == "up" for process in processes):
        return "running"
    starts = any(process.state == "starting" for process in processes)
    return "starting" if not was_ready or (starts and not _any_up(processes)) else "incomplete"


def _any_up(processes: Iterable[ProcessStatus]) -> bool:
    return any(process.state == "up" for process in processes)


def _all_said(run_folder: Path) -> dict[str, dict[str, object]]:
    files = sorted(run_folder.glob("*.json")) if run_folder.is_dir() else []
    found = {file.stem: read_said(run_folder, file.stem) for file in files}
    return {name: facts for name, facts in found.items() if facts is not None}


def _troubles(said: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Each once, by how many processes ever."""
    told: dict[str, list[str]] = {}
    for process, facts in said.items():
        troubles = facts.get("troubles")
        for what, why in troubles.items() if isinstance(troubles, dict) else ():
            told.setdefault(f"{what} is not served: {why}", []).append(process)
    for words, processes in told.items():
        yield f"{words} ({', '.join(processes)})"


def _names(node: Mapping[str, object] | None, said: Iterable[str]) -> list[str]:
    """The node's own in its order, then those that run by themselves."""
    roles = node.get("roles") if node else None
    expected = [str(name) for name in roles] if isinstance(roles, list) else []
    return [*expected, *(name for name in said if name not in expected)]


def _process(name: str, facts: Mapping[str, object] | None, node: Mapping[str, object] | None) -> ProcessStatus:
    """The node says what a process cannot: that it begins, or has ended. That is not under the process's own id."""
    if facts is None:
        return ProcessStatus(name, "down")
    if "down" in facts:
        return ProcessStatus(name, "down", str(facts["down"]))
    doing, pid = str(facts.get("doing", "")), int(str(facts["pid"]))
    since = datetime.fromtimestamp(float(str(facts["since"])), UTC)
    by_node = node is not None and node["pid"] == pid
    return ProcessStatus(name, "starting" if doing else "up", doing, None if by_node else pid, since)


def _as_stopping(process: ProcessStatus) -> ProcessStatus:
    """Of a node that was told to stop: what is gone has ended as it should."""
    if process.state == "down":
        return replace(process, state="stopped", doing="")
    return replace(process, state="stopping", doing="ends what it is at")


def in_words(status: NodeStatus) -> str:
    """One line, after the AE title: whether images are accepted, and what is still to come."""
    listens = f"listens on port {status.dicom_port}"
    lacking = ", ".join(_lacking(process) for process in status.processes if process.state != "up")
    if status.state == "stopped":
        return "is not running (`dicomnode up` starts it)"
    if status.state == "stopping":
        left = ", ".join(process.name for process in status.processes if process.state == "stopping")
        return f"is stopping and accepts no more images; still to end: {left or 'the node itself'}"
    if status.state == "running":
        return listens if status.running else "runs on this host without a receiver"
    if status.state == "starting":
        return f"is starting{f' and {listens} already' * status.running}; still to come: {lacking}"
    return f"{listens if status.running else 'accepts no images'}; not up: {lacking}; the logs say why"


def _lacking(process: ProcessStatus) -> str:
    return f"{process.name} ({process.doing})" if process.doing else process.name
