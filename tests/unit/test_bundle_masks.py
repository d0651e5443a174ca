"""A bundle's channels as masks that may overlap."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dicomnode.adapters.triton.hosts.asked import Given
from dicomnode.adapters.triton.hosts.bundle_host import probabilities_of
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from tests.made_outputs import OVERLAP

SHAPE = (2, 3, 4)
MAIN = Given(torch.zeros(SHAPE, dtype=torch.int16), Placement(VolumeGeometry(SHAPE, np.eye(4)), Rescale(1.0, 0.0)))


def test_each_channel_is_a_mask_by_itself() -> None:
    values = torch.zeros(2, 4, 3, 2)
    values[0, 1, 2, 0], values[1, 1, 2, 0], values[1, 3, 0, 1] = 1.0, 0.5, 0.25
    found = probabilities_of(values, OVERLAP, MAIN)
    assert found.shape == (2, *SHAPE)
    assert (found[0, 0, 2, 1], found[1, 0, 2, 1], found[1, 1, 0, 3]) == (255, 128, 64)
    assert int((found > 0).sum()) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [(torch.zeros(3, 4, 3, 2), "a mask a segment"), (torch.full((2, 4, 3, 2), 2.0), "leave 0 to 1")],
)
def test_what_is_no_mask_is_refused(values: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        probabilities_of(values, OVERLAP, MAIN)
