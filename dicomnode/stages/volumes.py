"""Series as volumes that jobs share: decoded once, and run through a model once, however many jobs ask.

Several models on one series, and several rules with one model, come one after the other within moments. What was
opened for the first is kept for a few seconds after the last has left, or until another series needs the memory.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from dicomnode.domain.halt import Halt
from dicomnode.domain.study import Series
from dicomnode.encoding.references import UsedImages
from dicomnode.errors import NotAVolume, SeriesRefused
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.geometry import Placement, VolumeGeometry
from dicomnode.imaging.headers import Instance
from dicomnode.imaging.images import plan_images
from dicomnode.imaging.volume import VolumePlan
from dicomnode.ports import Clock, InferenceEngine, InferenceSession, InstanceStore
from dicomnode.stages.answers import Answers, Labels, Question, Scores
from dicomnode.stages.headers import Headers
from dicomnode.stages.pictures import KEPT_IDLE_MOST_BYTES, OpenImages
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


def key_of(question: Question, plans: Sequence[UsedImages]) -> str:
    """What a model is asked: of which frames, in which part of them, how and on which engine."""
    model = question.model
    frames = "\n".join(f"{frame.sop_instance_uid} {frame.number}" for plan in plans for frame in plan.frames)
    engine = f"{model.chosen_engine} {model.chosen_precision}"
    how = f"{json.dumps(dict(question.parameters), sort_keys=True)} {question.region}"
    return f"{model.id} {model.digest} {engine} {how} {hashlib.sha256(frames.encode()).hexdigest()}"


def labels_made_before(labels: Labels) -> Labels:
    """The same, as those find it who did not make it."""
    return replace(labels, made_before=True)


def scores_made_before(scores: Scores) -> Scores:
    """The same, as those find it who did not make it."""
    return replace(scores, made_before=True)


class OpenVolumes:
    """The series of a job: the main one first, then those of the roles in the card's order. Any thread may ask."""

    def __init__(
        self, planned: Sequence[Planned], engine: InferenceEngine, clock: Clock, scores: Shared[Scores] | None = None
    ) -> None:
        self.main, self.further = planned[0], tuple(planned[1:])
        self._engine = engine
        self._opened = ExitStack()
        self._session: InferenceSession | None = None
        self._decoding = threading.Lock()
        self._answers = Answers([one.placement for one in planned], self._decoded, clock, self._opened)
        self._labels, self._scores = Shared(labels_made_before), scores or Shared(scores_made_before)

    @property
    def volume(self) -> npt.NDArray[np.int16]:
        """The main series: (slice, row, column) int16, stored values; read-only, since others look at it, too."""
        volume = self._decoded().volume.view()
        volume.flags.writeable = False
        return volume

    @property
    def geometry(self) -> VolumeGeometry:
        """Of the main series."""
        return self.main.plan.geometry

    def labels(self, question: Question, halt: Halt | None = None) -> Labels:
        """As Answers.labels, each once. Raises CannotDecode too.

        Without a `halt` nobody waits for it: it is made ahead, and stops when all those who came to wait have left.
        """

        def make(wanted: Halt) -> Labels:
            return self._answers.labels(question, wanted)

        return self._labels.get(self._key(question), question.timeout_s, halt, make)

    def classes(self, question: Question, halt: Halt | None = None) -> Scores:
        """As Answers.classes, each once; as labels."""

        def make(wanted: Halt) -> Scores:
            return self._answers.classes(question, wanted)

        return self._scores.get(self._key(question), question.timeout_s, halt, make)

    def _key(self, question: Question) -> str:
        roles = len(question.model.card.roles)
        return key_of(question, [planned.plan for planned in (self.main, *self.further[:roles])])

    def close(self) -> None:
        self._opened.close()

    def _decoded(self) -> InferenceSession:
        with self._decoding:
            if self._session is None:
                shapes = [planned.plan.geometry.shape for planned in (self.main, *self.further)]
                session = self._opened.enter_context(self._engine.open(shapes[0], shapes[1:]))
                for planned, volume in zip(
                    (self.main, *self.further), (session.volume, *session.further), strict=True
                ):
                    read_volume(planned.plan, planned.instances, volume)
                session.freeze()
                self._session = session
            return self._session


@dataclass(eq=False)
class _Kept:
    """Volumes, or the wait for them, and who uses them."""

    files: _Files
    opening: threading.Lock = field(default_factory=threading.Lock)
    volumes: OpenVolumes | None = None
    images: OpenImages | None = None
    users: int = 0
    left: int = 0  # how often the last user left

    @property
    def is_worth_keeping(self) -> bool:
        """When nobody uses it."""
        if self.images is not None:
            return self.images.nbytes <= KEPT_IDLE_MOST_BYTES and self.images.is_sound
        return self.volumes is not None

    def close(self) -> None:
        for opened in (self.volumes, self.images):
            if opened is not None:
                opened.close()


class Volumes:
    """Opens what jobs need; used by several threads at once."""

    def __init__(self, store: InstanceStore, engine: InferenceEngine, clock: Clock, keep_s: float = KEEP_S) -> None:
        self._engine, self._clock, self._keep_s = engine, clock, keep_s
        self._headers = Headers(store)
        self._lock = threading.Lock()
        self._kept: dict[_Files, _Kept] = {}
        self.scores = Shared(scores_made_before, keep_s, clock.monotonic)

    @contextmanager
    def open(self, series: Series, further: Mapping[str, Series]) -> Iterator[OpenVolumes]:
        """The volumes of a series and of those in roles; raises SeriesRefused (NotAVolume, CannotDecode)."""
        kept = self._enter(tuple(tuple(i.path for i in s.instances) for s in (series, *further.values())))
        try:
            with kept.opening:
                if kept.volumes is None:
                    planned = [self._planned(series), *(self._in_role(role, s) for role, s in further.items())]
                    kept.volumes = OpenVolumes(planned, self._engine, self._clock, self.scores)
            yield kept.volumes
        finally:
            self._leave(kept)

    @contextmanager
    def images(self, series: Series) -> Iterator[OpenImages]:
        """The images of a series, each by itself; raises SeriesRefused (NotAVolume, CannotDecode)."""
        kept = self._enter((("images",), tuple(i.path for i in series.instances)))
        try:
            with kept.opening:
                if kept.images is None:
                    instances = self._headers.read(series)
                    plan = plan_images([instance.header for instance in instances])
                    kept.images = OpenImages(plan, instances, self._engine, self._clock)
            yield kept.images
        finally:
            self._leave(kept)

    def read_ahead(self, series: Series) -> None:
        """Headers of images of a series that is not complete yet; raises CannotDecode, OSError."""
        self._headers.read_ahead(series)

    def close(self) -> None:
        """What nobody uses any more; what is in use is closed when it is left, or with the process."""
        self._close_idle()

    def _planned(self, series: Series) -> Planned:
        instances = tuple(self._headers.read(series))
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
        if not kept.is_worth_keeping or not self._keep_s:
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
