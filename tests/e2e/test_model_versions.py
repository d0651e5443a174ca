"""Two versions of a model on a whole node: accepted by its Triton, one a shadow, compared, activated, rolled back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sample_data.golden import PROTOCOL
from sample_data.phantom import write_scan
from sample_data.scanner import make_scan
from tests.e2e.running_node import RunningNode, storescu
from tests.servers import Orthanc

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sample_data" / "models" / "torso-ct"
NEXT = "1.1.0"

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path_factory.mktemp("node") / "home", receivers=1)
    node.prepare(
        ("models", "add", PACKAGE),
        ("rules", "add", ROOT / "sample_data" / "rules" / "torso-ct.yaml"),
        ("destinations", "add", "pacs", "--dimse", pacs.dimse),
    )
    with node:
        yield node


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network under the next version's name, and a models.yaml that wants it to be a shadow."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copytree(PACKAGE, folder / "next")
    card = folder / "next" / "model.yaml"
    card.write_text(card.read_text().replace("version: 1.0.0", f"version: {NEXT}"))
    (folder / "models.yaml").write_text("models:\n  - {package: next, shadow: true}\n")
    return folder


def send(node: RunningNode, folder: Path, seed: int) -> str:
    """Its Study Instance UID."""
    study = write_scan(folder, make_scan(PROTOCOL, seed, canvas_mm=4.0), PROTOCOL, seed)
    assert storescu(node.port, folder) == 0
    return study


def jobs(node: RunningNode, study: str) -> dict[str, dict[str, object]]:
    """Of a study that is done, by model."""
    node.wait_until(lambda: study in {one["study_instance_uid"] for one in node.look("studies", "list")})
    node.wait_until(lambda: bool(node.look("jobs", "list", "--study", study)))
    node.wait_idle()
    return {job["model"]: job for job in node.look("jobs", "list", "--study", study)}


def test_a_shadow_runs_beside_it_and_sends_nothing(
    node: RunningNode, pacs: Orthanc, packages: Path, tmp_path: Path
) -> None:
    (first,) = node.look("models", "list")
    assert (first["state"], first["acceptance"]) == ("active", "passed")
    applied = node.json("models", "apply", str(packages), "--reason", "to be compared")
    assert [step["step"] for step in applied["steps"]] == ["add", "shadow"]
    assert "1 golden case passed" in applied["steps"][0]["message"]
    found = jobs(node, send(node, tmp_path, 1))
    assert {model: (job["state"], job["shadow"], job["priority"]) for model, job in found.items()} == {
        "torso-ct 1.0.0": ("succeeded", False, "routine"),
        f"torso-ct {NEXT}": ("succeeded", True, "low"),
    }
    assert {d["state"] for d in found["torso-ct 1.0.0"]["deliveries"]} <= {"sent", "accepted", "committed"}  # type: ignore[attr-defined]
    assert found[f"torso-ct {NEXT}"]["deliveries"] == []
    sent = {r["sop_instance_uid"] for r in found["torso-ct 1.0.0"]["results"]}  # type: ignore[attr-defined]
    assert set(pacs.wait_for(2, 60)) == sent
    compared = node.look("models", "compare", "torso-ct", "1.0.0", NEXT)
    assert [segment["dice"] for segment in compared["series"][0]["segments"]] == [1.0, 1.0, 1.0]


def test_a_version_is_activated_and_rolled_back_while_the_node_runs(node: RunningNode, tmp_path: Path) -> None:
    node.run("models", "activate", "torso-ct", NEXT)
    assert set(jobs(node, send(node, tmp_path / "2", 2))) == {f"torso-ct {NEXT}"}
    node.run("models", "rollback", "torso-ct")
    study = send(node, tmp_path / "3", 3)
    assert set(jobs(node, study)) == {"torso-ct 1.0.0"}
    now = node.look("models", "compare", "torso-ct", "1.0.0", NEXT, "--study", study)
    assert [segment["dice"] for segment in now["series"][0]["segments"]] == [1.0, 1.0, 1.0]
