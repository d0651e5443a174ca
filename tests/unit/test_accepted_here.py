"""Each machine serves what it was accepted on, and nothing else: golden cases run before the first job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dicomnode.adapters.queue.liveness import this_executor
from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, CaseOutcome
from dicomnode.errors import EngineUnavailable, InferenceError, ModelFailed
from dicomnode.ports import Admitted, Executor, JobFailed, JobWork, ModelVersion
from dicomnode.stages.accepted_here import AGAIN_S, PATIENCE_S, AcceptedHere, OnlyAccepted
from dicomnode.stages.admission import InTurn
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import routed

AT = datetime(2026, 3, 1, tzinfo=UTC)
PASSED = (CaseOutcome("trunk", True, (), "as expected"),)
FAILED = (CaseOutcome("trunk", False, (), "Dice of Lungs is 0.5"),)


class Engine(FakeEngine):
    """`on`: the engine's name; `error`: what it says in its place."""

    on = "thresholds"
    error: InferenceError | None = None

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        if self.error is not None:
            raise self.error
        return {**super().describe(model), "engine": self.on}


class Passing(FakeClock):
    """Time goes on whenever somebody looks."""

    def monotonic(self) -> float:
        self.advance(0.2)
        return super().monotonic()


@dataclass
class Machine:
    """A host with its engine, on which golden cases pass, or do not."""

    state: FakeState
    host: str
    passes: bool = True
    engine: Engine = field(default_factory=Engine)
    tried: int = 0

    def __post_init__(self) -> None:
        self.here = self.worker()

    def worker(self) -> AcceptedHere:
        """A process of it that has just begun."""
        return AcceptedHere(self.state, self.engine, self.accept, self.host, Passing())

    def accept(self, model: ModelVersion, before: Mapping[str, ModelVersion]) -> Acceptance:
        self.tried += 1
        outcome = AcceptanceOutcome.PASSED if self.passes else AcceptanceOutcome.FAILED
        cases = PASSED if self.passes else FAILED
        return Acceptance(outcome, AT, cases, self.engine.on, "f32", "CPU", host=self.host)

    @property
    def model(self) -> ModelVersion:
        found = self.state.model_version("torso-ct", "1.0.0")
        assert found is not None
        return found

    def served(self) -> bool:
        return self.here.tried(self.model, {}).allows_activation

    @property
    def known(self) -> dict[str, bool]:
        return {one.host: one.allows_activation for one in self.model.acceptances}


@pytest.fixture
def state() -> FakeState:
    return FakeState()


@pytest.fixture
def work(state: FakeState) -> JobWork:
    found = state.waiting_job(routed(state), 1)
    assert found is not None
    return found


@contextmanager
def asked(machine: Machine, work: JobWork, hold: Any = lambda words: True) -> Iterator[Admitted]:
    with OnlyAccepted(machine.here, InTurn(1)).admitted(work, hold) as admitted:
        yield admitted


def beats(state: FakeState, host: str) -> None:
    state.beat(replace(this_executor(), id=host, host=f"{host}/boot/4026"))


@pytest.mark.usefixtures("work")
def test_each_machine_tries_a_version_once_and_both_are_kept(state: FakeState) -> None:
    a, b = Machine(state, "a"), Machine(state, "b", passes=False)
    assert (a.served(), b.served()) == (True, False)
    assert (a.served(), b.served()) == (True, False)
    assert (a.tried, b.tried) == (1, 1)
    assert a.known == {"a": True, "b": False}
    assert a.model.state == "active"  # what fails at b runs at a


@pytest.mark.usefixtures("work")
def test_another_engine_is_another_try_and_another_server_is_none(state: FakeState) -> None:
    a = Machine(state, "a")
    a.served()
    a.engine.on = "OpenVINO"  # as after `models optimise`, or an upgrade of it
    assert (a.served(), a.tried) == (True, 2)
    assert (a.served(), a.tried) == (True, 2)
    assert [one.engine for one in a.model.acceptances] == ["OpenVINO"]


