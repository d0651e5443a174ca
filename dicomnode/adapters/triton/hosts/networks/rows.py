"""Convolutions with few output channels, several voxels of a row at once: for OpenVINO's CPU kernels (see `lanes`).

With a stride of r along the last axis and a kernel longer by r - 1, a convolution of r times the channels gives r
neighbours at each of its places. In memory that is the row as it was. A residual connection around it becomes a part
of its kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dicomnode.adapters.triton.hosts.networks import lanes
from dicomnode.adapters.triton.hosts.networks.lanes import LANES, Weights

_WORTH_IT = 0.75  # of the products of what was there


def rewrite(model: Any) -> int:
    """In place, an openvino.Model; how many there were."""
    return lanes.rewritten(model, "Convolution", _rewrite)


def _rewrite(node: Any) -> bool:
    if not lanes.is_plain(node) or any(stride != 1 for stride in node.get_attributes()["strides"]):
        return False
    weights = lanes.constant(node.input_value(1))
    made = list(node.output(0).get_shape())
    if weights is None or (count := voxels_at_once(weights, made[-1])) == 1:
        return False
    from openvino import opset13 as ops

    given, channels, attributes = node.input_value(0), weights.shape[0], node.get_attributes()
    last, what = lanes.followers(node, channels)
    if (residual := _residual(last, given, what)) is not None and _keeps_its_place(node, weights):
        last, weights = residual, _with_identity(weights)
    ones = [1] * (len(made) - 2)
    stride, before, after = [*ones[1:], count], attributes["pads_begin"], attributes["pads_end"]
    several = ops.convolution(given, ops.constant(row_weights(weights, count)), stride, before, after, ones)
    rows = ops.reshape(lanes.channels_last(lanes.followed(several, what, count)), [1, *made[2:], channels], False)
    lanes.replace(last, lanes.channels_first(rows))
    return True


def voxels_at_once(weights: Weights, row: int) -> int:
    """Of weights (out, in, *kernel), rows of so many voxels: as many as fill the lanes; 1 where it gains nothing."""
    channels, taps = weights.shape[0], weights.shape[-1]

    def products(count: int) -> float:  # for a voxel, of each of the other taps
        return (taps + count - 1) * lanes.taken(count * channels) / count

    best = min((n for n in range(1, LANES + 1) if row % n == 0), key=products)
    return best if products(best) <= _WORTH_IT * products(1) else 1


def row_weights(weights: Weights, count: int) -> Weights:
    """(out, in, *kernel) → (count × out, in, *kernel with count - 1 taps more along the last axis)."""
    out, taps = weights.shape[0], weights.shape[-1]
    kernel = np.zeros((count, *weights.shape[:-1], taps + count - 1), dtype=np.float32)
    for voxel in range(count):
        kernel[voxel, ..., voxel : voxel + taps] = weights
    return kernel.reshape(count * out, *kernel.shape[2:])


def _residual(last: Any, given: Any, what: list[lanes.Follower]) -> Any:
    """The sum of a convolution's result, nothing but numbers added to it, with what went into it."""
    targets = list(last.output(0).get_target_inputs())
    if len(targets) != 1 or any(kind != "Add" for kind, _ in what):
        return None
    follower, other = targets[0].get_node(), 1 - targets[0].get_index()
    return follower if follower.get_type_name() == "Add" and follower.input_value(other) == given else None


def _keeps_its_place(node: Any, weights: Weights) -> bool:
    """Whether the middle tap is of the voxel itself, and there are as many channels as before."""
    attributes, middle = node.get_attributes(), [taps // 2 for taps in weights.shape[2:]]
    return (
        weights.shape[0] == weights.shape[1]
        and all(taps % 2 for taps in weights.shape[2:])
        and list(attributes["pads_begin"]) == list(attributes["pads_end"]) == middle
    )


def _with_identity(weights: Weights) -> Weights:
    summed = weights.copy()
    each = np.arange(len(weights))
    summed[(each, each, *(taps // 2 for taps in weights.shape[2:]))] += 1
    return summed
