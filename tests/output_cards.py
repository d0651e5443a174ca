"""Cards of models that give measurements, boxes, maps and overlapping or fractional masks, and tiny such networks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dicomnode.ports import ModelVersion
from tests.triton_models import registered

SIZE = (16, 24)


def code(value: str, meaning: str, scheme: str = "SCT") -> dict[str, str]:
    return {"value": value, "scheme": scheme, "meaning": meaning}


SCORE: dict[str, Any] = {
    "name": "Agatston score",
    "code": code("112058", "Calcium score", "DCM"),
    "unit": "1",
    "finding_site": code("41801008", "Coronary artery"),
    "range": [0, 10000],
}
VOLUME: dict[str, Any] = {"name": "Brightness", "code": code("118565006", "Volume"), "unit": "mL"}
NODULE: dict[str, Any] = {"name": "Nodule", "code": code("27925004", "Nodule")}
CYST: dict[str, Any] = {"name": "Cyst", "code": code("441457006", "Cyst")}
FLOW: dict[str, Any] = {
    "name": "Perfusion",
    "quantity": code("113055", "Regional Cerebral Blood Flow", "DCM"),
    "unit": "ml/(100.g.min)",
}


def segment(number: int) -> dict[str, Any]:
    lung = code("39607008", "Lung")
    return {"number": number, "name": f"Class {number}", "category": lung, "type": lung, "colour": [0, 0, number]}


def document(name: str, output: Mapping[str, Any], *, of_images: bool = False, **card: Any) -> dict[str, Any]:
    """A card over 0 to 1000 with this output."""
    own: dict[str, Any] = {"size": list(SIZE)} if of_images else {"spacing_mm": [1.5, 1.5, 2.0]}
    given = {"modality": ["CT"], "intensity": {"from": [0, 1000], "to": [0, 1], "clip": True}, **own}
    network = {"file": "model.ts", **({} if of_images else {"window": [24, 24, 16]}), **card.pop("network", {})}
    return {
        "name": name,
        "version": "1.0.0",
        "manufacturer": "dicomnode",
        "intended_use": "tests",
        "limits": "noise",
        "input": {**given, **card.pop("input", {})},
        "network": network,
        "output": dict(output),
        **card,
    }


def package(folder: Path, module: torch.nn.Module, card: Mapping[str, Any]) -> ModelVersion:
    """Writes model.ts and model.yaml, and gives the version that the node would know it by."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's, of which model packages are made
        torch.jit.script(module).save(str(folder / "model.ts"))  # type: ignore[no-untyped-call]
    return registered(folder, card)


# Cards over these values: 53.5 is the middle, and a network sees 0.5 there.
LOW, HIGH = -946.5, 1053.5


class Highest(torch.nn.Module):
    """(n, 1, axes) → (n, 2): the highest value, and ten less than that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        highest = 2000.0 * x.flatten(1).amax(1) - 946.5
        return torch.stack([highest, highest - 10.0], 1)


class Independent(torch.nn.Module):
    """(n, 1, window) → logits of two segments that overlap: above 53.5, and above 133.5."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 400.0 * torch.cat([x - 0.5, x - 0.54], 1)


class Soft(torch.nn.Module):
    """(n, 1, window) → logits of background and two segments: the first above 53.5, the second above 133.5."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 40.0 * torch.cat([0.5 - x, x - 0.5, 3.0 * x - 1.58], 1)


class Values(torch.nn.Module):
    """(n, 1, window) → (n, 1, window): the values themselves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2000.0 * x - 946.5


class BrightBox(torch.nn.Module):
    """(1, 1, window) → a box about all that is above 53.5, and one beside it that is unsure; none of what is dark."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        bright = torch.nonzero(x[0, 0] > 0.5).to(x.dtype)
        if bright.shape[0] == 0:
            return x.new_zeros([0, 6]), x.new_zeros([0]), x.new_zeros([0])
        box = torch.cat([bright.amin(0) - 0.5, bright.amax(0) + 0.5])
        scores = torch.stack([0.4 + 0.5 * x.amax(), 0.25 * x.amax()])
        return torch.stack([box, box + 8.0]), scores, torch.zeros(2, dtype=x.dtype)


class BrightPixels(torch.nn.Module):
    """(1, 1, rows, columns) → as BrightBox, (column, row, column, row) from edge to edge, as torchvision has them."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        bright = torch.nonzero(x[0, 0] > 0.5).to(x.dtype)
        if bright.shape[0] == 0:
            return x.new_zeros([0, 4]), x.new_zeros([0]), x.new_zeros([0])
        low, high = bright.amin(0), bright.amax(0) + 1.0
        box = torch.stack([low[1], low[0], high[1], high[0]])
        return box[None], (0.4 + 0.5 * x.amax())[None], torch.ones(1, dtype=x.dtype)


SEGMENTS = [segment(1), segment(2)]
OUTPUTS: dict[str, tuple[torch.nn.Module, dict[str, Any], bool]] = {
    "numbers": (Highest(), {"measurements": {"values": [VOLUME, SCORE]}}, False),
    "numbers-of-images": (Highest(), {"measurements": {"of": "image", "values": [VOLUME, SCORE]}}, True),
    "boxes": (BrightBox(), {"boxes": {"classes": [NODULE]}}, False),
    "boxes-on-images": (BrightPixels(), {"boxes": {"classes": [NODULE], "first_class": 1}}, True),
    "map": (Values(), {"map": FLOW}, False),
    "overlap": (Independent(), {"segments": SEGMENTS, "channels": "independent"}, False),
    "both": (Soft(), {"segments": SEGMENTS, "kind": "both"}, False),
    "masks-on-images": (Soft(), {"segments": SEGMENTS}, True),
    "both-on-images": (Soft(), {"segments": SEGMENTS, "kind": "both"}, True),
    "overlap-on-images": (Independent(), {"segments": SEGMENTS, "channels": "independent"}, True),
}
"""What a network is, what its card says of the output, and whether it is one of single images."""


def output_document(name: str, **card: Any) -> dict[str, Any]:
    """The card of one of OUTPUTS, over LOW to HIGH, whose window holds a volume of 16 × 64 × 64."""
    _, output, of_images = OUTPUTS[name]
    given = {"intensity": {"from": [LOW, HIGH], "to": [0, 1]}, **card.pop("input", {})}
    network = {} if of_images else {"window": [64, 64, 16], **card.pop("network", {})}
    return document(name, card.pop("output", output), of_images=of_images, input=given, network=network, **card)


def output_package(folder: Path, name: str, **card: Any) -> ModelVersion:
    """One of OUTPUTS, as `package` writes it."""
    return package(folder / name, OUTPUTS[name][0], output_document(name, **card))
