"""The images of a series, decoded once for all models that look at each image by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.halt import Halt
from dicomnode.imaging.decode import read_frames
from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.headers import Instance
from dicomnode.imaging.images import ImagesPlan, ImageStack
from dicomnode.ports import Clock, InferenceEngine, InferenceRequest, InferenceSession, ModelVersion
from dicomnode.stages.answers import Question, Scores, few_of, masks_of_stacks, of_all_images, parts_of

# As many bytes of decoded images are kept for the next job when no job uses them; more is decoded anew for it
KEPT_IDLE_MOST_BYTES = 256 << 20

Array = npt.NDArray[np.int16]


class OpenImages:
    """Some images of one size at a time, all of them in memory that the models' hosts see. Any thread may ask.

    They are decoded one part after the other from the first question on; each model takes up each part as soon as it
    is there.
    """

    def __init__(
        self, plan: ImagesPlan, instances: Sequence[Instance], engine: InferenceEngine, clock: Clock
    ) -> None:
        self.plan, self._instances, self._engine, self._clock = plan, tuple(instances), engine, clock
        self._opened, self._opening, self._again = ExitStack(), threading.Lock(), threading.Lock()
        self._parts = [(n, part) for n, stack in enumerate(plan.stacks) for part in parts_of(stack.shape[0])]
        self._session: InferenceSession | None = None
        self._decoded: list[Future[Array]] = []

    @property
    def nbytes(self) -> int:
        """Of the decoded images."""
        return sum(2 * int(np.prod(stack.shape)) for stack in self.plan.stacks)

    @property
    def is_sound(self) -> bool:
        """Whether none of its images could not be read: a disk may do better the next time."""
        ended = [part for part in self._decoded if part.done() and not part.cancelled()]
        return all(part.exception() is None for part in ended)

    def scores(self, question: Question, halt: Halt) -> Scores:
        """(image, class or value) float32, in the order of the plan's frames; or BOXES, (box, 7), in that order.

        Of a model that gives masks those of each stack, and no array.

        Raises InferenceError, OutOfResources, CannotDecode; InferenceStopped once `halt` is said.
        """
        found: list[tuple[Sequence[int], npt.NDArray[np.float32]]] = []
        masks: list[tuple[int, Mapping[str, npt.NDArray[Any]]]] = []
        timings_s: dict[str, float] = {}
        begun_s = self._clock.monotonic()
        session, model = self._begun(), question.model
        for number, (which, part) in enumerate(self._parts):
            waits_s = self._clock.monotonic()
            self._wait_for(number)
            halt.check()
            ready_s = self._clock.monotonic()
            stack = self.plan.stacks[which]
            for images, rescale in _asked_about(model, stack, part):
                request = InferenceRequest(
                    model,
                    stack.part(images).geometry if model.card.output.of_images else None,
                    rescale,
                    which=which,
                    images=images,
                    timeout_s=question.timeout_s - (self._clock.monotonic() - begun_s),
                    parameters=question.parameters,
                    halt=halt,
                )
                with session.ask(request) as arrays:
                    if model.card.output.of_images:
                        masks.append((which, {name: array.copy() for name, array in arrays.items()}))
                    else:
                        found.append((stack.indices[images], few_of(arrays)))
                _add(timings_s, {f"infer: {name}": seconds for name, seconds in session.timings_s.items()})
            _add(timings_s, {"decode": ready_s - waits_s, "infer": self._clock.monotonic() - ready_s})
        if masks:
            of_stacks = masks_of_stacks(masks, len(self.plan.stacks))
            return Scores(np.zeros((0, 0), dtype=np.float32), timings_s, of_stacks=of_stacks)
        return Scores(of_all_images(model, found), timings_s)

    def values(self, halt: Halt) -> tuple[Array, ...]:
        """Of each stack its images, (image, row, column) int16; valid until this is closed. Raises as scores."""
        self._begun()
        for number in range(len(self._parts)):
            self._wait_for(number)
            halt.check()
        return tuple(self._array(which) for which in range(len(self.plan.stacks)))

    def close(self) -> None:
        self._opened.close()

    def _begun(self) -> InferenceSession:
        """The session, into which the images are being decoded from the first time on."""
        with self._opening:
            if self._session is None:
                shapes = [stack.shape for stack in self.plan.stacks]
                self._session = self._opened.enter_context(self._engine.open(shapes[0], shapes[1:]))
                thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
                self._opened.callback(thread.shutdown, cancel_futures=True)
                self._decoded = [thread.submit(self._decode, number) for number in range(len(self._parts))]
            return self._session

    def _decode(self, number: int) -> Array:
        """The array that the part lies in."""
        which, part = self._parts[number]
        array = self._array(which)
        read_frames(self.plan.stacks[which].part(part), self._instances, array[part])
        return array

    def _wait_for(self, number: int) -> None:
        """A server that was started anew has another region, and the part may have been decoded into the old one."""
        decoded = self._decoded[number].result()
        if decoded is self._array(self._parts[number][0]):
            return
        with self._again:
            if self._decoded[number].result() is not self._array(self._parts[number][0]):
                self._decoded[number] = _done(lambda: self._decode(number))

    def _array(self, which: int) -> Array:
        assert self._session is not None
        return (self._session.volume, *self._session.further)[which]


def _asked_about(model: ModelVersion, stack: ImageStack, part: slice) -> Iterable[tuple[slice, Rescale]]:
    """Images that go to the model together, and the rescale of their values: all, or those of one window."""
    return stack.shown_as(part) if model.card.input.windowed else [(part, stack.rescale)]


def _done(make: Callable[[], Array]) -> Future[Array]:
    future: Future[Array] = Future()
    future.set_result(make())
    return future


def _add(timings_s: dict[str, float], more: Mapping[str, float]) -> None:
    for name, seconds in more.items():
        timings_s[name] = timings_s.get(name, 0.0) + seconds
