"""What a model says of a decoded volume, wholly or of a box of it, and of the images that the volume is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.halt import Halt
from dicomnode.domain.rules import Parameter
from dicomnode.imaging.box import Box, geometry_of_part, put_back
from dicomnode.imaging.geometry import Placement, VolumeGeometry
from dicomnode.imaging.masks import SegmentMasks
from dicomnode.ports import ALL_IMAGES, Clock, InferenceRequest, InferenceSession, ModelVersion

# What goes to the model's host in one request: 32 MB of 512 × 512
IMAGES_AT_ONCE = 64


# Answers that have a value for every voxel of the main volume
_AS_LARGE_AS_A_VOLUME = ("LABELMAP", "PROBABILITIES", "MAP")


@dataclass(frozen=True, slots=True)
class Labels:
    """What a model said of a volume; the arrays are valid while the volumes are open."""

    arrays: Mapping[str, npt.NDArray[Any]]  # as ports.InferenceSession.ask gives them
    timings_s: Mapping[str, float]
    made_before: bool = False  # for another job, or ahead of this one

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """(slice, row, column), 0 for background, of a model whose segments do not overlap."""
        labels: npt.NDArray[np.uint8] = self.arrays["LABELMAP"]
        return labels

    def where(self, numbers: Sequence[int], threshold: float) -> npt.NDArray[np.uint8]:
        """A label map of these segments together, whether they overlap or not: theirs is the first one's number."""
        if "LABELMAP" in self.arrays:
            return self.array
        masks = SegmentMasks.of_answers(self.arrays, threshold)
        together = np.zeros(masks.shape, dtype=np.uint8)
        for number in numbers:
            together[masks.of(number)] = numbers[0]
        return together


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model that gives classes or measurements said, or boxes on single images, or masks of them."""

    array: npt.NDArray[np.float32]  # (image, class or value), one row of a whole series; or (box, 7)
    timings_s: Mapping[str, float]
    made_before: bool = False  # as of Labels
    # Masks of a model of single images: of each stack of the plan what ports.InferenceSession.ask gives, copied
    of_stacks: tuple[Mapping[str, npt.NDArray[Any]], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked, whatever it is asked about. `parameters`: those that differ from the model card."""

    model: ModelVersion
    parameters: Mapping[str, Parameter]
    timeout_s: float
    region: Box | None = None  # where it is given, the model sees that alone


class Answers:
    """Of a session; `placements` of its volumes, the main one's first. What it gives is valid until `opened` closes.

    Any thread may ask. All raise InferenceError, OutOfResources and what `decoded` raises; once `halt` is said,
    InferenceStopped.
    """

    def __init__(
        self,
        placements: Sequence[Placement],
        decoded: Callable[[], InferenceSession],
        clock: Clock,
        opened: ExitStack,
    ) -> None:
        self._main, self._further = placements[0], tuple(placements[1:])
        self._decoded, self._clock, self._opened = decoded, clock, opened

    @property
    def geometry(self) -> VolumeGeometry:
        """Of the main volume."""
        return self._main.geometry

    def labels(self, question: Question, halt: Halt) -> Labels:
        """Of the whole volume, also where the model sees a region alone."""
        begun_s, region = self._clock.monotonic(), question.region
        self._decoded()
        halt.check()
        decoded_s = self._clock.monotonic()
        with ExitStack() as until:
            session, geometry = until.enter_context(self._part(region))
            request = self._request(question, geometry, ALL_IMAGES, halt)
            arrays = (self._opened if region is None else until).enter_context(session.ask(request))
            if region is not None:
                arrays = {name: self._put_back(name, array, region) for name, array in arrays.items()}
            return Labels(arrays, self._timings_s(session, begun_s, decoded_s))

    def _put_back(self, name: str, array: npt.NDArray[Any], region: Box) -> npt.NDArray[Any]:
        """As it is of the whole volume; boxes are in the patient, and stay where they are."""
        return put_back(array, region, self.geometry.shape) if name in _AS_LARGE_AS_A_VOLUME else array.copy()

    def classes(self, question: Question, halt: Halt) -> Scores:
        """Of a model that gives a class of the whole volume, or of each of its images."""
        begun_s = self._clock.monotonic()
        self._decoded()
        halt.check()
        decoded_s = self._clock.monotonic()
        model, of_images = question.model, question.model.card.input.is_of_images
        with self._part(question.region) as (session, geometry):
            count, found = geometry.shape[0], []
            for images in parts_of(count) if of_images else [ALL_IMAGES]:
                request = self._request(question, None if of_images else geometry, images, halt)
                with session.ask(request) as arrays:
                    found.append((range(count)[images] if of_images else range(1), few_of(arrays)))
            return Scores(of_all_images(model, found), self._timings_s(session, begun_s, decoded_s))

    def _request(
        self, question: Question, geometry: VolumeGeometry | None, images: slice, halt: Halt
    ) -> InferenceRequest:
        return InferenceRequest(
            question.model,
            geometry,
            self._main.rescale,
            images=images,
            timeout_s=question.timeout_s,
            # none for a model that comes before the one of the job, which takes the main series alone
            further=self._further[: len(question.model.card.roles)],
            parameters=question.parameters,
            halt=halt,
        )

    @contextmanager
    def _part(self, region: Box | None) -> Iterator[tuple[InferenceSession, VolumeGeometry]]:
        """The session over the whole volume, or over a box of it, and where that lies."""
        session = self._decoded()
        if region is None:
            yield session, self.geometry
            return
        with session.part(region) as part:
            yield part, geometry_of_part(self.geometry, region)

    def _timings_s(self, session: InferenceSession, begun_s: float, decoded_s: float) -> dict[str, float]:
        timings_s = {"decode": decoded_s - begun_s, "infer": self._clock.monotonic() - decoded_s}
        return timings_s | {f"infer: {part}": seconds for part, seconds in session.timings_s.items()}


