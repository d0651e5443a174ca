"""The servers that other tests stand on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.server_fixtures import require_dcmtk, require_orthanc
from tests.servers import DcmQrScp, Orthanc, StoreScp, free_ports


def _echo(port: int, ae_title: str) -> int:
    program = require_dcmtk("echoscu")
    command = [program, "-to", "5", "-aec", ae_title, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, timeout=20).returncode


@pytest.mark.orthanc
@pytest.mark.dcmtk
def test_orthanc_answers_echo_and_qido_and_comes_back_on_its_ports(orthanc: Orthanc) -> None:
    assert _echo(orthanc.dicom_port, "ANY") == 0
    assert orthanc.instances() == []
    orthanc.stop()
    assert not orthanc.ready()
    orthanc.start()
    assert orthanc.count() == 0


@pytest.mark.orthanc
@pytest.mark.dcmtk
def test_orthanc_that_checks_its_ae_title(tmp_path: Path) -> None:
    require_orthanc()
    with Orthanc(tmp_path, ae_title="ARCHIVE", check_called_ae_title=True, users={"u": "p"}) as server:
        assert _echo(server.dicom_port, "ARCHIVE") == 0
        assert _echo(server.dicom_port, "OTHER") != 0
        assert server.find("studies") == []


@pytest.mark.dcmtk
def test_dcmtk_servers_answer(store_scp: StoreScp, dcmqrscp: DcmQrScp) -> None:
    assert _echo(store_scp.dicom_port, store_scp.ae_title) == 0
    assert _echo(dcmqrscp.dicom_port, dcmqrscp.ae_title) == 0
    assert store_scp.files() == []
    assert dcmqrscp.files() == []


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20
