"""Headers as the database keeps them: what comes back is what went in, within bounds, and both databases take it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dicomnode.adapters.db.columns import storable
from dicomnode.adapters.db.evidence_json import (
    BYTES_MOST,
    CHARACTERS_MOST,
    element_json,
    element_of,
    header_json,
    header_of,
)
from dicomnode.domain.study import Element

_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_PLAIN = st.one_of(
    st.builds(Element, st.sampled_from(["CS", "LO", "UN"]), st.lists(_WORDS, max_size=4).map(tuple), _WORDS),
    st.builds(Element, st.just("IS"), st.lists(st.integers(-(2**63), 2**63), max_size=4).map(tuple)),
    st.builds(
        Element, st.just("DS"), st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple)
    ),
    st.builds(Element, st.just("FLAG"), st.lists(st.booleans(), max_size=1).map(tuple), _WORDS),
)
_NAMES = st.one_of(st.sampled_from(["Modality", "ImageType", "(0019,10,GEMS_ACQU_01)"]), _WORDS)
_HEADERS = st.recursive(
    st.dictionaries(_NAMES, _PLAIN, max_size=4),
    lambda inner: st.dictionaries(
        _NAMES, st.builds(Element, st.just("SQ"), st.lists(inner, max_size=3).map(tuple)), max_size=3
    ),
    max_leaves=8,
)


@given(_HEADERS)
def test_what_comes_back_is_what_went_in(header: dict[str, Element]) -> None:
    assert header_of(json.loads(json.dumps(header_json(header)))) == header


@given(st.text(), st.floats())
def test_any_value_is_one_that_both_databases_take(words: str, number: float) -> None:
    document = json.dumps(element_json(Element("LO", (words, number), words)), allow_nan=False)
    assert "\\u0000" not in document
    json.loads(document.encode("utf-8"))
    assert storable(words, CHARACTERS_MOST) in element_of(json.loads(document)).values


def test_numbers_without_a_value_compare_as_they_did() -> None:
    assert element_json(Element("DS", (float("nan"), float("inf")))) == ["DS", ["nan", "inf"]]


def test_a_database_that_shortens_floats_to_whole_numbers_changes_nothing() -> None:
    assert element_of(["DS", [10**20, 5]]) == Element("DS", (1e20, 5))
    assert type(element_of(["DS", [10**20]]).values[0]) is float
    assert type(element_of(["IS", [10**20]]).values[0]) is int


def test_long_text_is_cut_and_says_so() -> None:
    kept = element_of(element_json(Element("UT", ("x" * 5000,))))
    assert kept == Element("UT", ("x" * CHARACTERS_MOST,), "only its first 1024 characters are kept")


def _sequence(items: int, characters: int) -> Element:
    return Element("SQ", tuple({"SeriesDescription": Element("LO", ("x" * characters,))} for _ in range(items)))


def test_a_header_that_grows_too_large_loses_items_and_says_so() -> None:
    header = {f"(0029,{n:02x},ACME)": _sequence(64, 500) for n in range(16)} | {"Modality": Element("CS", ("CT",))}
    document = header_json(header)
    assert len(json.dumps(document)) <= BYTES_MOST
    assert document["Modality"] == ["CS", ["CT"]]
    kept = header_of(document)["(0029,00,ACME)"]
    assert len(kept.values) == 8
    assert kept.note == "only 8 of its 64 items are kept"


def test_a_header_that_is_too_large_without_its_sequences_keeps_the_small_attributes() -> None:
    many: dict[str, Any] = {f"(0029,{n:02x},ACME)": Element("UT", ("é" * 1024,) * 64) for n in range(4)}
    document = header_json(many | {"Modality": Element("CS", ("CT",))})
    assert len(json.dumps(document)) <= BYTES_MOST
    assert document["Modality"] == ["CS", ["CT"]]
    assert document["(0029,00,ACME)"][1] == []
    assert "not kept" in document["(0029,00,ACME)"][2]
