"""rules replay: a draft beside the rule in force, over what was received, as routing would have decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.domain.routing import Asked, OutcomeKind, decide_study
from dicomnode.domain.rule_needs import needs_of
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import FACTS, Rule, RuleState
from dicomnode.domain.study import Evidence, SeriesState
from dicomnode.ports import PastSeries, PastStudy
from dicomnode.stages.replay import Change, Question, Replay, Row, Tally, question
from tests.unit.evidence_material import evidence
from tests.unit.rule_strategies import headers, rules
from tests.unit.test_cli_state import Screen

LONG_AGO = "5000w"  # the fake's clock stands still in the past
DRAFT = "name: torso\nmodel: torso-ct\nwhen: {SeriesDescription: {contains: chest}}\npriority: high\n"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------ material


def rule(name: str = "torso", **more: Any) -> Rule:
    return parse_rule({"name": name, "when": {"Modality": "CT"}, "model": "m"} | more)


def rule_without_a_model(name: str, **more: Any) -> Rule:
    return parse_rule({"name": name, "stop": True} | more)


def asked(rule: Rule, others: Sequence[Rule] = ()) -> Question:
    return question(rule, [Asked(other.name, 1, other) for other in others])


def past_series(found: Evidence | None, uid: str = "", state: SeriesState = SeriesState.ROUTED) -> PastSeries:
    return PastSeries(found.series_instance_uid if found else uid, "a series", "CT", state, NOW, found)


def past_study(*series: PastSeries, uid: str = "1") -> PastStudy:
    return PastStudy(uid, f"A-{uid}", NOW, series)


def no_priors(study: str) -> list[list[Evidence]]:
    return []


def tally(replay: Replay, past: Sequence[PastStudy], priors: Any = no_priors, most: int = 100) -> Tally:
    *_, last = replay.tally(past, priors, most)
    return last


def changes(replay: Replay, study: PastStudy, priors: Any = no_priors) -> dict[str, Change]:
    found = tally(replay, [study], priors).rows
    return {row.series.series_instance_uid: change for change, rows in found.items() for row in rows}


THICK = evidence("1.1", Modality="CT", SeriesNumber=1, SliceThickness=5.0, ConvolutionKernel="Br40")
THIN = evidence("1.2", Modality="CT", SeriesNumber=2, SliceThickness=1.0, ConvolutionKernel="Bl57")
PET = evidence("1.3", Modality="PT", SeriesNumber=3)
OTHER_PET = evidence("1.4", Modality="PT", SeriesNumber=4)
REPORT = evidence("1.5", Modality="SR", no_image="it is SR")
STUDY = past_study(*map(past_series, (THICK, THIN, PET, OTHER_PET, REPORT)))


# ------------------------------------------------------------------------------------------ what is compared


def test_newly_taken_and_no_longer_taken() -> None:
    thin = asked(rule(when={"SliceThickness": {"at_most": 3}}))
    pet = asked(rule(when={"Modality": "PT"}))
    assert changes(Replay(thin, pet), STUDY) == {
        "1.1": Change.NEITHER,
        "1.2": Change.GONE,
        "1.3": Change.NEW,
        "1.4": Change.NEW,
        "1.5": Change.NO_IMAGE,
    }
    assert changes(Replay(None, pet), STUDY)["1.3"] is Change.NEW


def test_another_series_of_the_study_is_chosen() -> None:
    thinnest, kernel = asked(rule(choose=["thinnest_slices"])), asked(rule(choose=[{"kernel": ["Br40"]}]))
    replay = Replay(thinnest, kernel)
    found = changes(replay, STUDY)
    assert (found["1.1"], found["1.2"], found["1.3"]) == (Change.CHOSEN, Change.CHOSEN, Change.NEITHER)
    row = Row(Change.CHOSEN, STUDY, STUDY.series[1])
    assert "preferred kernel, Br40 against Bl57" in replay.reason(row, no_priors)


def test_a_choice_where_every_series_was_taken_before() -> None:
    found = changes(Replay(asked(rule()), asked(rule(choose=["thinnest_slices"]))), STUDY)
    assert (found["1.1"], found["1.2"]) == (Change.CHOSEN, Change.BOTH)


def test_what_the_study_has() -> None:
    with_pet, without = rule(study={"has": [{"Modality": "PT"}]}), rule(study={"has_not": [{"Modality": "PT"}]})
    replay = Replay(asked(with_pet), asked(without))
    assert changes(replay, STUDY)["1.1"] is Change.GONE
    row = Row(Change.GONE, STUDY, STUDY.series[0])
    assert replay.reason(row, no_priors) == "the study has PT series 3, which it must not: Modality is 'PT'"


def test_another_series_for_a_role() -> None:
    one = rule(roles={"pet": {"when": {"Modality": "PT"}}})
    other = rule(roles={"pet": {"when": {"SeriesNumber": 4}}})
    assert changes(Replay(asked(one), asked(other)), STUDY)["1.1"] is Change.INPUTS
    assert changes(Replay(asked(one), asked(one)), STUDY)["1.1"] is Change.BOTH


def test_roles_from_earlier_studies() -> None:
    follow_up = rule(roles={"prior": {"when": {"Modality": "CT"}, "from": "prior"}})
    replay = Replay(None, asked(follow_up))
    asked_for: list[str] = []

    def priors(study: str) -> list[list[Evidence]]:
        asked_for.append(study)
        return [[evidence("0.1", Modality="CT")]]

    assert changes(replay, STUDY, priors)["1.1"] is Change.NEW
    assert changes(replay, STUDY)["1.1"] is Change.NEITHER
    assert changes(replay, past_study(past_series(PET)), priors)["1.3"] is Change.NEITHER
    assert asked_for == ["1"], "earlier studies are looked up only where the rule matches"


@pytest.mark.parametrize("more", [{}, {"study": {"has": [{"Modality": "PT"}]}}])
def test_an_earlier_rule_stops_series(more: dict[str, Any]) -> None:
    stop = rule_without_a_model("first", when={"SliceThickness": {"at_most": 3}}, stop=True, order=1, **more)
    later = rule_without_a_model("first", when={"SliceThickness": {"at_most": 3}}, stop=True, order=200, **more)
    shadow = replace(stop, state=RuleState.SHADOW)
    for others, found in (([stop], Change.NEITHER), ([later], Change.BOTH), ([shadow], Change.BOTH)):
        replay = Replay(asked(rule(), others), asked(rule(), others))
        assert changes(replay, STUDY)["1.2"] is found
        assert changes(replay, STUDY)["1.1"] is Change.BOTH
    before, after = asked(rule(), [stop]), asked(rule(order=0), [stop])
    replay = Replay(before, after)
    assert changes(replay, STUDY)["1.2"] is Change.NEW
    back = Replay(after, before)
    assert back.reason(Row(Change.GONE, STUDY, STUDY.series[1]), no_priors) == "rule first stopped it"


def test_a_rule_is_compared_as_if_it_were_enabled() -> None:
    found = changes(Replay(asked(rule(state="disabled")), asked(rule(state="shadow"))), STUDY)
    assert found["1.1"] is Change.BOTH


# --------------------------------------------------------------------------------------- what is not known


def test_what_is_not_known_yet_is_counted_as_such() -> None:
    volume = asked(rule(when={"all": [{"Modality": "CT"}, {"IsAVolume": True}]}))
    unknown = replace(THICK, all_facts=False)
    pet = replace(PET, all_facts=False)
    study = past_study(
        past_series(unknown),
        past_series(pet),
        past_series(None, "1.8"),
        past_series(THIN, state=SeriesState.RECEIVING),
        past_series(OTHER_PET, state=SeriesState.OWN_RESULT),
    )
    assert changes(Replay(None, volume), study) == {
        "1.1": Change.NOT_KNOWN,
        "1.3": Change.NEITHER,
        "1.8": Change.NOT_READ,
        "1.2": Change.RECEIVING,
        "1.4": Change.OWN_RESULT,
    }


@pytest.mark.parametrize(
    "more",
    [
        {"choose": ["thinnest_slices"]},
        {"study": {"has": [{"IsAVolume": True}]}},
        {"roles": {"pet": {"when": {"IsAVolume": True}}}},
    ],
)
def test_what_is_not_known_of_one_series_may_decide_for_the_study(more: dict[str, Any]) -> None:
    study = past_study(past_series(replace(THICK, all_facts=False)), past_series(THIN), past_series(PET))
    found = changes(Replay(None, asked(rule(**more))), study)
    assert (found["1.1"], found["1.2"], found["1.3"]) == (Change.NOT_KNOWN, Change.NOT_KNOWN, Change.NEITHER)


def test_a_study_that_is_still_received_decides_nothing() -> None:
    study = past_study(past_series(THIN), past_series(PET), past_series(THICK, state=SeriesState.RECEIVING))
    found = changes(Replay(None, asked(rule(choose=["thinnest_slices"]))), study)
    assert (found["1.2"], found["1.3"]) == (Change.RECEIVING, Change.NEITHER)
    assert changes(Replay(None, asked(rule())), study)["1.2"] is Change.NEW


# ------------------------------------------------------------------------------------------------ the whole


def test_counts_are_exact_and_rows_the_last_ones() -> None:
    studies = [past_study(past_series(evidence(f"1.{n}", Modality="CT")), uid=str(n)) for n in range(50)]
    told = tally(Replay(None, asked(rule())), studies, most=3)
    assert (told.studies, told.series, told.counts[Change.NEW]) == (50, 50, 50)
    assert [row.study.study_instance_uid for row in told.newest(Change.NEW)] == ["49", "48", "47"]
    assert told.newest(Change.GONE) == []


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_replay_takes_what_routing_takes(data: st.DataObject) -> None:
    """With what it asks the database for, and nothing else of the headers."""
    of_interest = replace(data.draw(rules()), name="torso", model="m", state=RuleState.ENABLED)
    others = [replace(r, name=f"other-{n}") for n, r in enumerate(data.draw(st.lists(rules(), max_size=2)))]
    study = [whole(data.draw(headers()), f"1.{n}") for n in range(data.draw(st.integers(1, 4)))]
    priors = [[whole(data.draw(headers()), f"0.{n}")] for n in range(data.draw(st.integers(0, 2)))]

    everything = [Asked(r.name, 1, r) for r in (*others, of_interest)]
    routed = {
        outcomes.series_instance_uid: next(o for o in outcomes.outcomes if o.asked.name == "torso")
        for outcomes in decide_study(everything, study, priors)
    }
    replay = Replay(None, asked(of_interest, others))
    needs = replay.needs
    known = past_study(*(past_series(projected(e, needs.keywords, needs.facts)) for e in study))

    def projected_priors(uid: str) -> list[list[Evidence]]:
        return priors

    found = changes(replay, known, projected_priors)
    for uid, outcome in routed.items():
        assert (found[uid] is Change.NEW) == (outcome.kind is OutcomeKind.MATCHED), outcome.words


def whole(header: Any, uid: str) -> Evidence:
    facts = {name: element for name, element in header.items() if name in FACTS}
    attributes = {name: element for name, element in header.items() if name not in FACTS}
    return Evidence(uid, 1, attributes, facts, all_facts=True)


def projected(found: Evidence, keywords: Sequence[str], facts: Sequence[str]) -> Evidence:
    return replace(
        found,
        header={k: found.header[k] for k in keywords if k in found.header},
        facts={f: found.facts[f] for f in facts if f in found.facts},
    )


def test_what_rules_look_at() -> None:
    one = rule(
        when={
            "all": [{"Modality": "CT"}, {"RequestAttributesSequence.RequestedProcedureID": "1"}, {"IsAVolume": True}]
        },
        choose=[{"kernel": ["a"]}, "latest"],
        roles={"pet": {"when": {"(0019,10,ACME)": 1}, "choose": ["most_instances"]}},
        study={"has_not": [{"not": {"Rows": 5}}]},
    )
    needs = needs_of([one])
    assert set(needs.facts) == {"IsAVolume", "NumberOfInstances"}
    assert {
        "RequestAttributesSequence",
        "(0019,10,ACME)",
        "Rows",
        "ConvolutionKernel",
        "SeriesDate",
        "SeriesNumber",
    } <= set(needs.keywords)


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def past(tmp_path: Path) -> Screen:
    """A CT, a chest CT, a chest MR and an US that were routed, and one that is still coming in."""
    screen = Screen(tmp_path)
    screen.node.rule("torso", {"Modality": "CT"})
    screen.node.receive("1.1", 1)
    screen.node.receive("1.2", 2, SeriesDescription="Chest 1 mm")
    screen.node.receive("1.3", 3, Modality="MR", SeriesDescription="Chest T2")
    screen.node.receive("1.4", 4, Modality="US")
    screen.node.sweep()
    screen.node.receive("1.6", 6)
    return screen


def test_the_screen_shows_the_differences_and_counts_the_rest(past: Screen) -> None:
    said = past.run("rules", "replay", "torso", "--draft", past.file(DRAFT), "--since", LONG_AGO)
    for words in (
        "~ priority: routine → high",
        "newly taken: 1",
        "Modality is 'MR', not 'CT'",
        "no longer taken: 1",
        "SeriesDescription is missing",
        "5 series of 1 studies received since",
        "taken as before: 1",
        "but worked on otherwise: priority: routine → high",
        "not taken, as before: 1",
        "still being received: 1",
    ):
        assert words in said, words
    assert "Chest 1 mm" not in said


def test_no_file_is_read(past: Screen) -> None:
    del past.context.__dict__["store"]
    past.context.given["home"] = past.folder / "no" / "such" / "home"
    for file in past.folder.glob("*.dcm"):
        file.unlink()
    told = past.json("rules", "replay", "torso", "--draft", past.file(DRAFT), "--since", "all")
    assert (told["counts"]["new"], told["counts"]["gone"], told["counts"]["both"]) == (1, 1, 1)
    assert not (past.folder / "no").exists()


def test_as_json(past: Screen) -> None:
    told = past.json("rules", "replay", "torso", "--draft", past.file(DRAFT), "--since", LONG_AGO)
    assert {c: n for c, n in told["counts"].items() if n} == {
        "new": 1,
        "gone": 1,
        "both": 1,
        "neither": 1,
        "receiving": 1,
    }
    (new,) = told["shown"]["new"]
    assert (new["series_instance_uid"], new["modality"]) == ("1.3", "MR")
    assert "priority" in [d["path"] for d in told["differences"]]
    assert (told["studies"], told["series"], told["in_force"]) == (1, 5, True)


def test_without_a_draft_the_series_that_the_rule_takes_are_shown(past: Screen) -> None:
    said = past.run("rules", "replay", "torso", "--since", LONG_AGO)
    assert said.count("Modality is 'CT'") == 2
    assert "  taken: 2" in said
    assert "  not taken: 2" in said


def test_a_draft_of_a_rule_that_does_not_exist_yet(past: Screen) -> None:
    draft = past.file(DRAFT.replace("name: torso", "name: chest"))
    said = past.run("rules", "replay", "chest", "--draft", draft, "--since", LONG_AGO)
    assert "no rule chest" in said
    assert "newly taken: 2" in said


def test_a_rule_that_is_not_enabled(past: Screen) -> None:
    past.run("rules", "disable", "torso")
    said = past.run("rules", "replay", "torso", "--since", LONG_AGO)
    assert "rule torso is disabled: this is what it would take if it were enabled" in said
    assert "  taken: 2" in said


def test_a_draft_that_stops_others_says_so(past: Screen) -> None:
    said = past.run("rules", "replay", "torso", "--draft", past.file(DRAFT + "stop: true\n"), "--since", LONG_AGO)
    assert "it says stop" in said
    assert "~ stop: false → true" in said


def test_an_earlier_revision_against_the_present_one(past: Screen) -> None:
    past.run("rules", "add", past.file(DRAFT))
    present = past.file(past.run("rules", "show", "torso"), "present.yaml")
    told = past.json("rules", "replay", "torso@1", "--draft", present, "--since", LONG_AGO)
    assert told["counts"]["gone"] == 1


def test_only_so_many_are_shown(past: Screen) -> None:
    said = past.run("rules", "replay", "torso", "--since", LONG_AGO, "--most", "1")
    assert "and 1 more" in said
    assert said.count("Modality is 'CT'") == 1


def test_nothing_is_changed(past: Screen) -> None:
    def everything() -> Any:
        state = past.node.state
        return state.jobs(), state.rules(), state.last_event_number(), state.study("1")

    before = everything()
    past.run("rules", "replay", "torso", "--draft", past.file(DRAFT), "--since", LONG_AGO)
    assert everything() == before


def test_how_far_back(past: Screen) -> None:
    at = past.node.state.study("1").received_at
    assert past.json("rules", "replay", "torso", "--since", at.isoformat())["series"] == 5
    assert past.json("rules", "replay", "torso", "--since", (at + timedelta(seconds=1)).isoformat())["series"] == 0
    assert past.json("rules", "replay", "torso", "--since", "all")["series"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--since", "soon"], "'soon' is no time"),
        (["--most", "0"], "--most"),
    ],
)
def test_wrong_calls_are_refused(past: Screen, words: list[str], said: str) -> None:
    result = past._invoke("rules", "replay", "torso", *words)
    assert (result.exit_code, said in result.output) == (2, True)


def test_what_is_not_there(past: Screen) -> None:
    assert "did you mean torso?" in str(past.fails("rules", "replay", "torsos"))
    two = past.file(DRAFT + "---\n" + DRAFT)
    assert "a draft is one rule" in str(past.fails("rules", "replay", "torso", "--draft", two))
