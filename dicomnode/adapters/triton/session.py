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

from dicomnode.adapters.triton.client import Client, NotMapped, input_of, plain_output
from dicomnode.adapters.triton.cuda_memory import Gpu
from dicomnode.adapters.triton.large_tensors import Large, Reach, through_triton, where_they_lie
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
from dicomnode.errors import EngineUnavailable, InferenceTimeout
from dicomnode.imaging.box import Box
from dicomnode.ports import InferenceRequest

log = logging.getLogger(__name__)

_ATTEMPTS_MOST = 3  # of one call: its server may be killed, and its model's process because of another's call


@dataclass(frozen=True, eq=False)
class Connection:
    """What all sessions of an engine have in common. `prefix`: of the names of their regions."""

    client: Client
    models: LoadedModels
    gpus: GpuVolumes
    reach: Reach
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
    def ask(self, request: InferenceRequest) -> Iterator[Answers]:
        """What is as large as a volume lies in shared memory."""
        shape = self._mapped[request.which].array[request.images].shape
        tensors = small_inputs(placements_of(request, shape), request.parameters)
        with contextlib.ExitStack() as outputs:

            def attempt(deadline: float) -> Answers:
                outputs.close()
                return self._attempt(request, tensors, deadline, outputs)

            yield self._insisting(request, attempt)

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

    def _insisting(self, request: InferenceRequest, attempt: Callable[[float], Answers]) -> Answers:
        """What `attempt` gives by the deadline; again when the server or the model's process was lost under way."""
        deadline, attempts = time.monotonic() + request.timeout_s, 1
        try:
            while True:
                try:
                    return attempt(deadline)
                except EngineUnavailable as error:
                    if attempts == _ATTEMPTS_MOST:
                        raise
                    log.warning("inference is tried again: %s", error)
                    request.halt.check()
                    self._recover(deadline)
                attempts += 1
        except InferenceTimeout as error:
            raise timed_out(request) from error

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
        request: InferenceRequest,
        tensors: Mapping[str, npt.NDArray[Any]],
        deadline: float,
        outputs: contextlib.ExitStack,
    ) -> Answers:
        card, volumes = request.model.card, self._used(request)
        arrays = volume_arrays(card, _shape(volumes[0].array[request.images]))
        gpu = self._connection.models.gpu_of(request.model) if self._frozen else None
        there = None if gpu is None else volumes[0].upload.on(gpu)
        client, reach, prefix = self._connection.client, self._connection.reach, self._connection.prefix
        if reach.is_seen and there is None and not is_gathered(card):
            large = where_they_lie(prefix, volumes, request.images, arrays, outputs)
        else:
            large = through_triton(client, prefix, volumes, request.images, arrays, outputs, there)
        large.inputs.extend(input_of(key, value) for key, value in tensors.items())
        few = [name for name in card.output.arrays if name not in arrays]
        large.outputs.extend(map(plain_output, few))
        try:
            answer = self._asked(request, large, deadline, None if there is None else gpu)
        except NotMapped as error:
            reach.give_up(str(error))
            raise
        return large.arrays | {name: without_header(name, ungathered(card, answer.as_numpy(name))) for name in few}

    def _used(self, request: InferenceRequest) -> list[Mapped]:
        """The main volume, and those of the card's roles."""
        return [self._mapped[request.which], *self._mapped[1 : 1 + len(request.model.card.roles)]]

    def _asked(self, request: InferenceRequest, large: Large, deadline: float, gpu: Gpu | None) -> Any:
        """The server's answer; `gpu`: where the main volume lies."""
        models, model = self._connection.models, request.model
        inputs = large.inputs
        if is_gathered(model.card):
            inputs = [tensor.set_shape([1, *tensor.shape()]) for tensor in inputs]
        wanted = [*large.outputs, plain_output("TIMINGS"), plain_output("INFO")]
        with models.using(model):
            name = models.ensure_loaded(model, left(deadline), request.halt)
            with self._connection.gpus.relied_on(gpu):
                answer = models.infer(name, inputs, wanted, left(deadline), request.halt)
        timings, info = (ungathered(model.card, answer.as_numpy(name)) for name in ("TIMINGS", "INFO"))
        self._last.timings = Timings(*map(float, timings))
        came_on_gpu = models.remember(model, json.loads(info.tobytes()))
        if gpu is not None and not came_on_gpu:
            self._connection.gpus.give_up(gpu, "Triton brings them back to the CPU (triton.log says why)")
        return answer


def _shape(array: npt.NDArray[Any]) -> Shape:
    slices, rows, columns = array.shape
    return slices, rows, columns
