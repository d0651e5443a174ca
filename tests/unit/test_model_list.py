"""From what is registered to what models.yaml wants: which steps, in which order, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from dicomnode.domain.model_list import Entry, Known, Wanted, parse_model_list, steps
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