def test_other_models_before_a_composed_one_are_another_try(state: FakeState, work: JobWork) -> None:
    a = Machine(state, "a")
    state.record_acceptance("torso-ct", "1.0.0", a.accept(work.model, {}))
    a.here.tried(a.model, {"body": work.model})
    assert a.tried == 2


@pytest.mark.usefixtures("work")
def test_a_mended_machine_is_asked_again_by_its_next_worker(state: FakeState) -> None:
    a = Machine(state, "a", passes=False)
    assert not a.served()
    a.passes = True
    assert not a.served()  # this process has seen it fail
    a.here = a.worker()
    assert a.served()
    assert (a.known, a.tried) == ({"a": True}, 2)


@pytest.mark.usefixtures("work")
def test_of_several_workers_of_a_host_one_tries_it(state: FakeState) -> None:
    a = Machine(state, "a")
    other = a.worker()

    @contextmanager
    def while_the_other_tries(model: ModelVersion) -> Iterator[None]:
        other.tried(a.model, {})
        yield

    a.here.alone = while_the_other_tries
    assert (a.served(), a.tried) == (True, 1)


def test_what_has_no_golden_cases_is_served(state: FakeState, work: JobWork) -> None:
    state.record_acceptance("torso-ct", "1.0.0", Acceptance(AcceptanceOutcome.NONE, AT, host="a"))
    b = Machine(state, "b")
    assert (b.served(), b.tried) == (True, 0)


def test_a_job_waits_for_the_golden_cases_and_then_begins(state: FakeState, work: JobWork) -> None:
    a, said = Machine(state, "a"), list[str]()
    with asked(a, work, lambda words: not said.append(words)) as admitted:
        assert admitted == Admitted(True)
    assert said == ["waits: the golden cases of torso-ct 1.0.0 are run at a first"]
    with asked(a, replace(work, model=a.model), said.append) as admitted:
        assert admitted.may_begin
    assert len(said) == 1


def test_a_cancelled_job_has_nothing_tried_for_it(state: FakeState, work: JobWork) -> None:
    a = Machine(state, "a")
    with asked(a, work, lambda words: False) as admitted:
        assert admitted == Admitted(False)
    assert a.tried == 0


def test_where_it_fails_its_jobs_fail_in_words(state: FakeState, work: JobWork) -> None:
    a = Machine(state, "a", passes=False)
    beats(state, "a")
    with asked(a, work) as admitted:
        outcome = admitted.outcome
    assert isinstance(outcome, JobFailed)
    assert (admitted.may_begin, outcome.code, outcome.retryable) == (False, "not-accepted", False)
    assert outcome.reason.startswith("torso-ct 1.0.0 is not accepted on thresholds f32, CPU, at a: case trunk:")
    assert "and no other worker serves it: mend the machine and start its worker again" in outcome.reason


def test_where_it_fails_its_jobs_wait_for_a_machine_that_may_serve_it(state: FakeState, work: JobWork) -> None:
    a, b = Machine(state, "a", passes=False), Machine(state, "b", passes=False)
    for host in ("a", "b"):
        beats(state, host)
    with asked(a, work) as admitted:  # b has not said no yet
        assert (admitted.may_begin, admitted.outcome) == (False, None)
        assert admitted.elsewhere.startswith("waits for b: torso-ct 1.0.0 is not accepted on thresholds f32")
    b.served()
    with asked(a, replace(work, model=b.model)) as admitted:
        assert isinstance(admitted.outcome, JobFailed)


def test_a_worker_that_is_gone_is_not_waited_for(state: FakeState, work: JobWork) -> None:
    a = Machine(state, "a", passes=False)
    beats(state, "b")
    state.clock.advance(60)
    with asked(a, work) as admitted:
        assert isinstance(admitted.outcome, JobFailed)


