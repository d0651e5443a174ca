"""What a model says of a decoded volume, wholly or of a box of it, and of the images that the volume is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicomnode.domain.halt import Halt
from dicomnode.domain.rules import Parameter
from dicomnode.imaging.box import Box, geometry_of_part, put_back
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.ports import ALL_IMAGES, Clock, InferenceSession, ModelVersion, Placement

# What goes to the model's host in one request: 32 MB of 512 × 512
IMAGES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Labels:
    """What a model said; the array is valid while the volumes are open."""

    array: npt.NDArray[np.uint8]  # (slice, row, column), 0 for background
    timings_s: Mapping[str, float]
    made_before: bool = False  # for another job, or ahead of this one


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model that gives classes said."""

    array: npt.NDArray[np.float32]  # (image, class) probabilities; one row of a whole series
    timings_s: Mapping[str, float]
    made_before: bool = False  # as of Labels


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

    def labels(
        self,
        model: ModelVersion,
        parameters: Mapping[str, Parameter],
        timeout_s: float,
        halt: Halt,
        region: Box | None = None,
    ) -> Labels:
        """Where `region` is given the model sees that alone; the labels are of the whole volume all the same."""
        begun_s = self._clock.monotonic()
        self._decoded()
        halt.check()
        decoded_s = self._clock.monotonic()
        with ExitStack() as until:
            session, geometry = until.enter_context(self._part(region))
            run = session.run(
                model,
                geometry,
                self._main.rescale,
                timeout_s=timeout_s,
                further=self._further_of(model),
                parameters=parameters,
                halt=halt,
            )
            labels = (self._opened if region is None else until).enter_context(run)
            if region is not None:
                labels = put_back(labels, region, self.geometry.shape)
            return Labels(labels, self._timings_s(session, begun_s, decoded_s))

    def classes(
        self,
        model: ModelVersion,
        parameters: Mapping[str, Parameter],
        timeout_s: float,
        halt: Halt,
        region: Box | None = None,
    ) -> Scores:
        """Of a model that gives a class of the whole volume, or of each of its images; `region` as of labels."""
        begun_s = self._clock.monotonic()
        self._decoded()
        halt.check()
        decoded_s = self._clock.monotonic()
        of_images = model.card.input.is_of_images
        with self._part(region) as (session, geometry):
            rows = [
                session.classify(
                    model,
                    None if of_images else geometry,
                    self._main.rescale,
                    images=images,
                    timeout_s=timeout_s,
                    further=self._further_of(model),
                    parameters=parameters,
                    halt=halt,
                )
                for images in (parts_of(geometry.shape[0]) if of_images else [ALL_IMAGES])
            ]
            return Scores(np.concatenate(rows), self._timings_s(session, begun_s, decoded_s))

    def _further_of(self, model: ModelVersion) -> tuple[Placement, ...]:
        """None of a model that comes before the one of the job, which takes the main series alone."""
        return self._further[: len(model.card.roles)]

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


def parts_of(images: int) -> Iterator[slice]:
    """So many at once."""
    return (slice(first, min(first + IMAGES_AT_ONCE, images)) for first in range(0, images, IMAGES_AT_ONCE))
