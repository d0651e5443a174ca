"""What every State does for the registry of models, tried on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, CaseOutcome
from dicomnode.domain.completeness import Signal, Verdict
from dicomnode.domain.job import JobState, Priority
from dicomnode.domain.study import SeriesState
from dicomnode.errors import AlreadyExists, IllegalTransition, NotFound
from dicomnode.ports import NewJob, SeriesRouting, State
from tests.adapters.state_material import ARCHIVE, SERIES, STUDY, complete, finished, instance, model_card, new_job
from tests.contract.state_bench import Bench, bench, series_state, state

__all__ = ["bench", "state"]

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSED = Acceptance(
    AcceptanceOutcome.PASSED,
    AT,
    (CaseOutcome("trunk", True, (("Dice Lungs", 1.0),), "as expected"),),
    engine="OpenVINO",
    precision="f32",
    device="CPU",
    server="in-process",
    seconds=1.5,
)
FAILED = Acceptance(
    AcceptanceOutcome.FAILED,
    AT,
    (CaseOutcome("trunk", False, (("Dice Lungs", 0.2),), "Dice of Lungs is 0.2, 0.999 is needed"),),
    engine="OpenVINO",
    precision="f32",
    device="CPU",
)


def add(state: State, version: str, *, activate: bool = False) -> None:
    state.add_model(model_card(version=version), version.ljust(64, "0"), Path("/models") / version, activate=activate)


def active(state: State) -> str:
    model = state.active_model("torso-ct")
    return model.version if model else ""


def shadows(state: State) -> list[str]:
    return [m.version for m in state.models() if m.shadow]


def test_a_version_can_be_registered_without_becoming_active(state: State) -> None:
    model = state.add_model(
        model_card(version="1"), "a" * 64, Path("/m"), activate=False, author="anna", reason="on trial"
    )
    assert (model.active, model.state, model.author, model.reason) == (False, "registered", "anna", "on trial")
    assert model.created_at is not None
    assert state.active_model("torso-ct") is None
    assert state.model_changes("torso-ct") == []
    assert state.add_model(model_card(version="1"), "a" * 64, Path("/m"), activate=False) == model
    with pytest.raises(AlreadyExists):
        state.add_model(model_card(version="1"), "b" * 64, Path("/m"), activate=False)


def test_one_version_is_active_and_the_change_is_told_with_its_author(state: State) -> None:
    for version in ("1", "2"):
        add(state, version)
        changed = state.activate_model("torso-ct", version, author="anna", reason=f"version {version} is better")
        assert (changed.version, changed.active) == (version, True)
    assert [m.version for m in state.models() if m.active] == ["2"]
    state.activate_model("torso-ct", "2")  # again changes nothing
    changes = state.model_changes("torso-ct")
    assert [(c.kind, c.version, c.author, c.reason) for c in changes] == [
        ("activated", "1", "anna", "version 1 is better"),
        ("activated", "2", "anna", "version 2 is better"),
    ]
    assert changes[0].at <= changes[1].at
    with pytest.raises(NotFound, match="there are: 1, 2"):
        state.activate_model("torso-ct", "3")
    with pytest.raises(NotFound):
        state.activate_model("other", "1")


def test_an_inactive_model_runs_nowhere_until_it_is_rolled_back(state: State) -> None:
    add(state, "1", activate=True)
    assert state.deactivate_model("torso-ct", reason="recalled").version == "1"
    assert active(state) == ""
    with pytest.raises(IllegalTransition, match="no version of torso-ct is active"):
        state.deactivate_model("torso-ct")
    assert state.rollback_model("torso-ct").version == "1"
    assert active(state) == "1"


def test_a_rollback_goes_back_version_by_version(state: State) -> None:
    for version in ("1", "2", "3"):
        add(state, version, activate=True)
    assert [state.rollback_model("torso-ct", author="ben").version for _ in range(2)] == ["2", "1"]
    with pytest.raises(IllegalTransition, match="models activate torso-ct VERSION"):
        state.rollback_model("torso-ct")
    state.activate_model("torso-ct", "3")
    assert state.rollback_model("torso-ct").version == "1"
    assert state.model_changes("torso-ct")[-1].kind == "rolled back"


def test_a_version_whose_acceptance_failed_is_never_active_or_a_shadow(state: State) -> None:
    add(state, "1", activate=True)
    add(state, "2")
    assert state.record_acceptance("torso-ct", "2", FAILED).state == "failed"
    for attempt in (
        lambda: state.activate_model("torso-ct", "2"),
        lambda: state.shadow_model("torso-ct", "2"),
        lambda: add(state, "2", activate=True),
    ):
        with pytest.raises(IllegalTransition, match=r"case trunk: Dice of Lungs is 0\.2, 0\.999 is needed"):
            attempt()
    assert (active(state), shadows(state)) == ("1", [])
    state.record_acceptance("torso-ct", "2", PASSED)
    assert state.activate_model("torso-ct", "2").acceptance == PASSED


def test_what_each_machine_said_is_kept_and_one_that_accepts_is_enough(state: State) -> None:
    add(state, "1")
    for one in (replace(FAILED, host="b"), replace(PASSED, host="a"), replace(FAILED, host="b")):
        tried = state.record_acceptance("torso-ct", "1", one)
    assert {one.host: one.allows_activation for one in tried.acceptances} == {"a": True, "b": False}
    on_b = tried.acceptance_on("b")
    assert on_b is not None
    assert (on_b.allows_activation, tried.acceptance_on("c")) == (False, None)
    assert (tried.state, tried.acceptance) == ("registered", replace(PASSED, host="a"))
    assert state.activate_model("torso-ct", "1").active
    state.deactivate_model("torso-ct")
    state.remove_model("torso-ct", "1")
    assert state.models() == []


def test_an_outcome_of_a_machine_that_nobody_noted_gives_way_to_the_next(state: State) -> None:
    add(state, "1")
    state.record_acceptance("torso-ct", "1", FAILED)
    tried = state.record_acceptance("torso-ct", "1", replace(PASSED, host="a"))
    assert [one.host for one in tried.acceptances] == ["a"]


def test_the_oldest_machines_are_forgotten(state: State) -> None:
    """A container has another name each time it is made."""
    add(state, "1")
    for number in range(53):
        one = replace(PASSED, host=f"c{number}", at=PASSED.at + timedelta(minutes=number))
        state.record_acceptance("torso-ct", "1", one)
    (model,) = state.models()
    assert [one.host for one in model.acceptances] == [f"c{number}" for number in range(3, 53)]


def test_what_tuning_found_is_kept(state: State) -> None:
    add(state, "1")
    (before,) = state.models()
    assert (before.tuning, before.chosen_engine, before.chosen_precision) == (None, "", "")
    table = {"chosen": {"engine": "openvino", "precision": "int8"}, "candidates": [{"engine": "torch", "ms": 3.5}]}
    tuned = state.record_tuning("torso-ct", "1", table)
    assert (tuned.tuning, tuned.chosen_engine, tuned.chosen_precision) == (table, "openvino", "int8")
    assert state.model_version("torso-ct", "1") == tuned
    with pytest.raises(NotFound):
        state.record_tuning("torso-ct", "9", table)


def test_a_model_has_one_shadow_and_the_active_version_is_none(state: State) -> None:
    for version in ("1", "2", "3"):
        add(state, version, activate=version == "1")
    with pytest.raises(IllegalTransition, match="is active"):
        state.shadow_model("torso-ct", "1")
    with pytest.raises(IllegalTransition, match="no version of torso-ct is a shadow"):
        state.shadow_model("torso-ct")
    assert state.shadow_model("torso-ct", "2").shadow
    state.shadow_model("torso-ct", "2")  # again changes nothing
    state.shadow_model("torso-ct", "3")
    assert shadows(state) == ["3"]
    assert state.shadow_model("torso-ct").version == "3"
    assert shadows(state) == []
    kinds = [(c.kind, c.version) for c in state.model_changes("torso-ct")[1:]]
    assert kinds == [("shadowed", "2"), ("unshadowed", "2"), ("shadowed", "3"), ("unshadowed", "3")]


def test_a_shadow_that_is_activated_is_no_shadow_any_more(state: State) -> None:
    add(state, "1", activate=True)
    add(state, "2")
    state.shadow_model("torso-ct", "2")
    assert state.activate_model("torso-ct", "2").shadow is False
    assert (active(state), shadows(state)) == ("2", [])


def test_models_in_use_are_active_shadows_or_awaited_by_a_job(state: State) -> None:
    series = complete(state)
    (job_id,) = state.record_routing(series, [new_job(state, version="1")], "so", {})
    for version in ("2", "3", "4"):
        add(state, version)
    state.activate_model("torso-ct", "2")
    state.shadow_model("torso-ct", "3")
    assert [m.version for m in state.models_in_use()] == ["1", "2", "3"]
    state.start_job(job_id)
    assert [m.version for m in state.models_in_use()] == ["1", "2", "3"]
    state.finish_job(job_id, finished())
    assert [m.version for m in state.models_in_use()] == ["2", "3"]
    state.add_rule("pinned", {"model": "torso-ct", "version": "4"})
    assert [m.version for m in state.models_in_use()] == ["2", "3", "4"]
    state.add_rule("pinned", {"model": "torso-ct", "version": "4", "state": "disabled"})
    assert [m.version for m in state.models_in_use()] == ["2", "3"]


# ---------------------------------------------------------------------------------------------- jobs of shadows


def both(state: State) -> tuple[NewJob, NewJob]:
    """A job of the active version 1, and one of the shadow 2, for the same rule."""
    real = new_job(state, version="1")
    add(state, "2")
    shadow = state.shadow_model("torso-ct", "2")
    return real, NewJob(real.rule, shadow, Priority.LOW, (), shadow=True)


def test_a_shadow_job_runs_and_its_results_are_kept_and_sent_nowhere(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    real_id, shadow_id = state.record_routing(complete(state), both(state), "so", {})
    view = state.job(shadow_id)
    assert (view.shadow, view.priority, state.job(real_id).shadow) == (True, Priority.LOW, False)
    for job_id, tag in ((real_id, "1"), (shadow_id, "2")):
        assert state.start_job(job_id) is not None
        state.finish_job(job_id, finished(tag))
    assert {j.state for j in state.jobs()} == {JobState.SUCCEEDED}
    assert len(bench.queue.enqueued_deliveries) == 2
    assert state.job(shadow_id).deliveries == ()
    assert len(state.job(shadow_id).results) == 2
    assert state.job(real_id).superseded == {}
    assert series_state(state) is SeriesState.ROUTED


def test_a_real_job_takes_no_notice_of_what_a_shadow_gave(state: State) -> None:
    real, shadow = both(state)
    _, shadow_id = state.record_routing(complete(state), [real, shadow], "so", {})
    state.start_job(shadow_id)
    state.finish_job(shadow_id, finished("2"))
    (real_id,) = [j.job_id for j in state.jobs() if not j.shadow]
    work = state.start_job(real_id)
    assert work is not None
    assert work.predecessors == ()
    state.finish_job(real_id, finished("1"))
    assert [j.superseded for j in state.jobs()] == [{}, {}]


def test_what_a_shadow_gave_is_a_result_like_others_once_its_version_is_active(bench: Bench) -> None:
    """The version gives the same objects again, under the same UIDs: now they are sent."""
    state = bench.state
    state.add_destination(ARCHIVE)
    real_id, shadow_id = state.record_routing(complete(state), both(state), "so", {})
    for job_id, tag in ((real_id, "1"), (shadow_id, "2")):
        state.start_job(job_id)
        state.finish_job(job_id, finished(tag))
    model = state.activate_model("torso-ct", "2")
    state.record_instances([instance(9)])
    again = state.complete_series(SERIES, 0)
    assert again is not None
    (new_id,) = state.record_routing(
        again, [NewJob(state.rules()[0], model, Priority.ROUTINE, ("archive",))], "again", {}
    )
    assert state.start_job(new_id) is not None
    state.finish_job(new_id, finished("2"))
    assert [d.destination for d in state.job(new_id).deliveries] == ["archive", "archive"]
    assert set(state.job(real_id).superseded.values()) == {new_id}
    assert state.job(shadow_id).results == ()


def test_a_shadow_job_is_no_stand_in_for_the_real_one_of_the_same_version(state: State) -> None:
    """The shadow became active between the routing of the series and that of its study."""
    real, shadow = both(state)
    series = complete(state)
    state.record_routing(series, [real, shadow], "so", {})
    model = state.activate_model("torso-ct", "2")
    wanted = NewJob(real.rule, model, Priority.ROUTINE, ("archive",))
    generation = state.complete_study(STUDY, Verdict(Signal.QUIET, "quiet", 3))
    assert generation is not None
    routing = SeriesRouting(series, (wanted,), "so", settled=frozenset({"torso"}))
    (made,) = state.record_study_routing(STUDY, generation, [routing])
    assert state.job(made).shadow is False
    active_jobs = [j.job_id for j in state.jobs() if j.state is JobState.QUEUED]
    assert active_jobs == [made]
