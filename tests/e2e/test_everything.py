"""All of ../shared/data through C-STORE into a whole node: it stays up, keeps the bytes, says what became of each."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import torch
import yaml
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicomnode.encoding.part10 import data_set_offset, data_set_sha256
from tests.e2e.running_node import RunningNode
from tests.raw_scu import CT, EXPLICIT, IMPLICIT, Answer, Closed, RawScu
from tests.triton_models import Thresholds, document

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),  # pydicom about the broken files that this test reads
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent"),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A rule that takes everything, for a model that takes CT, MR and PET."""
    tmp_path = tmp_path_factory.mktemp("node")
    package = tmp_path / "package"
    package.mkdir()
    card = dict(document("everything", 1, spacing_mm=[4.0, 4.0, 4.0]))
    card["input"]["modality"] = ["CT", "MR", "PT"]
    (package / "model.yaml").write_text(yaml.safe_dump(card))
    with warnings.catch_warnings(action="ignore"):  # torch would rather have torch.export, which Triton does not read
        torch.jit.script(Thresholds()).save(str(package / "model.ts"))
    rule = tmp_path / "rule.yaml"
    rule.write_text("name: everything\nwhen: {NumberOfInstances: {at_least: 1}}\nmodel: everything\n")
    node = RunningNode(tmp_path / "home", quiet_period_s=2)
    node.prepare(("models", "add", package), ("rules", "add", rule))
    with node:
        yield node


def files() -> Iterator[tuple[str, bytes]]:
    for path in sorted(p for p in DATA.rglob("*") if p.is_file() and p.suffix not in {".md", ".nii", ".gz", ".txt"}):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    yield f"{path.name}/{name}", archive.read(name)
        else:
            yield str(path.relative_to(DATA)), path.read_bytes()


def announced(content: bytes, scratch: Path) -> tuple[str, str, str, bytes]:
    """(SOP class, SOP instance, transfer syntax, data set) as the file's meta information has them, or invented."""
    scratch.write_bytes(content)
    try:
        meta = read_file_meta_info(scratch)
        given = (str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID))
    except (InvalidDicomError, AttributeError, OSError, ValueError, NotImplementedError, KeyError):
        return _invented(content)
    offset = data_set_offset(content[:65536])
    return (*given, content[offset:])


def _invented(content: bytes) -> tuple[str, str, str, bytes]:
    return CT, "1.2.3.4.5", EXPLICIT if content[4:6].isalpha() else IMPLICIT, content


def send(port: int, sop_class: str, instance: str, syntax: str, data_set: bytes) -> Answer | None:
    """None when the node did not take the presentation context or closed the connection."""
    try:
        with RawScu(port, {1: (sop_class, [syntax])}, called="DICOMNODE") as scu:
            return scu.store(data_set, instance, sop_class) if 1 in scu.accepted else None
    except Closed:
        return None


def test_everything_is_kept_or_refused_and_each_series_has_an_outcome(node: RunningNode, tmp_path: Path) -> None:
    kept: Counter[str] = Counter()
    silent = []
    for name, content in files():
        sop_class, instance, syntax, data_set = announced(content, tmp_path / "scratch")
        answer = send(node.port, sop_class, instance, syntax, data_set)
        if answer is None:
            silent.append(name)
        elif answer.status == 0:
            kept[hashlib.sha256(data_set).hexdigest()] += 1
        else:
            assert answer.status in {0xA900, 0xC000}, name
            assert answer.comment, f"{name} was refused without a reason"
    # Only what has no usable presentation context at all: private transfer syntaxes and the like.
    assert len(silent) < 20, silent
    assert sum(kept.values()) > 450
    node.wait_idle(300)
    stored = {data_set_sha256(path) for path in (node.home / "store" / "instances").rglob("*.dcm")}
    assert stored == set(kept), "what was acknowledged lies in the store, byte for byte, and nothing else"
    studies = node.look("studies", "list", "--most", "10000")
    series = [one for study in studies for one in study["series"]]
    assert {one["state"] for one in series} <= {"routed", "not-routed", "own-result"}
    assert all(one["why"] for one in series if one["state"] != "own-result")
    jobs = node.look("jobs", "list", "--most", "10000")
    outcomes = Counter(job["state"] for job in jobs)
    # an association for each file, and a pause of the machine's between two of them: the later images took its place
    overtaken = [job for job in jobs if job["state"] == "cancelled"]
    assert {job["code"] for job in overtaken} <= {"superseded"}
    assert set(outcomes) - {"cancelled"} == {"succeeded", "refused"}, [j for j in jobs if j["state"] == "failed"]
    assert all(job["reason"] for job in jobs if job["state"] == "refused")
    assert outcomes["succeeded"] >= 8, json.dumps(jobs, indent=1)
    assert node.look("status")["running"]
    assert "ended with" not in node.shown(), "no process of the node ended"


def test_pydicom_reads_what_was_kept(node: RunningNode) -> None:
    path = DATA / "ct" / "crlm-1004"
    source = pydicom.dcmread(next(iter(sorted(path.glob("*.dcm")))))
    sop_class, instance, syntax, data_set = announced(Path(source.filename).read_bytes(), node.home / "scratch")
    answer = send(node.port, sop_class, instance, syntax, data_set)
    assert answer is not None
    assert answer.status == 0
    stored = node.home / "store" / "instances" / source.StudyInstanceUID / source.SeriesInstanceUID
    node.wait_until(lambda: (stored / f"{source.SOPInstanceUID}.dcm").exists())
    copy = pydicom.dcmread(stored / f"{source.SOPInstanceUID}.dcm")
    assert copy == source
    assert copy.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
