"""Transposed convolutions with few output channels, as ordinary ones: for OpenVINO's CPU kernels.

A kernel works on sixteen output channels at once. The last step up of many U-Nets, to all voxels of the window,
has as many as there are classes: three of sixteen lanes work. Of stride 2 its output voxels fall into eight kinds by
their place (odd or even along each axis), each with its own weights: one convolution on the coarse grid with eight
times the channels gives all, and they are put in place afterwards (as in Shi et al., "Real-time single image and
video super-resolution using an efficient sub-pixel convolutional neural network", CVPR 2016). The sums are the same
but for their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# With more, the lanes are filled well enough for the products with zero to cost more than they save: of a kernel of
# three taps an axis becomes one of four.
CHANNELS_MOST = 6
_STRIDE = 2
Weights = npt.NDArray[np.float32]


def rewrite(model: Any) -> int:
    """In place, an openvino.Model; how many there were."""
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "ConvolutionBackpropData"]
    done = sum(_rewrite(node) for node in found)
    if done:
        model.validate_nodes_and_infer_types()
    return done


def _rewrite(node: Any) -> bool:
    weights = _constant(node.input_value(1))
    if weights is None or not _is_meant(node, weights):
        return False
    from openvino import opset13 as ops

    pads = node.get_attributes()["pads_begin"]
    kernel, before, after = subpixel_weights(weights, pads)
    ones = [1] * len(pads)
    fine = ops.convolution(node.input_value(0), ops.constant(kernel), ones, before, after, ones)
    last, fine = _with_what_follows(node, fine, weights.shape[1], ops)
    placed = ops.depth_to_space(fine, "blocks_first", _STRIDE)
    for target in last.output(0).get_target_inputs():
        target.replace_source_output(placed.output(0))
    return True


def _is_meant(node: Any, weights: Weights) -> bool:
    """Whether it doubles every axis, by plain attributes."""
    attributes = node.get_attributes()
    given, made = node.input_value(0).get_partial_shape(), node.output(0).get_partial_shape()
    return (
        weights.shape[1] <= CHANNELS_MOST
        and weights.dtype == np.float32
        and node.get_input_size() == 2
        and attributes["auto_pad"] == "explicit"
        and all(stride == _STRIDE for stride in attributes["strides"])
        and all(dilation == 1 for dilation in attributes["dilations"])
        and given.is_static
        and made.is_static
        and [_STRIDE * n for n in given.to_shape()[2:]] == list(made.to_shape()[2:])
    )


def subpixel_weights(weights: Weights, pads: list[int]) -> tuple[Weights, list[int], list[int]]:
    """(in, out, kernel) of stride 2 → (places × out, in, kernel on the coarse grid), and its padding on both sides.

    Output 2j + a is the sum over i of input i times tap a + pad - 2 (i - j).
    """
    axes = [_taps(count, pad) for count, pad in zip(weights.shape[2:], pads, strict=True)]
    before = [-min(d for d, _, _ in taps) for taps in axes]
    after = [max(d for d, _, _ in taps) for taps in axes]
    places = list(itertools.product(range(_STRIDE), repeat=len(axes)))
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
    both = itertools.product(range(_STRIDE), range(count))
    return [((a + pad - tap) // _STRIDE, a, tap) for a, tap in both if not (a + pad - tap) % _STRIDE]


def _with_what_follows(node: Any, fine: Any, channels: int, ops: Any) -> tuple[Any, Any]:
    """A number added to a channel, and a PReLU, come before the voxels are put in place: kernels include them."""
    axes = len(node.output(0).get_partial_shape()) - 2
    while (follower := _only_follower(node)) is not None:
        kind, values = follower.get_type_name(), _constant(follower.input_value(1))
        if values is None or tuple(values.shape) not in _SHAPES[kind](channels, axes):
            break
        each = np.tile(np.broadcast_to(values.reshape(-1), channels), _STRIDE**axes)
        fine = ops.add(fine, each.reshape(1, -1, *[1] * axes)) if kind == "Add" else ops.prelu(fine, each)
        node = follower
    return node, fine


_SHAPES: dict[str, Callable[[int, int], Sequence[tuple[int, ...]]]] = {
    "Add": lambda channels, axes: [(1, channels, *[1] * axes)],
    "PRelu": lambda channels, axes: [(1,), (channels,)],
}


def _only_follower(node: Any) -> Any:
    """What alone takes the output as its first input, of the kinds that are understood here."""
    targets = list(node.output(0).get_target_inputs())
    if len(targets) != 1 or targets[0].get_index() != 0:
        return None
    follower = targets[0].get_node()
    return follower if follower.get_type_name() in _SHAPES else None


def _constant(output: Any) -> Weights | None:
    node = output.get_node()
    return np.asarray(node.data) if node.get_type_name() == "Constant" else None
