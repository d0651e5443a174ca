"""A composed model on the real Triton: box, labels and report of a synthetic study, from files to stored results."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch

from dicomnode.adapters.system_clock import SystemClock
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.domain.model_card import card_document
from dicomnode.domain.study import Series, StoredInstance
from dicomnode.ports import JobFinished, JobWork, ModelVersion
from dicomnode.stages.deliver import DeliverStage
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.infer import InferStage
from dicomnode.stages.work import Work
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_sink import FakeSink
from tests.made_series import OBLIQUE, classic, write
from tests.output_cards import FLOW, NODULE, SCORE, BrightBox, Highest, Values, document
from tests.output_cards import package as output_package
from tests.triton_models import Thresholds, package, registered

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here"),
]

SHAPE = (9, 24, 28)
ORGAN = (slice(3, 6), slice(6, 12), slice(8, 16))
CARD: Mapping[str, Any] = {"spacing_mm": [1.0, 1.0, 2.0], "window": [16, 16, 16]}
BOXES = {"boxes": {"classes": [NODULE], "unit": "voxels", "score_least": 0.6}}
NUMBERS = {"measurements": {"of": "series", "values": [{**SCORE, "name": "Brightness"}, {**SCORE, "name": "Less"}]}}
CROP = {"model": "organ", "use": "crop", "segments": ["Class 1"], "margin_mm": 2.0}


class Brighter(torch.nn.Module):
    """Class 1 is above 0.9 of the card's range, so that only the organ is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.9 - x, x - 0.9], 1)


def values() -> npt.NDArray[np.int16]:
    """(slice, row, column) int16, HU + 1000: fat, the organ, tissue beside it, and tissue far from it."""
    stored = np.full(SHAPE, 900, dtype=np.int16)
    stored[ORGAN] = 1200
    stored[4, 9:11, 4:8] = 1080  # beside the organ, within the margin in part
    stored[0:2, 20:23, 20:26] = 1080
    return stored


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelVersion]:
    root = tmp_path_factory.mktemp("models")
    first = package(root / "organ", Brighter(), "organ", 1, **CARD)
    second = package(root / "tissue", Thresholds(), "tissue", 1, **CARD)
    document = {**card_document(second.card), "after": [CROP]}
    return {"organ": replace(first, id=1), "tissue": replace(registered(root / "tissue", document), id=2)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonEngine]:
    folder = tmp_path_factory.mktemp("triton")
    with TritonServer(folder, 2), TritonEngine(folder, 2) as real:
        yield real


class Node:
    def __init__(self, root: Path, engine: TritonEngine) -> None:
        self.store, clock = FakeInstanceStore(root), SystemClock()
        self.infer = InferStage(self.store, engine, clock, 120.0)
        encode = EncodeStage(self.store, clock, device_serial_number="NODE")
        self.work = Work(self.infer, encode, DeliverStage(FakeSink(), self.store))

    def job(self, model: ModelVersion, before: Mapping[str, ModelVersion], **series: Any) -> JobWork:
        images = classic(SHAPE[0], values=values(), spacing=(1.0, 1.0), step_mm=2.0, **series)
        write(images, self.store.root / "in")
        stored = tuple(
            StoredInstance(str(d.SOPInstanceUID), str(d.SOPClassUID), "1.2.840.10008.1.2.1", f"in/{k:03d}.dcm", k)
            for k, d in enumerate(images)
        )
        first = images[0]
        found = Series(str(first.StudyInstanceUID), str(first.SeriesInstanceUID), "CT", "SCANNER", "NODE", stored)
        at = datetime(2026, 11, 20, tzinfo=UTC)
        return JobWork("j-1", found, model, "rule", 1, (), 1, at, before=before)


@pytest.fixture
def node(tmp_path: Path, engine: TritonEngine) -> Iterator[Node]:
    node = Node(tmp_path, engine)
    yield node
    node.infer.close()


