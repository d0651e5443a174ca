"""Listening on the DICOM port, and why that cannot be done, as an administrator can use it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicomnode.config import Settings
from dicomnode.errors import InvalidSetting

if TYPE_CHECKING:
    from dicomnode.adapters.dimse.storage_scp import StorageSCP

_HOST = "dicom_host (--dicom-host or DICOMNODE_DICOM_HOST)"
_PORT = "dicom_port (--dicom-port or DICOMNODE_DICOM_PORT)"


@contextmanager
def listening(scp: StorageSCP, settings: Settings) -> Iterator[StorageSCP]:
    """Raises InvalidSetting when it cannot begin to."""
    try:
        scp.start()
    except OSError as error:
        raise cannot_listen(error, settings.dicom_host, settings.dicom_port) from error
    try:
        yield scp
    finally:
        scp.stop()


def cannot_listen(error: OSError, host: str, port: int) -> InvalidSetting:
    where = f"cannot listen on {host}:{port}"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        words = "that is no IPv4 address of this host; give one of its own, or 0.0.0.0 for all"
        return InvalidSetting(f"{where}: {words}", _HOST)
    return InvalidSetting(f"{where}: {_words(error)}", _PORT)


def _words(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there (`ss -ltnp` shows which); end it, or give another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "ports below 1024 need a right that the node has not; give another port, as 11112, or the right "
            "(systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
        )
    return f"{error.strerror}; give another port"
