"""Transposed convolutions as ordinary ones: the same sums."""

from __future__ import annotations

import dicomnode.adapters.triton.hosts  # isort: skip  # OpenVINO is not to report to its maker
import numpy as np
import pytest
import torch

from dicomnode.adapters.triton.hosts.networks.subpixel import CHANNELS_MOST, cheapest, rewrite, subpixel_weights
from tests.openvino_models import answer, converted, kinds

pytest.importorskip("openvino")
assert dicomnode.adapters.triton.hosts


@pytest.mark.parametrize(
    ("kernel", "pad", "more", "channels", "bias"),
    [(3, 1, 1, 3, True), (3, 1, 1, 1, False), (2, 0, 0, CHANNELS_MOST, True), (4, 1, 0, 2, True), (1, 0, 1, 2, True)],
)
def test_in_three_dimensions(kernel: int, pad: int, more: int, channels: int, bias: bool) -> None:
    torch.manual_seed(kernel)
    up = torch.nn.ConvTranspose3d(5, channels, kernel, 2, pad, more, bias=bias)
    network = torch.nn.Sequential(up, torch.nn.PReLU(init=0.3), torch.nn.Conv3d(channels, 2, 3, padding=1))
    values = torch.randn(1, 5, 6, 7, 4)
    model = converted(network, tuple(values.shape))
    assert rewrite(model) == 1
    assert "ConvolutionBackpropData" not in kinds(model)
    assert kinds(model).index("PRelu") < kinds(model).index("Transpose")
    with torch.no_grad():
        wanted = network(values).numpy()
    assert np.abs(answer(model, values) - wanted).max() < 1e-5


def test_in_two_dimensions_and_with_its_result_used_twice() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = torch.nn.ConvTranspose2d(4, 3, 3, 2, 1, 1)
            self.slope = torch.nn.PReLU(3)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            fine = self.up(values)
            return self.slope(fine) + fine

    network, values = Twice(), torch.randn(1, 4, 5, 9)
    model = converted(network, tuple(values.shape))
    assert rewrite(model) == 1
    with torch.no_grad():
        wanted = network(values).numpy()
    assert np.abs(answer(model, values) - wanted).max() < 1e-5


@pytest.mark.parametrize(
    "up",
    [
        torch.nn.ConvTranspose3d(5, CHANNELS_MOST + 1, 3, 2, 1, 1),
        torch.nn.ConvTranspose3d(5, 3, 3, 2, 1, 0),  # not twice the size
        torch.nn.ConvTranspose3d(5, 3, 3, 1, 1, 0),
        torch.nn.ConvTranspose3d(5, 3, 3, (2, 2, 1), 1, (1, 1, 0)),
        torch.nn.ConvTranspose3d(5, 3, 3, 2, 1, 1, dilation=2),
    ],
)
def test_others_are_left_as_they_are(up: torch.nn.Module) -> None:
    values = torch.randn(1, 5, 6, 7, 4)
    model = converted(up, tuple(values.shape))
    assert rewrite(model) == 0
    with torch.no_grad():
        wanted = up(values).numpy()
    assert np.abs(answer(model, values) - wanted).max() < 1e-5


def test_every_weight_is_used_once() -> None:
    weights = np.arange(1, 1 + 2 * 3 * 27, dtype=np.float32).reshape(2, 3, 3, 3, 3)
    kernel, before, after = subpixel_weights(weights, [1, 1, 1])
    assert kernel.shape == (24, 2, 2, 2, 2)
    assert (before, after) == ([0, 0, 0], [1, 1, 1])
    assert sorted(kernel[kernel > 0]) == sorted(weights.reshape(-1))


def test_even_and_odd_planes_are_apart_where_that_saves_products_and_lanes_stay_filled() -> None:
    def shapes(out: int, taps: int, axes: int) -> list[tuple[int, ...]]:
        weights = np.ones((32, out, *[taps] * axes), dtype=np.float32)
        return [kernel.shape for kernel, _, _ in cheapest(weights, [(taps - 1) // 2] * axes)]

    assert shapes(3, 3, 3) == [(12, 32, 1, 2, 2), (12, 32, 2, 2, 2)]
    assert shapes(2, 3, 3) == [(16, 32, 2, 2, 2)]
    assert shapes(3, 3, 2) == [(12, 32, 2, 2)]
    assert shapes(3, 2, 3) == [(24, 32, 1, 1, 1)]


def test_every_weight_is_used_once_in_one_part_or_the_other() -> None:
    weights = np.arange(1, 1 + 2 * 3 * 27, dtype=np.float32).reshape(2, 3, 3, 3, 3)
    kernels = [kernel for kernel, _, _ in cheapest(weights, [1, 1, 1])]
    assert len(kernels) == 2
    assert sorted(np.concatenate([kernel[kernel > 0] for kernel in kernels])) == sorted(weights.reshape(-1))