@pytest.mark.parametrize("orientation", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), OBLIQUE])
def test_the_second_network_sees_the_box_around_what_the_first_found(
    node: Node, models: dict[str, ModelVersion], orientation: tuple[float, ...]
) -> None:
    work = node.job(models["tissue"], {"organ": models["organ"]}, orientation=orientation)
    with node.infer.run(work) as inference:
        region = inference.lead.region
        assert region is not None
        assert (region.start, region.stop) == ((2, 4, 6), (7, 14, 18))
        seen = np.zeros(SHAPE, dtype=bool)
        seen[region.slices] = True
        np.testing.assert_array_equal(inference.masks.labels, (values() > 1060) & seen)
        assert inference.masks.labels[4, 9, 7] == 1
        assert inference.masks.labels[4, 9, 5] == 0
    assert inference.details["before"][0]["engine"]


def test_a_job_of_the_first_on_the_same_series_is_answered_already(
    node: Node, models: dict[str, ModelVersion]
) -> None:
    work = node.job(models["tissue"], {"organ": models["organ"]})
    with node.infer.run(work):
        own = replace(work, model=models["organ"], before={})
        with node.infer.run(own) as inference:
            assert inference.details["inferred_before"]
            np.testing.assert_array_equal(inference.masks.labels, values() == 1200)


def test_results_of_open_and_closed_gates_conform(
    node: Node, models: dict[str, ModelVersion], tmp_path: Path
) -> None:
    """Checked by the node itself and, where it is installed, by dciodvfy."""
    tissue = models["tissue"]
    gate = {"model": "organ", "use": "gate", "segments": ["Class 1"], "minimum_volume_ml": 100}
    closed = registered(
        _copied(tissue, tmp_path / "closed"), {**card_document(tissue.card), "name": "gated", "after": [gate]}
    )
    for model, kinds in ((tissue, ["SEG", "SR"]), (replace(closed, id=3), ["SR"])):
        outcome = node.work.perform(node.job(model, {"organ": models["organ"]}))
        assert isinstance(outcome, JobFinished), outcome
        assert [r.kind for r in outcome.results] == kinds
        for result in outcome.results:
            path = node.store.path(result.path)
            names = [e.get("ManufacturerModelName") for e in pydicom.dcmread(path).ContributingEquipmentSequence]
            assert "organ" in names
            assert _errors(path) == []
    assert outcome.note.startswith("skipped, nothing was looked for")


def test_boxes_a_map_and_a_number_lead(node: Node, models: dict[str, ModelVersion], tmp_path: Path) -> None:
    """Networks that give what is above 0.5 of their card's range: of what is drawn here, the organ alone."""
    wide = {"input": {"intensity": {"from": [-1000, 1200], "to": [0, 1], "clip": True}, "spacing_mm": [1, 1, 2]}}
    organ = "the box around it has 3 × 6 × 8 of 9 × 24 × 28 voxels"
    steps = (
        (BrightBox(), BOXES, {"use": "crop", "boxes": ["Nodule"]}, " of Nodule: " + organ),
        (Values(), {"map": FLOW}, {"use": "crop", "map": "Perfusion", "at_least": 130.0}, organ),
        (Highest(), NUMBERS, {"use": "gate", "measurement": "Brightness", "at_most": 1000}, "Brightness of "),
    )
    for number, (network, output, step, words) in enumerate(steps):
        first = output_package(tmp_path / f"first{number}", network, document("first", output, **wide))
        card = {**card_document(models["tissue"].card), "after": [{"model": "first", **step}]}
        later = replace(registered(_copied(models["tissue"], tmp_path / f"later{number}"), card), id=20 + number)
        with node.infer.run(node.job(later, {"first": replace(first, id=10 + number)})) as inference:
            (said,) = inference.details["before"]
            assert words in said["said"], said
            expected = (values() > 1060) if step["use"] == "gate" else (values() == 1200)
            np.testing.assert_array_equal(inference.masks.labels, expected)


def _copied(model: ModelVersion, folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.ts").write_bytes((model.path / "model.ts").read_bytes())
    return folder


def _errors(path: Path) -> list[str]:
    try:
        checked = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return [line for line in checked.stderr.splitlines() if line.startswith("Error")]
