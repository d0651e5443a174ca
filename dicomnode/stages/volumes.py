"""Series as volumes that jobs share: decoded once, and run through a model once, however many jobs ask.

Several models on one series, and several rules with one model, come one after the other within moments. What was
opened for the first is kept for a few seconds after the last has left, or until another series needs the memory.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from dicomnode.domain.halt import Halt
from dicomnode.domain.rules import Parameter
from dicomnode.domain.study import Series
from dicomnode.errors import NotAVolume, SeriesRefused
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.headers import Instance, read_instances
from dicomnode.imaging.volume import VolumePlan
from dicomnode.ports import Clock, InferenceEngine, InferenceSession, InstanceStore, ModelVersion, Placement
from dicomnode.stages.shared import Shared

KEEP_S = 3.0

_Files = tuple[tuple[str, ...], ...]  # of each series, the paths of its instances: another image, another volume


@dataclass(frozen=True, slots=True)
class Planned:
    """A series whose headers were read, and where its frames go."""

    instances: tuple[Instance, ...]
    plan: VolumePlan

    @property
    def placement(self) -> Placement:
        return Placement(self.plan.geometry, self.plan.rescale)


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


class OpenVolumes:
    """The series of a job: the main one first, then those of the roles in the card's order. Any thread may ask."""

    def __init__(self, planned: Sequence[Planned], engine: InferenceEngine, clock: Clock) -> None:
        self.main, self.further = planned[0], tuple(planned[1:])
        self._engine, self._clock = engine, clock
        self._opened = ExitStack()
        self._session: InferenceSession | None = None
        self._decoding = threading.Lock()
        self._made: Shared[Labels] = Shared(made_before)

    @property
    def volume(self) -> npt.NDArray[np.int16]:
        """The main series: (slice, row, column) int16, stored values."""
        return self._decoded().volume

    def labels(
        self,
        model: ModelVersion,
        parameters: Mapping[str, Parameter],
        timeout_s: float,
        halt: Halt | None = None,
    ) -> Labels:
        """Raises InferenceError, OutOfResources, CannotDecode; InferenceStopped once `halt` is said.

        Without a `halt` nobody waits for it: it is made ahead, and stops when all those who came to wait have left.
        """
        key = f"{model.id} {model.digest} {json.dumps(dict(parameters), sort_keys=True)}"
        return self._made.get(key, timeout_s, halt, lambda wanted: self._run(model, parameters, timeout_s, wanted))

    def classes(
        self,
        model: ModelVersion,
        parameters: Mapping[str, Parameter],
        timeout_s: float,
        halt: Halt | None = None,
    ) -> Scores:
        """Of a model that gives a class of the whole series; raises as labels."""
        begun_s = self._clock.monotonic()
        session = self._decoded()
        decoded_s = self._clock.monotonic()
        scores = session.classify(
            model,
            self.main.plan.geometry,
            self.main.plan.rescale,
            timeout_s=timeout_s,
            further=[planned.placement for planned in self.further],
            parameters=parameters,
            halt=halt,
        )
        timings_s = {"decode": decoded_s - begun_s, "infer": self._clock.monotonic() - decoded_s}
        return Scores(scores, timings_s | {f"infer: {part}": s for part, s in session.timings_s.items()})

    def close(self) -> None:
        self._opened.close()

    def _run(self, model: ModelVersion, parameters: Mapping[str, Parameter], timeout_s: float, halt: Halt) -> Labels:
        begun_s = self._clock.monotonic()
        session = self._decoded()
        halt.check()
        decoded_s = self._clock.monotonic()
        run = session.run(
            model,
            self.main.plan.geometry,
            self.main.plan.rescale,
            timeout_s=timeout_s,
            further=[planned.placement for planned in self.further],
            parameters=parameters,
            halt=halt,
        )
        labels = self._opened.enter_context(run)
        timings_s = {"decode": decoded_s - begun_s, "infer": self._clock.monotonic() - decoded_s}
        return Labels(labels, timings_s | {f"infer: {part}": s for part, s in session.timings_s.items()})

    def _decoded(self) -> InferenceSession:
        with self._decoding:
            if self._session is None:
                shapes = [planned.plan.geometry.shape for planned in (self.main, *self.further)]
                session = self._opened.enter_context(self._engine.open(shapes[0], shapes[1:]))
                for planned, volume in zip(
                    (self.main, *self.further), (session.volume, *session.further), strict=True
                ):
                    read_volume(planned.plan, planned.instances, volume)
                self._session = session
            return self._session


def made_before(labels: Labels) -> Labels:
    """The same, as those find it who did not make it."""
    return replace(labels, made_before=True)


@dataclass(eq=False)
class _Kept:
    """Volumes, or the wait for them, and who uses them."""

    files: _Files
    opening: threading.Lock = field(default_factory=threading.Lock)
    volumes: OpenVolumes | None = None
    users: int = 0
    left: int = 0  # how often the last user left

    def close(self) -> None:
        if self.volumes is not None:
            self.volumes.close()


class Volumes:
    """Opens what jobs need; used by several threads at once."""

    def __init__(self, store: InstanceStore, engine: InferenceEngine, clock: Clock, keep_s: float = KEEP_S) -> None:
        self._store, self._engine, self._clock, self._keep_s = store, engine, clock, keep_s
        self._lock = threading.Lock()
        self._kept: dict[_Files, _Kept] = {}

    @contextmanager
    def open(self, series: Series, further: Mapping[str, Series]) -> Iterator[OpenVolumes]:
        """The volumes of a series and of those in roles; raises SeriesRefused (NotAVolume, CannotDecode)."""
        kept = self._enter(tuple(tuple(i.path for i in s.instances) for s in (series, *further.values())))
        try:
            with kept.opening:
                if kept.volumes is None:
                    planned = [self._planned(series), *(self._in_role(role, s) for role, s in further.items())]
                    kept.volumes = OpenVolumes(planned, self._engine, self._clock)
            yield kept.volumes
        finally:
            self._leave(kept)

    def close(self) -> None:
        """What nobody uses any more; what is in use is closed when it is left, or with the process."""
        self._close_idle()

    def _planned(self, series: Series) -> Planned:
        instances = tuple(read_instances([self._store.path(i.path) for i in series.instances]))
        return Planned(instances, plan_instances(instances))

    def _in_role(self, role: str, series: Series) -> Planned:
        """What is wrong with it is told with the role's name."""
        try:
            return self._planned(series)
        except NotAVolume as error:
            raise NotAVolume(error.reason, f"the series in the role {role}: {error}") from error
        except SeriesRefused as error:
            raise type(error)(f"the series in the role {role}: {error}") from error

    def _enter(self, files: _Files) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(files, _Kept(files))
            kept.users += 1
        self._close_idle()
        return kept

    def _leave(self, kept: _Kept) -> None:
        with self._lock:
            kept.users -= 1
            if kept.users:
                return
            kept.left += 1
        if kept.volumes is None or not self._keep_s:
            self._expire(kept, kept.left)
            return
        timer = threading.Timer(self._keep_s, self._expire, (kept, kept.left))
        timer.daemon = True
        timer.start()

    def _expire(self, kept: _Kept, left: int) -> None:
        with self._lock:
            if kept.users or kept.left != left or self._kept.get(kept.files) is not kept:
                return
            del self._kept[kept.files]
        kept.close()

    def _close_idle(self) -> None:
        with self._lock:
            idle = [kept for kept in self._kept.values() if not kept.users]
            for kept in idle:
                del self._kept[kept.files]
        for kept in idle:
            kept.close()
