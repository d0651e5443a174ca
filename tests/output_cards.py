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


class MeanAndSpread(torch.nn.Module):
    """(n, 1, axes) → (n, 2): a thousand times the mean, and the difference of highest and lowest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return torch.stack([1000.0 * flat.mean(1), flat.amax(1) - flat.amin(1)], 1)
