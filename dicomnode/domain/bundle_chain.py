"""Whether what a MONAI bundle does around its network is what the node does around any network, only slower.

A bundle's configs/inference.json names transforms before the network, an inferer and transforms after it (MONAI
Bundle Specification, "inference.json"). The usual chain is: load, channel first, Orientation, Spacing bilinear,
ScaleIntensityRange; SlidingWindowInferer; softmax, Invert and argmax in either order. Anything else, or an argument
that is not known here, makes the chain the bundle's own: the node then runs the bundle's transforms themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
Evaluate = Callable[[str], object]

_REFERENCE = re.compile(r"\$?@([A-Za-z_]\w*(?:(?:#|::)\w+)*)")
_FLOAT32 = {"float32", "torch.float32", "$torch.float32", "$numpy.float32", "$np.float32", "<class 'numpy.float32'>"}
_DEPTH_MOST = 32
# keys that say where something is put or how it is computed, and not what comes out
_INDIFFERENT = {"_target_", "_desc_", "_disabled_", "keys", "allow_missing_keys", "device", "to_tensor", "lazy"}
_NAMES_ONLY = {"orig_keys", "meta_keys", "orig_meta_keys", "meta_key_postfix", "transform"}
LOADERS = ("LoadImage",)
SAVERS = ("SaveImage", "SaveClassification")
_NOTHING_DONE = (*LOADERS, *SAVERS, "EnsureChannelFirst", "EnsureType", "ToTensor", "ToDevice")


@dataclass(frozen=True, slots=True)
class StandardChain:
    """The arguments of the usual chain, as a model card has them."""

    orientation: str
    spacing_mm: tuple[float, float, float]
    intensity_from: tuple[float, float]
    intensity_to: tuple[float, float]
    clip: bool
    window: tuple[int, int, int]
    overlap: float
    blend: str
    restore: str  # one of model_card.RESTORED


class _OwnChain(ValueError):
    """Says what is not usual; never leaves this module."""


def standard_chain(document: Document) -> StandardChain | str:
    """The chain when it is the usual one, else in words why it is not. `document` is resolved (see `resolved`)."""
    try:
        before = _transforms(document, "preprocessing")
        after = _transforms(document, "postprocessing")
        return StandardChain(**_before(before), **_inferer(document.get("inferer")), restore=_after(after))
    except _OwnChain as reason:
        return str(reason)


def transform_name(target: object) -> str:
    """`monai.transforms.LoadImaged`, `LoadImageDict` and `LoadImage` are all LoadImage."""
    name = str(target).rpartition(".")[2]
    return re.sub(r"(?<=[a-z])(d|D|Dict)$", "", name)


def resolved(document: Document, value: object, evaluate: Evaluate | None = None, depth: int = 0) -> Any:
    """`value` with references ("@name#part") followed, and expressions ("$...") given to `evaluate`, if any.

    What cannot be followed is left as it is: a text beginning with @ or $.
    """
    if depth > _DEPTH_MOST:
        return value
    if isinstance(value, Mapping):
        return {key: resolved(document, part, evaluate, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(document, part, evaluate, depth + 1) for part in value]
    if not isinstance(value, str):
        return value
    if found := _REFERENCE.fullmatch(value):
        referred = _referred(document, re.split("#|::", found[1]))
        return value if referred is None else resolved(document, referred, evaluate, depth + 1)
    return evaluate(value) if evaluate is not None and value.startswith("$") else value


def _referred(document: object, path: Sequence[str]) -> object:
    """The part of the document at a path; None when there is none."""
    for key in path:
        if isinstance(document, Mapping):
            document = document.get(key)
        elif isinstance(document, list | tuple) and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            return None
    return document


def _transforms(document: Document, section: str) -> list[Document]:
    """The transforms of a Compose that are not disabled."""
    compose = document.get(section)
    if not isinstance(compose, Mapping) or transform_name(compose.get("_target_")) != "Compose":
        raise _OwnChain(f"{section} is no Compose")
    if more := set(compose) - {"_target_", "_desc_", "transforms"}:
        raise _OwnChain(f"{section} has {', '.join(sorted(more))}")
    found = compose.get("transforms")
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise _OwnChain(f"{section}.transforms is no plain list")
    if any(one.get("_disabled_") not in (None, True, False) for one in found):
        raise _OwnChain(f"{section} has a transform that an expression disables")
    return [one for one in found if not one.get("_disabled_")]


def _before(transforms: Sequence[Document]) -> dict[str, Any]:
    """Orientation, Spacing and ScaleIntensityRange, once each, in this order."""
    at_work = [one for one in transforms if not _does_nothing(one)]
    names = [transform_name(one["_target_"]) for one in at_work]
    if names != ["Orientation", "Spacing", "ScaleIntensityRange"]:
        raise _OwnChain(f"preprocessing is {', '.join(names) or 'nothing'}")
    keys = {str(_one(t.get("keys"))) for t in transforms}
    if len(keys) != 1:
        raise _OwnChain("preprocessing is about several images")
    orientation, spacing, scaling = at_work
    return {**_orientation(orientation), **_spacing(spacing), **_scaling(scaling)}


def _does_nothing(transform: Document) -> bool:
    """Whether a transform leaves the values of a float32 image as they are."""
    name = transform_name(transform.get("_target_"))
    return name in _NOTHING_DONE or (name == "CastToType" and str(transform.get("dtype")) in _FLOAT32)


def _orientation(transform: Document) -> dict[str, Any]:
    _only(transform, axcodes=str)
    axes = str(transform.get("axcodes"))
    if sorted(next((i for i, pair in enumerate(("LR", "PA", "IS")) if c in pair), -1) for c in axes) != [0, 1, 2]:
        raise _OwnChain(f"Orientation to {axes}")
    return {"orientation": axes}


def _spacing(transform: Document) -> dict[str, Any]:
    _only(transform, pixdim=object, mode=object, padding_mode=object)
    if (
        _one(transform.get("mode", "bilinear")) != "bilinear"
        or _one(transform.get("padding_mode", "border")) != "border"
    ):
        raise _OwnChain("Spacing is not bilinear with the border repeated")
    a, b, c = _numbers(transform.get("pixdim"), 3, "Spacing.pixdim")
    if min(a, b, c) <= 0:
        raise _OwnChain("Spacing.pixdim keeps an axis as it is")
    return {"spacing_mm": (a, b, c)}


def _scaling(transform: Document) -> dict[str, Any]:
    _only(transform, a_min=object, a_max=object, b_min=object, b_max=object, clip=bool)
    a_min, a_max, b_min, b_max = _numbers(
        [transform.get(key) for key in ("a_min", "a_max", "b_min", "b_max")], 4, "ScaleIntensityRange"
    )
    if a_min >= a_max:
        raise _OwnChain("ScaleIntensityRange has no range")
    clip = bool(transform.get("clip", False))
    return {"intensity_from": (a_min, a_max), "intensity_to": (b_min, b_max), "clip": clip}


def _inferer(inferer: object) -> dict[str, Any]:
    if not isinstance(inferer, Mapping) or transform_name(inferer.get("_target_")) != "SlidingWindowInferer":
        raise _OwnChain("the inferer is no SlidingWindowInferer")
    indifferent = {"sw_batch_size", "sw_device", "progress", "cache_roi_weight_map", "cpu_thresh"}
    usual = {"padding_mode": "constant", "cval": 0, "sigma_scale": 0.125, "buffer_steps": None, "with_coord": False}
    given = {key: value for key, value in inferer.items() if key not in indifferent | _INDIFFERENT}
    if more := [key for key, value in given.items() if value != usual.get(key, value)]:
        raise _OwnChain(f"the inferer has {', '.join(more)}")
    if unknown := set(given) - set(usual) - {"roi_size", "overlap", "mode"}:
        raise _OwnChain(f"the inferer has {', '.join(sorted(unknown))}")
    return _window(given)


def _window(given: Document) -> dict[str, Any]:
    window = _numbers(given.get("roi_size"), 3, "roi_size")
    overlap, blend = given.get("overlap", 0.25), given.get("mode", "constant")
    if any(w < 1 or w != int(w) for w in window) or not _is_number(overlap) or not 0 <= overlap < 1:
        raise _OwnChain("the inferer's window or overlap is no plain number")
    if blend not in ("constant", "gaussian"):
        raise _OwnChain(f"the inferer blends by {blend}")
    a, b, c = (int(w) for w in window)
    return {"window": (a, b, c), "overlap": float(overlap), "blend": blend}


def _after(transforms: Sequence[Document]) -> str:
    """What goes back to the scanner's grid: one of model_card.RESTORED."""
    at_work = [one for one in transforms if not _does_nothing(one)]
    names = [transform_name(one["_target_"]) for one in at_work]
    for one in at_work:
        _AFTER.get(transform_name(one["_target_"]), _unknown)(one)
    nearest = next((_one(one.get("nearest_interp", True)) for one in at_work if _is_invert(one)), None)
    without = [name for name in names if name != "Activations"]
    if names.count("Activations") > 1 or "Activations" in names[1:]:
        raise _OwnChain(f"postprocessing is {', '.join(names)}")
    if without == ["AsDiscrete", "Invert"] and nearest is True:
        return "labels"
    if without == ["Invert", "AsDiscrete"] and isinstance(nearest, bool):
        # the nearest neighbour's scores give the nearest neighbour's label
        return "labels" if nearest else "probabilities" if "Activations" in names else "scores"
    raise _OwnChain(f"postprocessing is {', '.join(names) or 'nothing'}")


