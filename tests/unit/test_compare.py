"""What two versions of a model said of the same series: from the results that are kept, or run now."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from rich.console import Console
from typer.testing import CliRunner

from dicomnode import bootstrap
from dicomnode.cli.context import Context
from dicomnode.cli.model_compare import _image_numbers
from dicomnode.cli.models import app
from dicomnode.domain.job import Priority
from dicomnode.domain.model_card import ModelCard, card_document, parse_model_card
from dicomnode.encoding.seg_masks import overlap, read_masks
from dicomnode.errors import EncodingError, NotFound, UsageError
from dicomnode.ports import JobFinished, JobOutcome, ModelVersion, NewJob
from dicomnode.stages.compare import ClassComparison, CompareStage, SeriesComparison, agreement, summary
from dicomnode.stages.deliver import DeliverStage
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.infer import InferStage
from dicomnode.stages.work import Work
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_sink import FakeSink
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import instance
from tests.made_results import CARD, result, two_fs
from tests.made_series import classic, write

FIRST, SECOND = (-800.0, -600.0), (-780.0, -600.0)  # thresholds of the engine, as version 1.0.0 and 2.0.0 have them


def second_card() -> ModelCard:
    """The next version, which numbers its segments the other way round."""
    lungs, bone = card_document(CARD)["output"]["segments"]
    segments = [{**bone, "number": 1}, {**lungs, "number": 2}]
    return parse_model_card({**card_document(CARD), "version": "2.0.0", "output": {"segments": segments}})


class Node:
    """A series that both versions get a job on, the second as a shadow."""

    def __init__(self, root: Path) -> None:
        self.store, self.clock, self.engine = FakeInstanceStore(root), FakeClock(), FakeEngine(FIRST)
        self.state = FakeState(self.clock)
        self.pair = (
            self.state.add_model(CARD, "1" * 64, root),
            self.state.add_model(second_card(), "2" * 64, root, activate=False),
        )
        self.infer = InferStage(self.store, self.engine, self.clock, 60.0)
        encode = EncodeStage(self.store, self.clock, device_serial_number="NODE")
        self.work = Work(self.infer, encode, DeliverStage(FakeSink(), self.store))
        self.compare = CompareStage(self.state, self.store, self.clock)
        images = classic(5)
        write(images, self.store.root / "in")
        self.study, self.series = str(images[0].StudyInstanceUID), str(images[0].SeriesInstanceUID)
        self.state.record_instances(
            [
                replace(
                    instance(n, self.series),
                    sop_instance_uid=str(d.SOPInstanceUID),
                    study_instance_uid=self.study,
                    path=f"in/{n:03d}.dcm",
                )
                for n, d in enumerate(images)
            ]
        )

    def run(self, second: tuple[float, ...] = SECOND) -> None:
        series = self.state.complete_series(self.series, 0)
        assert series is not None
        rule = self.state.add_rule("torso", {"name": "torso"})
        jobs = [
            NewJob(rule, self.pair[0], Priority.ROUTINE, ()),
            NewJob(rule, self.pair[1], Priority.LOW, (), shadow=True),
        ]
        first_id, second_id = self.state.record_routing(series, jobs, "so", {})
        self.perform(first_id)
        self.engine.thresholds = second
        self.perform(second_id)

    def perform(self, job_id: str) -> JobOutcome:
        work = self.state.start_job(job_id)
        assert work is not None
        outcome = self.work.perform(work)
        assert isinstance(outcome, JobFinished), outcome
        self.state.finish_job(job_id, outcome)
        return outcome


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def pixels_of(node: Node) -> np.ndarray:  # type: ignore[type-arg]
    """(slice, row, column) HU of the series."""
    slices = [pydicom.dcmread(path) for path in sorted((node.store.root / "in").glob("*.dcm"))]
    slices.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])


def dice_of(first: np.ndarray, second: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def by_name(found: SeriesComparison) -> dict[str, float | None]:
    return {segment.name: segment.dice for segment in found.segments}


def test_what_is_kept_of_both_is_compared_by_the_segments_names(node: Node) -> None:
    node.run()
    (found,) = node.compare.stored(node.pair, 10)
    hu = pixels_of(node)
    low, high = (hu > FIRST[0]) & (hu <= FIRST[1]), hu > FIRST[1]
    second_low, second_high = (hu > SECOND[0]) & (hu <= SECOND[1]), hu > SECOND[1]
    assert low.any()
    assert second_low.any()
    assert by_name(found)["Lungs"] == pytest.approx(dice_of(low, second_high))
    assert by_name(found)["Bone"] == pytest.approx(dice_of(high, second_low))
    lungs = next(segment for segment in found.segments if segment.name == "Lungs")
    ml = [
        row["volume_ml"]
        for job in node.state.jobs()
        for row in job.details["measurements"]
        if row["segment"] == "Lungs"
    ]
    assert sorted(v for v in lungs.volumes_ml if v is not None) == sorted(ml)
    assert lungs.difference_ml == pytest.approx(lungs.volumes_ml[1] - lungs.volumes_ml[0], abs=1e-3)  # type: ignore[operator]


def test_a_version_that_finds_nothing_has_no_seg_and_is_compared_all_the_same(node: Node) -> None:
    node.run(second=(1e6,))
    (found,) = node.compare.stored(node.pair, 10)
    assert by_name(found) == {"Lungs": 0.0, "Bone": 0.0}
    assert [segment.volumes_ml[1] for segment in found.segments] == [0.0, 0.0]


def test_masks_that_are_gone_leave_the_volumes(node: Node) -> None:
    node.run()
    for job in node.state.jobs():
        for kept in job.results:
            node.store.path(kept.path).unlink()
    (found,) = node.compare.stored(node.pair, 10)
    assert set(by_name(found).values()) == {None}
    assert "not here any more" in found.note
    assert all(volume is not None for segment in found.segments for volume in segment.volumes_ml)
    assert summary([found]).dice == {}


def test_both_run_on_a_study_now_and_nothing_is_recorded(node: Node) -> None:
    series = node.state.complete_series(node.series, 0)
    assert series is not None
    node.state.record_routing(series, [], "no rule", {})
    (found,) = node.compare.now(node.pair, node.study, node.infer)
    hu = pixels_of(node)
    low, high = (hu > FIRST[0]) & (hu <= FIRST[1]), hu > FIRST[1]
    assert by_name(found) == {"Lungs": pytest.approx(dice_of(low, high)), "Bone": pytest.approx(dice_of(low, high))}
    assert node.state.jobs() == []
    assert node.engine.runs == ["torso-ct", "torso-ct"]


def test_a_series_that_the_model_refuses_says_why(node: Node) -> None:
    card = parse_model_card({**card_document(second_card()), "version": "3.0.0"})
    tall = replace(card, input=replace(card.input, minimum_extent_mm=(0.0, 0.0, 9000.0)))
    model = node.state.add_model(tall, "3" * 64, node.store.root, activate=False)
    series = node.state.complete_series(node.series, 0)
    assert series is not None
    node.state.record_routing(series, [], "no rule", {})
    (found,) = node.compare.now((node.pair[0], model), node.study, node.infer)
    assert found.segments == ()
    assert "needs 9000 mm along S" in found.note


# ------------------------------------------------------------------------------------------------------ classes


def classifier(version: str, *names: str) -> ModelVersion:
    code = {"value": "1", "scheme": "SCT", "meaning": "x"}
    classes = [{"name": name, "code": code} for name in names]
    document = {**card_document(CARD), "version": version}
    document["output"] = {"classification": {"finding": code, "classes": classes}}
    document["input"] = {**document["input"], "size": [8, 8]}
    card = parse_model_card(document)
    return ModelVersion(1, card.name, version, "d" * 64, Path("/m"), card, False)


def test_classes_are_compared_by_their_names() -> None:
    """The second version knows them in another order, and one more."""
    pair = (classifier("1", "Head", "Chest"), classifier("2", "Chest", "Leg", "Head"))
    first = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    second = np.array([[0.1, 0.0, 0.9], [0.75, 0.0, 0.25], [0.3, 0.4, 0.3]])
    assert agreement(pair, first, second) == ClassComparison(3, 2, 0.3, differing=(3,))
    assert agreement(pair, first, second[:2]) is None
    assert agreement(pair, first[:0], second[:0]) is None


def test_classes_of_jobs_and_of_now_are_compared(node: Node) -> None:
    """FakeEngine: Chest above the threshold; the second time it is so low that all images are above it."""
    cards = [classifier(version, "Head", "Chest").card for version in ("4.0.0", "5.0.0")]
    first, second = (node.state.add_model(c, c.version[0] * 64, node.store.root, activate=False) for c in cards)
    node.pair = (first, second)
    node.engine.thresholds = (5000.0,)
    node.run(second=(-5000.0,))
    (found,) = node.compare.stored(node.pair, 10)
    assert found.classes == ClassComparison(5, 0, 0.8, differing=(1, 2, 3, 4, 5))
    node.clock.advance(60)  # what the jobs were told is not kept so long
    told: list[str] = []
    (now,) = node.compare.now(node.pair, node.study, node.infer, told.append)
    assert told == ["runs both on series 1 of 1"]
    assert now.classes == ClassComparison(images=5, same=5, largest_difference=0.0)
    assert (summary([found, now]).images, summary([found, now]).same) == (10, 5)


def flat(card: ModelCard) -> ModelCard:
    """The same segments, of a model that sees each image by itself."""
    document = card_document(card)
    network = {"file": "model.ts"}
    return parse_model_card({**document, "input": {**document["input"], "size": [64, 64]}, "network": network})


def test_versions_that_mark_single_images_are_compared_now(node: Node) -> None:
    node.run(FIRST)
    pair = (
        node.state.add_model(replace(flat(CARD), name="flat"), "3" * 64, node.store.root),
        node.state.add_model(replace(flat(second_card()), name="flat"), "4" * 64, node.store.root, activate=False),
    )
    (found,) = node.compare.now(pair, node.study, node.infer)
    hu = pixels_of(node)
    low, high = (hu > FIRST[0]) & (hu <= FIRST[1]), hu > FIRST[1]
    assert by_name(found)["Lungs"] == pytest.approx(dice_of(low, high), abs=1e-6)  # 2.0.0 numbers them the other way
    assert found.segments[0].volumes_ml == (None, None)
    (mixed,) = node.compare.now((node.pair[0], pair[0]), node.study, node.infer)
    assert "one of them marks single images" in mixed.note


# --------------------------------------------------------------------------------------------------------- SEGs


def test_masks_are_read_from_a_seg_as_they_were_encoded(tmp_path: Path) -> None:
    _, labels, segmentation, _ = result()
    assert segmentation is not None
    segmentation.save_as(tmp_path / "seg.dcm")
    masks = read_masks(tmp_path / "seg.dcm")
    other = two_fs(labels.shape)
    other[:, :, : labels.shape[2] // 2] = 0
    _, _, second, _ = result(labels=other)
    assert second is not None
    second.save_as(tmp_path / "other.dcm")
    for number, name in ((1, "Lungs"), (2, "Bone")):
        found = overlap(masks, read_masks(tmp_path / "other.dcm"), name)
        assert found.first == (labels == number).sum()
        assert found.second == (other == number).sum()
        assert found.both == ((labels == number) & (other == number)).sum()


def test_what_is_no_seg_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"no")
    with pytest.raises(EncodingError, match=r"x\.dcm is no segmentation"):
        read_masks(tmp_path / "x.dcm")
    write(classic(1), tmp_path / "ct")
    with pytest.raises(EncodingError, match="SegmentSequence"):
        read_masks(tmp_path / "ct" / "000.dcm")


# ------------------------------------------------------------------------------------------------------ commands


@pytest.fixture
def context(node: Node, monkeypatch: pytest.MonkeyPatch) -> Context:
    made = Context()
    made.__dict__.update(state=node.state, console=Console(file=io.StringIO(), width=200))
    monkeypatch.setattr("dicomnode.bootstrap.compare_stage", lambda settings, state: node.compare)
    return made


def shown(context: Context, *arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), obj=context)
    if done.exception:
        raise done.exception
    return done.stdout or context.console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_compare_shows_each_series_and_the_whole(node: Node, context: Context) -> None:
    node.run()
    text = shown(context, "compare", "torso-ct", "1.0.0", "2.0.0")
    assert "1 series. Lungs: Dice 0." in text
    document = json.loads(shown(context, "compare", "torso-ct", "1.0.0", "2.0.0", "--json"))
    assert [s["name"] for s in document["series"][0]["segments"]] == ["Lungs", "Bone"]
    assert document["summary"]["series"] == 1


def test_compare_says_what_to_do_when_there_is_nothing_to_compare(context: Context) -> None:
    with pytest.raises(NotFound, match="models shadow torso-ct VERSION"):
        shown(context, "compare", "torso-ct", "1.0.0", "2.0.0")
    with pytest.raises(UsageError, match="two versions are needed"):
        shown(context, "compare", "torso-ct", "1.0.0", "1.0.0")
    with pytest.raises(NotFound, match=r"there are: 1\.0\.0, 2\.0\.0"):
        shown(context, "compare", "torso-ct", "1.0.0", "3.0.0")


# ------------------------------------------------------------------------------------------- engines of one version


def test_images_that_differ_are_numbered() -> None:
    assert _image_numbers([1, 3, 4, 5, 9]) == "1, 3-5, 9"
    assert _image_numbers([]) == ""


def test_engines_are_named_after_the_version(node: Node, context: Context) -> None:
    with pytest.raises(UsageError, match="engines are compared with --study STUDY"):
        shown(context, "compare", "torso-ct", "1.0.0@onnxruntime", "1.0.0@openvino:bf16")
    with pytest.raises(
        UsageError, match=r"1\.0\.0 does not run on torch; there are: onnxruntime:fp32, openvino:fp32"
    ):
        shown(context, "compare", "torso-ct", "1.0.0@torch", "1.0.0@openvino", "--study", node.study)
    with pytest.raises(NotFound, match=r"there are: 1\.0\.0, 2\.0\.0"):
        shown(context, "compare", "torso-ct", "9@onnxruntime", "1.0.0@openvino", "--study", node.study)


def test_two_engines_of_one_version_run_on_a_study(
    node: Node, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.run()
    ran = []

    def run(self: CompareStage, pair: tuple[ModelVersion, ModelVersion], study: str, *_: object) -> Any:
        ran.append([(m.version, m.chosen_engine, m.chosen_precision) for m in pair])
        return self.stored(node.pair, 1)

    monkeypatch.setattr(CompareStage, "now", run)
    monkeypatch.setattr(bootstrap, "engine_at_hand", lambda settings: contextlib.nullcontext())
    monkeypatch.setattr(bootstrap, "infer_stage", lambda settings, engine: node.infer)
    text = shown(context, "compare", "torso-ct", "1.0.0@onnxruntime", "1.0.0@openvino:bf16", "--study", node.study)
    assert ran == [[("1.0.0", "onnxruntime", "fp32"), ("1.0.0", "openvino", "bf16")]]
    assert "torso-ct 1.0.0@onnxruntime and 1.0.0@openvino:bf16" in text
    assert "Lungs: Dice" in text


def test_one_series_and_two_engines_are_two_inferences(node: Node) -> None:
    """They share the decoded volume, and not what came out."""
    series = node.state.complete_series(node.series, 0)
    assert series is not None
    node.state.record_routing(series, [], "no rule", {})
    pair = tuple(
        replace(node.pair[0], tuning={"chosen": {"engine": engine, "precision": "fp32"}})
        for engine in ("onnxruntime", "openvino")
    )
    found = node.compare.now((pair[0], pair[1]), node.study, node.infer)
    assert [one.dice for one in found[0].segments] == [1.0, 1.0]
    assert node.engine.runs == ["torso-ct", "torso-ct"]