def gives_arrays(model: ModelVersion) -> bool:
    """Whether its answer is about a volume as a whole: masks, a map, or boxes in it.

    Else it is few numbers, or masks of single images.
    """
    return model.card.gives in ("segments", "map", "boxes") and not model.card.input.size


def masks_of_stacks(
    parts: Sequence[tuple[int, Mapping[str, npt.NDArray[Any]]]], stacks: int
) -> tuple[Mapping[str, npt.NDArray[Any]], ...]:
    """Of parts, (number of the stack, what was said of some of its images) in the images' order."""
    return tuple(_joined([arrays for which, arrays in parts if which == number]) for number in range(stacks))


def _joined(parts: Sequence[Mapping[str, npt.NDArray[Any]]]) -> Mapping[str, npt.NDArray[Any]]:
    """Images are the third axis from behind."""
    names = parts[0].keys()
    return {name: np.concatenate([arrays[name] for arrays in parts], axis=-3) for name in names}


def few_of(arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """SCORES, or BOXES of single images, as an array of its own."""
    (array,) = arrays.values()
    copied: npt.NDArray[np.float32] = array.copy()
    return copied


def of_all_images(
    model: ModelVersion, found: Sequence[tuple[Sequence[int], npt.NDArray[np.float32]]]
) -> npt.NDArray[np.float32]:
    """What was said of some images at a time, in the images' order; with each, which of all images these are.

    Scores have a row for each image; boxes, (box, 7), name their image, and are put in the order of these.
    """
    if model.card.gives == "boxes":
        return _boxes_of_all(found)
    together = np.zeros((sum(len(images) for images, _ in found), found[0][1].shape[1]), dtype=np.float32)
    for images, array in found:
        together[list(images)] = array
    return together


def _boxes_of_all(found: Sequence[tuple[Sequence[int], npt.NDArray[np.float32]]]) -> npt.NDArray[np.float32]:
    every = [array.copy() for _, array in found]
    for (images, _), array in zip(found, every, strict=True):
        array[:, 0] = np.array(images, dtype=np.float32)[array[:, 0].astype(int)]
    boxes: npt.NDArray[np.float32] = np.concatenate(every)
    return boxes[np.argsort(boxes[:, 0], kind="stable")]


def parts_of(images: int) -> Iterator[slice]:
    """So many at once."""
    return (slice(first, min(first + IMAGES_AT_ONCE, images)) for first in range(0, images, IMAGES_AT_ONCE))