def _is_invert(transform: Document) -> bool:
    return transform_name(transform["_target_"]) == "Invert"


def _softmax(transform: Document) -> None:
    _only(transform, softmax=object, sigmoid=object, other=object)
    if _one(transform.get("softmax")) is not True or _one(transform.get("sigmoid")) or _one(transform.get("other")):
        raise _OwnChain("the activation is no softmax")


def _argmax(transform: Document) -> None:
    _only(transform, argmax=object, to_onehot=object, threshold=object, rounding=object)
    more = [_one(transform.get(key)) for key in ("to_onehot", "threshold", "rounding")]
    if _one(transform.get("argmax")) is not True or any(value is not None for value in more):
        raise _OwnChain("AsDiscrete is no argmax")


def _invert(transform: Document) -> None:
    _only(transform, nearest_interp=object)


def _unknown(transform: Document) -> None:
    raise _OwnChain(f"postprocessing has {transform_name(transform.get('_target_'))}")


_AFTER: Mapping[str, Callable[[Document], None]] = {"Activations": _softmax, "AsDiscrete": _argmax, "Invert": _invert}


def _only(transform: Document, **known: type) -> None:
    """Refuses arguments that mean something and are not looked at, and values of another type."""
    name = transform_name(transform.get("_target_"))
    if more := set(transform) - set(known) - _INDIFFERENT - _NAMES_ONLY:
        raise _OwnChain(f"{name} has {', '.join(sorted(more))}")
    if wrong := [key for key, kind in known.items() if key in transform and not isinstance(transform[key], kind)]:
        raise _OwnChain(f"{name}.{wrong[0]} is not plain")


def _one(value: object) -> object:
    """A value, or the only one of a list."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _numbers(value: object, count: int, what: str) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) != count or not all(_is_number(v) for v in value):
        raise _OwnChain(f"{what} is not {count} plain numbers")
    return [float(v) for v in value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
