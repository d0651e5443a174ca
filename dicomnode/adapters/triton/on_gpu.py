"""Volumes where models on a GPU read them: copied there once, for all models that look at the volume.

Used where a model's process has said that its chain begins on a GPU, and this process sees the same GPU. The copy is
made when the first such model asks, of a volume that nobody writes any more (`freeze`), and freed with the session.
Where it cannot be, volumes go through system shared memory as ever, and the log says once why.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from dicomnode.adapters.triton.client import Client, LostGpuRegion, shared_input, shared_output
from dicomnode.adapters.triton.cuda_memory import CudaRegion, Gpu, NoCudaMemory, numbers_here
from dicomnode.adapters.triton.repository import SELF_TEST
from dicomnode.adapters.triton.shared_memory import Region
from dicomnode.errors import EngineUnavailable, InferenceError, OutOfResources

log = logging.getLogger(__name__)

AUTO, OFF = "auto", "off"
WANTED = (AUTO, OFF)  # the setting triton_cuda_shared_memory

_PROOF_S = 20.0
_FAULTS = (NoCudaMemory, InferenceError, OutOfResources)


class GpuVolumes:
    """Of one engine; any thread may ask. `wanted`: one of WANTED. `numbers`: as cuda_memory.numbers_here."""

    def __init__(
        self, client: Client, prefix: str, wanted: str, numbers: Callable[[], dict[str, int]] = numbers_here
    ) -> None:
        self.client, self.prefix = client, prefix
        self.wanted, self._numbers = wanted, numbers
        self._lock = threading.Lock()
        self._known: dict[str, int | None] = {}  # a GPU's UUID → its number here, or None: not to be used
        self._why_not = ""

    @property
    def why_not(self) -> str:
        """Why volumes do not lie on the GPU; empty as long as nothing speaks against it."""
        return self._why_not

    def number_of(self, gpu: Gpu) -> int | None:
        """How this process counts a GPU on which volumes can lie for models there; None when they cannot.

        The first time it is tried out: memory there is registered, and read by Triton, byte for byte.
        """
        if self.wanted == OFF:
            return None
        with self._lock:
            if gpu.uuid not in self._known:
                try:
                    self._known[gpu.uuid] = self._proven(gpu)
                except EngineUnavailable:
                    return None  # the server is away: when it is back, it is tried again
            return self._known[gpu.uuid]

    def tried(self, numbers: dict[str, int]) -> str:
        """For those who look whether all is well: why no volume lies on any of these GPUs; empty where one can.

        `numbers`: as numbers_here gives them; the server is taken to count as this process does.
        """
        for uuid, number in numbers.items():
            if self.number_of(Gpu(uuid, number)) is not None:
                return ""
        return self._why_not or "Triton does not answer"

    def give_up(self, gpu: Gpu, why: str) -> None:
        """For as long as this process lives."""
        with self._lock:
            self._known[gpu.uuid] = None
        self.say(why)

    @contextmanager
    def relied_on(self, gpu: Gpu | None) -> Iterator[None]:
        """A call of a model there: when its process cannot open the memory, no further call is given any."""
        try:
            yield
        except LostGpuRegion as error:
            if gpu is not None:
                self.give_up(gpu, str(error))
            raise

    def say(self, why: str) -> None:
        """Once for each reason that comes after another."""
        if why != self._why_not:
            log.warning("volumes go to models on the GPU through system shared memory: %s", why)
        self._why_not = why

    def _proven(self, gpu: Gpu) -> int | None:
        try:
            numbers = self._numbers()
            if gpu.uuid not in numbers:
                raise NoCudaMemory(f"the models run on the GPU {gpu.uuid}, which this process does not see")
            prove(self.client, self.prefix, numbers[gpu.uuid], gpu.number)
        except EngineUnavailable:
            raise
        except _FAULTS as error:
            self.say(str(error))
            return None
        log.info("volumes lie on the GPU %s for the models there (CUDA shared memory)", gpu.uuid)
        return numbers[gpu.uuid]


def prove(client: Client, prefix: str, number: int, number_there: int) -> None:
    """Every int16 there is, from the GPU through Triton's self-test and back; raises what went wrong."""
    pattern = np.arange(1 << 16, dtype=np.int64).astype(np.uint16).view(np.int16)
    with (
        client.shared_on_gpu(prefix, pattern.view(np.uint8), number, number_there) as given,
        client.shared(prefix, pattern.nbytes) as got,
    ):
        client.infer(
            SELF_TEST,
            [shared_input("INPUT", pattern.shape, np.int16, given)],
            [shared_output("OUTPUT", got)],
            _PROOF_S,
        )
        if not np.array_equal(got.array(pattern.shape, np.int16), pattern):
            raise NoCudaMemory("Triton read other values from the GPU than were written there")


class Upload:
    """The copy of a region of shared memory on the GPU, or one on each that models want it on."""

    def __init__(self, gpus: GpuVolumes, source: Region) -> None:
        self._gpus, self._source = gpus, source
        self._lock, self._made = threading.Lock(), ExitStack()
        self._copies: dict[Gpu, CudaRegion | None] = {}

    def on(self, gpu: Gpu) -> CudaRegion | None:
        """Made when it is first asked for, by one of those who ask; None when it cannot be."""
        number = self._gpus.number_of(gpu)
        if number is None:
            return None
        with self._lock:
            if gpu not in self._copies:
                self._copies[gpu] = self._copied(gpu, number)
            return self._copies[gpu]

    def _copied(self, gpu: Gpu, number: int) -> CudaRegion | None:
        gpus, content = self._gpus, self._source.array((self._source.nbytes,), np.uint8)
        try:
            return self._made.enter_context(gpus.client.shared_on_gpu(gpus.prefix, content, number, gpu.number))
        except _FAULTS as error:  # of this volume: the next may be smaller, or the GPU emptier
            gpus.say(str(error))
            return None

    def register_again(self) -> None:
        """With a server that was started anew: it knows no region, and the copies are still there."""
        with self._lock:
            for gpu, region in self._copies.items():
                if region is None:
                    continue
                try:
                    if not self._gpus.client.is_registered_on_gpu(region.name):
                        self._gpus.client.register_on_gpu(region, gpu.number)
                except _FAULTS as error:
                    self._gpus.say(str(error))
                    self._copies[gpu] = None

    def close(self) -> None:
        """Nobody reads the copies any more."""
        with self._lock:
            self._copies.clear()
            self._made.close()
