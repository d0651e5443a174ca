"""An nnU-Net v2 model folder, as its training writes it: plans.json, dataset.json, fold_*/checkpoint_final.pth."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomnode.adapters.model_formats.concepts import segment
from dicomnode.adapters.model_formats.documents import Document, line, mapping, read_document, slug
from dicomnode.errors import InvalidModelPackage

WORDS = "an nnU-Net v2 model folder"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
# how the channels of public datasets are called
_MODALITIES = {
    "ct": "CT",
    "cect": "CT",
    "pet": "PT",
    "pt": "PT",
    "suv": "PT",
    **dict.fromkeys(("mr", "mri", "t1", "t1c", "t1ce", "t1gd", "t1w", "t2", "t2w", "flair", "adc", "dwi"), "MR"),
    "us": "US",
}


def is_one(folder: Path) -> bool:
    return (folder / "plans.json").is_file() and (folder / "dataset.json").is_file()


def card(folder: Path, given: Mapping[str, Any]) -> Document:
    """What follows from the folder; `given`: what a card in it says already."""
    dataset, plans = read_document(folder, "dataset.json"), read_document(folder, "plans.json")
    channels = _channels(dataset)
    said = mapping(given.get("input")).get("modality")
    modalities = [said or [_modality(name)] for name in channels[:1]]
    modalities += [[_modality(name)] for name in channels[1:]] if "inputs" not in given else []
    file = _checkpoint(folder)
    reoriented = "Reorient" in str(plans.get("image_reader_writer"))
    return {
        "name": slug(str(plans.get("dataset_name") or dataset.get("name") or folder.name)),
        "version": _version(folder / file),
        "manufacturer": line(dataset.get("author") or dataset.get("licence_holder"), most=64),
        "intended_use": line(dataset.get("description") or dataset.get("name")),
        "limits": line(dataset.get("reference")),
        "input": {"modality": modalities[0], "orientation": "RAS" if reoriented else "LPS"},
        "inputs": [
            {"role": slug(name), "modality": modality}
            for name, modality in zip(channels[1:], modalities[1:], strict=False)
        ],
        "network": {"file": file, "format": "nnunet", "overlap": 0.5, "blend": "gaussian"},
        "output": mapping(given.get("output")) or {"segments": _segments(dataset)},
    }


def _checkpoint(folder: Path) -> str:
    """Of the first fold; the host finds the others beside it."""
    for name in CHECKPOINTS:
        if found := sorted(folder.glob(f"fold_*/{name}")):
            return found[0].relative_to(folder).as_posix()
    raise InvalidModelPackage("there is no fold_*/checkpoint_final.pth", folder.name)


def _version(checkpoint: Path) -> str:
    """nnU-Net numbers no trainings: the beginning of the weights' digest tells two of them apart."""
    with checkpoint.open("rb") as stream:
        return f"w{hashlib.file_digest(stream, 'sha256').hexdigest()[:10]}"


def _channels(dataset: Document) -> list[str]:
    channels = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(channels, Mapping) or not channels:
        raise InvalidModelPackage("the names of the channels are missing", "dataset.json.channel_names")
    try:
        return [str(channels[key]) for key in sorted(channels, key=int)]
    except ValueError:
        raise InvalidModelPackage("channels are numbered", "dataset.json.channel_names") from None


def _modality(channel: str) -> str:
    plain = channel.casefold().replace("-", "").replace("_", " ").split()
    for word in plain:
        if word in _MODALITIES:
            return _MODALITIES[word]
    raise InvalidModelPackage(
        f"{channel!r} is no modality that is known here; put a model.yaml beside it with "
        "`input: {modality: [CT]}`, or whatever it is",
        "dataset.json.channel_names",
    )


def _segments(dataset: Document) -> list[Document]:
    """Labels without the background; of regions, what nnU-Net writes for each (`regions_class_order`)."""
    labels = dataset.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        raise InvalidModelPackage("the names of the labels are missing", "dataset.json.labels")
    foreground = {str(name): value for name, value in labels.items() if name != "background" and name != "ignore"}
    order = dataset.get("regions_class_order")
    numbers = dict(zip(foreground, order, strict=False)) if isinstance(order, list) else foreground
    by_number = {value: name for name, value in numbers.items()}
    if sorted(by_number, key=str) != sorted(range(1, len(foreground) + 1), key=str):
        raise InvalidModelPackage("labels are numbered 1, 2, 3, ... without a gap", "dataset.json.labels")
    return [segment(number, by_number[number]) for number in sorted(by_number)]
