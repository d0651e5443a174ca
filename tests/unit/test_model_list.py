"""From what is registered to what models.yaml wants: which steps, in which order, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.model_list import Entry, Known, Step, StepKind, Wanted, parse_model_list, steps
from dicomnode.errors import InvalidModelList


def wanted(*words: str) -> list[Wanted]:
    """As "m1": version 1 of m; "+" active, "-" not, "~" a shadow, "!" no shadow, "=" nothing is said."""
    made = []
    for number, word in enumerate(words):
        mark, name, version = word[0], word[1:-1], word[-1]
        active = {"+": True, "-": False}.get(mark)
        shadow = {"~": True, "!": False}.get(mark)
        entry = Entry("p", f"models[{number}]", active=active, shadow=shadow)
        made.append(Wanted(entry, name, version, f"digest of {name}{version}"))
    return made


def known(*words: str) -> list[Known]:
    return [Known(w[1:-1], w[-1], f"digest of {w[1:]}", w[0] == "+", w[0] == "~") for w in words]


def said(want: list[Wanted], have: list[Known], *, prune: bool = False) -> list[str]:
    return [step.words for step in steps(want, have, prune)]


@pytest.mark.parametrize(
    ("want", "have", "prune", "words"),
    [
        (["+m1"], [], False, ["add m 1", "activate m 1"]),
        (["=m1"], [], False, ["add m 1"]),
        (["+m1"], ["+m1"], False, []),
        (["+m1"], ["+m1"], True, []),
        (["+m2"], ["+m1", "=m2"], False, ["activate m 2, in place of 1"]),
        (["-m1"], ["+m1"], False, ["deactivate m 1"]),
        (["-m1", "+m2"], ["+m1", "=m2"], False, ["activate m 2, in place of 1"]),
        (["=m1"], ["+m1"], True, []),
        (["=m2"], ["+m1", "=m2"], False, []),
        (["=m2"], ["+m1", "=m2"], True, ["deactivate m 1"]),
        ([], ["+m1", "~n2"], False, []),
        ([], ["+m1", "~n2"], True, ["deactivate m 1", "unshadow n 2"]),
        (["~m2"], ["+m1", "=m2"], False, ["shadow m 2"]),
        (["~m3"], ["+m1", "~m2", "=m3"], False, ["shadow m 3, in place of 2"]),
        (["!m2"], ["+m1", "~m2"], False, ["unshadow m 2"]),
        (["+m1"], ["+m1", "~m2"], True, ["unshadow m 2"]),
        (["+m2", "~m3"], ["+m1", "~m2"], False, ["add m 3", "activate m 2, in place of 1", "shadow m 3"]),
        (["+m2", "~m1"], ["+m1", "=m2"], False, ["activate m 2, in place of 1", "shadow m 1"]),
        (["+b1", "+a1"], [], False, ["add a 1", "add b 1", "activate a 1", "activate b 1"]),
    ],
)
def test_the_steps_lead_from_what_is_to_what_is_wanted(
    want: list[str], have: list[str], prune: bool, words: list[str]
) -> None:
    assert said(wanted(*want), known(*have), prune=prune) == words


def applied(have: Sequence[Known], todo: Sequence[Step]) -> list[Known]:
    """What is registered after the steps, by the rules of the registry; each must be possible."""
    now = {(k.name, k.version): k for k in have}
    for step in todo:
        key = (step.name, step.version)
        if step.kind is StepKind.ADD:
            assert key not in now
            now[key] = Known(*key, f"digest of {step.name}{step.version}")
            continue
        of_name = [k for k in now if k[0] == step.name]
        one = now[key]
        match step.kind:
            case StepKind.ACTIVATE:
                assert not one.active
                now |= {k: replace(now[k], active=False) for k in of_name}
                now[key] = replace(one, active=True, shadow=False)
            case StepKind.DEACTIVATE:
                assert one.active
                now[key] = replace(one, active=False)
            case StepKind.SHADOW:
                assert not one.active
                assert not one.shadow
                now |= {k: replace(now[k], shadow=False) for k in of_name}
                now[key] = replace(now[key], shadow=True)
            case StepKind.UNSHADOW:
                assert one.shadow
                now[key] = replace(one, shadow=False)
    return list(now.values())


VERSIONS = [(name, version) for name in "mn" for version in "123"]


@st.composite
def registries(draw: st.DrawFn) -> list[Known]:
    """At most one version of a name is active and another one a shadow."""
    there = draw(st.lists(st.sampled_from(VERSIONS), unique=True))
    active = {name: draw(st.sampled_from("0123")) for name in "mn"}
    shadow = {name: draw(st.sampled_from("0123")) for name in "mn"}
    return [Known(n, v, f"digest of {n}{v}", active[n] == v, shadow[n] == v and active[n] != v) for n, v in there]


@st.composite
def lists(draw: st.DrawFn) -> list[Wanted]:
    marks = {pair: draw(st.sampled_from("-!=")) for pair in draw(st.lists(st.sampled_from(VERSIONS), unique=True))}
    for name in "mn":
        ours = [pair for pair in marks if pair[0] == name]
        for mark, pair in zip("+~", draw(st.permutations(ours))[: draw(st.integers(0, 2))], strict=False):
            marks[pair] = mark
    return wanted(*(f"{mark}{name}{version}" for (name, version), mark in marks.items()))


@given(lists(), registries(), st.booleans())
def test_after_the_steps_everything_is_as_wanted_and_nothing_is_left_to_do(
    want: list[Wanted], have: list[Known], prune: bool
) -> None:
    now = applied(have, steps(want, have, prune))
    assert steps(want, now, prune) == []
    found = {(k.name, k.version): k for k in now}
    for one in want:
        known = found[one.name, one.version]
        assert one.entry.active in (None, known.active)
        assert one.entry.shadow in (None, known.shadow)
    if not prune:
        listed = {w.name for w in want}
        assert [k for k in now if k.name not in listed] == [k for k in have if k.name not in listed]


@pytest.mark.parametrize(
    ("want", "have", "words"),
    [
        (["+m1", "+m2"], [], r"models\[1\]\.active: another version of m is to be active too"),
        (["~m1", "~m2"], [], r"models\[1\]\.shadow: another version of m is to be a shadow too"),
        (["+m1", "=m1"], [], r"models\[1\]: m 1 is named twice"),
    ],
)
def test_what_contradicts_itself_is_named(want: list[str], have: list[str], words: str) -> None:
    with pytest.raises(InvalidModelList, match=words):
        steps(wanted(*want), known(*have), False)


def test_a_registered_version_with_other_content_is_refused() -> None:
    with pytest.raises(InvalidModelList, match=r"models\[0\]: m 1 is registered with other content"):
        steps(wanted("+m1"), [Known("m", "1", "other")], False)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "models is missing"),
        ({"models": [], "purge": True}, "unknown: purge"),
        ({"models": [], "prune": "yes"}, "prune: 'yes' is not true or false"),
        ({"models": [{"package": "a", "activ": True}]}, r"models\[0\]: unknown: activ; known"),
        ({"models": [{"active": True}]}, r"models\[0\]: package is missing"),
        ({"models": [{"package": "a", "active": "on"}]}, r"models\[0\]\.active: 'on' is not true or false"),
        (
            {"models": [{"package": "a", "active": True, "shadow": True}]},
            r"models\[0\]\.shadow: a version is active or",
        ),
    ],
)
def test_the_file_is_read_strictly(document: Any, words: str) -> None:
    with pytest.raises(InvalidModelList, match=words):
        parse_model_list(document)
