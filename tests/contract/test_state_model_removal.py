"""A version leaves the registry; what jobs gave with it, and who made it active, stays. On both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.errors import IllegalTransition, NotFound
from dicomnode.ports import ModelVersion, State
from tests.adapters.state_material import finished, model_card, routed
from tests.contract.state_bench import bench, state

__all__ = ["bench", "state"]


def version(state: State, number: str, activate: bool = False) -> ModelVersion:
    return state.add_model(model_card(version=number), number * 64, Path(f"/m/{number}"), activate=activate)


def test_a_version_that_nobody_needs_goes(state: State) -> None:
    version(state, "1", activate=True)
    version(state, "2", activate=True)
    assert state.remove_model("torso-ct", "1", dry_run=True).version == "1"
    assert len(state.models()) == 2
    gone = state.remove_model("torso-ct", "1", author="anna", reason="recalled")
    assert gone.path == Path("/m/1")
    assert [m.version for m in state.models()] == ["2"]
    told = [(c.kind, c.version, c.author) for c in state.model_changes("torso-ct")]
    assert told == [("activated", "1", ""), ("activated", "2", ""), ("removed", "1", "anna")]
    with pytest.raises(NotFound):
        state.remove_model("torso-ct", "1")
    with pytest.raises(NotFound):
        state.rollback_model("torso-ct")


def test_it_is_refused_while_it_is_used(state: State) -> None:
    version(state, "1", activate=True)
    version(state, "2")
    version(state, "3")
    state.shadow_model("torso-ct", "2")
    state.add_rule("third", {"name": "third", "when": {"Modality": "CT"}, "model": "torso-ct", "version": "3"})
    for number, words in (("1", "is active"), ("2", "--off first"), ("3", "a rule in force asks for")):
        for files_only in (False, True):
            with pytest.raises(IllegalTransition, match=words):
                state.remove_model("torso-ct", number, files_only=files_only)
    assert len(state.models()) == 3


def test_of_what_jobs_ran_only_the_files_go(state: State) -> None:
    job = routed(state)
    (used,) = state.models()
    state.deactivate_model(used.name)
    with pytest.raises(IllegalTransition, match=f"jobs of torso-ct {used.version} wait or run: {job}"):
        state.remove_model(used.name, used.version, files_only=True)
    assert state.start_job(job) is not None
    state.finish_job(job, finished())
    with pytest.raises(IllegalTransition, match=r"1 job with 2 results ran torso-ct .* --files-only"):
        state.remove_model(used.name, used.version)
    assert state.remove_model(used.name, used.version, files_only=True).path == used.path
    (kept,) = state.models()
    assert kept.state == "removed"
    assert state.job(job).model == f"torso-ct {used.version}"
    with pytest.raises(IllegalTransition, match="were removed; dicomnode models add its package again"):
        state.activate_model(used.name, used.version)
    state.add_model(used.card, used.digest, Path("/m/again"))
    assert state.models()[0].state == "active"
