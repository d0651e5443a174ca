"""Model packages: read, opened and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode.config import Settings
from dicomnode.ports.progress import Told, nobody

if TYPE_CHECKING:
    from dicomnode.adapters.model_store import ModelStore
    from dicomnode.domain.model_card import ModelCard


def model_store(settings: Settings) -> ModelStore:
    from dicomnode.adapters.model_store import ModelStore

    return ModelStore(settings.models_folder)


def add_package(
    settings: Settings, package: Path, card: Path | None = None, told: Told = nobody
) -> tuple[ModelCard, str, Path]:
    """As ModelStore.add, once all of it can be read and its network is one; raises InvalidModelPackage."""
    return model_store(settings).add(package, card, lambda folder, found: _check_package(folder, found, told))


def _check_package(folder: Path, card: ModelCard, told: Told = nobody) -> int:
    """How many golden cases it has; raises InvalidModelPackage, NetworkUnfit."""
    from dicomnode.adapters.golden_cases import read_golden_cases
    from dicomnode.adapters.model_formats.opening import check_network

    cases = len(read_golden_cases(folder, card))
    told(f"opens {card.network.file}, and asks it for one window")
    check_network(folder, card)
    return cases


def tried_package(
    settings: Settings, package: Path, card: Path | None = None, told: Told = nobody, *, opens: bool = True
) -> tuple[ModelCard, str, int]:
    """The card and the digest that a package would be kept with, its golden cases; raises as add_package.

    `opens`: whether the network is looked at too.
    """
    from dicomnode.adapters.golden_cases import read_golden_cases

    with model_store(settings).tried(package, card) as (found, digest, folder):
        cases = _check_package(folder, found, told) if opens else len(read_golden_cases(folder, found))
        return found, digest, cases
