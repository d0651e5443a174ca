"""How many images at once go through a network of single images.

A file says little of its batch axis: TorchScript nothing, ONNX only how it was meant. So it is tried: a network that
takes several images and gives for each what it gives for it alone takes up to 32 of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from dicomnode.adapters.triton.hosts.networks.loaded import Answers, Source, random_inputs

IMAGES_MOST = 32
CLOSE = 1e-5  # largest difference of scores, as a share of their largest
_FAULTS = (RuntimeError, ValueError, TypeError, IndexError)
_TRIED = 3  # of several it differs from two whether an axis is the batch or is folded into it


def images_at_once(
    source: Source,
    run: Callable[..., Answers],
    device: torch.device,
    faults: tuple[type[Exception], ...] = (),
) -> int:
    """Of a network of single images, which `run` calls; `faults`: what else it raises of what it does not take."""
    expected: tuple[type[Exception], ...] = (*_FAULTS, *faults)
    inputs = [random_inputs(source, seed) for seed in range(_TRIED)]
    own = [parameter.to(device) for parameter in inputs[0][1:]]
    images = [given[0].to(device) for given in inputs]
    alone = [[answer.clone() for answer in run(image, *own)] for image in images]
    try:
        together = run(torch.cat(images), *own)
        each = zip(zip(*alone, strict=True), together, strict=True)
        return IMAGES_MOST if all(_equal(torch.cat(list(ones)), all_) for ones, all_ in each) else 1
    except expected:  # also of answers that have no batch axis
        return 1


def _equal(alone: torch.Tensor, together: torch.Tensor) -> bool:
    """(n, ...) each; scores that are no numbers are never equal."""
    if alone.shape != together.shape:
        return False
    return bool((alone - together).abs().max() <= CLOSE * max(1.0, float(alone.abs().max())))
