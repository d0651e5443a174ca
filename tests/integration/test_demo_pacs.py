"""The demo's PACS as a program of its own: what is sent lies in its folder, and it ends when told to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dicomnode.adapters.dimse.storage_scu import StorageScu
from dicomnode.domain.destination import Destination, parse_dimse
from tests.adapters.sample_results import sample_result


def test_it_receives_and_ends(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path)
    folder = tmp_path / "received"
    command = [sys.executable, "-m", "sample_data.pacs", str(folder), "--port", "0", "--ae-title", "DEMO-PACS"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pacs:
        try:
            assert pacs.stdout is not None
            port = int(pacs.stdout.readline().partition("127.0.0.1:")[2].partition(",")[0])
            destination = Destination("pacs", parse_dimse(f"DEMO-PACS@127.0.0.1:{port}"))
            assert StorageScu("DICOMNODE").send(destination, path, result) == "stored"
            assert "answered C-ECHO" in StorageScu("DICOMNODE").echo(destination)
            assert [file.name for file in folder.iterdir()] == [f"{result.sop_instance_uid}.dcm"]
        finally:
            pacs.terminate()
        assert pacs.wait(20) == 0
