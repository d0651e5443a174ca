"""How a receiver's associations are called: RECEIVER/PROCESS/NUMBER."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

HOME_ID = "home-id"  # the file's name
_HOST_MOST, _ID_MOST, _ROLE_MOST = 48, 8, 32  # characters; the database keeps 128 of the whole name


@dataclass(frozen=True, slots=True)
class AssociationNames:
    """RECEIVER stays the same when its process dies and another takes over, which then knows what died with it.

    It is of one host, one home and one role: receivers of other nodes on the same database are others, even where
    containers are all called the same, or one host has two homes.
    """

    receiver: str  # "node1-3fa94b1c.receiver-1"
    process: str  # "node1-3fa94b1c.receiver-1/4711-1767225600123": with its pid, and when it began, in ms


def association_names(home: Path, role: str) -> AssociationNames:
    host = _plain(socket.gethostname(), _HOST_MOST)
    receiver = f"{host}-{home_id(home)}.{_plain(role, _ROLE_MOST)}"
    return AssociationNames(receiver, f"{receiver}/{os.getpid()}-{time.time_ns() // 1_000_000}")


def home_id(home: Path) -> str:
    """Made once for each home; of several processes that begin at once, the first one's holds."""
    file = home / HOME_ID
    if not file.exists():
        _make(file)
    return _plain(file.read_text(encoding="utf-8").strip(), _ID_MOST)


def _make(file: Path) -> None:
    part = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("x", encoding="utf-8") as written:
            written.write(f"{secrets.token_hex(_ID_MOST // 2)}\n")
            written.flush()
            os.fsync(written.fileno())
        os.link(part, file)
    except FileExistsError:
        pass  # another process was first
    finally:
        part.unlink(missing_ok=True)


def _plain(text: str, most: int) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", text)[:most]
