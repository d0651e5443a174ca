"""Cards and versions of composed models for tests: what comes first, what comes after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicomnode.domain.model_card import ModelCard, card_document, parse_model_card
from dicomnode.ports import ModelVersion
from tests.class_models import document as classifier_document
from tests.made_results import CARD

GATE: Mapping[str, Any] = {"model": "torso-ct", "use": "gate", "segments": ["Lungs"], "minimum_volume_ml": 0.01}
CROP: Mapping[str, Any] = {"model": "torso-ct", "use": "crop", "segments": ["Bone"], "margin_mm": 1.0}
BY_CLASS: Mapping[str, Any] = {"model": "regions", "use": "gate", "class": "Chest", "at_least": 0.8}


def with_after(
    *after: Mapping[str, Any], name: str = "nodules", base: ModelCard = CARD, **changes: Any
) -> Mapping[str, Any]:
    """The document of a card that comes after others."""
    return {**card_document(base), "name": name, **changes, "after": [dict(step) for step in after]}


def card(*after: Mapping[str, Any], name: str = "nodules", base: ModelCard = CARD, **changes: Any) -> ModelCard:
    return parse_model_card(with_after(*after, name=name, base=base, **changes))


def classifier(**changes: Any) -> ModelCard:
    """Of single images: Head, Chest, Abdomen."""
    return parse_model_card({**classifier_document("regions", low=-1000, high=1000), **changes})


def version(
    card: ModelCard, number: int = 1, *, active: bool = True, path: Path = Path(), **more: Any
) -> ModelVersion:
    return ModelVersion(number, card.name, card.version, f"{number:02x}" * 32, path, card, active, **more)


def other(model: ModelVersion, number: int, version: str, **more: Any) -> ModelVersion:
    """Another version of it, of a digest of its own."""
    return replace(model, id=number, version=version, digest=f"{number:02x}" * 32, **more)


def active_of(known: Sequence[ModelVersion], name: str, version: str) -> list[ModelVersion]:
    """With this version of that name active, or none for ""."""
    return [replace(m, active=m.version == version) if m.name == name else m for m in known]
