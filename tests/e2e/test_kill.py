"""kill -9 at random moments of a running study: every result arrives, once, under one UID."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from dicomnode.adapters.triton.place import Place
from dicomnode.encoding.part10 import data_set_offset
from tests.e2e.running_node import RunningNode, storescu
from tests.raw_scu import Closed, RawScu
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
    node.prepare(
        ("models", "add", ROOT / "sample_data" / "models" / "torso-ct"),
        ("rules", "add", ROOT / "sample_data" / "rules" / "torso-ct.yaml"),
        ("destinations", "add", "dimse", "--dimse", pacs.dimse),
        ("destinations", "add", "web", "--stow", pacs.dicomweb_url),
    )
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
        jobs = node.look("jobs", "list")
        assert sorted(job["study_instance_uid"] for job in jobs) == sorted(studies)
        assert {job["state"] for job in jobs} == {"succeeded"}
        delivered = [d["state"] for job in jobs for d in node.look("jobs", "show", job["job_id"])["deliveries"]]
        assert len(delivered) == 4 * count
        assert set(delivered) <= {"sent", "accepted", "committed"}
    place = Place(node.home / "triton")
    left = [f for prefix in (place.client_prefix, place.server_prefix) for f in Path("/dev/shm").glob(f"{prefix}*")]
    assert not left, "shared memory is left behind"


def test_the_node_and_its_triton_are_killed_at_work(
    study: list[pydicom.Dataset], pacs: Orthanc, tmp_path: Path
) -> None:
    """The node, its Triton, and both once more: 2.0, 2.1, 1.1 and 3.3 s after a study came."""
    rounds(study, pacs, tmp_path, seed=7443, count=4)


@pytest.mark.slow
def test_twenty_moments(study: list[pydicom.Dataset], pacs: Orthanc, tmp_path: Path) -> None:
    rounds(study, pacs, tmp_path, seed=int(time.time()), count=20)


def test_a_receiver_killed_while_it_receives_loses_nothing_it_acknowledged(
    study: list[pydicom.Dataset], tmp_path: Path
) -> None:
    node = RunningNode(tmp_path / "home", quiet_period_s=3600)
    _, folder = another(study, tmp_path / "study")
    images = [(pydicom.dcmread(file, stop_before_pixels=True), file.read_bytes()) for file in folder.glob("*.dcm")]
    sop_class, syntax = images[0][0].SOPClassUID, images[0][0].file_meta.TransferSyntaxUID
    acknowledged: set[str] = set()

    def send_until_cut_off() -> None:
        with RawScu(node.port, {1: (sop_class, [syntax])}, called="DICOMNODE") as scu:
            for number, (header, content) in enumerate(images):
                if number == len(images) // 2:
                    assert node.kill_matching("run receiver")
                data_set = content[data_set_offset(content[:65536]) :]
                assert scu.store(data_set, header.SOPInstanceUID, sop_class).status == 0
                acknowledged.add(str(header.SOPInstanceUID))

    def filed() -> set[str]:
        return {file.stem for file in (node.home / "store" / "instances").rglob("*.dcm")}

    with node:
        with pytest.raises(Closed):
            send_until_cut_off()
        assert len(acknowledged) == len(images) // 2
        node.wait_until(lambda: filed() >= acknowledged)
        node.wait_until(lambda: node.look("status")["work"]["instances"]["all"] >= len(acknowledged))
