"""Transposed convolutions with few output channels, as ordinary ones: for OpenVINO's CPU kernels (see `lanes`).

Of stride 2 the output voxels fall into kinds by their place (odd or even along each axis), each with its own
weights: a convolution on the coarse grid with as many times the channels gives them, and they are put in place
afterwards (as in Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
convolutional neural network", CVPR 2016). Kinds need differently many taps: where lanes stay filled, those that are
even along the first axis have a convolution of their own, with a smaller kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dicomnode.adapters.triton.hosts.networks import lanes
from dicomnode.adapters.triton.hosts.networks.lanes import Weights

# With more, the lanes are filled well enough for the products with zero to cost more than they save: of a kernel of
# three taps an axis becomes one of four.
CHANNELS_MOST = 6
_STRIDE = 2
_BOTH = tuple(range(_STRIDE))
Part = tuple[Weights, list[int], list[int]]


def rewrite(model: Any) -> int:
    """In place, an openvino.Model; how many there were."""
    return lanes.rewritten(model, "ConvolutionBackpropData", _rewrite)


def _rewrite(node: Any) -> bool:
    weights = lanes.constant(node.input_value(1))
    if weights is None or not _is_meant(node, weights):
        return False
    from openvino import opset13 as ops

    last, what = lanes.followers(node, weights.shape[1])
    parts = cheapest(weights, node.get_attributes()["pads_begin"])
    ones = [1] * (weights.ndim - 2)
    planes = []
    for kernel, before, after in parts:
        fine = ops.convolution(node.input_value(0), ops.constant(kernel), ones, before, after, ones)
        planes.append(_placed(lanes.followed(fine, what, len(kernel) // weights.shape[1]), len(parts)))
    placed = ops.concat(planes, 1) if len(planes) > 1 else planes[0]
    shape = list(node.output(0).get_shape())
    lanes.replace(last, lanes.channels_first(ops.reshape(placed, [1, *shape[2:], shape[1]], False)))
    return True


def _is_meant(node: Any, weights: Weights) -> bool:
    """Whether it doubles every axis, by plain attributes."""
    if weights.shape[1] > CHANNELS_MOST or node.get_input_size() != 2 or not lanes.is_plain(node):
        return False
    given, made = node.input_value(0).get_shape(), node.output(0).get_shape()
    return all(stride == _STRIDE for stride in node.get_attributes()["strides"]) and [
        _STRIDE * n for n in given[2:]
    ] == list(made[2:])


def cheapest(weights: Weights, pads: Sequence[int]) -> list[Part]:
    """All kinds of voxels in one convolution, or the even and the odd of the first axis in one each."""
    ways = [[subpixel_weights(weights, pads)]]
    if weights.shape[2] >= _STRIDE:  # each kind has a tap
        ways.append([subpixel_weights(weights, pads, (first,)) for first in _BOTH])
    return min(ways, key=lambda parts: sum(_products(kernel) for kernel, _, _ in parts))


def _products(kernel: Weights) -> int:
    return lanes.taken(len(kernel)) * math.prod(kernel.shape[1:])


def subpixel_weights(weights: Weights, pads: Sequence[int], first: Sequence[int] = _BOTH) -> Part:
    """(in, out, *kernel) of stride 2 → (places × out, in, *kernel on the coarse grid), and its padding on both sides.

    Output 2j + a is the sum over i of input i times tap a + pad - 2 (i - j). `first` names the a of the first axis.
    """
    axes = [_taps(count, pad) for count, pad in zip(weights.shape[2:], pads, strict=True)]
    axes[0] = [tap for tap in axes[0] if tap[1] in first]
    before = [max(0, *(-d for d, _, _ in taps)) for taps in axes]
    after = [max(0, *(d for d, _, _ in taps)) for taps in axes]
    places = list(itertools.product(first, *[_BOTH] * (len(axes) - 1)))
    size = [b + a + 1 for b, a in zip(before, after, strict=True)]
    kernel = np.zeros((len(places), weights.shape[1], weights.shape[0], *size), dtype=np.float32)
    for taps in itertools.product(*axes):
        place = places.index(tuple(a for _, a, _ in taps))
        at: tuple[Any, ...] = (place, ..., *(d + b for (d, _, _), b in zip(taps, before, strict=True)))
        tap: tuple[Any, ...] = (..., *(t for _, _, t in taps))
        kernel[at] = weights[tap].T
    return kernel.reshape(-1, *kernel.shape[2:]), before, after


def _taps(count: int, pad: int) -> list[tuple[int, int, int]]:
    """Along one axis: (i - j, a, tap) of each tap."""
    both = itertools.product(_BOTH, range(count))
    return [((a + pad - tap) // _STRIDE, a, tap) for a, tap in both if not (a + pad - tap) % _STRIDE]


def _placed(fine: Any, parts: int) -> Any:
    """(1, places × out, *coarse) → (planes, which of the parts' planes, values in the order of their voxels).

    What lies next to each other along the last axis moves as one.
    """
    from openvino import opset13 as ops

    _, channels, *coarse = fine.output(0).get_shape()
    slower = [_STRIDE // parts, *[_STRIDE] * (len(coarse) - 1)][:-1]
    shape = [*coarse, *slower, channels // math.prod(slower)]
    order = [n for axis in range(len(coarse)) for n in (axis, len(coarse) + axis)]
    values = ops.transpose(ops.reshape(lanes.channels_last(fine), shape, False), order)
    return ops.reshape(values, [coarse[0], _STRIDE // parts, -1], False)
