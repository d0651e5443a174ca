"""What a model is warmed with."""

from __future__ import annotations

from pathlib import Path

from dicomnode.adapters.model_store import ModelStore
from dicomnode.adapters.triton.engine import shape_of_air
from tests import model_bundles


def test_a_bundle_of_images_is_warmed_with_one_of_its_size(tmp_path: Path) -> None:
    images, _, _ = ModelStore(tmp_path / "store").add(model_bundles.classifier(tmp_path / "images"))
    volumes, _, _ = ModelStore(tmp_path / "store").add(model_bundles.spleen(tmp_path / "volumes"))
    assert shape_of_air(images) == (1, 40, 48)
    assert shape_of_air(volumes) == (4, 8, 8)
