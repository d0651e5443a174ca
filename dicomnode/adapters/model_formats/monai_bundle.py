"""A MONAI bundle: configs/metadata.json, configs/inference.json or .yaml, models/ (MONAI Bundle Specification).

The card says what metadata.json says. The chain stays in the bundle; where it is the usual one its figures are in
the card too, for people to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomnode.adapters.model_formats.concepts import coded, private, readable, segment
from dicomnode.adapters.model_formats.documents import (
    Document,
    as_yaml,
    line,
    mapping,
    read_document,
    slug,
    version_of,
)
from dicomnode.domain.bundle_chain import LOADERS, StandardChain, resolved, standard_chain, transform_name
from dicomnode.errors import InvalidModelPackage

WORDS = "a MONAI bundle"
METADATA = "configs/metadata.json"
INFERENCE = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
WEIGHTS = ("models/model.pt", "models/model.ts")
_FORMAT = f"{METADATA}.network_data_format"
_SECTIONS = ("preprocessing", "inferer", "postprocessing")
_MODALITIES = {
    "ct": ("CT",),
    "hounsfield": ("CT",),
    "mr": ("MR",),
    "mri": ("MR",),
    "pt": ("PT",),
    "pet": ("PT",),
    "mg": ("MG",),
    "mammogram": ("MG",),
    "us": ("US",),
    "ultrasound": ("US",),
    "cr": ("CR", "DX"),
    "dx": ("CR", "DX"),
    "xray": ("CR", "DX"),
    "x-ray": ("CR", "DX"),
}
_BACKGROUND = ("background", "everything else", "other", "bg")
_MASKS_KEPT = (
    *("Activations", "AsDiscrete", "Invert", "SaveImage", "EnsureType", "ToTensor", "CastToType", "FillHoles"),
    *("KeepLargestConnectedComponent", "RemoveSmallObjects", "SqueezeDim"),
)
_CLASS_FORMATS = ("classes", "labels", "probabilities", "classification")


def is_one(folder: Path) -> bool:
    return (folder / METADATA).is_file() and any((folder / name).is_file() for name in INFERENCE)


def card(folder: Path, given: Mapping[str, Any]) -> Document:
    """What follows from the bundle; `given`: what a card in it says already."""
    metadata = read_document(folder, METADATA)
    inference = read_document(folder, next(name for name in INFERENCE if (folder / name).is_file()))
    image = _image(metadata)
    _check_kind(metadata, inference)
    of_images = _classifies(metadata) and len(image.get("spatial_shape") or []) == 2
    modality = mapping(given.get("input")).get("modality") or _modality(image)
    return {
        "name": slug(str(metadata.get("name") or folder.name)),
        "version": version_of(metadata.get("version")),
        "manufacturer": line(metadata.get("authors"), most=64),
        "intended_use": line(metadata.get("intended_use") or metadata.get("description") or metadata.get("task")),
        "limits": _limits(metadata),
        "input": {"modality": list(modality), **(_size(image) if of_images else {}), **_chain_input(inference)},
        "inputs": _roles(image, inference, list(modality)),
        "network": {**_network(folder, inference), **_chain_network(inference)},
        "output": mapping(given.get("output")) or _output(metadata, inference, of_images),
    }


def _limits(metadata: Mapping[str, Any]) -> str:
    said = [
        f"{words}: {line(metadata[key])}"
        for key, words in (("data_source", "trained on"), ("data_type", "data"), ("eval_metrics", "figures given"))
        if metadata.get(key)
    ]
    return "; ".join(said) or line(None)


def _network(folder: Path, inference: Document) -> Document:
    """The usual chain around nothing but a TorchScript file is a package like any other, for every engine."""
    file = _weights(folder)
    plain = file.endswith(".ts") and _chain(inference) is not None
    return {"file": file, "format": "torchscript" if plain else "monai-bundle"}


def _weights(folder: Path) -> str:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return name
    others = sorted((folder / "models").glob("*.pt")) + sorted((folder / "models").glob("*.ts"))
    if others:
        return others[0].relative_to(folder).as_posix()
    raise InvalidModelPackage(
        "the weights are not in the bundle; get the whole of it by `python -m monai.bundle download`, or put the "
        "file that large_files.yml names here",
        WEIGHTS[0],
    )


# ------------------------------------------------------------------------------------------------- metadata


def _image(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first input of the network."""
    inputs = mapping(mapping(metadata.get("network_data_format")).get("inputs"))
    found = inputs.get("image") or next(iter(inputs.values()), None)
    if not isinstance(found, Mapping):
        raise InvalidModelPackage("image is missing", f"{_FORMAT}.inputs")
    return found


