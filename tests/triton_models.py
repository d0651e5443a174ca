"""Small model packages for tests of the inference engines, made on the spot."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.networks.nets import UNet

from dicomnode.domain.model_card import parse_model_card
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.ports import ModelVersion


class Slow(torch.nn.Module):
    """Thresholds, after as many needless products as it takes to be caught in flight: 0.2 s a window."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        burnt = torch.rand(400, 400)
        for _ in range(60):
            burnt = torch.tanh(burnt @ burnt)
        return torch.cat([0.5 - x, x - 0.5, x - 0.75], 1) + 0 * burnt.sum()


class Stuck(torch.nn.Module):
    """Thresholds; where anything is as bright as can be, only after minutes in which nothing can be asked of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        burnt = torch.rand(400, 400)
        if bool((x > 0.99).any()):
            for _ in range(100000):
                burnt = torch.tanh(burnt @ burnt)
        return torch.cat([0.5 - x, x - 0.5], 1) + 0 * burnt.sum()


class Thresholds(torch.nn.Module):
    """Classes of a scaled intensity: below 0.5, above 0.5."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - x, x - 0.5], 1)


class Both(torch.nn.Module):
    """Of two channels: class 1 where both are above 0.5, as tissue that is dense and takes up tracer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = torch.minimum(x[:, :1], x[:, 1:])
        return torch.cat([0.5 - low, low - 0.5], 1)


class Above(torch.nn.Module):
    """Class 1 above a threshold that is a parameter; or, by the other parameter, below it: (side, threshold)."""

    def forward(self, x: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        over = (x - parameters[1]) * (1 - 2 * parameters[0])
        return torch.cat([-over, over], 1)


def random_unet(seed: int = 0) -> torch.nn.Module:
    """Three classes of noise that hang on every voxel of the input."""
    torch.manual_seed(seed)
    return UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        channels=(4, 8, 16),
        strides=(2, 2),
        num_res_units=1,
        norm="batch",
    ).eval()


def document(name: str, segments: int, **network: Any) -> Mapping[str, Any]:
    code = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}
    more = {key: network.pop(key) for key in ("inputs", "parameters") if key in network}
    return {
        **more,
        "name": name,
        "version": "1.0.0",
        "manufacturer": "dicomnode",
        "intended_use": "tests",
        "limits": "noise",
        "input": {
            "modality": ["CT"],
            "orientation": network.pop("orientation", "RAS"),
            "spacing_mm": network.pop("spacing_mm", [1.5, 1.5, 2.0]),
            "intensity": {"from": [-57, 164], "to": [0, 1], "clip": True},
        },
        "network": {"file": "model.ts", "window": [32, 32, 32], "overlap": 0.25, **network},
        "output": {
            "segments": [
                {"number": n, "name": f"Class {n}", "category": code, "type": code, "colour": [0, 0, n]}
                for n in range(1, segments + 1)
            ]
        },
    }


def package(folder: Path, module: torch.nn.Module, name: str, segments: int, **network: Any) -> ModelVersion:
    """Writes model.ts and model.yaml, and gives the version that the node would know it by."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's, of which model packages are made
        torch.jit.script(module).save(str(folder / "model.ts"))
    return registered(folder, document(name, segments, **network))


def registered(folder: Path, card: Mapping[str, Any]) -> ModelVersion:
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    files = sorted(path for path in folder.iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    parsed = parse_model_card(yaml.safe_load((folder / "model.yaml").read_text()))
    return ModelVersion(1, parsed.name, parsed.version, digest, folder, parsed, True)


def axial(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> VolumeGeometry:
    """An axial volume as scanners send it: rows towards the back, columns towards the left, slices upwards."""
    affine = np.zeros((4, 4))
    for axis, patient in ((0, 2), (1, 1), (2, 0)):
        affine[patient, axis] = spacing_mm[axis]
    affine[:, 3] = [-100.0, -120.5, 30.25, 1.0]
    return VolumeGeometry(shape, affine)
