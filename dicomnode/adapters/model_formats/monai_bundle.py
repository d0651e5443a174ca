"""A MONAI bundle: configs/metadata.json, configs/inference.json or .yaml, models/ (MONAI Bundle Specification).

The card says what metadata.json says. The chain stays in the bundle; where it is the usual one its figures are in
the card too, for people to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomnode.adapters.model_formats.bundle_kind import (
    FORMAT,
    METADATA,
    check_kind,
    classifies,
    everything_of,
    image_of,
    prediction_of,
)
from dicomnode.adapters.model_formats.bundle_look import labels_of_masks, value_of
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
from dicomnode.domain.merged_masks import MASKS_MOST, meanings
from dicomnode.errors import InvalidModelPackage

WORDS = "a MONAI bundle"
INFERENCE = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
WEIGHTS = ("models/model.pt", "models/model.ts")
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
_NO_MODALITY = ("none", "any")
_ANY = ("CT", "MR", "PT", "NM", "CR", "DX", "MG", "US", "XA", "RF", "OT")
_NAME_MOST = 64  # characters of a segment's label (PS3.3 C.8.20.4, LO)
_BACKGROUND = ("background", "everything else", "other", "bg")
_MASKS_KEPT = (
    *("Activations", "AsDiscrete", "Invert", "SaveImage", "EnsureType", "ToTensor", "CastToType", "FillHoles"),
    *("KeepLargestConnectedComponent", "RemoveSmallObjects", "SqueezeDim"),
)


def is_one(folder: Path) -> bool:
    return (folder / METADATA).is_file() and any((folder / name).is_file() for name in INFERENCE)


def card(folder: Path, given: Mapping[str, Any]) -> Document:
    """What follows from the bundle; `given`: what a card in it says already."""
    metadata = read_document(folder, METADATA)
    inference = read_document(folder, _inference_file(folder))
    check_kind(metadata, inference)
    image = image_of(metadata)
    of_images = classifies(metadata) and len(image.get("spatial_shape") or []) == 2
    modality = mapping(given.get("input")).get("modality") or _modality(image)
    return {
        "name": slug(str(metadata.get("name") or folder.name)),
        "version": version_of(metadata.get("version")),
        "manufacturer": line(metadata.get("authors"), most=64),
        "intended_use": line(metadata.get("intended_use") or metadata.get("description") or metadata.get("task")),
        "limits": _limits(metadata, _main_series(image, inference)),
        "input": {"modality": list(modality), **(_size(image) if of_images else {}), **_chain_input(inference)},
        "inputs": _roles(image, inference, list(modality)),
        "network": {**_network(folder, inference), **_chain_network(inference)},
        "output": mapping(given.get("output")) or _output(folder, metadata, inference, of_images),
    }


def _inference_file(folder: Path) -> str:
    return next(name for name in INFERENCE if (folder / name).is_file())


def _limits(metadata: Mapping[str, Any], main: str) -> str:
    said = [f"the main series is {main}"] if main else []
    said += [
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


def _modality(image: Mapping[str, Any]) -> tuple[str, ...]:
    """DICOM's words (PS3.3 C.7.3.1.1.1) for MONAI's."""
    for said in (image.get("modality"), image.get("format")):
        if found := _MODALITIES.get(str(said).strip().casefold()):
            return found
    if str(image.get("modality") or "").strip().casefold() in _NO_MODALITY:
        return _ANY  # it is for none in particular, as the Model Zoo's templates are: what it runs on the rules say
    raise InvalidModelPackage(
        f"{image.get('modality')!r} is no modality that is known here; put a model.yaml into the bundle with "
        "`input: {modality: [CT]}`, or whatever it is",
        f"{FORMAT}.inputs.image.modality",
    )


def _size(image: Mapping[str, Any]) -> Document:
    shape = image["spatial_shape"]
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise InvalidModelPackage(f"{shape} is no size of an image", f"{FORMAT}.inputs.image.spatial_shape")
    return {"size": list(shape)[::-1]}  # MONAI's x and y are columns and rows


def _output(folder: Path, metadata: Mapping[str, Any], inference: Document, of_images: bool) -> Document:
    channels = _channels(prediction_of(metadata), inference)
    names = list(channels.values())
    if classifies(metadata):
        scores = "probabilities" if _gives_probabilities(inference) else "logits"
        return {"classification": {**_classification(metadata, names, of_images), "scores": scores}}
    if everything_of(inference) is not None:
        return {"segments": _everything(folder, channels)}
    if len(names) > 1 and names[0].casefold() in _BACKGROUND:
        return {"segments": [_labelled(n, *named) for n, named in enumerate(list(channels.items())[1:], 1)]}
    if len(names) > 1 and (first := _merging(inference)) is not None:
        return {"segments": _merged(folder, inference, first, names)}
    return {"segments": [segment(number, name) for number, name in enumerate(names, 1)]}


def _everything(folder: Path, channels: Mapping[int, str]) -> list[Document]:
    """Of a network that is asked for labels those that it is asked for: the others are not looked for."""
    wanted = value_of(folder, _inference_file(folder), "evaluator#hyper_kwargs#everything_labels")
    if not wanted or not set(wanted) <= set(channels):
        raise InvalidModelPackage(
            "these are no numbers of metadata.json's channel_def", "configs/inference.evaluator.hyper_kwargs"
        )
    return [_labelled(number, label, channels[label]) for number, label in enumerate(sorted(wanted), 1)]


def _labelled(number: int, label: int, name: str) -> Document:
    """A segment whose label in the prediction may be another number than its own."""
    return segment(number, name) if label == number else {**segment(number, name), "value": label}


def _merging(inference: Document) -> int | None:
    """The place of the transform after the network that may make one label map of several masks, if any."""
    names = [transform_name(transform.get("_target_")) for transform in _listed(inference, "post")]
    return next((place for place, name in enumerate(names) if name not in _MASKS_KEPT), None)


def _merged(folder: Path, inference: Document, first: int, names: list[str]) -> list[Document]:
    """The labels that the bundle makes of its masks, by what each of them is within and outside of."""
    few = len(names) <= MASKS_MOST
    labels = labels_of_masks(folder, _inference_file(folder), first, len(names)) if few else []
    found = meanings(labels, names)
    if found and max(map(len, found.values())) <= _NAME_MOST:
        return [_labelled(number, *named) for number, named in enumerate(found.items(), 1)]
    target = transform_name(_listed(inference, "post")[first].get("_target_"))
    segments = [{**segment(number, name), "value": number} for number, name in enumerate(names, 1)]
    raise InvalidModelPackage(
        f"{target} makes labels of {', '.join(names)}, and which, nothing says; add the bundle with --card "
        "model.yaml, whose output.segments have the value of each label:\n\n"
        f"{as_yaml({'output': {'segments': segments}})}",
        f"{FORMAT}.outputs.pred.channel_def",
    )


def _channels(prediction: Mapping[str, Any], inference: Document) -> dict[int, str]:
    """Names by their numbers, in this order; some bundles have them in inference.json alone."""
    channels = prediction.get("channel_def") or prediction.get("label_def")
    labels = inference.get("labels")
    if not channels and isinstance(labels, Mapping) and all(type(n) is int for n in labels.values()):
        channels = {str(number): name for name, number in labels.items()}
    if not isinstance(channels, Mapping) or not channels:
        raise InvalidModelPackage(
            "the names of the labels are missing; put a model.yaml into the bundle with its `output`",
            f"{FORMAT}.outputs.pred.channel_def",
        )
    try:
        return {int(key): str(channels[key]) for key in sorted(channels, key=int)}
    except ValueError:
        raise InvalidModelPackage("channels are numbered", f"{FORMAT}.outputs.pred.channel_def") from None


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
    return [{"role": slug(name), "modality": modality} for name in _series(image, inference)[1:]]


def _main_series(image: Mapping[str, Any], inference: Document) -> str:
    """What the bundle calls the first of several series; "" where there is one."""
    return next(iter(_series(image, inference)), "")


def _series(image: Mapping[str, Any], inference: Document) -> list[str]:
    """The names of several series; none where there is one."""
    if len(keys := _loaded_keys(inference)) > 1:
        return keys
    names = [str(name) for name in mapping(image.get("channel_def")).values()]
    of_one = {name.casefold() for name in names} <= {"r", "g", "b", "red", "green", "blue", "image"}
    return [] if len(names) < 2 or of_one else names


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
