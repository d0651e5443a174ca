"""What OpenVINO's CPU kernels make of few output channels, and what the rewriting of such convolutions shares.

A kernel works on sixteen output channels at once, and keeps the channels of a voxel together in memory. The last
steps of most segmentation networks, at all voxels of the window, have as many channels as there are classes: three
of sixteen lanes work. The values of several voxels are made as so many channels instead (`subpixel`, `rows`): the
same sums, but for their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

LANES = 16
Weights = npt.NDArray[np.float32]
Follower = tuple[str, Weights]  # "Add" or "PRelu", and its number for each channel


def taken(channels: int) -> int:
    """Lanes that so many output channels occupy."""
    return -(-channels // LANES) * LANES


def rewritten(model: Any, kind: str, rewrite: Callable[[Any], bool]) -> int:
    """In place, an openvino.Model: each node of that type that `rewrite` says it replaced; how many there were."""
    done = sum(rewrite(node) for node in model.get_ordered_ops() if node.get_type_name() == kind)
    if done:
        model.validate_nodes_and_infer_types()
    return done


def constant(output: Any) -> Weights | None:
    """The values of an openvino.Output that never change; None of others."""
    node = output.get_node()
    return np.asarray(node.data) if node.get_type_name() == "Constant" else None


def is_plain(node: Any) -> bool:
    """A convolution of a fixed shape, in float32, with explicit padding and without dilation."""
    attributes, weights = node.get_attributes(), constant(node.input_value(1))
    return (
        weights is not None
        and weights.dtype == np.float32
        and attributes["auto_pad"] == "explicit"
        and all(dilation == 1 for dilation in attributes["dilations"])
        and node.input_value(0).get_partial_shape().is_static
        and node.output(0).get_partial_shape().is_static
    )


def followers(node: Any, channels: int) -> tuple[Any, list[Follower]]:
    """What kernels can include: numbers added to a channel, PReLU. The last such node, and all in their order."""
    axes, found = len(node.output(0).get_partial_shape()) - 2, []
    while (follower := only_follower(node)) is not None:
        kind = follower.get_type_name()
        values = constant(follower.input_value(1)) if kind in _SHAPES else None
        if values is None or tuple(values.shape) not in _SHAPES[kind](channels, axes):
            break
        found.append((kind, np.broadcast_to(values.reshape(-1), channels)))
        node = follower
    return node, found


_SHAPES: dict[str, Callable[[int, int], Sequence[tuple[int, ...]]]] = {
    "Add": lambda channels, axes: [(1, channels, *[1] * axes)],
    "PRelu": lambda channels, axes: [(1,), (channels,)],
}


def only_follower(node: Any) -> Any:
    """What alone takes the output, as its first input."""
    targets = list(node.output(0).get_target_inputs())
    return targets[0].get_node() if len(targets) == 1 and targets[0].get_index() == 0 else None


def followed(values: Any, what: Sequence[Follower], times: int) -> Any:
    """The same after a convolution whose channels are those of so many voxels."""
    from openvino import opset13 as ops

    axes = len(values.output(0).get_partial_shape()) - 2
    for kind, numbers in what:
        each = np.tile(numbers, times).astype(np.float32)
        values = ops.add(values, each.reshape(1, -1, *[1] * axes)) if kind == "Add" else ops.prelu(values, each)
    return values


def channels_last(values: Any) -> Any:
    """(1, channels, *voxels) → (1, *voxels, channels): costs nothing, it is how kernels leave them."""
    from openvino import opset13 as ops

    axes = len(values.output(0).get_partial_shape())
    return ops.transpose(values, [0, *range(2, axes), 1])


def channels_first(values: Any) -> Any:
    from openvino import opset13 as ops

    axes = len(values.output(0).get_partial_shape())
    return ops.transpose(values, [0, axes - 1, *range(1, axes - 1)])


def replace(last: Any, values: Any) -> None:
    """Whoever takes the output of the node `last` takes `values` from now on."""
    for target in last.output(0).get_target_inputs():
        target.replace_source_output(values.output(0))
