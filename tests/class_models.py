"""Small classifying model packages for tests, made on the spot."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dicomnode.ports import ModelVersion
from tests.triton_models import registered

SIZE = (16, 24)


def _code(value: str, meaning: str) -> Mapping[str, str]:
    return {"value": value, "scheme": "SCT", "meaning": meaning}


class Brightness(torch.nn.Module):
    """(n, 1, axes) → three scores: dark, middle and bright by the mean, ten times as far apart as that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        return 10.0 * torch.cat([0.3 - mean, 0.0 * mean, mean - 0.6], 1)


class AboveHalf(torch.nn.Module):
    """(n, 1, axes) → scores for the first class where the mean is below a half, for the second where it is above."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        return 40.0 * torch.cat([0.5 - mean, mean - 0.5, 0.0 * mean - 1.0], 1)


class TopHalf(torch.nn.Module):
    """Whether an image's upper half is the brighter one, as probabilities."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[2] // 2
        top = torch.sigmoid(20.0 * (x[:, :, :rows].flatten(1).mean(1) - x[:, :, rows:].flatten(1).mean(1)))
        return torch.stack([top, 1.0 - top, 0.0 * top], 1)


def document(
    name: str, *, of: str = "image", modality: str = "CT", low: float = 0, high: float = 1000, **output: Any
) -> Mapping[str, Any]:
    """A card of three classes, over `low` to `high`."""
    own: dict[str, Any] = {"size": list(SIZE)} if of == "image" else {"spacing_mm": [1.5, 1.5, 2.0]}
    return {
        "name": name,
        "version": "1.0.0",
        "manufacturer": "dicomnode",
        "intended_use": "tests",
        "limits": "brightness is no anatomy",
        "input": {"modality": [modality], "intensity": {"from": [low, high], "to": [0, 1], "clip": True}, **own},
        "network": {"file": "model.ts", **({} if of == "image" else {"window": [24, 24, 16]})},
        "output": {
            "classification": {
                "of": of,
                "finding": _code("363698007", "Finding Site"),
                "classes": [
                    {"name": "Head", "code": _code("69536005", "Head")},
                    {"name": "Chest", "code": _code("51185008", "Chest")},
                    {"name": "Abdomen", "code": _code("818981001", "Abdomen")},
                ],
                **output,
            }
        },
    }


def classifier(folder: Path, module: torch.nn.Module, name: str, **card: Any) -> ModelVersion:
    """Writes model.ts and model.yaml, and gives the version that the node would know it by."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's, of which model packages are made
        torch.jit.script(module).save(str(folder / "model.ts"))  # type: ignore[no-untyped-call]
    return registered(folder, document(name, **card))
