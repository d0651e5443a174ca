"""Composed models in the registry: what they need is there before them, and stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, CaseOutcome
from dicomnode.domain.job import Priority
from dicomnode.domain.model_card import ModelCard, card_document, parse_model_card
from dicomnode.domain.model_list import Known, Wanted, parse_model_list, steps
from dicomnode.errors import IllegalTransition, InvalidModelPackage
from dicomnode.ports import ModelVersion, NewJob
from dicomnode.stages.accept import AcceptStage
from dicomnode.stages.registry import Registered, Registry
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import complete
from tests.composed_cards import CROP, GATE, card, version
from tests.made_results import CARD
from tests.triton_models import axial

AT = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Machine:
    """Tries versions; those of a model fail after a version that is named in `bad`."""

    bad: set[tuple[str, str]] = field(default_factory=set)
    tried: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def accept(self, model: ModelVersion, before: Mapping[str, ModelVersion]) -> Acceptance:
        self.tried.append((model.name, tuple(f"{called}={m.version}" for called, m in before.items())))
        wrong = any((model.name, first.version) in self.bad for first in before.values())
        outcome = AcceptanceOutcome.FAILED if wrong else AcceptanceOutcome.PASSED
        return Acceptance(outcome, AT, (CaseOutcome("trunk", not wrong, (), "as it is"),), "OpenVINO", "f32", "CPU")


class Bench:
    def __init__(self) -> None:
        self.state, self.machine, self.warmed = FakeState(), Machine(), list[str]()
        self.registry = Registry(
            self.state, self.machine.accept, lambda m: self.warmed.append(f"{m.name} {m.version}")
        )

    def warm(self, model: ModelVersion) -> None:
        self.warmed.append(f"{model.name} {model.version}")

    def add(self, card: ModelCard, **how: Any) -> Registered:
        digest = f"{len(self.state.models()):02x}" * 32
        return self.registry.add(card, digest, Path("/m"), **how)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def torso(version: str, **more: Any) -> ModelCard:
    return parse_model_card({**card_document(CARD), "version": version, **more})


def test_it_is_added_after_what_it_needs_and_tried_through_it(bench: Bench) -> None:
    with pytest.raises(InvalidModelPackage, match=r"model.yaml.after\[0\].model: there is no model torso-ct"):
        bench.add(card(GATE))
    assert bench.state.models() == []
    bench.add(CARD)
    with pytest.raises(InvalidModelPackage, match=r"after\[0\].segments: torso-ct 1.0.0 has no segment Lung;"):
        bench.add(card({**GATE, "segments": ["Lung"]}))
    assert bench.add(card(GATE)).model.active
    assert bench.machine.tried[-1] == ("nodules", ("torso-ct=1.0.0",))
    assert bench.warmed[-2:] == ["torso-ct 1.0.0", "nodules 1.0.0"]


def test_what_it_needs_stays(bench: Bench) -> None:
    bench.add(CARD)
    bench.add(card(GATE))
    with pytest.raises(IllegalTransition, match=r"nodules 1.0.0, which is active, could not run: no version"):
        bench.state.deactivate_model("torso-ct")
    assert bench.state.active_model("torso-ct") is not None
    bench.state.deactivate_model("nodules")
    bench.state.deactivate_model("torso-ct")
    with pytest.raises(IllegalTransition, match="no version of torso-ct is active"):
        bench.state.activate_model("nodules", "1.0.0")


def test_another_first_version_must_give_the_same_segments_and_hold_the_golden_cases(bench: Bench) -> None:
    bench.add(CARD)
    bench.add(card(GATE))
    bone = card_document(CARD)["output"]["segments"][1]
    bench.add(torso("2.0.0", output={"segments": [{**bone, "number": 1}]}))
    with pytest.raises(IllegalTransition, match=r"2.0.0 has no segment Lungs"):
        bench.registry.activate("torso-ct", "2.0.0")
    bench.add(torso("3.0.0"))
    bench.machine.bad.add(("nodules", "3.0.0"))
    with pytest.raises(
        IllegalTransition, match=r"nodules 1.0.0, which is active, runs after torso-ct, and with 3.0.0"
    ):
        bench.registry.activate("torso-ct", "3.0.0")
    assert [m.version for m in bench.state.models() if m.active] == ["1.0.0", "1.0.0"]
    bench.machine.bad.clear()
    assert bench.registry.activate("torso-ct", "3.0.0").model.active
    assert bench.machine.tried[-1] == ("nodules", ("torso-ct=3.0.0",))
    bench.registry.rollback("torso-ct")
    assert bench.machine.tried[-1] == ("nodules", ("torso-ct=1.0.0",))


def test_a_shadow_needs_what_comes_before_it_too(bench: Bench) -> None:
    bench.add(CARD)
    bench.add(card(GATE, version="1.0.0"))
    bench.add(card(GATE, version="2.0.0"))
    bench.registry.shadow("nodules", "2.0.0")
    bench.state.deactivate_model("nodules")
    with pytest.raises(IllegalTransition, match=r"nodules 2.0.0, which is shadow"):
        bench.state.deactivate_model("torso-ct")


def test_a_version_that_is_named_stays_loaded_though_it_is_not_active(bench: Bench) -> None:
    bench.add(torso("1.0.0"))
    bench.add(torso("2.0.0"), activate=True)
    bench.add(card({**GATE, "model": "torso-ct@1.0.0"}))
    assert sorted(f"{m.name} {m.version}" for m in bench.state.models_in_use()) == [
        "nodules 1.0.0",
        "torso-ct 1.0.0",
        "torso-ct 2.0.0",
    ]
    bench.state.deactivate_model("nodules")
    assert [m.version for m in bench.state.models_in_use()] == ["2.0.0"]


def test_a_job_keeps_the_first_version_it_was_made_with(bench: Bench) -> None:
    bench.add(torso("1.0.0"))
    nodules = bench.add(card(GATE)).model
    rule = bench.state.add_rule("nodules", {"name": "nodules"})
    first = bench.state.active_model("torso-ct")
    assert first is not None
    made = NewJob(rule, nodules, Priority.ROUTINE, (), before={"torso-ct": first})
    (job_id,) = bench.state.record_routing(complete(bench.state), [made], "so", {})
    bench.add(torso("2.0.0"), activate=True)
    bench.state.deactivate_model("nodules")
    assert {m.version for m in bench.state.models_in_use() if m.name == "torso-ct"} == {"1.0.0", "2.0.0"}
    work = bench.state.start_job(job_id)
    assert work is not None
    assert {called: m.version for called, m in work.before.items()} == {"torso-ct": "1.0.0"}


# ------------------------------------------------------------------------------------------- models.yaml, in order


def test_a_file_may_name_them_in_any_order() -> None:
    entries = parse_model_list({"models": [{"package": p, "active": True} for p in ("c", "b", "a")]}).entries
    wanted = [
        Wanted(entries[0], "c", "1", "3" * 64, ("b",)),
        Wanted(entries[1], "b", "1", "2" * 64, ("a",)),
        Wanted(entries[2], "a", "1", "1" * 64),
    ]
    assert [s.words for s in steps(wanted, [], prune=False)] == [
        "add a 1", "activate a 1", "add b 1", "activate b 1", "add c 1", "activate c 1",
    ]  # fmt: skip
    known = [Known(w.name, w.version, w.digest, active=True, after=w.after) for w in wanted]
    assert [s.words for s in steps([], known, prune=True)] == ["deactivate c 1", "deactivate b 1", "deactivate a 1"]


# ------------------------------------------------------------------------------------------------- golden cases


def package(folder: Path, model: ModelCard, expected: np.ndarray[Any, Any]) -> ModelVersion:
    """One golden case: bone in a corner of the lung."""
    (folder / "golden").mkdir(parents=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(dict(card_document(model))))
    case = {"name": "corner", "input": "a.npz", "expected": "b.npz"}
    (folder / "golden/cases.yaml").write_text(yaml.safe_dump({"cases": [case]}))
    np.savez(folder / "golden/a.npz", volume=_volume(), affine=axial(_volume().shape, (2.0, 1.0, 1.0)).affine)
    np.savez(folder / "golden/b.npz", labels=expected)
    return version(model, 2, path=folder)


def _volume() -> np.ndarray[tuple[int, int, int], np.dtype[np.int16]]:
    values = np.full((4, 8, 10), -700, dtype=np.int16)
    values[1:3, 1:4, 2:5] = -500
    return values


def _labels() -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return np.where(_volume() > -600, 2, 1).astype(np.uint8)


def test_golden_cases_run_through_what_comes_first(tmp_path: Path) -> None:
    from dicomnode.adapters.golden_cases import read_golden_cases

    inside = np.zeros_like(_labels())
    inside[1:3, 1:4, 2:5] = 2
    closed = {**GATE, "minimum_volume_ml": 9999}
    for number, (steps_before, expected) in enumerate(
        [((CROP,), _grown()), (({**CROP, "margin_mm": 0.0},), inside), ((closed,), np.zeros_like(_labels()))]
    ):
        model = package(tmp_path / str(number), card(*steps_before), expected)
        engine = FakeEngine((-800.0, -600.0))
        stage = AcceptStage(engine, FakeClock(), 60.0, {"torso-ct": version(CARD, 1)})
        outcome = stage.accept(model, read_golden_cases(model.path, model.card))
        assert outcome.outcome is AcceptanceOutcome.PASSED, outcome.cases
        assert engine.runs[0] == "torso-ct"
        alone = AcceptStage(FakeEngine((-800.0, -600.0)), FakeClock(), 60.0)
        assert alone.accept(model, read_golden_cases(model.path, model.card)).outcome is AcceptanceOutcome.FAILED


def _grown() -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """1 mm on every side: a slice of 2 mm, and a voxel of 1 mm."""
    found = np.zeros_like(_labels())
    found[0:4, 0:5, 1:6] = _labels()[0:4, 0:5, 1:6]
    return found
