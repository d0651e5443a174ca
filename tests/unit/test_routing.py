"""What the rules come to together: order, stop, shadows, the study, choice, roles and the two phases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.domain.routing import Asked, OutcomeKind, RuleOutcome, decide_series, decide_study
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, RuleState
from dicomnode.domain.study import Evidence
from dicomnode.errors import InvalidRule
from tests.unit.evidence_material import evidence

MATCHED, NOT_MATCHED, WAITS = OutcomeKind.MATCHED, OutcomeKind.NOT_MATCHED, OutcomeKind.WAITS_FOR_STUDY
STOPPED, SHADOW = OutcomeKind.STOPPED, OutcomeKind.SHADOW
CT = evidence("1.1", Modality="CT", SeriesNumber=1, SliceThickness=5.0)
THIN_CT = evidence("1.2", Modality="CT", SeriesNumber=2, SliceThickness=1.25)
PT = evidence("1.3", Modality="PT", SeriesNumber=3, SliceThickness=3.0)
REPORT = evidence("1.4", Modality="SR", SeriesNumber=4, no_image="the series holds no image to work on: it is SR")


def rule(name: str = "torso", **more: Any) -> Asked:
    document = {"name": name, "when": {"Modality": "CT"}, "model": "m"} | more
    if document["model"] is None:
        del document["model"]
    return Asked(name, 1, parse_rule(document))


def told(rules: list[Asked], study: list[Evidence], **more: Any) -> dict[str, list[RuleOutcome]]:
    """Series Instance UID → what each rule said, in the order in which they were asked."""
    return {d.series_instance_uid: list(d.outcomes) for d in decide_study(rules, study, **more)}


def kinds(rules: list[Asked], study: list[Evidence], **more: Any) -> dict[str, list[OutcomeKind]]:
    return {uid: [o.kind for o in outcomes] for uid, outcomes in told(rules, study, **more).items()}


# ----------------------------------------------------------------------------------------------- one series


def test_rules_are_asked_by_order_and_then_by_name() -> None:
    asked = [rule("b", order=5), rule("z", order=1), rule("a", order=5)]
    assert [o.asked.name for o in decide_series(asked, CT).outcomes] == ["z", "a", "b"]


def test_what_matches_and_stops_is_not_shown_to_later_rules() -> None:
    first, second, third = decide_series([rule("a"), rule("b", stop=True), rule("c")], CT).outcomes
    assert [first.kind, second.kind, third.kind] == [MATCHED, MATCHED, STOPPED]
    assert second.words == "rule b matched: Modality is 'CT'; no rule after it is asked"
    assert third.words == "rule c was not asked: rule b stopped it"
    assert third.stopped_by == "b"


def test_a_rule_without_a_model_only_stops() -> None:
    (outcome, _) = decide_series([rule("a", model=None, stop=True), rule("b")], CT).outcomes
    assert (outcome.kind, outcome.runs) == (MATCHED, False)


def test_a_rule_that_does_not_match_stops_nothing() -> None:
    asked = [rule("a", when={"Modality": "MR"}, stop=True), rule("b")]
    assert kinds(asked, [CT]) == {"1.1": [NOT_MATCHED, MATCHED]}


def test_a_shadow_says_what_it_would_have_done_and_stops_nothing() -> None:
    shadow, other = decide_series([rule("a", stop=True, state="shadow"), rule("b")], CT).outcomes
    assert (shadow.kind, shadow.runs, other.kind) == (SHADOW, False, MATCHED)
    assert shadow.words == "rule a, a shadow, would have matched: Modality is 'CT'"


def test_a_disabled_rule_is_not_asked() -> None:
    assert kinds([rule("a", state="disabled")], [CT]) == {"1.1": []}


def test_a_rule_that_cannot_be_read_is_told_and_the_others_go_on() -> None:
    broken = Asked("a", 1, InvalidRule("no", "when"))
    assert kinds([broken, rule("b")], [CT]) == {"1.1": [OutcomeKind.UNREADABLE, MATCHED]}


def test_what_has_no_image_is_asked_nothing() -> None:
    assert kinds([rule(when={"Modality": {"exists": True}})], [REPORT, CT]) == {"1.4": [], "1.1": [MATCHED]}


# --------------------------------------------------------------------------------------------- the two phases


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"study": {"has": [{"Modality": "PT"}]}}, "a series with Modality equals 'PT'"),
        ({"study": {"has_not": [{"Modality": "SR"}]}}, "no series with Modality equals 'SR'"),
        ({"choose": ["thinnest_slices"]}, "all series that match, to choose one of them"),
        ({"roles": {"pet": {"when": {"Modality": "PT"}}}}, "a series as pet, with Modality equals 'PT'"),
        (
            {"roles": {"before": {"when": {"Modality": "CT"}, "from": "prior"}}},
            "a series of an earlier study as before, with Modality equals 'CT'",
        ),
    ],
)
def test_a_rule_that_looks_at_the_study_waits_for_it_and_says_for_what(needs: Any, words: str) -> None:
    (outcome,) = decide_series([rule(**needs)], CT).outcomes
    assert (outcome.kind, outcome.deferred, outcome.runs) == (WAITS, True, False)
    assert outcome.words == f"rule torso waits for the whole study: Modality is 'CT'; it needs {words}"
    (other,) = decide_series([rule(**needs)], PT).outcomes
    assert (other.kind, other.deferred) == (NOT_MATCHED, False)


def test_what_comes_after_a_rule_that_may_still_stop_waits_too() -> None:
    asked = [rule("a", choose=["thinnest_slices"], stop=True), rule("b"), rule("c", when={"Modality": "PT"})]
    first, second, third = decide_series(asked, CT).outcomes
    assert [first.kind, second.kind, third.kind] == [WAITS, WAITS, NOT_MATCHED]
    assert second.words == "rule b waits for rule a, which may stop it once the study is complete"
    assert [o.kind for o in decide_series(asked, PT).outcomes] == [NOT_MATCHED, NOT_MATCHED, MATCHED]
    whole = told(asked, [CT, THIN_CT, PT])
    assert [o.kind for o in whole["1.1"]] == [OutcomeKind.NOT_CHOSEN, MATCHED, NOT_MATCHED]
    assert [o.kind for o in whole["1.2"]] == [MATCHED, STOPPED, STOPPED]
    assert [o.deferred for o in whole["1.1"]] == [True, True, False]
    assert [o.deferred for o in whole["1.2"]] == [True, True, True]
    assert [o.deferred for o in whole["1.3"]] == [False, False, False]


def test_a_shadow_that_waits_keeps_nobody_waiting() -> None:
    asked = [rule("a", choose=["latest"], stop=True, state="shadow"), rule("b")]
    assert [o.kind for o in decide_series(asked, CT).outcomes] == [WAITS, MATCHED]


# -------------------------------------------------------------------------------------------------- the study


def test_the_study_must_have() -> None:
    asked = [rule(study={"has": [{"Modality": "PT"}]})]
    (outcome,) = told(asked, [CT, PT])["1.1"]
    assert outcome.words == "rule torso matched: Modality is 'CT'; the study has PT series 3: Modality is 'PT'"
    (outcome,) = told(asked, [CT])["1.1"]
    assert (outcome.kind, outcome.runs) == (OutcomeKind.STUDY_CONDITION_FALSE, False)
    assert outcome.words == "rule torso did not match: no series of the study has Modality equals 'PT'"


def test_the_study_must_not_have() -> None:
    asked = [rule(study={"has_not": [{"Modality": "SR"}]})]
    assert kinds(asked, [CT, PT])["1.1"] == [MATCHED]
    (outcome,) = told(asked, [CT, REPORT])["1.1"]
    assert outcome.kind is OutcomeKind.STUDY_CONDITION_FALSE
    assert outcome.words == "rule torso did not match: the study has SR series 4, which it must not: Modality is 'SR'"


def test_the_series_in_question_and_what_was_stopped_are_part_of_the_study() -> None:
    asked = [
        rule("a", when={"Modality": "PT"}, model=None, stop=True),
        rule("b", study={"has": [{"Modality": "CT"}, {"Modality": "PT"}]}),
    ]
    assert kinds(asked, [CT, PT])["1.1"] == [NOT_MATCHED, MATCHED]


def test_of_several_that_the_study_has_the_same_is_always_told() -> None:
    asked = [rule(study={"has": [{"Modality": ["PT", "CT"]}]})]
    words = {
        told(asked, study)["1.1"][0].words for study in ([CT, PT, THIN_CT], [PT, THIN_CT, CT], [THIN_CT, CT, PT])
    }
    assert words == {"rule torso matched: Modality is 'CT'; the study has CT series 1: Modality is 'CT'"}


def test_one_of_those_that_match_is_chosen() -> None:
    whole = told([rule(choose=["thinnest_slices"])], [CT, THIN_CT, PT])
    assert whole["1.2"][0].words == (
        "rule torso matched: Modality is 'CT'; chosen: thinnest slices, 1.25 mm against 5 mm of CT series 1"
    )
    assert whole["1.1"][0].words == (
        "rule torso did not choose it: CT series 2 was chosen: thinnest slices, 1.25 mm against 5 mm"
    )


def test_what_was_stopped_is_not_chosen() -> None:
    thin = {"SliceThickness": {"at_most": 2}}
    asked = [rule("a", when=thin, model=None, stop=True), rule("b", choose=["thinnest_slices"])]
    assert kinds(asked, [CT, THIN_CT]) == {"1.1": [NOT_MATCHED, MATCHED], "1.2": [MATCHED, STOPPED]}


# -------------------------------------------------------------------------------------------------- the roles


def test_a_role_finds_its_series() -> None:
    asked = [rule(choose=["thinnest_slices"], roles={"pet": {"when": {"Modality": "PT"}}})]
    outcome = told(asked, [CT, THIN_CT, PT])["1.2"][0]
    assert outcome.roles == {"pet": "1.3"}
    assert outcome.words.endswith("; pet is PT series 3")
    (missing,) = told(asked, [THIN_CT])["1.2"]
    assert (missing.kind, missing.runs) == (OutcomeKind.ROLE_MISSING, False)
    assert missing.words == ("rule torso did not match: no series of the study fits as pet: Modality equals 'PT'")


def test_a_role_takes_neither_the_series_itself_nor_one_that_another_role_has() -> None:
    asked = [rule(roles={"one": {"when": {"Modality": "CT"}}, "two": {"when": {"Modality": "CT"}}})]
    third = evidence("1.9", Modality="CT", SeriesNumber=9)
    assert told(asked, [CT, THIN_CT, third])["1.1"][0].roles == {"one": "1.2", "two": "1.9"}
    assert kinds(asked, [CT, THIN_CT])["1.1"] == [OutcomeKind.ROLE_MISSING]


def test_a_role_takes_nothing_that_was_stopped_or_has_no_image() -> None:
    asked = [
        rule("a", when={"Modality": "PT"}, model=None, stop=True),
        rule("b", roles={"pet": {"when": {"Modality": "PT"}}}),
        rule("c", roles={"report": {"when": {"Modality": "SR"}}}),
    ]
    assert kinds(asked, [CT, PT, REPORT])["1.1"] == [NOT_MATCHED, OutcomeKind.ROLE_MISSING, OutcomeKind.ROLE_MISSING]


def test_a_prior_is_of_the_newest_earlier_study_that_has_one() -> None:
    asked = [rule(roles={"before": {"when": {"Modality": "CT"}, "from": "prior", "choose": ["thinnest_slices"]}})]
    newest = [evidence("2.1", Modality="MR", SeriesNumber=1)]
    older = [evidence("3.1", Modality="CT", SliceThickness=5.0), evidence("3.2", Modality="CT", SliceThickness=1.0)]
    oldest = [evidence("4.1", Modality="CT", SliceThickness=0.5)]
    outcome = told(asked, [CT, THIN_CT], priors=[newest, older, oldest])["1.1"][0]
    assert outcome.roles == {"before": "3.2"}
    assert outcome.words.endswith("; before is CT series 3.2 of an earlier study")
    (missing,) = told(asked, [CT], priors=[newest])["1.1"]
    assert missing.words.startswith(
        "rule torso did not match: no earlier study of the patient has a series that fits"
    )


def test_a_long_condition_is_cut_in_words() -> None:
    asked = [rule(study={"has": [{"SeriesDescription": [f"name {n}" for n in range(99)]}]})]
    (outcome,) = told(asked, [CT])["1.1"]
    assert outcome.words.startswith(
        "rule torso did not match: no series of the study has SeriesDescription one of 'name 0'"
    )
    assert outcome.words.endswith("…")
    assert len(outcome.words) < 200


def test_all_that_was_looked_at_is_in_the_document() -> None:
    asked = [
        rule(
            study={"has": [{"Modality": "PT"}], "has_not": [{"Modality": "SR"}]},
            choose=["thinnest_slices"],
            roles={"pet": {"when": {"Modality": "PT"}}},
        )
    ]
    document = json.loads(json.dumps(told(asked, [CT, THIN_CT, PT])["1.2"][0].document()))
    assert (document["outcome"], document["matches"], document["revision"]) == ("matched", True, 1)
    assert document["when"]["found"] == ["CT"]
    assert [clause["series"] for clause in document["study"]] == ["1.3", None]
    assert document["choose"]["passed_over"].keys() == {"1.1"}
    assert [(r["role"], r["from"], r["series"]) for r in document["roles"]] == [("pet", "study", "1.3")]


# --------------------------------------------------------------------------------------------- what always holds

_modality = st.sampled_from(["CT", "MR", "PT"])
_condition: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda m: {"Modality": m}, _modality),
    st.builds(lambda t: {"SliceThickness": {"at_most": t}}, st.sampled_from([1, 3])),
    st.just({"Modality": {"exists": True}}),
)
_choose = st.sampled_from([[], ["thinnest_slices"], ["most_instances", "latest"]])
_role = st.builds(
    lambda when, origin, choose: {"when": when, "from": origin} | ({"choose": choose} if choose else {}),
    _condition,
    st.sampled_from(["study", "prior"]),
    _choose,
)


@st.composite
def _rules(draw: st.DrawFn) -> list[Asked]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        name = f"r{number}"
        document: dict[str, Any] = {"name": name, "when": draw(_condition), "order": draw(st.integers(0, 2))}
        document |= {"stop": draw(st.booleans()), "state": draw(st.sampled_from(["enabled", "enabled", "shadow"]))}
        if draw(st.integers(0, 3)) or not document["stop"]:
            document["model"] = "m"
            choose, roles = draw(_choose), draw(st.dictionaries(st.sampled_from(["a", "b"]), _role, max_size=2))
            document |= {k: v for k, v in (("choose", choose), ("roles", roles)) if v}
        if draw(st.integers(0, 2)) == 0:
            document["study"] = {draw(st.sampled_from(["has", "has_not"])): [draw(_condition)]}
        found.append(Asked(name, 1, parse_rule(document)))
    return found


def _series(prefix: str) -> st.SearchStrategy[list[Evidence]]:
    one = st.tuples(
        _modality,
        st.sampled_from([1.0, 3.0, 5.0, None]),
        st.sampled_from([1, 2, None]),
        st.sampled_from(["", "none"]),
    )
    return st.lists(one, min_size=1, max_size=4).map(
        lambda found: [
            evidence(f"{prefix}.{n}", Modality=m, SliceThickness=t, SeriesNumber=s, no_image=i)
            for n, (m, t, s, i) in enumerate(found)
        ]
    )


_priors = st.lists(_series("9"), max_size=2)
_cases = st.tuples(_rules(), _series("1"), _priors)
_Case = tuple[list[Asked], list[Evidence], list[list[Evidence]]]


def _shape(decided: list[Any]) -> dict[str, list[tuple[str, OutcomeKind, str, bool]]]:
    return {d.series_instance_uid: [(o.asked.name, o.kind, o.words, o.deferred) for o in d.outcomes] for d in decided}


@given(_cases, st.randoms())
@settings(max_examples=40)
def test_the_order_of_arrival_and_of_the_rules_in_the_list_changes_nothing(case: _Case, random: Any) -> None:
    rules, study, priors = case
    before = _shape(decide_study(rules, study, priors))
    random.shuffle(rules)
    random.shuffle(study)
    assert _shape(decide_study(rules, study, [random.sample(p, len(p)) for p in priors])) == before


@given(_cases)
@settings(max_examples=40)
def test_a_rule_that_chooses_takes_one_series_at_most(case: _Case) -> None:
    taken = [
        o.asked.name for d in decide_study(*case) for o in d.outcomes if o.kind in (MATCHED, SHADOW) and o.rule.choose
    ]
    assert len(taken) == len(set(taken))


@given(_cases)
@settings(max_examples=40)
def test_after_a_stop_every_rule_says_so_and_no_other_does(case: _Case) -> None:
    for decided in decide_study(*case):
        stopped = ""
        for outcome in decided.outcomes:
            assert (outcome.kind is STOPPED) == bool(stopped)
            assert outcome.stopped_by == stopped
            if outcome.kind is MATCHED and outcome.rule.stop:
                stopped = outcome.asked.name


@given(_cases)
@settings(max_examples=40)
def test_without_the_shadows_all_others_say_the_same(case: _Case) -> None:
    rules, study, priors = case
    real = [asked for asked in rules if isinstance(asked.rule, Rule) and asked.rule.state is not RuleState.SHADOW]
    names = {asked.name for asked in real}
    with_shadows = _shape(decide_study(rules, study, priors))
    assert {uid: [o for o in said if o[0] in names] for uid, said in with_shadows.items()} == _shape(
        decide_study(real, study, priors)
    )
    runs = [o for d in decide_study(rules, study, priors) for o in d.outcomes if o.runs]
    assert all(o.rule.state is RuleState.ENABLED for o in runs)


@given(_cases)
@settings(max_examples=40)
def test_what_is_decided_for_a_series_alone_is_what_the_study_says_too(case: _Case) -> None:
    """No job of the first phase is one that the second would not have made, and none is made twice."""
    rules, study, priors = case
    whole = {d.series_instance_uid: d.outcomes for d in decide_study(rules, study, priors)}
    for series in study:
        for early, late in zip(decide_series(rules, series).outcomes, whole[series.series_instance_uid], strict=True):
            if early.kind is WAITS:
                assert early.deferred
                assert late.deferred
                assert late.kind is not WAITS
            elif early.kind is NOT_MATCHED:  # of itself it cannot match; what may stop it is another matter
                assert late.kind in (NOT_MATCHED, STOPPED)
                assert not late.runs
            else:
                assert (late.kind, late.words, late.deferred) == (early.kind, early.words, False)


@given(_cases)
@settings(max_examples=40)
def test_what_was_found_holds_together(case: _Case) -> None:
    _, study, priors = case
    here = {e.series_instance_uid for e in study if not e.no_image}
    earlier = {e.series_instance_uid for p in priors for e in p if not e.no_image}
    for decided in decide_study(*case):
        for outcome in decided.outcomes:
            json.dumps(outcome.document(), allow_nan=False)
            used = list(outcome.roles.values())
            assert len(used) == len(set(used))
            assert decided.series_instance_uid not in used
            assert set(used) <= here | earlier
            if outcome.kind in (MATCHED, SHADOW):
                assert outcome.roles.keys() == {role.name for role in outcome.rule.roles}
                assert all(clause.holds for clause in outcome.study)
