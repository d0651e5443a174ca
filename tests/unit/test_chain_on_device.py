"""Which of MONAI's transforms compute on a GPU: what the documentation says of the release that is installed."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from monai import transforms
from monai.transforms.transform import MapTransform
from monai.utils.enums import TransformBackends

GPU = Path(__file__).parents[2] / "docs" / "gpu.md"


def test_the_transforms_that_the_cpu_does_are_listed() -> None:
    """But those that are random, which only train, and the one that is for cupy."""
    found = {
        name
        for name, kind in vars(transforms).items()
        if inspect.isclass(kind) and issubclass(kind, MapTransform) and name == kind.__name__ and name.endswith("d")
        if kind.backend and TransformBackends.TORCH not in kind.backend and not name.startswith("Rand")
    }
    (row,) = re.findall(r"^\| numpy alone.*\| (.*) \|$", GPU.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(row.split(", ")) == found - {"ToCupyd"}


def test_what_a_chain_needs_most_computes_with_torch() -> None:
    names = (
        *("Orientationd", "Spacingd", "ScaleIntensityRanged", "NormalizeIntensityd", "CropForegroundd"),
        *("EnsureTyped", "Activationsd", "AsDiscreted"),
    )
    assert all(TransformBackends.TORCH in getattr(transforms, name).backend for name in names)
