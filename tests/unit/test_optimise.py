"""Which engine is chosen: the fastest that gives the same labels, and only when that is worth it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dicomnode.cli.model_optimise import _row
from dicomnode.domain.engines import Candidate, candidates, format_of, own_way
from dicomnode.domain.golden import GoldenCase
from dicomnode.domain.model_card import NO_WINDOW, NetworkSpec, parse_model_card
from dicomnode.domain.model_card_text import card_markdown
from dicomnode.domain.tuning import Tried, Tuning, choose, tuning_document
from dicomnode.errors import InvalidModelPackage, ModelFailed, UsageError
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.imaging.golden import GivenVolume
from dicomnode.ports import InferenceRequest, ModelVersion
from dicomnode.stages.optimise import OptimiseStage, Trial, trials_of
from tests.adapters.fake_state import FakeClock
from tests.class_models import document
from tests.made_results import CARD

SHAPE = (4, 8, 8)
CASE = Trial([GivenVolume(np.zeros(SHAPE, np.int16), Placement(VolumeGeometry(SHAPE, np.eye(4)), Rescale(1.0, 0.0)))])


class Engine:
    """Takes as long, and changes as many voxels, as is said for each candidate; None: it does not run it."""

    def __init__(self, clock: FakeClock, ways: Mapping[str, tuple[float, int] | None]) -> None:
        self._clock, self._ways = clock, ways
        self.volume = np.zeros(SHAPE, np.int16)
        self.further: Sequence[npt.NDArray[np.int16]] = []
        self.timings_s: Mapping[str, float] = {}

    def freeze(self) -> None:
        """The next session has the same volume here."""

    @contextlib.contextmanager
    def open(self, shape: tuple[int, int, int], further: Sequence[tuple[int, int, int]] = ()) -> Iterator[Engine]:
        yield self

    @contextlib.contextmanager
    def ask(self, request: InferenceRequest) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        way = self._way_of(request.model)
        if way is None:
            raise ModelFailed("there is no such engine here")
        seconds, wrong = way
        self._clock.advance(seconds)
        self.timings_s = {"network": seconds / 2}
        labels = np.ones(SHAPE, np.uint8)
        labels.flat[:wrong] = 2
        labels.flat[100:] = 2
        yield {"LABELMAP": labels}

    def _way_of(self, model: ModelVersion) -> tuple[float, int] | None:
        return self._ways[f"{model.chosen_engine} {model.chosen_precision}"]

    def prepare(self, models: Sequence[ModelVersion]) -> None: ...

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        return {"engine": model.chosen_engine.upper(), "precision": model.chosen_precision}


def optimised(ways: Mapping[str, tuple[float, int] | None], file: str = "model.onnx") -> Tuning:
    clock = FakeClock()
    card = replace(CARD, network=replace(CARD.network, file=file, format="auto"))
    stage = OptimiseStage(Engine(clock, ways), clock, 60.0, has_gpu=False, machine="a machine")
    return stage.optimise(ModelVersion(1, "m", "1", "ab", Path(), card, active=True), [CASE], 3)


def test_the_fastest_that_is_right_is_chosen() -> None:
    found = optimised(
        {
            "onnxruntime fp32": (4.0, 0),
            "openvino fp32": (2.0, 0),
            "openvino bf16": (1.0, 3),
            "openvino int8": None,
        }
    )
    assert found.chosen.candidate == ("openvino", "fp32")
    reference, full, half, eighth = found.candidates
    assert (reference.candidate, reference.dice, reference.right) == (("onnxruntime", "fp32"), 1.0, True)
    assert (full.seconds, full.network_s, full.words) == (2.0, 1.0, "2.00 times as fast")
    assert not half.right
    assert half.words.startswith("Dice 0.98")
    assert (eighth.right, eighth.words, eighth.seconds) == (False, "there is no such engine here", 0.0)
    assert tuning_document(found)["chosen"] == {"engine": "openvino", "precision": "fp32"}


def test_a_network_that_triton_itself_runs_is_a_candidate_too() -> None:
    clock, card = FakeClock(), replace(CARD, network=replace(CARD.network, file="model.onnx", format="auto"))
    slow = {"onnxruntime fp32": (4.0, 0), "openvino fp32": (3.0, 0), "openvino bf16": None, "openvino int8": None}
    triton, told = Engine(clock, {"triton fp32": (1.0, 0)}), list[str]()
    stage = OptimiseStage(
        Engine(clock, slow), clock, 60.0, has_gpu=False, machine="a machine", told=told.append, triton=triton
    )
    found = stage.optimise(ModelVersion(1, "m", "1", "ab", Path(), card, active=True), [CASE], 3)
    assert told[:2] == [
        "tries onnxruntime fp32 (1 of 5): loads it, and runs it once",
        "tries onnxruntime fp32 (1 of 5): times run 1 of 3",
    ]
    assert told[-1] == "tries triton fp32 (5 of 5): times run 3 of 3"
    assert [one.engine for one in found.candidates] == ["onnxruntime", "openvino", "openvino", "openvino", "triton"]
    assert (found.chosen.candidate, found.chosen.ran) == (("triton", "fp32"), "TRITON fp32")


def test_what_fails_a_golden_case_is_not_taken_though_it_is_like_the_reference() -> None:
    """A worker would not serve it."""
    card = replace(CARD, network=replace(CARD.network, file="model.ts", format="auto"))
    case = GoldenCase("trunk", "a", "b", dict.fromkeys((segment.number for segment in CARD.segments), 0.999))
    trial = Trial(CASE.volumes, case, np.full(SHAPE, 2, np.uint8))
    ways = {"torchscript fp32": (1.0, 0), "torchscript bf16": None, "openvino fp32": (0.1, 0)}
    clock = FakeClock()
    engine = Engine(clock, ways | {"openvino bf16": None, "openvino int8": None})
    stage = OptimiseStage(engine, clock, 60.0, has_gpu=False, machine="a machine")
    found = stage.optimise(ModelVersion(1, "m", "1", "ab", Path(), card, active=True), [trial], 1)
    assert found.chosen.engine == "torchscript"
    (fast,) = [one for one in found.candidates if one.candidate == ("openvino", "fp32")]
    assert (fast.right, fast.dice) == (False, 1.0)
    assert fast.words.startswith("golden case trunk: Dice of Lungs is ")


def test_when_none_is_faster_the_networks_own_engine_stays() -> None:
    ways = {"torchscript fp32": (1.0, 0), "torchscript bf16": (0.99, 0), "openvino fp32": (0.96, 0)}
    found = optimised(ways | {"openvino bf16": None, "openvino int8": None}, "model.ts")
    assert found.chosen.candidate == ("torchscript", "fp32")


def test_what_fails_on_its_own_engine_cannot_be_judged() -> None:
    with pytest.raises(ModelFailed):
        optimised({"onnxruntime fp32": None})


def test_a_format_that_brings_its_own_way_has_nothing_to_choose_from() -> None:
    card = replace(CARD, network=replace(CARD.network, format="nnunet"))
    stage = OptimiseStage(Engine(FakeClock(), {}), FakeClock(), 60.0, has_gpu=False, machine="")
    model = ModelVersion(1, "m", "1", "ab", Path(), card, active=True)
    with pytest.raises(UsageError, match=r"m 1 is an nnU-Net model, .* nothing to choose from"):
        stage.optimise(model, [CASE], 1)
    with pytest.raises(UsageError, match="nothing to choose from"):  # and not that a series would help
        trials_of(model, [], [])


def spec(file: str, format: str = "auto") -> NetworkSpec:
    return NetworkSpec(file, "auto", "fp32", (32, 32, 32), 0.25, "constant", format)


OPENVINO = ["openvino fp32", "openvino bf16", "openvino int8"]


@pytest.mark.parametrize(
    ("file", "has_gpu", "expected"),
    [
        ("a.onnx", False, ["onnxruntime fp32", "openvino fp32", "openvino bf16", "openvino int8"]),
        (
            "a.onnx",
            True,
            ["onnxruntime fp32", "tensorrt fp32", "tensorrt bf16", "tensorrt fp16", "tensorrt int8", *OPENVINO],
        ),
        ("a.ts", True, ["torchscript fp32", "torchscript bf16", "torchscript fp16", *OPENVINO]),
        ("a.xml", False, OPENVINO),
        ("a.xml", True, OPENVINO),
        ("a.pt2", False, ["torch fp32", "torch bf16", "openvino fp32", "openvino bf16", "openvino int8"]),
    ],
)
def test_what_is_tried_where(file: str, has_gpu: bool, expected: list[str]) -> None:
    assert [" ".join(candidate) for candidate in candidates(spec(file), has_gpu)] == expected


def test_a_bundle_on_the_nodes_chain_has_its_traced_network_to_choose_for() -> None:
    """Its window is in the card then."""
    own = spec("models/model.pt", "monai-bundle")
    assert candidates(replace(own, window=(1, 1, 1)), False) == []
    assert candidates(replace(own, window=(96, 96, 96)), False) == candidates(spec("model.ts"), False)


def test_the_format_shows_in_the_name_or_is_said() -> None:
    assert format_of(spec("A.ONNX")) == "onnx"
    assert format_of(spec("plans.json", "nnunet")) == "nnunet"
    with pytest.raises(InvalidModelPackage, match="say network"):
        format_of(spec("weights.bin"))


def test_hardly_faster_is_not_worth_it() -> None:
    table = [Tried(f"e{n}", "fp32", True, "", seconds=s) for n, s in enumerate([1.0, 0.97, 0.94, 0.93])]
    assert choose(table) == table[2]


def test_the_document_holds_the_whole_table() -> None:
    tuning = Tuning((Tried("torch", "fp32", True, "so"),), "here", datetime(2026, 1, 1, tzinfo=UTC), 3)
    assert tuning_document(tuning)["candidates"][0]["words"] == "so"
    assert Candidate("a", "b") == ("a", "b")


class ClassEngine(Engine):
    """As Engine; a probability is off by what is said, in thousandths."""

    @contextlib.contextmanager
    def ask(self, request: InferenceRequest) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        with super().ask(request):
            way = self._way_of(request.model)
            assert way is not None
            off = way[1] / 1000
            yield {"SCORES": np.array([[0.9 - off, 0.1 + off, 0.0], [0.2, 0.8, 0.0]], dtype=np.float32)}


def test_a_classifier_is_judged_by_its_probabilities() -> None:
    clock, card = FakeClock(), parse_model_card(document("regions"))
    card = replace(card, network=replace(card.network, file="model.onnx"))
    ways = {
        "onnxruntime fp32": (4.0, 0),
        "openvino fp32": (3.0, 1),
        "openvino bf16": (2.0, 9),
        "openvino int8": (1.0, 20),
    }
    stage = OptimiseStage(ClassEngine(clock, ways), clock, 60.0, has_gpu=False, machine="a machine")
    found = stage.optimise(ModelVersion(1, "m", "1", "ab", Path(), card, active=True), [CASE], 3)
    assert found.chosen.candidate == ("openvino", "bf16")
    assert [one.right for one in found.candidates] == [True, True, True, False]
    assert found.candidates[3].words == "a probability differs by 0.0200 from the reference's; 0.01 is allowed"


def test_the_table_names_what_it_was_judged_by() -> None:
    mask = Tried("openvino", "fp32", right=True, words="", seconds=1.0, dice=0.9995)
    scores = Tried("openvino", "fp32", right=True, words="", seconds=1.0, difference=0.0021)
    assert (mask.figure, scores.figure) == (("Dice", "0.9995"), ("largest difference", "0.0021"))
    broken = Tried("openvino", "int8", right=False, words="no memory")
    rows = [_row(one, scores.figure[0]) for one in (scores, broken)]
    assert [row["largest difference"] for row in rows] == ["0.0021", ""]
    tuning = {"chosen": {"engine": "openvino", "precision": "fp32"}, "candidates": [asdict(scores), asdict(broken)]}
    card = parse_model_card(document("regions"))
    text = card_markdown(card, [], tuning, [])
    assert "largest difference" in text
    assert "Dice" not in text


@pytest.mark.parametrize(
    ("form", "words"),
    [("nnunet", "is an nnU-Net model"), ("monai-bundle", "is a MONAI bundle"), ("triton", "is run by Triton alone")],
)
def test_what_brings_its_own_way_of_running_is_called_by_its_name(form: str, words: str) -> None:
    assert own_way(NetworkSpec("a", "auto", "fp32", NO_WINDOW, 0.25, "constant", form)).startswith(words)
