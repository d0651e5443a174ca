"""One study in Triton: its volumes in shared memory, for any number of models, whatever the server does meanwhile.

A server that was killed knows no region any more: the volumes move to new ones, and a call that was in flight is
tried again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.adapters.triton.client import Client, input_of, plain_output, shared_output
from dicomnode.adapters.triton.loaded_models import LoadedModels, left
from dicomnode.adapters.triton.mapped import Mapped
from dicomnode.adapters.triton.on_gpu import GpuVolumes, Upload
from dicomnode.adapters.triton.tensors import (
    Answers,
    Shape,
    Timings,
    is_gathered,
    placements_of,
    small_inputs,
    timed_out,
    ungathered,
    volume_arrays,
    without_header,
)
from dicomnode.domain.halt import Halt
from dicomnode.domain.rules import Parameter
from dicomnode.errors import EngineUnavailable, InferenceTimeout
from dicomnode.imaging.box import Box
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.ports import ALL_IMAGES, ModelVersion

log = logging.getLogger(__name__)

_ATTEMPTS_MOST = 3  # of one call: its server may be killed, and its model's process because of another's call


@dataclass(frozen=True, eq=False)
class Connection:
    """What all sessions of an engine have in common. `prefix`: of the names of their regions."""

    client: Client
    models: LoadedModels
    gpus: GpuVolumes
    prefix: str
    grace_s: float  # a server that was killed has to come back


class TritonSession:
    """One volume, and those of further series, mapped into Triton, for any number of models."""

    @property
    def timings_s(self) -> Mapping[str, float]:
        return self.last_timings.as_mapping() if self.last_timings else {}

    @property
    def last_timings(self) -> Timings | None:
        """Of this thread's last run: several models may run on one volume at once."""
        return getattr(self._last, "timings", None)

    def __init__(self, connection: Connection, regions: contextlib.ExitStack, shapes: Sequence[Shape]) -> None:
        self._connection, self._regions = connection, regions
        self._last, self._moving, self._frozen = threading.local(), threading.Lock(), False
        self._mapped = [self._new(shape) for shape in shapes]

    @property
    def volume(self) -> npt.NDArray[np.int16]:
        """(slice, row, column) int16, stored values."""
        return self._mapped[0].array

    @property
    def further(self) -> Sequence[npt.NDArray[np.int16]]:
        """As `volume`, of further series, each in its own grid."""
        return [mapped.array for mapped in self._mapped[1:]]

    def _new(self, shape: Shape) -> Mapped:
        shared = self._connection.client.shared(self._connection.prefix, 2 * math.prod(shape))
        region = self._regions.enter_context(shared)
        upload = Upload(self._connection.gpus, region)
        self._regions.callback(upload.close)
        return Mapped(region, region.array(shape, np.int16), upload)

    def freeze(self) -> None:
        """Nothing writes into the volumes any more; what lies in them may be copied to a GPU."""
        self._frozen = True
        for mapped in self._mapped:
            mapped.array.flags.writeable = False

    @contextlib.contextmanager
    def ask(
        self,
        model: ModelVersion,
        geometry: VolumeGeometry | None,
        rescale: Rescale,
        *,
        which: int = 0,
        images: slice = ALL_IMAGES,
        timeout_s: float,
        further: Sequence[Placement] = (),
        parameters: Mapping[str, Parameter] | None = None,
        halt: Halt | None = None,
    ) -> Iterator[Answers]:
        """What is as large as a volume lies in shared memory; `timeout_s` counts the wait for others."""
        placements = placements_of(model, self._mapped[which].array[images].shape, geometry, rescale, further)
        tensors = small_inputs(placements, parameters)
        with contextlib.ExitStack() as outputs:

            def attempt(deadline: float) -> Answers:
                outputs.close()
                return self._attempt(model, tensors, deadline, outputs, which, images, halt)

            yield self._insisting(model, timeout_s, halt, attempt)

    @contextlib.contextmanager
    def run(
        self,
        model: ModelVersion,
        geometry: VolumeGeometry,
        rescale: Rescale,
        *,
        timeout_s: float,
        further: Sequence[Placement] = (),
        parameters: Mapping[str, Parameter] | None = None,
        halt: Halt | None = None,
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """The label map, (slice, row, column) uint8, in shared memory."""
        asked = self.ask(
            model, geometry, rescale, timeout_s=timeout_s, further=further, parameters=parameters, halt=halt
        )
        with asked as answers:
            yield answers["LABELMAP"]

    def classify(
        self,
        model: ModelVersion,
        geometry: VolumeGeometry | None,
        rescale: Rescale,
        *,
        which: int = 0,
        images: slice = ALL_IMAGES,
        timeout_s: float,
        further: Sequence[Placement] = (),
        parameters: Mapping[str, Parameter] | None = None,
        halt: Halt | None = None,
    ) -> npt.NDArray[np.float32]:
        """(image, class or value) float32, with the answer itself: they are few."""
        with self.ask(
            model,
            geometry,
            rescale,
            which=which,
            images=images,
            timeout_s=timeout_s,
            further=further,
            parameters=parameters,
            halt=halt,
        ) as answers:
            return answers["SCORES"]

    @contextlib.contextmanager
    def part(self, box: Box) -> Iterator[TritonSession]:
        """Whole slices are read where they lie; another box gets a region of its own."""
        main = self._mapped[0]
        with contextlib.ExitStack() as regions:
            part = TritonSession(self._connection, regions, [])
            in_place = box.is_whole_slices_of(main.shape)
            volume = main.part(box) if in_place else part._copied(main.array[box.slices])
            part._mapped, part._frozen = [volume, *self._mapped[1:]], self._frozen
            yield part

    def _copied(self, volume: npt.NDArray[np.int16]) -> Mapped:
        """(slice, row, column) int16 in a region of its own."""
        slices, rows, columns = volume.shape
        copied = self._new((slices, rows, columns))
        copied.array[...] = volume
        copied.array.flags.writeable = volume.flags.writeable
        return copied

    def _insisting(
        self, model: ModelVersion, timeout_s: float, halt: Halt | None, attempt: Callable[[float], Answers]
    ) -> Answers:
        """What `attempt` gives by the deadline; again when the server or the model's process was lost under way."""
        deadline, attempts = time.monotonic() + timeout_s, 1
        try:
            while True:
                try:
                    return attempt(deadline)
                except EngineUnavailable as error:
                    if attempts == _ATTEMPTS_MOST:
                        raise
                    log.warning("inference is tried again: %s", error)
                    if halt is not None:
                        halt.check()
                    self._recover(deadline)
                attempts += 1
        except InferenceTimeout as error:
            raise timed_out(model, timeout_s) from error

    def _recover(self, deadline: float) -> None:
        """Waits for the server; volumes move to regions that the new server knows."""
        client = self._connection.client
        client.wait_ready(min(self._connection.grace_s, left(deadline)))
        with self._moving:
            for index, lost in enumerate(self._mapped):
                if not client.is_registered(lost.region.name):
                    self._mapped[index] = lost.moved(self._copied(lost.array))
                    lost.upload.register_again()

    def _attempt(
        self,
        model: ModelVersion,
        tensors: Mapping[str, npt.NDArray[Any]],
        deadline: float,
        outputs: contextlib.ExitStack,
        which: int,
        images: slice,
        halt: Halt | None,
    ) -> Answers:
        client, found = self._connection.client, dict[str, npt.NDArray[Any]]()
        wanted = []
        count, rows, columns = self._mapped[which].array[images].shape
        for name, (shape, kind) in volume_arrays(model.card, (count, rows, columns)).items():
            nbytes = math.prod(shape) * np.dtype(kind).itemsize
            region = outputs.enter_context(client.shared(self._connection.prefix, nbytes))
            found[name] = region.array(shape, kind)
            wanted.append(shared_output(name, region))
        few = [name for name in model.card.output.arrays if name not in found]
        wanted += map(plain_output, few)
        answer = self._asked(model, tensors, deadline, wanted, which, images, halt)
        return found | {name: without_header(name, ungathered(model.card, answer.as_numpy(name))) for name in few}

    def _asked(
        self,
        model: ModelVersion,
        tensors: Mapping[str, npt.NDArray[Any]],
        deadline: float,
        outputs: Sequence[Any],
        which: int,
        images: slice,
        halt: Halt | None,
    ) -> Any:
        """The server's answer; `which` of the volumes is the model's main one, `images` what it sees of that."""
        models = self._connection.models
        used = [self._mapped[which], *self._mapped[1 : 1 + len(model.card.roles)]]
        gpu = models.gpu_of(model) if self._frozen else None
        there = None if gpu is None else used[0].upload.on(gpu)
        inputs = [
            used[0].as_input(0, images, there),
            *(mapped.as_input(number) for number, mapped in enumerate(used[1:], 1)),
            *(input_of(key, value) for key, value in tensors.items()),
        ]
        if is_gathered(model.card):
            inputs = [tensor.set_shape([1, *tensor.shape()]) for tensor in inputs]
        wanted = [*outputs, plain_output("TIMINGS"), plain_output("INFO")]
        with models.using(model):
            name = models.ensure_loaded(model, left(deadline), halt)
            with self._connection.gpus.relied_on(gpu):
                answer = models.infer(name, inputs, wanted, left(deadline), halt)
        timings, info = (ungathered(model.card, answer.as_numpy(name)) for name in ("TIMINGS", "INFO"))
        self._last.timings = Timings(*map(float, timings))
        came_on_gpu = models.remember(model, json.loads(info.tobytes()))
        if gpu is not None and there is not None and not came_on_gpu:
            self._connection.gpus.give_up(gpu, "Triton brings them back to the CPU (triton.log says why)")
        return answer
