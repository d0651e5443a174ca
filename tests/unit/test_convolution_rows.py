"""Convolutions with few output channels, several voxels at once: the same sums."""

from __future__ import annotations

import dicomnode.adapters.triton.hosts  # isort: skip  # OpenVINO is not to report to its maker
from typing import Any

import numpy as np
import pytest
import torch

from dicomnode.adapters.triton.hosts.networks.rows import rewrite, row_weights, voxels_at_once
from tests.openvino_models import answer, converted, kinds

pytest.importorskip("openvino")
assert dicomnode.adapters.triton.hosts


class Residual(torch.nn.Module):
    """The last step of MONAI's UNet: x + conv(x)."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(values) + values
        return found


def strides(model: Any) -> list[list[int]]:
    ordered = model.get_ordered_ops()
    return [list(node.get_attributes()["strides"]) for node in ordered if node.get_type_name() == "Convolution"]


def is_the_same(model: Any, network: torch.nn.Module, values: torch.Tensor) -> bool:
    with torch.no_grad():
        wanted = network(values).numpy()
    return bool(np.abs(answer(model, values) - wanted).max() < 1e-5)


@pytest.mark.parametrize(
    ("network", "shape", "stride"),
    [
        (torch.nn.Conv3d(3, 3, 3, padding=1), (1, 3, 5, 6, 8), [1, 1, 4]),
        (torch.nn.Conv3d(16, 2, 3, padding=1, bias=False), (1, 16, 4, 5, 16), [1, 1, 8]),
        (torch.nn.Conv3d(3, 3, (1, 3, 5), padding=(0, 1, 0)), (1, 3, 4, 5, 14), [1, 1, 5]),
        (torch.nn.Conv2d(4, 1, 3, padding=1), (1, 4, 7, 32), [1, 16]),
        (torch.nn.Sequential(torch.nn.Conv3d(2, 3, 3, padding=1), torch.nn.PReLU(3)), (1, 2, 4, 5, 20), [1, 1, 5]),
    ],
)
def test_rows(network: torch.nn.Module, shape: tuple[int, ...], stride: list[int]) -> None:
    torch.manual_seed(1)
    values = torch.randn(shape)
    model = converted(network, shape)
    assert rewrite(model) == 1
    assert strides(model) == [stride]
    assert is_the_same(model, network, values)


def test_a_residual_connection_becomes_a_part_of_the_kernel() -> None:
    torch.manual_seed(2)
    network, values = Residual(torch.nn.Conv3d(3, 3, 3, padding=1)), torch.randn(1, 3, 5, 6, 8)
    model = converted(network, tuple(values.shape))
    assert rewrite(model) == 1
    assert kinds(model).count("Add") == 1  # the bias
    assert is_the_same(model, network, values)


@pytest.mark.parametrize(
    "inner",
    [
        torch.nn.Sequential(torch.nn.Conv3d(3, 3, 3, padding=1), torch.nn.PReLU()),  # not linear before the sum
        torch.nn.Conv3d(3, 3, (3, 3, 5), padding=(1, 1, 2), padding_mode="circular"),
    ],
)
def test_a_sum_that_cannot_be_part_of_the_kernel_stays(inner: torch.nn.Module) -> None:
    torch.manual_seed(3)
    network, values = Residual(inner), torch.randn(1, 3, 5, 6, 8)
    model = converted(network, tuple(values.shape))
    assert rewrite(model) == 1
    assert kinds(model).count("Add") == 2
    assert is_the_same(model, network, values)


def test_what_else_is_made_of_the_result_stays() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Conv3d(3, 3, 3, padding=1)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.inner(values)
            return (found + values) * found

    network, values = Twice(), torch.randn(1, 3, 5, 6, 8)
    model = converted(network, tuple(values.shape))
    assert rewrite(model) == 1
    assert is_the_same(model, network, values)


@pytest.mark.parametrize(
    "network",
    [
        torch.nn.Conv3d(3, 16, 3, padding=1),  # fills its lanes
        torch.nn.Conv3d(3, 3, 1),  # one tap: nothing to gain
        torch.nn.Conv3d(3, 3, 3, padding=1, stride=2),
        torch.nn.Conv3d(3, 3, 3, padding=2, dilation=2),
        torch.nn.Conv3d(3, 3, 3, padding=1, groups=3),
    ],
)
def test_others_are_left_as_they_are(network: torch.nn.Module) -> None:
    values = torch.randn(1, 3, 6, 6, 8)
    model = converted(network, tuple(values.shape))
    assert rewrite(model) == 0
    assert is_the_same(model, network, values)


def test_as_many_voxels_as_fill_the_lanes_and_divide_the_row() -> None:
    def count(channels: int, row: int, taps: int = 3) -> int:
        return voxels_at_once(np.ones((channels, 4, taps, taps, taps), dtype=np.float32), row)

    assert [count(1, 96), count(2, 96), count(3, 96), count(4, 96), count(8, 96)] == [16, 8, 4, 4, 2]
    assert count(3, 100) == 5
    assert count(3, 97) == 1  # a prime
    assert count(12, 96) == 1
    assert count(2, 96, taps=1) == 1


def test_each_voxel_has_the_kernel_at_its_place() -> None:
    weights = np.arange(1, 13, dtype=np.float32).reshape(2, 1, 2, 3)
    rows = row_weights(weights, 2)
    assert rows.shape == (4, 1, 2, 4)
    assert (rows[:2, ..., :3] == weights).all()
    assert (rows[2:, ..., 1:] == weights).all()
    assert not rows[:2, ..., 3].any()
    assert not rows[2:, ..., 0].any()
