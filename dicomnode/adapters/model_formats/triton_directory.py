"""A model directory of Triton's own: config.pbtxt, and 1/ with the model in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomnode.adapters.model_formats.documents import Document
from dicomnode.errors import InvalidModelPackage

WORDS = "a Triton model directory"


def is_one(folder: Path) -> bool:
    return (folder / "config.pbtxt").is_file()


def card(folder: Path, given: Mapping[str, Any]) -> Document:
    """Refused: what its tensors mean, in which grid and units, is nowhere in it."""
    found = sorted(p for p in folder.glob("*/model.*") if p.parent.name.isdigit())
    network = next((p for p in found if p.suffix in (".onnx", ".pt", ".xml")), None)
    advice = (
        f"add its network with a card instead: `dicomnode models add {network.relative_to(folder)} --card model.yaml`"
        if network
        else "export its network to ONNX or TorchScript and add that with a card"
    )
    raise InvalidModelPackage(
        f"a Triton model directory is not run as it is, since it does not say what its tensors mean; {advice}",
        "config.pbtxt",
    )
