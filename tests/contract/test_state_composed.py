"""What every State does for models that come after others, tried on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.domain.job import Priority
from dicomnode.errors import IllegalTransition
from dicomnode.ports import NewJob, State
from tests.adapters.state_material import complete
from tests.composed_cards import GATE, card
from tests.contract.state_bench import bench, state
from tests.made_results import CARD

__all__ = ["bench", "state"]


def test_a_job_keeps_what_runs_before_it_and_that_stays_in_use(state: State) -> None:
    first = state.add_model(CARD, "1" * 64, Path("/m/1"))
    second = state.add_model(card(GATE), "2" * 64, Path("/m/2"))
    rule = state.add_rule("nodules", {"name": "nodules"})
    job = NewJob(rule, second, Priority.ROUTINE, (), before={"torso-ct": first})
    (job_id,) = state.record_routing(complete(state), [job], "so", {})
    with pytest.raises(IllegalTransition, match=r"nodules 1.0.0, which is active, could not run"):
        state.deactivate_model("torso-ct")
    assert state.active_model("torso-ct") == first, "nothing was changed"
    state.deactivate_model("nodules")
    state.deactivate_model("torso-ct")
    assert [m.name for m in state.models_in_use()] == ["torso-ct", "nodules"]
    work = state.start_job(job_id)
    assert work is not None
    assert {called: m.digest for called, m in work.before.items()} == {"torso-ct": "1" * 64}
