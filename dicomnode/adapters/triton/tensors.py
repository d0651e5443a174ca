"""What a model's host is told and what it answers, as named arrays: the same inside Triton and without it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.rules import Parameter
from dicomnode.errors import InferenceTimeout
from dicomnode.imaging.geometry import Placement, VolumeGeometry
from dicomnode.ports import InferenceRequest

Shape = tuple[int, int, int]
REGIONS = "REGIONS"  # the input that says where volumes lie and answers go, in place of the tensors themselves
NOT_MAPPED = "the regions of who asks cannot be mapped"  # what a host's error begins with
Answers = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that the host measured."""

    before_s: float
    network_s: float
    after_s: float

    def as_mapping(self) -> Mapping[str, float]:
        return {"before": self.before_s, "network": self.network_s, "after": self.after_s}


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies in the memory of the process that asks: a file that it holds open, and from which byte.

    `device` and `inode` are the file's (stat(2)): in another container the path may lead to another one.
    """

    path: str
    device: int
    inode: int
    offset: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> TensorPlace:
        return cls(str(said["path"]), said["device"], said["inode"], said["offset"], tuple(said["shape"]))


def regions_input(places: Mapping[str, TensorPlace]) -> npt.NDArray[np.uint8]:
    """REGIONS, a JSON object by the tensors' names."""
    document = json.dumps({name: asdict(place) for name, place in places.items()}).encode()
    return np.frombuffer(bytearray(document), dtype=np.uint8)


def is_gathered(card: ModelCard) -> bool:
    """Whether Triton hands several requests at once to the host, which runs their images in common batches.

    All tensors of such a model have one axis more, of length 1: what Triton counts requests by.
    """
    plain = not card.roles and not card.network.brings_its_chain
    return plain and card.input.is_of_images and card.classification is not None


def ungathered(card: ModelCard, array: Any) -> Any:
    """An answer, array or tensor, without the axis that counts requests."""
    return array[0] if is_gathered(card) else array


def numbered(name: str, number: int) -> str:
    """The host's name for a tensor of the main volume (0) or of a role (1 and so on)."""
    return f"{name}_{number}" if number else name


def placements_of(request: InferenceRequest, shape: tuple[int, ...]) -> list[Placement]:
    """Of the volumes that a model is given; single images have no place: theirs means nothing."""
    images, rows, columns = shape
    place = request.geometry or VolumeGeometry((images, rows, columns), np.eye(4))
    return [Placement(place, request.rescale), *request.further][: 1 + len(request.model.card.roles)]


def volume_arrays(card: ModelCard, shape: Shape) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
    """Shape and dtype of those answers of a model that are as large as its main volume, or the images asked about."""
    every: dict[str, tuple[tuple[int, ...], npt.DTypeLike]] = {
        "LABELMAP": (shape, np.uint8),
        "PROBABILITIES": ((len(card.segments), *shape), np.uint8),
        "MAP": (shape, np.float32),
    }
    return {name: every[name] for name in card.output.arrays if name in every}


def without_header(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Boxes come after a row that says nothing, since a tensor of none would be no tensor."""
    return array[1:] if name == "BOXES" else array


def small_inputs(placements: Sequence[Placement], parameters: Mapping[str, Parameter]) -> dict[str, npt.NDArray[Any]]:
    """What the host is told beside the volumes; `placements` has the main volume's first."""
    document = json.dumps(dict(parameters)).encode()
    tensors: dict[str, npt.NDArray[Any]] = {"PARAMETERS": np.frombuffer(bytearray(document), dtype=np.uint8)}
    for number, placement in enumerate(placements):
        rescale, affine = placement.rescale, placement.geometry.affine
        tensors[numbered("RESCALE", number)] = np.array([rescale.slope, rescale.intercept], dtype=np.float32)
        tensors[numbered("AFFINE", number)] = np.array(affine, dtype=np.float64)
    return tensors


def timed_out(request: InferenceRequest) -> InferenceTimeout:
    model = f"{request.model.name} {request.model.version}"
    return InferenceTimeout(f"the model {model} gave no answer within {request.timeout_s:.3g} s and was stopped")
