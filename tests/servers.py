"""Real servers for tests, benchmarks and the demo's tests: Orthanc and dcmtk's programs.

Nothing here imports pytest; the fixtures are in server_fixtures.py. Every server binds free ports, keeps its
files under a folder that the caller gives, and is ended by its own process id.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPBasicAuthHandler, HTTPPasswordMgrWithDefaultRealm, ProxyHandler, Request, build_opener

from dicomnode.domain.destination import Destination, DimseAddress, StowAddress

_DEBIAN_FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/dcmtk/bin")
_PORTS = 12000, 32000
_CHANCE = SystemRandom()  # hypothesis seeds the one that all share, in every process alike
_PLUGIN_FOLDERS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many different ones.

    None is of those that the system gives to connections (ip(7), ip_local_port_range, from 32768 on): between now
    and a server's start minutes may pass, in which other tests connect thousands of times.
    """
    probes: list[socket.socket] = []
    while len(probes) < count:
        with suppress(OSError):  # somebody listens there
            probes.append(socket.create_server(("127.0.0.1", _CHANCE.randrange(*_PORTS))))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def system_program(name: str) -> Path | None:
    """The system's program of that name; never a virtual environment's.

    pynetdicom installs scripts called storescu, echoscu, findscu and storescp, which are not dcmtk's.
    """
    found = shutil.which(name, path=os.pathsep.join(_DEBIAN_FOLDERS))
    return Path(found) if found else None


def dcmtk(name: str) -> Path | None:
    """dcmtk's storescu, echoscu, findscu, storescp, dcmqrscp, dcmdump, ..."""
    return system_program(name)


def orthanc_program() -> Path | None:
    return system_program("Orthanc")


def orthanc_dicomweb_plugin() -> Path | None:
    folders = (Path(folder) for folder in _PLUGIN_FOLDERS)
    return next((path for folder in folders for path in sorted(folder.glob("libOrthancDicomWeb.so*"))), None)


def orthanc_missing() -> str:
    """Why no Orthanc with DICOMweb can be started here; empty when it can."""
    if orthanc_program() is None:
        return "Orthanc is not installed (apt install orthanc)"
    if orthanc_dicomweb_plugin() is None:
        return "Orthanc's DICOMweb plugin is not installed (apt install orthanc-dicomweb)"
    return ""


class ServerFailed(RuntimeError):
    """A server did not start or did not do what was waited for; the message has the end of its log."""


class Server:
    """A server process; `with` starts and ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self, timeout_s: float = 20.0) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        # dcmtk and Orthanc, which is built on it, wait for delayed acknowledgements without TCP_NODELAY
        environment = {**os.environ, "TCP_NODELAY": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=self.folder
            )
        end = time.monotonic() + timeout_s
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise ServerFailed(f"{self.command()[0]} did not start:\n{self.log_tail()}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Kills it: a gentle end of Orthanc takes seconds, and its files are thrown away or safe in SQLite."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> Self:
        """The same ports and the same files."""
        self.stop()
        return self.start()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()


class Orthanc(Server):
    """A real Orthanc with DICOM and DICOMweb on free ports of loopback.

    `options` go over its configuration, as in {"DicomCheckCalledAet": True}.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ORTHANC",
        overwrite: bool = True,
        check_called_ae_title: bool = False,
        users: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(folder)
        self.ae_title = ae_title
        self.users = dict(users or {})
        self.dicom_port, self.http_port = free_ports(2)
        self.options = {
            "OverwriteInstances": overwrite,
            "DicomCheckCalledAet": check_called_ae_title,
            **(options or {}),
        }

    # ------------------------------------------------------------------------------------------ addresses

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.url}/dicom-web"

    @property
    def dimse(self) -> str:
        """As `dicomnode destinations add --dimse` takes it."""
        return f"{self.ae_title}@127.0.0.1:{self.dicom_port}"

    def dimse_destination(self, name: str = "orthanc-dimse") -> Destination:
        return Destination(name, DimseAddress(self.ae_title, "127.0.0.1", self.dicom_port))

    def stow_destination(self, name: str = "orthanc-stow") -> Destination:
        return Destination(name, StowAddress(self.dicomweb_url))

    # -------------------------------------------------------------------------------------------- process

    def command(self) -> list[str]:
        if missing := orthanc_missing():
            raise ServerFailed(missing)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration()))
        return [str(orthanc_program()), str(configuration)]

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(orthanc_dicomweb_plugin())],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": bool(self.users),
            "RegisteredUsers": self.users,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "UnknownSopClassAccepted": True,
            "SaveJobs": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StowMaxSize": 0, "StowMaxInstances": 0},
            **self.options,
        }

    def ready(self) -> bool:
        try:
            self._open("/system")
        except (URLError, ConnectionError):
            return False
        return _listens(self.dicom_port)

    # ------------------------------------------------------------------------------------------- contents

    def instances(self, **attributes: str) -> list[str]:
        """SOP Instance UIDs, filtered by QIDO-RS matching keys as in Modality="SEG"."""
        return [found["00080018"]["Value"][0] for found in self.find("instances", **attributes)]

    def find(self, level: str = "studies", **attributes: str) -> list[dict[str, Any]]:
        """QIDO-RS (PS3.18 10.6): level is studies, series or instances; the answer is DICOM JSON."""
        query = f"?{urlencode(attributes)}" if attributes else ""
        answer = self._open(f"/dicom-web/{level}{query}", accept="application/dicom+json")
        return list(json.loads(answer)) if answer else []

    def file(self, sop_instance_uid: str) -> bytes:
        """The Part 10 file as Orthanc keeps it."""
        return self._open(f"/instances/{self._identifier(sop_instance_uid)}/file")

    def count(self) -> int:
        return int(json.loads(self._open("/statistics"))["CountInstances"])

    def wait_for(self, count: int, timeout_s: float = 30.0, **attributes: str) -> list[str]:
        """SOP Instance UIDs once at least so many instances (that match) are there; raises ServerFailed."""
        end = time.monotonic() + timeout_s
        while len(found := self.instances(**attributes)) < count:
            if time.monotonic() > end:
                raise ServerFailed(f"{len(found)} of {count} instances after {timeout_s} s:\n{self.log_tail()}")
            time.sleep(0.05)
        return found

    def upload(self, content: bytes) -> None:
        """A Part 10 file straight through Orthanc's own interface, as a PACS that had the study before."""
        self._open("/instances", body=content)

    def clear(self) -> None:
        """Takes everything out."""
        for study in json.loads(self._open("/studies")):
            self._open(f"/studies/{study}", method="DELETE")

    def _identifier(self, sop_instance_uid: str) -> str:
        found = json.loads(self._open("/tools/lookup", body=sop_instance_uid.encode()))
        matches = [entry["ID"] for entry in found if entry["Type"] == "Instance"]
        if not matches:
            raise ServerFailed(f"Orthanc has no instance {sop_instance_uid}")
        return str(matches[0])

    def _open(
        self, path: str, *, method: str | None = None, body: bytes | None = None, accept: str = "application/json"
    ) -> bytes:
        headers = {"Accept": accept, "Content-Type": "application/octet-stream"}
        request = Request(self.url + path, data=body, method=method, headers=headers)
        with self._opener().open(request, timeout=30) as answer:
            return bytes(answer.read())

    def _opener(self) -> Any:
        passwords = HTTPPasswordMgrWithDefaultRealm()
        for user, password in self.users.items():
            passwords.add_password(None, self.url, user, password)
        return build_opener(ProxyHandler({}), HTTPBasicAuthHandler(passwords))


