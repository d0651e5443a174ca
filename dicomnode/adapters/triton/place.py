"""Where the server of a home and its clients meet: derived from the folder alone, so that both find it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from dicomnode.errors import EngineUnavailable

_PORT = 1  # gRPC writes it behind the socket's name; it is no port
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)  # nothing that a shell or a list of paths takes for its own
_TEMPORARY_MOST = 64  # bytes, so that the socket's path fits


@dataclass(frozen=True, slots=True)
class Place:
    """Paths and names under one Triton folder.

    The socket lies in a short folder of its own, only for this user: a Unix socket's path ends at 107 bytes
    (unix(7)), a home may be longer. Beside it lie links to what Triton reads: its Python backend starts each stub
    by a shell line without quotes, and the Python in a stub knows ASCII paths only, whatever the locale.
    """

    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def backends(self) -> Path:
        return self.folder / "backends"

    @property
    def about(self) -> Path:
        """What the server that runs or ran last has: its backends, and whether there is a GPU; JSON."""
        return self.folder / "server.json"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def calls(self) -> Path:
        """Where each model's process writes down which calls it is at."""
        return self.folder / "calls"

    @property
    def log(self) -> Path:
        return self.folder / "triton.log"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def group(self) -> Path:
        """Holds the process group of the server that runs or ran last."""
        return self.folder / "process-group"

    @property
    def backend_folder(self) -> Path:
        """Holds the name of the folder that the Python backend of that server made for itself."""
        return self.folder / "backend-folder"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(os.fsencode(self.folder.resolve())).hexdigest()[:12]

    @property
    def socket_folder(self) -> Path:
        temporary = tempfile.gettempdir()
        if not _PLAIN.fullmatch(temporary) or len(temporary) > _TEMPORARY_MOST:
            temporary = "/tmp"
        return Path(temporary) / f"dicomnode-{os.getuid()}-{self._digest}"

    @property
    def plain_repository(self) -> Path:
        """The repository as Triton is told it."""
        return self.socket_folder / self.repository.name

    @property
    def plain_backends(self) -> Path:
        """The backends as Triton is told them."""
        return self.socket_folder / self.backends.name

    @property
    def socket(self) -> Path:
        """The name that the server gives its socket."""
        return self.socket_folder / f"t.sock:{_PORT}"

    @property
    def address(self) -> str:
        """As --grpc-address takes it."""
        return f"unix:{self.socket_folder}/t.sock"

    @property
    def port(self) -> int:
        """As --grpc-port takes it."""
        return _PORT

    @property
    def url(self) -> str:
        """As a client takes it."""
        return f"{self.address}:{_PORT}"

    @property
    def client_prefix(self) -> str:
        """Of the shared memory regions that clients make."""
        return f"dicomnode-{self._digest}-client"

    @property
    def server_prefix(self) -> str:
        """Of the shared memory that the server makes between itself and its stubs."""
        return f"dicomnode-{self._digest}-server"

    def make(self) -> None:
        """Makes the folders; refuses a socket folder that another user could reach."""
        for folder in (self.repository, self.backends, self.cache, self.calls):
            folder.mkdir(parents=True, exist_ok=True)
        self.link()

    def link(self) -> None:
        """Makes the links to repository and backends, or makes them again."""
        self._make_socket_folder()
        _point(self.plain_repository, self.repository.resolve())
        _point(self.plain_backends, self.backends.resolve())

    def plain(self, path: Path) -> Path:
        """The path itself where it is plain ASCII, else a link to it that is."""
        whole = path.absolute()
        if _PLAIN.fullmatch(str(whole)):
            return whole
        self._make_socket_folder()
        link = self.socket_folder / f"path-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:12]}"
        _point(link, whole)
        return link

    def _make_socket_folder(self) -> None:
        """Nobody else can write in it from then on: what lies there is what this user put there."""
        self.socket_folder.mkdir(mode=0o700, exist_ok=True)
        status = self.socket_folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise EngineUnavailable(f"{self.socket_folder} is not a folder of this user alone; remove it")


def _point(link: Path, target: Path) -> None:
    """Makes `link` lead to `target`, without a moment in which it is not there."""
    if link.is_symlink() and link.readlink() == target:
        return
    scratch = link.with_name(f".new-{os.getpid()}-{threading.get_ident()}-{link.name}")
    scratch.symlink_to(target)
    scratch.replace(link)
