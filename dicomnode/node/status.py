"""What a node is doing now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from dicomnode.config import Settings
from dicomnode.node.supervisor import Role, read_ready
from dicomnode.ports import State


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    name: str
    pid: int
    since: datetime


@dataclass(frozen=True, slots=True)
class NodeStatus:
    running: bool
    ae_title: str
    dicom_port: int
    home: str
    processes: tuple[ProcessStatus, ...]
    work: Mapping[str, Mapping[str, int]]  # noun → state → how many
    free_bytes: int


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


def read_status(settings: Settings, state: State) -> NodeStatus:
    processes = []
    port = settings.dicom_port
    for role in roles_of(settings):
        if facts := read_ready(settings.run_folder, role.name):
            since = datetime.fromtimestamp(float(str(facts["since"])), UTC)
            processes.append(ProcessStatus(role.name, int(str(facts["pid"])), since))
            port = int(str(facts.get("dicom_port", port)))
    return NodeStatus(
        running=any(p.name.startswith("receiver") for p in processes),
        ae_title=settings.ae_title,
        dicom_port=port,
        home=str(settings.home),
        processes=tuple(processes),
        work=state.counts(),
        free_bytes=shutil.disk_usage(settings.home).free,
    )