@pytest.mark.parametrize(("error", "retryable"), [(EngineUnavailable("down"), True), (ModelFailed("no file"), False)])
def test_what_cannot_be_loaded_is_not_taken_for_wrong(
    state: FakeState, work: JobWork, error: InferenceError, retryable: bool
) -> None:
    a = Machine(state, "a")
    a.engine.error = error
    with asked(a, work) as admitted:
        outcome = admitted.outcome
    assert isinstance(outcome, JobFailed)
    assert (outcome.code, outcome.retryable, a.tried) == (error.code, retryable, 0)
    assert outcome.reason == f"the golden cases of torso-ct 1.0.0 could not be run at a: {error}"
    a.engine.error = None
    a.here.try_one(work.model)
    assert a.known == {"a": True}


def test_what_hangs_is_not_served_and_says_so_until_it_is_tried_again(state: FakeState, work: JobWork) -> None:
    a = Machine(state, "a")
    a.here.hangs(a.model, "it was not ready after 300 s")
    assert a.here.refuses(a.model) == "it was not ready after 300 s"
    with asked(a, replace(work, model=a.model)) as admitted:
        assert isinstance(admitted.outcome, JobFailed)
    assert admitted.outcome.reason.startswith(
        "torso-ct 1.0.0 is not accepted here, at a: it was not ready after 300 s, "
    )
    assert (admitted.outcome.code, a.tried) == ("not-accepted", 0)
    assert a.worker().refuses(a.model) == ""  # a process that begins tries it
    state.record_acceptance("torso-ct", "1.0.0", Acceptance(AcceptanceOutcome.NONE, AT, host="a"))
    assert a.here.refuses(a.model) == ""
    with asked(a, replace(work, model=a.model)) as admitted:
        assert admitted == Admitted(True)


def test_a_job_waits_while_its_model_is_loaded(state: FakeState, work: JobWork) -> None:
    a, said = Machine(state, "a"), list[str]()
    state.record_acceptance("torso-ct", "1.0.0", Acceptance(AcceptanceOutcome.NONE, AT, host="a"))

    def hold(words: str) -> bool:
        said.append(words)
        a.here.ends(a.model)
        return True

    a.here.begins(a.model)
    with asked(a, replace(work, model=a.model), hold) as admitted:
        assert admitted == Admitted(True)
    assert said == ["waits: torso-ct 1.0.0 is being loaded at a"]
    a.here.begins(a.model)
    with asked(a, replace(work, model=a.model), lambda words: False) as admitted:
        assert admitted == Admitted(False)  # it was cancelled meanwhile


def test_a_job_whose_model_takes_long_to_load_leaves_its_place_to_others(state: FakeState, work: JobWork) -> None:
    a = Machine(state, "a")
    state.record_acceptance("torso-ct", "1.0.0", Acceptance(AcceptanceOutcome.NONE, AT, host="a"))
    a.here.begins(a.model)
    assert isinstance(a.here.clock, Passing)
    a.here.clock.advance(PATIENCE_S)
    with asked(a, replace(work, model=a.model)) as admitted:
        words = "waits: torso-ct 1.0.0 is being loaded at a"
        assert admitted == Admitted(False, elsewhere=words, again_s=AGAIN_S)
    a.here.ends(a.model)
    with asked(a, replace(work, model=a.model)) as admitted:
        assert admitted == Admitted(True)


def test_models_before_a_composed_one_are_to_be_accepted_too(state: FakeState, work: JobWork) -> None:
    first = state.add_model(replace(work.model.card, name="body"), "b" * 64, work.model.path)
    a = Machine(state, "a", passes=False)
    state.record_acceptance("torso-ct", "1.0.0", Acceptance(AcceptanceOutcome.NONE, AT, host="a"))
    with asked(a, replace(work, model=a.model, before={"body": first})) as admitted:
        assert isinstance(admitted.outcome, JobFailed)
        assert admitted.outcome.reason.startswith("body 1.0.0 is not accepted")


def test_the_machine_of_an_executor_is_its_hosts_name() -> None:
    assert Executor("x", "ai-1/abcd/4026", 1, 0.0).machine == "ai-1"
