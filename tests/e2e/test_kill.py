"""kill -9 at random moments of a running study: every result arrives, once, under one UID."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.e2e.running_node import RunningNode, storescu
from tests.server_fixtures import require_dcmtk, require_orthanc
from tests.servers import Orthanc

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[pydicom.Dataset]:
    from sample_data.phantom import write_study

    folder = tmp_path_factory.mktemp("study")
    write_study(folder, "chest-abdomen", 3)
    return [pydicom.dcmread(file) for file in sorted(folder.rglob("*")) if file.is_file()]


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Orthanc]:
    require_orthanc()
    require_dcmtk("storescu")
    with Orthanc(tmp_path / "pacs") as server:
        yield server


def another(study: list[pydicom.Dataset], folder: Path) -> tuple[str, Path]:
    """The same images as a study of their own."""
    folder.mkdir()
    study_uid, series_uids = generate_uid(), {}
    for number, dataset in enumerate(study):
        series_uid = series_uids.setdefault(str(dataset.SeriesInstanceUID), generate_uid())
        copy = pydicom.Dataset(dataset)
        copy.file_meta = pydicom.dataset.FileMetaDataset(dataset.file_meta)
        copy.StudyInstanceUID, copy.SeriesInstanceUID = study_uid, series_uid
        copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        copy.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)
    return str(study_uid), folder


def rounds(study: list[pydicom.Dataset], pacs: Orthanc, folder: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    node = RunningNode(folder / "home")
    node.run("models", "add", str(ROOT / "sample_data" / "models" / "torso-ct"))
    node.run("rules", "add", str(ROOT / "sample_data" / "rules" / "torso-ct.yaml"))
    node.run("destinations", "add", "dimse", "--dimse", pacs.dimse)
    node.run("destinations", "add", "web", "--stow", pacs.dicomweb_url)
    studies = []
    with node:
        for number in range(count):
            uid, images = another(study, folder / f"study-{number}")
            assert storescu(node.port, images) == 0
            studies.append(uid)
            time.sleep(chance.uniform(0, 6))
            if number % 2:
                assert node.kill_matching("tritonserver")
            else:
                node.kill()
                node.start().wait_ready()
        for uid in studies:
            pacs.wait_for(2, 240, StudyInstanceUID=uid)
        node.wait_idle()
        for uid in studies:
            kinds = sorted(found["00080060"]["Value"][0] for found in pacs.find("instances", StudyInstanceUID=uid))
            assert kinds == ["SEG", "SR"]
        jobs = node.json("jobs", "list")
        assert sorted(job["study_instance_uid"] for job in jobs) == sorted(studies)
        assert {job["state"] for job in jobs} == {"succeeded"}
        delivered = [d["state"] for job in jobs for d in node.json("jobs", "show", job["job_id"])["deliveries"]]
        assert delivered == ["delivered"] * 4 * count
    assert not [file.name for file in Path("/dev/shm").glob("*") if node.home.name in file.name]


def test_four_moments(study: list[pydicom.Dataset], pacs: Orthanc, tmp_path: Path) -> None:
    rounds(study, pacs, tmp_path, seed=1, count=4)


@pytest.mark.slow
def test_twenty_moments(study: list[pydicom.Dataset], pacs: Orthanc, tmp_path: Path) -> None:
    rounds(study, pacs, tmp_path, seed=int(time.time()), count=20)


def test_a_receiver_killed_while_it_receives_loses_nothing_it_acknowledged(
    study: list[pydicom.Dataset], pacs: Orthanc, tmp_path: Path
) -> None:
    from pynetdicom import AE

    node = RunningNode(tmp_path / "home", quiet_period_s=3600)
    acknowledged = []
    with node:
        ae = AE("SENDER")
        ae.add_requested_context(study[0].SOPClassUID, study[0].file_meta.TransferSyntaxUID)
        same_class = [dataset for dataset in study if dataset.SOPClassUID == study[0].SOPClassUID]
        association = ae.associate("127.0.0.1", node.port, ae_title="DICOMNODE")
        for number, dataset in enumerate(same_class):
            if number == len(same_class) // 2:
                assert node.kill_matching("run receiver")
            try:
                status = association.send_c_store(dataset)
            except RuntimeError:  # the association is gone
                break
            if getattr(status, "Status", None) != 0:
                break
            acknowledged.append(str(dataset.SOPInstanceUID))
        association.abort()
        assert 0 < len(acknowledged) < len(same_class)

        def filed() -> set[str]:
            return {file.stem for file in (node.home / "store" / "instances").rglob("*.dcm")}

        node.wait_until(lambda: filed() >= set(acknowledged))
        node.wait_until(lambda: node.json("status")["work"]["instances"]["all"] >= len(acknowledged))
