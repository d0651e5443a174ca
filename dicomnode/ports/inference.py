"""Who runs models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dicomnode.domain.halt import Halt
from dicomnode.domain.rules import Parameter
from dicomnode.ports.work import ModelVersion

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dicomnode.imaging.box import Box
    from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry

ALL_IMAGES = slice(None)


@dataclass(frozen=True, eq=False, slots=True)
class InferenceRequest:
    """What one model is asked about the volumes of a session, and how."""

    model: ModelVersion
    geometry: VolumeGeometry | None  # of the main volume; a model of single images needs none
    rescale: Rescale  # of the main volume's stored values
    _: KW_ONLY
    timeout_s: float  # the wait for others counts, too
    which: int = 0  # where the main volume lies: 0 in `volume`, n in `further[n - 1]`, as images of another size do
    # Some of the main volume's, from one to another: a few at a time cost the model's host less memory
    images: slice = field(default_factory=lambda: ALL_IMAGES)
    further: Sequence[Placement] = ()  # where the further volumes lie
    parameters: Mapping[str, Parameter] = field(default_factory=dict)  # those that differ from the model card
    halt: Halt = field(default_factory=Halt)  # said when nobody wants the answer any more: then the model stops


class InferenceSession(Protocol):
    """One decoded volume, and those of further series if there are any, open for any number of models at once."""

    @property
    def volume(self) -> npt.NDArray[np.int16]:
        """(slice, row, column) int16, stored values, in the source's grid: decode straight into it."""

    @property
    def further(self) -> Sequence[npt.NDArray[np.int16]]:
        """Of the model card's roles in their order, as `volume`, each in its own grid."""

    def freeze(self) -> None:
        """Nothing is written into the volumes any more: they are read-only from here on.

        What lies in them may then be copied to where models run, once for all of them; before that nothing is. An
        array does not tell when it is written to, so whoever decodes into it has to say that it is done.
        """

    @property
    def timings_s(self) -> Mapping[str, float]:
        """Of this thread's last run: "before", "network" and "after", in seconds, as its host measured them."""

    def ask(self, request: InferenceRequest) -> AbstractContextManager[Mapping[str, npt.NDArray[Any]]]:
        """All that a model gives, by the names in its card's `output.arrays`; valid inside the `with`.

        In the main volume's grid: LABELMAP (slice, row, column) uint8, 0 for background; PROBABILITIES (segment,
        slice, row, column) uint8, 255 for certainty; MAP (slice, row, column) float32, in the card's unit.
        SCORES (image, class or value) float32, one row for a model of series. BOXES (box, 14) float32: centre, LPS
        mm, three half sides as LPS vectors, score, number of the class from 0; of single images (box, 7): number of
        the image, column and row of the lower corner, of the upper one, in pixels from the outer edge of the first,
        score, class; the highest score comes first.

        Raises EngineUnavailable, InferenceTimeout, ModelFailed, OutOfResources (no shared memory left), and
        InferenceStopped once the request's halt is said.
        """

    def part(self, box: Box) -> AbstractContextManager[InferenceSession]:
        """A session whose volume is this box of this one's, decoded already; the further ones are the same.

        What it is run with is the geometry of the part. Raises OutOfResources.
        """


class InferenceEngine(Protocol):
    def open(
        self, shape: tuple[int, int, int], further: Sequence[tuple[int, int, int]] = ()
    ) -> AbstractContextManager[InferenceSession]:
        """A session with room for a volume of this shape, and for further ones of these."""

    def load(self, model: ModelVersion) -> None:
        """Loads and warms it, so that the first study does not wait; several threads may load different ones.

        Raises ModelFailed, ModelHangs, EngineUnavailable.
        """

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        """Loads and warms these models so that the first study does not wait; unloads others that nobody uses."""

    def taken(self, model: ModelVersion) -> Mapping[str, float]:
        """What its last run here took at its peak: "host_bytes", "gpu_bytes"; what nobody knows is left out."""

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        """Engine, precision and device as they really are, for provenance."""
