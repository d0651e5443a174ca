"""What a bundle's own transforms are given."""

from __future__ import annotations

import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from dicomnode.adapters.triton.hosts.own_chain import onto


@pytest.mark.parametrize("low", [-1024.0, 0.0])
def test_a_further_series_is_as_low_as_anywhere_where_it_has_nothing(low: float) -> None:
    """In HU zero would be water."""
    values = torch.arange(27, dtype=torch.float32).reshape(3, 3, 3) + low
    moving = MetaTensor(values, affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    fixed = MetaTensor(torch.zeros(8, 5, 5), affine=torch.eye(4))
    found = onto(moving, fixed).as_tensor()
    torch.testing.assert_close(found[:5:2, ::2, ::2], values)
    torch.testing.assert_close(found[1, 0, 0], (values[0, 0, 0] + values[1, 0, 0]) / 2)
    torch.testing.assert_close(found[6:], torch.full((2, 5, 5), low))
