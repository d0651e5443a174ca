"""MONAI's own chain over a volume, as a researcher writes it: what the node's labels have to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd, ScaleIntensityRanged, Spacingd

from dicomnode.domain.model_card import InputSpec
from dicomnode.imaging.geometry import VolumeGeometry

LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def spec(orientation: str, spacing_mm: tuple[float, float, float]) -> InputSpec:
    return InputSpec(("CT",), orientation, spacing_mm, (-57.0, 164.0), (0.0, 1.0), True, (0.0, 0.0, 0.0))


class Reference:
    """MONAI's own chain over a volume (slice, row, column), as a researcher writes it."""

    def __init__(self, spec: InputSpec) -> None:
        self.before = Compose(
            [
                Orientationd(keys="image", axcodes=spec.orientation, labels=LABELS),
                Spacingd(keys="image", pixdim=spec.spacing_mm, mode="bilinear"),
                ScaleIntensityRanged(keys="image", a_min=-57.0, a_max=164.0, b_min=0.0, b_max=1.0, clip=True),
            ]
        )
        self.after = Invertd(keys="labels", transform=self.before, orig_keys="image", nearest_interp=True)

    def prepare(self, values: np.ndarray[Any, Any], geometry: VolumeGeometry) -> torch.Tensor:
        ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine[:, [2, 1, 0, 3]]
        image = MetaTensor(torch.from_numpy(values.astype(np.float32).T[None].copy()), affine=torch.from_numpy(ras))
        self.image = self.before({"image": image})["image"]
        return self.image.as_tensor()

    def restore(self, labels: torch.Tensor) -> np.ndarray[Any, Any]:
        back = self.after({"image": self.image, "labels": MetaTensor(labels[None].float())})["labels"]
        result: np.ndarray[Any, Any] = back.numpy()[0].T.astype(np.uint8)
        return result