class StoreScp(Server):
    """dcmtk's storescp: writes what it receives, byte for byte as sent, into `received`."""

    def __init__(self, folder: Path, *, ae_title: str = "STORESCP", arguments: tuple[str, ...] = ()) -> None:
        super().__init__(folder)
        self.ae_title, self.arguments = ae_title, arguments
        self.dicom_port = free_port()
        self.received = folder / "received"

    @property
    def dimse(self) -> str:
        return f"{self.ae_title}@127.0.0.1:{self.dicom_port}"

    def dimse_destination(self, name: str = "storescp") -> Destination:
        return Destination(name, DimseAddress(self.ae_title, "127.0.0.1", self.dicom_port))

    def command(self) -> list[str]:
        program = dcmtk("storescp")
        if program is None:
            raise ServerFailed("dcmtk is not installed (apt install dcmtk)")
        self.received.mkdir(parents=True, exist_ok=True)
        fixed = ["--aetitle", self.ae_title, "--output-directory", str(self.received)]
        return [str(program), *fixed, *self.arguments, str(self.dicom_port)]

    def ready(self) -> bool:
        return _listens(self.dicom_port)

    def files(self) -> list[Path]:
        return sorted(path for path in self.received.iterdir() if path.is_file())


class DcmQrScp(Server):
    """dcmtk's dcmqrscp: an archive that stores and answers C-FIND, for one AE title and any peer."""

    def __init__(self, folder: Path, *, ae_title: str = "DCMQRSCP") -> None:
        super().__init__(folder)
        self.ae_title = ae_title
        self.dicom_port = free_port()
        self.received = folder / "received"

    @property
    def dimse(self) -> str:
        return f"{self.ae_title}@127.0.0.1:{self.dicom_port}"

    def dimse_destination(self, name: str = "dcmqrscp") -> Destination:
        return Destination(name, DimseAddress(self.ae_title, "127.0.0.1", self.dicom_port))

    def command(self) -> list[str]:
        program = dcmtk("dcmqrscp")
        if program is None:
            raise ServerFailed("dcmtk is not installed (apt install dcmtk)")
        self.received.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {self.dicom_port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
            "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{self.ae_title} {self.received} RW (500, 1024mb) ANY\nAETable END\n"
        )
        return [str(program), "--config", str(configuration)]

    def ready(self) -> bool:
        return _listens(self.dicom_port)

    def files(self) -> list[Path]:
        return sorted(path for path in self.received.iterdir() if path.is_file() and path.name != "index.dat")


def _listens(port: int) -> bool:
    """Whether someone listens, without the DICOM server's log filling with broken associations."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


__all__ = [
    "DcmQrScp",
    "Orthanc",
    "Server",
    "ServerFailed",
    "StoreScp",
    "dcmtk",
    "free_port",
    "free_ports",
    "orthanc_missing",
    "orthanc_program",
    "system_program",
]
