"""What becomes of a version that is added: accepted or not, active or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode.domain.acceptance import (
    Acceptance,
    AcceptanceOutcome,
    CaseOutcome,
    acceptance_document,
    parse_acceptance,
)
from dicomnode.errors import EngineUnavailable, IllegalTransition, ModelFailed, NotFound
from dicomnode.ports import ModelVersion
from dicomnode.stages.registry import Registered, Registry
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import model_card

AT = datetime(2026, 3, 1, tzinfo=UTC)
CASES = {
    AcceptanceOutcome.PASSED: CaseOutcome("trunk", True, (("Dice Lungs", 1.0),), "as expected"),
    AcceptanceOutcome.FAILED: CaseOutcome("trunk", False, (("Dice Lungs", 0.5),), "Dice of Lungs is 0.5"),
}


@dataclass
class Machine:
    """Tries versions, with the outcomes that are said for them; passed for others."""

    outcomes: dict[str, AcceptanceOutcome] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)

    def accept(self, model: ModelVersion, before: Mapping[str, ModelVersion]) -> Acceptance:
        self.tried.append(model.version)
        outcome = self.outcomes.get(model.version, AcceptanceOutcome.PASSED)
        return Acceptance(outcome, AT, (CASES[outcome],) if outcome in CASES else (), "OpenVINO", "f32", "CPU")


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def state() -> FakeState:
    return FakeState()


@pytest.fixture
def registry(state: FakeState, machine: Machine) -> Registry:
    return Registry(state, machine.accept)


def add(registry: Registry, version: str, *, activate: bool | None = None) -> Registered:
    return registry.add(model_card(version=version), version * 64, Path("/m"), activate=activate, author="anna")


def test_the_first_version_of_a_name_becomes_active_and_later_ones_when_it_is_said(
    registry: Registry, state: FakeState
) -> None:
    assert "torso-ct 1 is active (111111111111); accepted: 1 golden case passed" in add(registry, "1").words
    second = add(registry, "2")
    assert not second.model.active
    assert "1 stays active; to change that: dicomnode models activate torso-ct 2" in second.words
    assert add(registry, "3", activate=True).model.active
    assert [(c.version, c.author) for c in state.model_changes("torso-ct")] == [("1", "anna"), ("3", "anna")]


def test_a_first_version_may_stay_inactive(registry: Registry) -> None:
    first = add(registry, "1", activate=False)
    assert not first.model.active
    assert "no version of it is active" in first.words


def test_after_a_deactivation_nothing_becomes_active_by_itself(registry: Registry, state: FakeState) -> None:
    add(registry, "1")
    state.deactivate_model("torso-ct")
    assert not add(registry, "2").model.active


def test_a_version_that_fails_is_registered_and_not_active(
    registry: Registry, machine: Machine, state: FakeState
) -> None:
    machine.outcomes["1"] = AcceptanceOutcome.FAILED
    first = add(registry, "1", activate=True)
    assert (first.accepted, first.model.active, first.model.state) == (False, False, "failed")
    assert (
        "not accepted on OpenVINO f32, CPU: case trunk: Dice of Lungs is 0.5; it cannot be activated" in first.words
    )
    with pytest.raises(IllegalTransition, match=r"case trunk: Dice of Lungs is 0\.5"):
        registry.activate("torso-ct", "1")
    machine.outcomes.clear()  # mended: another driver, another engine
    assert add(registry, "1", activate=True).model.active


def test_without_golden_cases_it_may_run_and_that_is_said(registry: Registry, machine: Machine) -> None:
    machine.outcomes = {"1": AcceptanceOutcome.NONE, "2": AcceptanceOutcome.NONE}
    assert "mind: the package has no golden cases" in add(registry, "1").words
    add(registry, "2")
    activated = registry.activate("torso-ct", "2", author="anna")
    assert activated.model.active
    assert "mind: the package has no golden cases" in activated.words


def test_what_was_never_tried_is_tried_before_it_runs(registry: Registry, machine: Machine, state: FakeState) -> None:
    for version in ("1", "2", "3"):
        state.add_model(model_card(version=version), version * 64, Path("/m"), activate=version == "1")
    machine.outcomes["3"] = AcceptanceOutcome.FAILED
    assert registry.shadow("torso-ct", "2").model.shadow
    assert registry.activate("torso-ct", "2").model.active
    assert machine.tried == ["2"]
    with pytest.raises(IllegalTransition):
        registry.shadow("torso-ct", "3")
    with pytest.raises(NotFound, match="there are: 1, 2, 3"):
        registry.activate("torso-ct", "4")


def test_a_machine_that_cannot_try_it_leaves_it_registered(state: FakeState) -> None:
    def away(model: ModelVersion, before: Mapping[str, ModelVersion]) -> Acceptance:
        raise EngineUnavailable("down")

    with pytest.raises(EngineUnavailable):
        add(Registry(state, away), "1")
    (model,) = state.models()
    assert (model.active, model.acceptance) == (False, None)


def test_an_active_version_that_fails_now_stays_and_the_way_back_is_said(
    registry: Registry, machine: Machine, state: FakeState
) -> None:
    add(registry, "1")
    machine.outcomes["1"] = AcceptanceOutcome.FAILED
    again = add(registry, "1")
    assert again.model.active
    assert "it is active, and not served here: dicomnode models rollback torso-ct" in again.words
    assert not again.accepted


def test_a_version_is_loaded_before_it_becomes_active(state: FakeState, machine: Machine) -> None:
    warmed: list[tuple[str, str]] = []  # version, and what was active meanwhile

    def warm(model: ModelVersion) -> None:
        active = state.active_model("torso-ct")
        warmed.append((model.version, active.version if active else ""))

    registry = Registry(state, machine.accept, warm)
    add(registry, "1")
    add(registry, "2")
    registry.activate("torso-ct", "2")
    assert registry.rollback("torso-ct").model.version == "1"
    assert warmed == [("1", ""), ("2", "1"), ("1", "2")]
    with pytest.raises(IllegalTransition, match="no version of torso-ct was active before"):
        registry.rollback("torso-ct")


def test_a_version_that_cannot_be_loaded_does_not_become_active(state: FakeState, machine: Machine) -> None:
    def warm(model: ModelVersion) -> None:
        if model.version == "2":
            raise ModelFailed("no such network")

    registry = Registry(state, machine.accept, warm)
    add(registry, "1")
    with pytest.raises(ModelFailed, match=r"^no such network\. torso-ct 2 is registered and not active: "):
        add(registry, "2", activate=True)
    active = state.active_model("torso-ct")
    assert active is not None
    assert active.version == "1"


def test_what_was_accepted_on_another_machine_is_tried_on_this_one(state: FakeState, machine: Machine) -> None:
    def on(host: str) -> Registry:
        return Registry(
            state, lambda model, before: replace(machine.accept(model, before), host=host, cpu="a CPU"), host=host
        )

    add(on("a"), "1")
    add(on("a"), "2")
    assert machine.tried == ["1", "2"]
    on("a").activate("torso-ct", "2")
    assert machine.tried == ["1", "2"]
    machine.outcomes["1"] = AcceptanceOutcome.FAILED
    with pytest.raises(IllegalTransition, match=r"not accepted on OpenVINO f32, CPU, at b \(a CPU\)"):
        on("b").activate("torso-ct", "1")
    assert machine.tried == ["1", "2", "1"]
    model = state.model_version("torso-ct", "1")
    assert model is not None
    assert {one.host: one.allows_activation for one in model.acceptances} == {"a": True, "b": False}
    assert on("a").activate("torso-ct", "1").model.active  # what fails at b says nothing of a
    assert machine.tried == ["1", "2", "1"]


def test_without_golden_cases_every_machine_is_alike() -> None:
    none = Acceptance(AcceptanceOutcome.NONE, AT, host="a")
    passed = Acceptance(AcceptanceOutcome.PASSED, AT, host="a")
    assert [none.counts_on("b"), passed.counts_on("b"), passed.counts_on("a")] == [True, False, True]
    older = {k: v for k, v in acceptance_document(passed).items() if k not in ("host", "cpu")}
    assert parse_acceptance(older).machine == ""
    assert parse_acceptance(acceptance_document(passed)) == passed
