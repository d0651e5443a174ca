"""What servers leave in the temporary folder: our socket folders, and the folders of Triton's Python backend.

A supervisor that ends removes its own. One that was killed cannot: its leavings are removed by the next one of the
same user that starts, whatever home it serves. What anybody living uses is not touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from dicomnode.adapters.triton.shared_memory import sweep, sweep_all

log = logging.getLogger(__name__)

_BACKEND_FOLDERS = Path("/tmp")  # Triton's Python backend takes no other: pb_env.cc, EnvironmentManager
_BACKEND_FOLDER = re.compile(r"python_env_\w{6}")  # mkdtemp(3); for packed environments, which the node has none of
_BORN_SLACK_S = 1.0  # between the clock of processes and that of files


@contextlib.contextmanager
def kept(folder: Path, make: Callable[[], None]) -> Iterator[None]:
    """The folder, which `make` makes, is in use inside the block: nobody sweeps it away.

    systemd-tmpfiles, too, leaves a folder alone while it is locked (tmpfiles.d(5)), however old its links.
    """
    descriptor = None
    while descriptor is None:
        make()
        descriptor = _locked(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int | None:
    """None when somebody swept it away in this moment."""
    try:
        descriptor = _opened(folder)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # where files cannot be locked nobody sweeps
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(folder.stat(), os.fstat(descriptor)):
            return descriptor
    os.close(descriptor)
    return None


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def sweep_folders(mine: Path) -> list[Path]:
    """Removes the socket folders, beside `mine` and called alike, that no supervisor keeps any more."""
    alike = re.compile(re.escape(mine.name.rpartition("-")[0]) + r"-[0-9a-f]{12}")
    gone = []
    for folder in mine.parent.glob(f"{mine.name.rpartition('-')[0]}-*"):
        if folder != mine and alike.fullmatch(folder.name) and _is_own_folder(folder) and _removed(folder):
            gone.append(folder)
    return gone


def remove_folder(folder: Path) -> None:
    """Of a supervisor that ends: its links and its socket, and nothing else that might lie there."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_symlink() or entry.is_socket():
                entry.unlink()
        folder.rmdir()


def _removed(folder: Path) -> bool:
    """Whether it was free to be removed; the shared memory of its server and of dead clients goes with it."""
    try:
        descriptor = _opened(folder)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # its supervisor lives
    else:
        if _is_served(folder):
            return False
        digest = folder.name.rpartition("-")[2]
        remove_folder(folder)
        sweep_all(f"dicomnode-{digest}-server")
        sweep(f"dicomnode-{digest}-client")
        return not folder.exists()
    finally:
        os.close(descriptor)


def _is_served(folder: Path) -> bool:
    """Whether a server with its socket there still runs: it ends a moment after its supervisor was killed."""
    return any(str(folder) in " ".join(process.info["cmdline"] or []) for process in _processes("cmdline"))


def _is_own_folder(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        status = folder.lstat()
        return folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid()
    return False


# ------------------------------------------------------------------------------------------- Triton's own


def backend_folders() -> set[Path]:
    """Folders of Triton's Python backend that are this user's, and empty."""
    found = (path for path in _BACKEND_FOLDERS.glob("python_env_*") if _BACKEND_FOLDER.fullmatch(path.name))
    return {path for path in found if _is_own_folder(path) and not any(path.iterdir())}


def remove_backend_folder(note: Path) -> None:
    """The one whose name is in `note`, if there is one; its server has ended."""
    with contextlib.suppress(OSError):
        folder = Path(note.read_text())
        if _BACKEND_FOLDER.fullmatch(folder.name) and folder.parent == _BACKEND_FOLDERS:
            folder.rmdir()
    note.unlink(missing_ok=True)


def sweep_backend_folders() -> list[Path]:
    """Removes those that no living Triton can have made, since all of them were started later."""
    oldest = min((born for born in map(_born, _servers()) if born is not None), default=float("inf"))
    gone = []
    for folder in backend_folders():
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < oldest - _BORN_SLACK_S:
                folder.rmdir()
                gone.append(folder)
    return gone


def _servers() -> Iterator[psutil.Process]:
    return (process for process in _processes("name") if process.info["name"] == "tritonserver")


def _born(process: psutil.Process) -> float | None:
    """Seconds since the epoch."""
    with contextlib.suppress(psutil.Error):
        return float(process.create_time())
    return None


def _processes(attribute: str) -> Iterator[psutil.Process]:
    return iter(psutil.process_iter([attribute]))
