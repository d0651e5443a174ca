"""All of ../shared/data through C-STORE: what is kept is byte for byte what was sent, what is not is answered."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filereader import read_preamble
from pynetdicom import AE

from dicomnode.encoding.part10 import TRANSFER_SYNTAXES, data_set_sha256
from tests.integration.test_storage_scp import Node, running
from tests.raw_scu import CT, IMPLICIT, Closed, RawScu
from tests.server_fixtures import require_dcmtk

DATA = Path(__file__).parents[3] / "shared" / "data"

# a sequence alone, and a picture without a study
WITHOUT_UIDS = {"charset/chrSQEncoding.dcm", "compressed/htj2k/HTJ2KLossless_08_RGB.dcm"}

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here"),
    # broken files make pydicom warn, which is right; the node has to live with it
    pytest.mark.filterwarnings("ignore"),
]


@dataclass(frozen=True)
class Sent:
    """A data set and what the command says of it, as well as one can tell."""

    name: str
    content: bytes
    sop_class: str
    instance: str
    syntax: str


def files() -> Iterator[tuple[str, bytes]]:
    for path in sorted(p for p in DATA.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                yield from ((f"{path.name}:{name}", archive.read(name)) for name in archive.namelist())
        elif path.suffix == ".gz" and not path.name.endswith(".nii.gz"):
            yield path.name, gzip.decompress(content)
        else:
            yield str(path.relative_to(DATA)), content


def sendable(name: str, content: bytes) -> Sent:
    """A file without readable file meta information is sent whole, as if it were a data set."""
    try:
        meta = dcmread(io.BytesIO(content), stop_before_pixels=True, force=True)
        offset = _data_set_begins(content)
        syntax = str(meta.file_meta.get("TransferSyntaxUID", IMPLICIT))
        sop_class, instance = str(meta.get("SOPClassUID", CT)), str(meta.get("SOPInstanceUID", "1.2.3"))
    except Exception:  # noqa: BLE001 whatever pydicom raises on garbage, the garbage is what is sent
        offset, syntax, sop_class, instance = 0, IMPLICIT, CT, "1.2.3"
    printable = all(0 < len(text) <= 64 and text.isascii() and text.isprintable() for text in (sop_class, syntax))
    if not printable or syntax not in TRANSFER_SYNTAXES:
        sop_class, syntax = (sop_class if printable else CT), IMPLICIT
    return Sent(name, content[offset:], sop_class, instance, syntax)


def _data_set_begins(content: bytes) -> int:
    stream = io.BytesIO(content)
    if read_preamble(stream, True) is None:
        return 0
    return 144 + int.from_bytes(content[140:144], "little")


def push(port: int, sent: Sent) -> int | str:
    """The status, or why there was none."""
    try:
        with RawScu(port, {1: (sent.sop_class, [sent.syntax])}, calling="REAL") as scu:
            if 1 not in scu.accepted:
                return "not accepted"
            return scu.store(sent.content, sent.instance, sent.sop_class).status
    except Closed as error:
        return str(error)


def test_everything_is_kept_byte_for_byte_or_refused_with_a_status(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        everything = [sendable(name, content) for name, content in files()]
        outcomes = {sent: push(node.scp.port, sent) for sent in everything}
        assert node.stage.indexer.flush(60)
        stored = {data_set_sha256(path) for path in node.store.path("instances").rglob("*.dcm")}
    without = {sent.name: outcome for sent, outcome in outcomes.items() if isinstance(outcome, str)}
    kept = {hashlib.sha256(sent.content).hexdigest() for sent, outcome in outcomes.items() if outcome == 0}
    assert stored == kept
    assert {row.sha256 for row in node.state.rows.values()} <= stored
    assert len(kept) > 450
    # only what is not for storage is turned away without a status: DICOMDIRs
    assert all("DICOMDIR" in name for name in without), without
    assert {outcome for outcome in outcomes.values() if isinstance(outcome, int)} <= {0, 0xA900, 0xC000}
    # outside broken/ only what is no instance is refused
    refused = {sent.name for sent, outcome in outcomes.items() if outcome != 0 and not sent.name.startswith("broken")}
    assert {name for name in refused if name.endswith((".dcm", ".seg"))} == WITHOUT_UIDS


def test_names_in_all_character_sets_are_indexed(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        for path in sorted((DATA / "charset").glob("*.dcm")):
            assert push(node.scp.port, sendable(path.name, path.read_bytes())) in {0, 0xC000}
        assert node.stage.indexer.flush(20)
    assert len(node.state.rows) >= 9


@pytest.mark.dcmtk
def test_dcmtks_storescu_sends_a_series_and_all_compressed_syntaxes(tmp_path: Path) -> None:
    storescu = require_dcmtk("storescu")
    with running(tmp_path) as node:
        ct = sorted((DATA / "ct/crlm-1004").glob("*.dcm"))
        _storescu(storescu, node, ct)
        assert len(node.kept()) == len(ct)
        htj2k = "1.2.840.10008.1.2.4.201"  # this dcmtk does not know it
        for path in sorted((DATA / "compressed").rglob("*.dcm")):
            if dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == htj2k:
                continue
            _storescu(storescu, node, [path], "-xf", str(_profile(tmp_path, path)), "Any")
        assert node.stage.indexer.flush(20)
        stored = [dcmread(path, stop_before_pixels=True) for path in node.store.path("instances").rglob("*.dcm")]
    assert len({str(one.file_meta.TransferSyntaxUID) for one in stored}) >= 14


def _storescu(program: Path, node: Node, paths: list[Path], *options: str) -> None:
    command = [str(program), "-R", *options, "-aec", "NODE", "127.0.0.1", str(node.scp.port), *map(str, paths)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    if "-xf" in options:
        command.remove("-R")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def _profile(folder: Path, path: Path) -> Path:
    """An association profile with the file's own SOP class and transfer syntax, which storescu else converts."""
    meta = dcmread(path, stop_before_pixels=True).file_meta
    profile = folder / "profile.cfg"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Own]\n"
        f"TransferSyntax1 = {meta.TransferSyntaxUID}\n"
        "[[PresentationContexts]]\n[Own]\n"
        f"PresentationContext1 = {meta.MediaStorageSOPClassUID}\\Own\n"
        "[[Profiles]]\n[Any]\nPresentationContexts = Own\n"
    )
    return profile


def test_pynetdicom_sends_a_series(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        ae = AE(ae_title="PYNET")
        ae.add_requested_context(CT, "1.2.840.10008.1.2.1")
        association = ae.associate("127.0.0.1", node.scp.port)
        paths = sorted((DATA / "ct/lidc-0002-part").glob("*.dcm"))
        statuses = [association.send_c_store(dcmread(path)).Status for path in paths]
        association.release()
        assert statuses == [0] * len(paths)
        assert len(node.kept()) == len(paths)
    assert node.state.messages("association.released") == [f"association from PYNET released: {len(paths)} instances"]