def _prediction(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    outputs = mapping(mapping(metadata.get("network_data_format")).get("outputs"))
    found = outputs.get("pred") or next(iter(outputs.values()), None)
    if not isinstance(found, Mapping):
        raise InvalidModelPackage("pred is missing", f"{_FORMAT}.outputs")
    return found


def _check_kind(metadata: Mapping[str, Any], inference: Document) -> None:
    """Refuses what is neither a segmentation nor a classification, and what needs more than images."""
    found = _prediction(metadata)
    kinds = {str(found.get(key)).casefold() for key in ("format", "type")}
    if not kinds & {"segmentation", "image", *_CLASS_FORMATS} or "magnitude" in kinds:
        raise InvalidModelPackage(
            f"a bundle that gives {found.get('format')!r} is run by nothing here; segmentations and classes are",
            f"{_FORMAT}.outputs.pred.format",
        )
    evaluator = mapping(inference.get("evaluator"))
    usual = transform_name(evaluator.get("_target_", "SupervisedEvaluator")) == "SupervisedEvaluator"
    if not usual or "prepare_batch" in evaluator:
        raise InvalidModelPackage(
            "the bundle has an evaluator of its own, as those do that work on clicks or prompts; the node gives "
            "images and nothing else",
            "configs/inference.evaluator",
        )


def _modality(image: Mapping[str, Any]) -> tuple[str, ...]:
    """DICOM's words (PS3.3 C.7.3.1.1.1) for MONAI's."""
    for said in (image.get("modality"), image.get("format")):
        if found := _MODALITIES.get(str(said).strip().casefold()):
            return found
    raise InvalidModelPackage(
        f"{image.get('modality')!r} is no modality that is known here; put a model.yaml into the bundle with "
        "`input: {modality: [CT]}`, or whatever it is",
        f"{_FORMAT}.inputs.image.modality",
    )


def _size(image: Mapping[str, Any]) -> Document:
    shape = image["spatial_shape"]
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise InvalidModelPackage(f"{shape} is no size of an image", f"{_FORMAT}.inputs.image.spatial_shape")
    return {"size": list(shape)[::-1]}  # MONAI's x and y are columns and rows


def _classifies(metadata: Mapping[str, Any]) -> bool:
    """A vector of classes, where a segmentation has the extent of the image."""
    found = _prediction(metadata)
    kinds = {str(found.get(key)).casefold() for key in ("format", "type")}
    return (
        bool(kinds & set(_CLASS_FORMATS))
        and len(found.get("spatial_shape") or []) < 3
        and "segmentation" not in kinds
    )


def _output(metadata: Mapping[str, Any], inference: Document, of_images: bool) -> Document:
    names = _names(_prediction(metadata), inference)
    if _classifies(metadata):
        scores = "probabilities" if _gives_probabilities(inference) else "logits"
        return {"classification": {**_classification(metadata, names, of_images), "scores": scores}}
    if len(names) > 1 and names[0].casefold() in _BACKGROUND:
        names = names[1:]
    elif len(names) > 1 and (merging := _merging(inference)):
        raise InvalidModelPackage(
            f"{merging} makes labels of {', '.join(names)}, and which, nothing says; add the bundle with --card "
            f"model.yaml, whose output.segments have the value of each label:\n\n{_merged(names)}",
            f"{_FORMAT}.outputs.pred.channel_def",
        )
    return {"segments": [segment(number, name) for number, name in enumerate(names, 1)]}


def _merging(inference: Document) -> str:
    """The transform after the network that may make one label map of several masks, if any."""
    names = [transform_name(transform.get("_target_")) for transform in _listed(inference, "post")]
    return next((name for name in names if name not in _MASKS_KEPT), "")


def _merged(names: list[str]) -> str:
    """The output of a card to begin with."""
    segments = [{**segment(number, name), "value": number} for number, name in enumerate(names, 1)]
    return as_yaml({"output": {"segments": segments}})


def _names(prediction: Mapping[str, Any], inference: Document) -> list[str]:
    """Of the channels, in their order; some bundles name them in inference.json alone."""
    channels = prediction.get("channel_def")
    labels = inference.get("labels")
    if not channels and isinstance(labels, Mapping) and all(type(n) is int for n in labels.values()):
        channels = {str(number): name for name, number in labels.items()}
    if not isinstance(channels, Mapping) or not channels:
        raise InvalidModelPackage(
            "the names of the labels are missing; put a model.yaml into the bundle with its `output`",
            f"{_FORMAT}.outputs.pred.channel_def",
        )
    try:
        return [str(channels[key]) for key in sorted(channels, key=int)]
    except ValueError:
        raise InvalidModelPackage("channels are numbered", f"{_FORMAT}.outputs.pred.channel_def") from None


def _classification(metadata: Mapping[str, Any], names: list[str], of_images: bool) -> Document:
    task = line(metadata.get("task") or metadata.get("name"), most=64)
    return {
        "of": "image" if of_images else "series",
        "finding": private(task),
        "classes": [{"name": readable(name), "code": coded(name)} for name in names],
    }


def _gives_probabilities(inference: Document) -> bool:
    """Whether the bundle turns its network's scores into probabilities, or into a one for the highest."""
    return bool(
        {"Activations", "AsDiscrete"} & {transform_name(t.get("_target_")) for t in _listed(inference, "post")}
    )


# ---------------------------------------------------------------------------------------------------- chain


def _roles(image: Mapping[str, Any], inference: Document, modality: list[str]) -> list[Document]:
    """The channels beside the first, where each is a series of its own; colours are channels of one image."""
    channels = mapping(image.get("channel_def"))
    keys = _loaded_keys(inference)
    if len(keys) > 1:
        return [{"role": slug(key), "modality": modality} for key in keys[1:]]
    names = [str(name) for name in channels.values()]
    if len(names) < 2 or {name.casefold() for name in names} <= {"r", "g", "b", "red", "green", "blue", "image"}:
        return []
    return [{"role": slug(name), "modality": modality} for name in names[1:]]


def _listed(inference: Document, when: str) -> list[Mapping[str, Any]]:
    """The transforms of "pre" or "post" processing, as far as they are a plain list."""
    chain = mapping(resolved(inference, inference.get(f"{when}processing"))).get("transforms")
    return [mapping(transform) for transform in chain] if isinstance(chain, list) else []


def _loaded_keys(inference: Document) -> list[str]:
    for transform in _listed(inference, "pre"):
        if transform_name(transform.get("_target_")) in LOADERS:
            keys = transform.get("keys", "image")
            return [str(k) for k in (keys if isinstance(keys, list) else [keys]) if k not in ("label", "pred")]
    return []


def _chain(inference: Document) -> StandardChain | None:
    found = standard_chain({name: resolved(inference, inference.get(name)) for name in _SECTIONS})
    return found if isinstance(found, StandardChain) else None


def _chain_input(inference: Document) -> Document:
    if (chain := _chain(inference)) is None:
        return {}
    scaling = {"from": list(chain.intensity_from), "to": list(chain.intensity_to), "clip": chain.clip}
    return {"orientation": chain.orientation, "spacing_mm": list(chain.spacing_mm), "intensity": scaling}


def _chain_network(inference: Document) -> dict[str, Any]:
    if (chain := _chain(inference)) is None:
        return {}
    return {
        "window": list(chain.window),
        "overlap": chain.overlap,
        "blend": chain.blend,
        "restore": chain.restore,
    }
