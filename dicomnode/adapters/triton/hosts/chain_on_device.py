"""A bundle's transforms over data that lie on a GPU: what works there runs there, the rest gets the host's memory.

MONAI's transforms say in `backend` what they compute with (monai.utils.TransformBackends). What has torch in it takes
a tensor where it lies; what has not goes through numpy, and is given the tensor on the host. Code of the bundle's own
is tried on the device, and given the host's memory from then on when it fails there and not here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from monai.transforms.compose import Compose
from monai.transforms.transform import MapTransform, apply_transform
from monai.transforms.utility.array import Lambda
from monai.transforms.utility.dictionary import Lambdad
from monai.utils.enums import TransformBackends
from monai.utils.module import optional_import

from dicomnode.adapters.triton.hosts.gpu import is_out_of_memory
from dicomnode.imaging.inference import CPU

log = logging.getLogger(__name__)

Keys = frozenset[Any] | None  # of a dictionary's items; None: all of them


class ChainOnDevice:
    """`chain` as it is, called with a dictionary whose tensors may lie on `device`.

    They come back where the last transform left them. Where a bundle itself says that something lies on the CPU, by
    a transform's or the inferer's `device`, it stays there.
    """

    def __init__(self, chain: Callable[[Any], Any], device: torch.device) -> None:
        self._device, self._steps = device, list(_steps(chain))

    @property
    def by_the_cpu(self) -> list[str]:
        """The names of the transforms that get the host's memory, as far as is known."""
        return [step.name for step in self._steps if step.works_there is False]

    def __call__(self, data: Any) -> Any:
        lent: set[Any] = set()  # what lies on the host because a step needed it there
        for step in self._steps:
            failed = ""
            if step.works_there is not False:
                data = moved(data, self._device, frozenset(lent))
                lent.clear()
                try:
                    data = step.on_device(data)
                    continue
                except RuntimeError as error:
                    if step.works_there or is_out_of_memory(error):
                        raise
                    failed = told(error)
            lent |= names_on(data, self._device, step.needs)
            data = step.run(moved(data, CPU, frozenset(lent)))
            if failed:  # there and not here
                step.works_there = False
                log.warning("%s fails on %s and is given the host's memory: %s", step.name, self._device, failed)
        return data


class _Step:
    """One transform as its chain runs it, and what is known of it.

    `needs`: the items that must lie where it computes. `works_there`: on the device; None before it was tried.
    """

    def __init__(self, run: Callable[[Any], Any], transform: Any) -> None:
        self.run, self.name = run, type(transform).__name__
        # code of the bundle may write into what it is given, and read whatever there is
        self._own = type(transform).__module__.partition(".")[0] != "monai" or isinstance(transform, Lambda | Lambdad)
        plain = isinstance(transform, MapTransform) and not self._own and bool(transform.backend)
        self.needs: Keys = frozenset(transform.keys) if plain else None
        self.works_there: bool | None = None if _may_work_there(transform) else False

    def on_device(self, data: Any) -> Any:
        """The first time on a copy, from which nothing is lost when it fails on its way."""
        found = self.run(copied(data) if self._own and self.works_there is None else data)
        self.works_there = True
        return found


def _steps(chain: Any) -> Iterator[_Step]:
    """A plain Compose transform by transform; what chooses among transforms, or is lazy, as one."""
    if type(chain) is not Compose or chain.lazy is not False:
        yield _Step(partial(apply_transform, chain), chain)
        return
    for number, transform in enumerate(chain.transforms):
        if type(transform) is Compose and transform.lazy is False:
            yield from _steps(transform)
        else:
            yield _Step(partial(chain, start=number, end=number + 1), transform)


def _may_work_there(transform: Any) -> bool:
    """Whether it is worth a try there: not with a transform that says that it goes through numpy."""
    backends = set(getattr(transform, "backend", ()))
    if not backends or TransformBackends.TORCH in backends:
        return True
    # with both of these MONAI itself stays on the GPU (monai.transforms.utils)
    with_cupy = optional_import("cupy")[1] and optional_import("cucim.skimage")[1]
    return TransformBackends.CUPY in backends and with_cupy


def told(error: BaseException) -> str:
    """Which transform it was, and what was wrong in the innermost: MONAI's own errors say only where."""
    inner = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    return str(error) if inner is error else f"{error}: {inner}"


# ---------------------------------------------------------------------------------------------- dictionaries


def moved(data: Any, device: torch.device, keys: Keys) -> Any:
    """The items of `keys` on `device`; a list of dictionaries one by one."""
    if isinstance(data, list):
        return [moved(one, device, keys) for one in data]
    if not isinstance(data, dict) or (keys is not None and not keys):
        return data.to(device) if isinstance(data, torch.Tensor) and keys is None else data
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) and (keys is None or key in keys) else value
        for key, value in data.items()
    }


def names_on(data: Any, device: torch.device, keys: Keys) -> set[Any]:
    """Of `keys` those whose tensors lie on `device`."""
    if isinstance(data, list):
        return set().union(*(names_on(one, device, keys) for one in data))
    if not isinstance(data, dict):
        return set()
    there = {k for k, v in data.items() if isinstance(v, torch.Tensor) and v.device.type == device.type}
    return there if keys is None else there & keys


def copied(data: Any) -> Any:
    """Tensors of their own, so that what writes into them harms nobody."""
    if isinstance(data, list):
        return [copied(one) for one in data]
    if isinstance(data, dict):
        return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in data.items()}
    return data.clone() if isinstance(data, torch.Tensor) else data
