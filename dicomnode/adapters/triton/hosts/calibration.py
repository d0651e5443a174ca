"""Windows of real images, as a network sees them, from the golden cases of its package: for finding out ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from dicomnode.adapters.golden_cases import read_golden_cases
from dicomnode.adapters.triton.hosts.networks.loaded import Tensors, as_arrays
from dicomnode.domain.golden import GOLDEN_FOLDER, GoldenCase
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_parameter import as_numbers, settled
from dicomnode.imaging.golden import GivenVolume, read_dicom_volume, read_npz_volumes
from dicomnode.imaging.windows import cut

Image = Callable[[list[GivenVolume]], torch.Tensor]
"""The main volume and those of the roles → (1, channels, model axes) float32, as the host prepares them."""


def windows_of(package: Path, card: ModelCard, image: Image) -> Iterator[Tensors]:
    """The network's inputs for every window of every golden case; none of a package without cases."""
    for case in read_golden_cases(package, card):
        beside = _parameters(card, case)
        for window in _windows(image(golden_volumes(package, card, case)), card):
            yield as_arrays([window, *beside])


def golden_volumes(package: Path, card: ModelCard, case: GoldenCase) -> list[GivenVolume]:
    """The main volume of a golden case, and those of the card's roles."""
    folder = package / GOLDEN_FOLDER
    if not (folder / case.input).is_dir():
        return read_npz_volumes(folder / case.input, 1 + len(card.roles))
    roles = [case.roles[role.name] for role in card.roles]
    return [read_dicom_volume(folder / name) for name in (case.input, *roles)]


def _windows(image: torch.Tensor, card: ModelCard) -> list[torch.Tensor]:
    """As the sliding window cuts them, edges and padding included."""
    spec = card.network
    return list(cut(image, spec.window, spec.overlap))


def _parameters(card: ModelCard, case: GoldenCase) -> list[torch.Tensor]:
    if not card.own_parameters:
        return []
    return [torch.tensor(as_numbers(card.own_parameters, settled(card.parameters, case.parameters)))]
