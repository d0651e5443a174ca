"""pytest fixtures for the servers in servers.py; tests/conftest.py imports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make_certificates
from tests.servers import DcmQrScp, Orthanc, StoreScp, dcmtk, orthanc_missing
from tests.web_front import nginx_missing


def require_orthanc() -> None:
    """Skips the test, saying why, where no Orthanc with DICOMweb can be started."""
    if reason := orthanc_missing():
        pytest.skip(reason)


def require_nginx() -> None:
    """Skips the test, saying why, where no nginx can be started."""
    if reason := nginx_missing():
        pytest.skip(reason)


def require_dcmtk(program: str) -> Path:
    """dcmtk's program, or the test is skipped, saying why."""
    found = dcmtk(program)
    if found is None:
        pytest.skip(f"dcmtk's {program} is not installed (apt install dcmtk)")
    return found


@pytest.fixture(scope="session")
def orthanc_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One Orthanc for all tests of a process; use `orthanc`, which empties it."""
    require_orthanc()
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


def emptied(server: Orthanc) -> Orthanc:
    """It, running and without a study, whatever the tests before did with it."""
    if not server.running:
        server.start()
    server.clear()
    return server


@pytest.fixture
def orthanc(orthanc_of_session: Orthanc) -> Orthanc:
    """A running, empty Orthanc that answers any AE title; a test may stop it."""
    return emptied(orthanc_of_session)


@pytest.fixture
def store_scp(tmp_path: Path) -> Iterator[StoreScp]:
    """dcmtk's storescp, running."""
    require_dcmtk("storescp")
    with StoreScp(tmp_path / "storescp") as server:
        yield server


@pytest.fixture
def dcmqrscp(tmp_path: Path) -> Iterator[DcmQrScp]:
    """dcmtk's dcmqrscp, running."""
    require_dcmtk("dcmqrscp")
    with DcmQrScp(tmp_path / "dcmqrscp") as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As make_certificates makes them."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))
