"""Volumes and answers in the shared memory of whoever asks, mapped here: the one volume there is, and no copy of it.

Triton's Python backend copies every tensor on the CPU into the memory that it shares with this process, and every
answer out of it. Of 300 images of 512 x 512 that took 0.4 s, and the volume's memory once more for each model.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.adapters.triton.tensors import NOT_MAPPED, TensorPlace


class CannotMap(RuntimeError):
    """This process does not see the memory of the one that asks: it runs in another container, or as another user."""


def places_in(document: bytes) -> dict[str, TensorPlace]:
    """By the name of the tensor that lies there."""
    return {name: TensorPlace.of(said) for name, said in json.loads(document).items()}


def read_from(place: TensorPlace, dtype: npt.DTypeLike) -> torch.Tensor:
    """The tensor in that place. Who writes into it writes into a copy of his own (mmap(2), MAP_PRIVATE)."""
    return torch.from_numpy(_mapped(place, dtype, mmap.ACCESS_COPY))


def written(answers: Mapping[str, torch.Tensor], places: Mapping[str, TensorPlace]) -> dict[str, torch.Tensor]:
    """Puts those answers in their places that have one; the others."""
    for name, place in places.items():
        if name in answers:
            found = answers[name].cpu().numpy()
            if found.shape != place.shape:
                raise ValueError(f"{name} is {found.shape}, {place.shape} was asked for")
            _mapped(place, found.dtype, mmap.ACCESS_WRITE)[...] = found
    return {name: answer for name, answer in answers.items() if name not in places}


def _mapped(place: TensorPlace, dtype: npt.DTypeLike, access: int) -> npt.NDArray[Any]:
    wanted = np.dtype(dtype)
    count = int(np.prod(place.shape, dtype=np.int64))
    try:
        descriptor = os.open(place.path, os.O_CLOEXEC | (os.O_RDWR if access == mmap.ACCESS_WRITE else os.O_RDONLY))
        try:
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) != (place.device, place.inode):
                raise CannotMap(f"{NOT_MAPPED}: {place.path} is another file here")
            memory = mmap.mmap(descriptor, 0, access=access)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise CannotMap(f"{NOT_MAPPED}: {error}") from error
    return np.frombuffer(memory, dtype=wanted, count=count, offset=place.offset).reshape(place.shape)
