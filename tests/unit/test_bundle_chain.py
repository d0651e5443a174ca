"""Which bundles do what the node does by itself, and which need their own transforms run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from dicomnode.domain.bundle_chain import StandardChain, resolved, standard_chain, transform_name

SPLEEN: dict[str, Any] = {
    "image_key": "image",
    "roi": [96, 96, 96],
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            {"_target_": "monai.transforms.Orientationd", "keys": "@image_key", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [1.5, 1.5, 2], "mode": ["bilinear"]},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "@image_key",
                "a_min": -57,
                "a_max": 164,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            {"_target_": "EnsureTyped", "keys": "@image_key", "device": "@device"},
        ],
    },
    "inferer": {
        "_target_": "SlidingWindowInferer",
        "roi_size": "@roi",
        "sw_batch_size": "$1 + 3",
        "overlap": 0.5,
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'"},
        ],
    },
}
Change = Callable[[dict[str, Any]], object]


def chain_of(document: dict[str, Any]) -> StandardChain | str:
    sections = ("preprocessing", "inferer", "postprocessing")
    return standard_chain({key: resolved(document, document[key]) for key in sections if key in document})


def changed(change: Change) -> dict[str, Any]:
    document = copy.deepcopy(SPLEEN)
    change(document)
    return document


def test_the_usual_chain_is_recognised_with_its_arguments() -> None:
    assert chain_of(SPLEEN) == StandardChain(
        orientation="RAS",
        spacing_mm=(1.5, 1.5, 2.0),
        intensity_from=(-57.0, 164.0),
        intensity_to=(0.0, 1.0),
        clip=True,
        window=(96, 96, 96),
        overlap=0.5,
        blend="constant",
        restore="probabilities",
    )


def after(*names: str, nearest: bool = True) -> Change:
    made = {
        "softmax": {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        "argmax": {"_target_": "AsDiscreted", "keys": ["pred"], "argmax": [True]},
        "invert": {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "nearest_interp": nearest},
    }
    return lambda d: d["postprocessing"].update(transforms=[made[name] for name in names])


@pytest.mark.parametrize(
    ("change", "restore"),
    [
        (after("argmax", "invert"), "labels"),
        (after("softmax", "argmax", "invert"), "labels"),
        (after("invert", "argmax"), "labels"),
        (after("softmax", "invert", "argmax", nearest=False), "probabilities"),
        (after("invert", "argmax", nearest=False), "scores"),
    ],
)
def test_what_goes_back_to_the_scanners_grid_follows_from_the_order(change: Change, restore: str) -> None:
    chain = chain_of(changed(change))
    assert isinstance(chain, StandardChain)
    assert chain.restore == restore


def transform(number: int, **arguments: object) -> Change:
    return lambda d: d["preprocessing"]["transforms"][number].update(arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["preprocessing"]["transforms"].insert(4, {"_target_": "CropForegroundd"}), "CropForeground"),
        (lambda d: d["preprocessing"]["transforms"].pop(2), "preprocessing is Spacing, ScaleIntensityRange"),
        (lambda d: d["preprocessing"]["transforms"].reverse(), "preprocessing is ScaleIntensityRange"),
        (transform(0, _disabled_="$@x"), "an expression disables"),
        (transform(1, keys="label"), "several images"),
        (transform(2, axcodes="RAX"), "Orientation to RAX"),
        (transform(3, mode="nearest"), "not bilinear"),
        (transform(3, padding_mode="zeros"), "not bilinear"),
        (transform(3, pixdim="$[1, 1, 1]"), "Spacing.pixdim"),
        (transform(3, pixdim=[1.5, 1.5, -1]), "keeps an axis"),
        (transform(3, align_corners=True), "Spacing has align_corners"),
        (transform(4, b_min=None), "ScaleIntensityRange"),
        (transform(4, dtype="float16"), "ScaleIntensityRange has dtype"),
        (lambda d: d["inferer"].update(_target_="SimpleInferer"), "no SlidingWindowInferer"),
        (lambda d: d["inferer"].update(padding_mode="replicate"), "the inferer has padding_mode"),
        (lambda d: d["inferer"].update(merger="x"), "the inferer has merger"),
        (lambda d: d["inferer"].update(overlap=[0.5, 0.5, 0]), "window or overlap"),
        (lambda d: d["inferer"].update(roi_size=[96, 96]), "roi_size"),
        (lambda d: d["inferer"].update(roi_size=[96, 96, -1]), "window or overlap"),
        (after("argmax", "invert", nearest=False), "postprocessing is AsDiscrete, Invert"),
        (after("argmax", "softmax", "invert"), "postprocessing is AsDiscrete, Activations"),
        (after("argmax"), "postprocessing is AsDiscrete"),
        (lambda d: d["postprocessing"]["transforms"][0].update(sigmoid=True), "no softmax"),
        (lambda d: d["postprocessing"]["transforms"][0].update(dim=1), "Activations has dim"),
        (lambda d: d["postprocessing"]["transforms"][2].update(to_onehot=2), "no argmax"),
        (
            lambda d: d["postprocessing"]["transforms"].append({"_target_": "KeepLargestConnectedComponentd"}),
            "KeepLargestConnectedComponent",
        ),
        (lambda d: d.pop("postprocessing"), "postprocessing is no Compose"),
        (lambda d: d["postprocessing"].update(lazy=True), "postprocessing has lazy"),
    ],
)
def test_anything_else_is_the_bundles_own_and_named(change: Change, words: str) -> None:
    found = chain_of(changed(change))
    assert isinstance(found, str)
    assert words in found


def test_references_are_followed_and_expressions_asked_for() -> None:
    document = {"a": {"b": [1, "$2 + @c"]}, "c": 3, "loop": "@loop", "all": "$@a"}
    assert resolved(document, "@a#b#0") == 1
    assert resolved(document, "@a::b") == [1, "$2 + @c"]
    assert resolved(document, "@all", lambda text: ("asked", text)) == {"b": [1, ("asked", "$2 + @c")]}
    assert resolved(document, ["@gone", "@loop"]) == ["@gone", "@loop"]


def test_a_transform_has_one_name_in_all_its_forms() -> None:
    names = ("LoadImage", "LoadImaged", "LoadImageD", "LoadImageDict", "monai.transforms.io.dictionary.LoadImaged")
    assert {transform_name(name) for name in names} == {"LoadImage"}
