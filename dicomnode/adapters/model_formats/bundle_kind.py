"""What a MONAI bundle is for, by its metadata.json, and in words why one that is not for this node is refused.

Segmentations and classifications of grey images are run. What else the Model Zoo holds (docs/decisions/
model-formats.md has the table) is told what it is and what may be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dicomnode.adapters.model_formats.documents import Document, mapping
from dicomnode.domain.bundle_chain import transform_name
from dicomnode.errors import InvalidModelPackage

METADATA = "configs/metadata.json"
FORMAT = f"{METADATA}.network_data_format"
_CLASS_FORMATS = ("classes", "labels", "probabilities", "classification")
_COLOURS = {"r", "g", "b", "red", "green", "blue"}
_BY_ITS_NETWORK = "export its network (ONNX, TorchScript) and add that with --card model.yaml"
_GIVEN = {
    "dict": f"boxes around what it detects, which its own code makes; {_BY_ITS_NETWORK}, whose output is `boxes`",
    "points": "landmarks, for which there is no kind of output here; where numbers computed from them would do, "
    f"{_BY_ITS_NETWORK}, whose output is `measurements`",
    "magnitude": "an image (it makes or registers images); where that is a map of a quantity, "
    f"{_BY_ITS_NETWORK}, whose output is `map`",
}


def image_of(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first input of the network."""
    inputs = mapping(mapping(metadata.get("network_data_format")).get("inputs"))
    found = inputs.get("image") or next(iter(inputs.values()), None)
    if not isinstance(found, Mapping):
        raise InvalidModelPackage("image is missing", f"{FORMAT}.inputs")
    return found


def prediction_of(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    outputs = _outputs(metadata)
    found = outputs.get("pred") or next(iter(outputs.values()), None)
    if not isinstance(found, Mapping):
        raise InvalidModelPackage("pred is missing", f"{FORMAT}.outputs")
    return found


def classifies(metadata: Mapping[str, Any]) -> bool:
    """A vector of classes, where a segmentation has the extent of the image."""
    found = prediction_of(metadata)
    kinds = _words_of(found)
    return (
        bool(kinds & set(_CLASS_FORMATS))
        and len(found.get("spatial_shape") or []) < 3
        and "segmentation" not in kinds
    )


def check_kind(metadata: Mapping[str, Any], inference: Document) -> None:
    """Refuses what is neither a segmentation nor a classification of grey images, and what needs more than images."""
    _check_input(metadata)
    _check_output(metadata)
    evaluator = mapping(inference.get("evaluator"))
    usual = transform_name(evaluator.get("_target_", "SupervisedEvaluator")) == "SupervisedEvaluator"
    if not (usual or everything_of(inference)) or "prepare_batch" in evaluator:
        raise InvalidModelPackage(
            "the bundle has an evaluator of its own, as those do that work on clicks or prompts; the node gives "
            "images and nothing else",
            "configs/inference.evaluator",
        )


def everything_of(inference: Document) -> object:
    """The labels that a network which is asked for labels gives when nobody names any, as VISTA3D's; else None."""
    return mapping(mapping(inference.get("evaluator")).get("hyper_kwargs")).get("everything_labels")


def _check_input(metadata: Mapping[str, Any]) -> None:
    if "network_data_format" not in metadata and any(key.endswith("_data_format") for key in metadata):
        raise InvalidModelPackage(
            "the bundle has several networks, as those have that make images; the node runs segmentations and "
            "classifications of images that there are",
            FORMAT,
        )
    image = image_of(metadata)
    if {"noise", "latent"} & _words_of(image):
        raise InvalidModelPackage(
            "the bundle makes images out of noise; the node runs segmentations and classifications of images that "
            "there are",
            f"{FORMAT}.inputs",
        )
    if _in_colours(image):
        raise InvalidModelPackage(
            "the bundle takes pictures in colour, as of endoscopes and microscopes; the node gives grey values. "
            f"Where those do, {_BY_ITS_NETWORK}, whose input says `colour: luminance`",
            f"{FORMAT}.inputs.image.channel_def",
        )


def _check_output(metadata: Mapping[str, Any]) -> None:
    found, outputs = prediction_of(metadata), _outputs(metadata)
    kinds = _words_of(found)
    if len(outputs) > 1 and "pred" not in outputs:
        raise InvalidModelPackage(
            f"the network answers with {', '.join(outputs)}, and the node takes one of them from a bundle; "
            f"{_BY_ITS_NETWORK}, with the one of them that is wanted",
            f"{FORMAT}.outputs",
        )
    if not kinds & {"segmentation", "image", *_CLASS_FORMATS} or "magnitude" in kinds:
        form = str(found.get("format"))
        raise InvalidModelPackage(
            f"the bundle gives {form!r}: {_GIVEN.get(form, 'neither masks nor classes')}. Of bundles the node runs "
            "those for segmentation and classification",
            f"{FORMAT}.outputs.pred.format",
        )


def _in_colours(image: Mapping[str, Any]) -> bool:
    """Colours of a modality that has none are a network's that was begun on photographs: grey three times."""
    names = {str(name).casefold() for name in mapping(image.get("channel_def")).values()}
    coloured = "rgb" in _words_of(image) or len(names & _COLOURS) >= 3
    return coloured and str(image.get("modality") or "regular").strip().casefold() in ("regular", "none", "rgb")


def _outputs(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(metadata.get("network_data_format")).get("outputs"))


def _words_of(tensor: Mapping[str, Any]) -> set[str]:
    return {str(tensor.get(key)).casefold() for key in ("format", "type")}
