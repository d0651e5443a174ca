"""What a card says of the models before it, and whether the registry has what it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.domain.composition import DEEPEST, broken, faults, needed, newly_broken, resolved
from dicomnode.domain.model_after import ClassGate, Crop, Reference, SegmentGate, Step
from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.errors import InvalidModelPackage
from tests.composed_cards import BY_CLASS, CROP, GATE, active_of, card, classifier, other, version, with_after
from tests.made_results import CARD

TORSO, REGIONS = version(CARD, 1), version(classifier(), 2)

NAMES = st.text("abcXYZ é", min_size=1, max_size=12).filter(str.strip)
STEPS = st.one_of(
    st.fixed_dictionaries(
        {"use": st.just("gate"), "segments": st.lists(NAMES, min_size=1, max_size=3, unique=True)},
        optional={"minimum_volume_ml": st.floats(0, 1e4)},
    ),
    st.fixed_dictionaries(
        {"use": st.just("gate"), "class": NAMES},
        optional={"at_least": st.floats(0.01, 1), "images_least": st.integers(1, 99)},
    ),
)
MODELS = st.sampled_from(["torso-ct", "torso-ct@1.0.0", f"torso-ct@sha256:{'ab' * 6}", f"a@sha256:{'0' * 64}"])


def test_what_a_card_says() -> None:
    steps = card(GATE, {**CROP, "model": "torso-ct@1.0.0", "absent": "whole"}, BY_CLASS).after
    assert steps == (
        Step(Reference("torso-ct"), SegmentGate(("Lungs",), 0.01)),
        Step(Reference("torso-ct", version="1.0.0"), Crop(SegmentGate(("Bone",)), 1.0, "whole")),
        Step(Reference("regions"), ClassGate("Chest", 0.8, 1)),
    )
    assert CARD.after == ()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(MODELS, STEPS), max_size=3), st.one_of(st.none(), st.floats(0, 99)))
def test_a_card_is_read_as_it_was_written(found: list[tuple[str, Any]], margin_mm: float | None) -> None:
    steps: list[Mapping[str, Any]] = [{"model": model, **step} for model, step in found]
    if margin_mm is not None:
        steps.append({**CROP, "margin_mm": margin_mm})
    read = card(*steps)
    for document in (
        json.loads(json.dumps(card_document(read))),
        yaml.safe_load(yaml.safe_dump(card_document(read), allow_unicode=True)),
    ):
        assert parse_model_card(document) == read
    assert len(read.after) == len(steps)


@pytest.mark.parametrize(
    ("step", "path", "words"),
    [
        ({**GATE, "model": "Torso CT"}, "after[0].model", "no model"),
        ({**GATE, "model": "torso-ct@sha256:ab12"}, "after[0].model", "12 to 64 digits"),
        ({**GATE, "model": "nodules"}, "after[0].model", "cannot come after itself"),
        ({**GATE, "use": "guard"}, "after[0].use", "not one of gate, crop"),
        (
            {"model": "torso-ct", "use": "gate"},
            "after[0]",
            "one of segments, class, measurement, boxes, map is",
        ),
        (
            {"model": "torso-ct", "use": "crop"},
            "after[0]",
            "one of segments, class, measurement, boxes, map is",
        ),
        ({**GATE, "segments": []}, "after[0].segments", "one or more names"),
        ({**GATE, "segments": ["Lungs", "Lungs"]}, "after[0].segments", "each once"),
        ({**GATE, "segments": "Lungs"}, "after[0].segments", "not a list"),
        ({**GATE, "minimum_volume_ml": -1}, "after[0].minimum_volume_ml", "not 0 or more"),
        ({**GATE, "margin_mm": 3}, "after[0]", "unknown: margin_mm"),
        ({**CROP, "margin_mm": float("inf")}, "after[0].margin_mm", "not 0 or more"),
        ({**CROP, "absent": "guess"}, "after[0].absent", "not one of skip, whole, refuse"),
        ({**BY_CLASS, "at_least": 0}, "after[0].at_least", "no probability above 0"),
        ({**BY_CLASS, "images_least": 1.5}, "after[0].images_least", "no whole number above 0"),
        ({**BY_CLASS, "segments": ["Lungs"]}, "after[0]", "and only one: what is asked of regions"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(step: Mapping[str, Any], path: str, words: str) -> None:
    with pytest.raises(InvalidModelPackage) as refused:
        card(step)
    assert refused.value.path == f"model.yaml.{path}"
    assert words in refused.value.message


def test_there_is_one_crop_none_of_single_images_and_an_end_to_what_comes_first() -> None:
    with pytest.raises(InvalidModelPackage, match="one crop at most"):
        card(CROP, CROP)
    with pytest.raises(InvalidModelPackage, match="at most 4 models"):
        card(*[GATE] * 5)
    with pytest.raises(InvalidModelPackage, match="single images is not cropped"):
        parse_model_card(with_after(CROP, base=classifier()))
    assert parse_model_card(with_after(GATE, base=classifier())).after[0].use == SegmentGate(("Lungs",), 0.01)


# ------------------------------------------------------------------------------------------------- the registry


def test_a_name_is_its_active_version_and_a_version_or_digest_that_one() -> None:
    known = [other(TORSO, 7, "0.9.0", active=False), TORSO]
    assert resolved(Reference("torso-ct"), known) is TORSO
    assert resolved(Reference("torso-ct", version="0.9.0"), known) is known[0]
    assert resolved(Reference("torso-ct", digest="07" * 8), known) is known[0]
    assert resolved(Reference("torso-ct"), known[:1]) is None
    assert resolved(Reference("torso-ct", digest="ff" * 8), known) is None


def test_a_chain_needs_all_that_come_before_the_deepest_first() -> None:
    middle, last = version(card(GATE, name="heart"), 3), version(card({**GATE, "model": "heart"}), 4)
    assert list(needed(last, [last, middle, TORSO])) == ["torso-ct", "heart"]
    assert list(faults(last, [last, middle, TORSO])) == []
    assert needed(TORSO, [TORSO]) == {}


@pytest.mark.parametrize(
    ("step", "known", "path", "words"),
    [
        (GATE, [], "after[0].model", "there is no model torso-ct: add it first"),
        (GATE, active_of([TORSO], "torso-ct", ""), "after[0].model", "no version of torso-ct is active"),
        ({**GATE, "model": "torso-ct@2.0"}, [TORSO], "after[0].model", "there is no torso-ct@2.0; of torso-ct there"),
        ({**GATE, "segments": ["Lung"]}, [TORSO], "after[0].segments", "no segment Lung; it has: Lungs, Bone"),
        ({**GATE, "model": "regions"}, [REGIONS], "after[0].segments", "no segment Lungs; it has: classes"),
        ({**BY_CLASS, "class": "Knee"}, [REGIONS], "after[0].class", "no class Knee; it has: Head, Chest, Abdomen"),
        ({**BY_CLASS, "model": "torso-ct"}, [TORSO], "after[0].class", "no class Chest; it has: segments"),
    ],
)
def test_what_is_not_there_or_not_given_is_said(
    step: Mapping[str, Any], known: list[Any], path: str, words: str
) -> None:
    ((where, why),) = faults(version(card(step), 9), known)
    assert where == path
    assert words in why


def test_a_first_model_takes_what_the_second_takes_and_one_series_only() -> None:
    second = version(card(GATE, input={**card_document(CARD)["input"], "modality": ["CT", "MR"]}), 9)
    assert [why for _, why in faults(second, [TORSO])] == [
        "torso-ct 1.0.0 takes CT, and not MR as the model after it"
    ]
    pet = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 20]}}
    both = version(parse_model_card({**card_document(CARD), "inputs": [pet]}), 1)
    assert ["needs further series (pet)" in why for _, why in faults(version(card(GATE), 9), [both])] == [True]


def test_circles_and_long_chains_are_found() -> None:
    first = version(parse_model_card(with_after({**GATE, "model": "nodules"}, name="torso-ct")), 1)
    second = version(card(GATE), 2)
    assert any("come after itself" in why for _, why in faults(second, [first, second]))
    names = ["a", "b", "c", "d"]
    chain = [
        version(card({**GATE, "model": before}, name=name), n)
        for n, (before, name) in enumerate(zip(["torso-ct", *names], names, strict=False), 2)
    ]
    known = [TORSO, *chain]
    assert [bool(list(faults(one, known))) for one in chain] == [False, False, True, True]
    assert f"over {DEEPEST} models in a row" in next(faults(chain[2], known))[1]


def test_what_a_change_of_the_registry_breaks() -> None:
    nodules = version(card(GATE), 3)
    without = other(version(parse_model_card({**card_document(CARD), **_only_bone()}), 1), 5, "2.0.0", active=False)
    known = [TORSO, nodules, without]
    assert broken(known) == {}
    assert "nodules 1.0.0, which is active, could not run: no version" in newly_broken(
        known, active_of(known, "torso-ct", "")
    )
    assert "has no segment Lungs" in newly_broken(known, active_of(known, "torso-ct", "2.0.0"))
    idle = active_of(known, "nodules", "")
    assert newly_broken(idle, active_of(idle, "torso-ct", "")) == ""
    # what was broken before is no reason to refuse another change
    gone = active_of(known, "torso-ct", "")
    assert newly_broken(gone, [*gone, REGIONS]) == ""


def _only_bone() -> Mapping[str, Any]:
    bone = card_document(CARD)["output"]["segments"][1]
    return {"version": "2.0.0", "output": {"segments": [{**bone, "number": 1}]}}
