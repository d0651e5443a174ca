"""The inference engine port on Triton: volumes and label maps through shared memory, nothing else copied.

The server belongs to another process and may be killed at any moment. What it forgets then (regions, models) a
client finds out from its answers and does again; a call that was in flight is tried again. A call that nobody waits
for any more is cancelled, and when its model goes on all the same, the model's process is ended and a new one loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicomnode.adapters.triton.client import (
    Client,
    LostStub,
    input_of,
    plain_output,
    self_test,
    shared_output,
)
from dicomnode.adapters.triton.hosts import cores
from dicomnode.adapters.triton.inner_choice import InnerChoice
from dicomnode.adapters.triton.leases import Leases
from dicomnode.adapters.triton.mapped import Mapped
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import (
    SELF_TEST,
    net_name,
    owner_of,
    parts_of,
    touch,
    triton_name,
    write_model,
)
from dicomnode.adapters.triton.shared_memory import sweep
from dicomnode.adapters.triton.stubs import Stubs
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
from dicomnode.domain.inner import BLS
from dicomnode.domain.rules import Parameter
from dicomnode.errors import (
    EngineUnavailable,
    InferenceError,
    InferenceStopped,
    InferenceTimeout,
    InvalidModelPackage,
    ModelFailed,
    OutOfResources,
)
from dicomnode.imaging.box import Box
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.ports import ALL_IMAGES, ModelVersion, Placement, Rescale

if TYPE_CHECKING:
    from dicomnode.adapters.triton.native import Net

log = logging.getLogger(__name__)

GRACE_S = 60.0  # a server that was killed is back in two seconds; one that starts on a cold disk takes longer
LOAD_S = 300.0
STOP_GRACE_S = 3.0  # from a call's cancelling until a model that does not heed it is ended with its process
_ATTEMPTS_MOST = 3  # of one call: its server may be killed, and its model's process because of another's call
_POLL_S = 0.02  # while another process loads the model
_WARM_SHAPE = (4, 8, 8)


class TritonEngine:
    """`folder`: the one that TritonServer serves. `threads`: CPU threads a model may use, 0 for all cores.

    `inner`: one of domain.inner.INNER; a network that is a model of Triton's own is loaded, unloaded and revived
    together with its host.

    Any number of processes may share one server; several threads may share one engine.
    """

    def __init__(self, folder: Path, threads: int = 0, *, inner: str = "auto", grace_s: float = GRACE_S) -> None:
        self._place = Place(Path(folder))
        self._threads = threads or cores()
        self._grace_s = grace_s
        self._inner = InnerChoice(self._place.about, inner)
        self._client = Client(self._place.url)
        self._info: dict[str, Mapping[str, str]] = {}
        self._taken: dict[str, Mapping[str, float]] = {}
        self._leases = Leases(self._place.folder / "leases")
        self._stubs = Stubs(self._place.calls)
        sweep(self._place.client_prefix)

    def __enter__(self) -> TritonEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """From any thread: calls that wait for the server, load or run end soon with EngineUnavailable."""
        self._client.close()

    def is_there(self) -> bool:
        """Whether the server answers now."""
        return self._place.socket.exists() and self._client.is_ready()

    # ----------------------------------------------------------------------------------------------- the port

    @contextlib.contextmanager
    def open(self, shape: Shape, further: Sequence[Shape] = ()) -> Iterator[TritonSession]:
        """A session whose volumes lie in shared memory that Triton has mapped."""
        self._client.wait_ready(self._grace_s)
        with contextlib.ExitStack() as regions:
            yield TritonSession(self, regions, [shape, *further])

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        """Loads and warms these models, then unloads others that nobody uses at this moment.

        A model that cannot be loaded raises ModelFailed, once the others are.
        """
        self._client.wait_ready(self._grace_s)
        failures: list[ModelFailed] = []
        for model in models:
            try:
                self._warmed(model)
            except ModelFailed as error:
                failures.append(error)
        self._unload_all_but({self.name_of(model) for model in models} | {SELF_TEST})
        if failures:
            raise failures[0]

    def _warmed(self, model: ModelVersion) -> None:
        if not all(self._client.is_model_ready(part) for part in self._parts(model)):
            self._info.pop(self.name_of(model), None)
        self.describe(model)

    def _unload_all_but(self, wanted: Collection[str]) -> None:
        """What runs a call, of whichever process, stays loaded: it is looked at again the next time."""
        loaded = self._client.loaded()
        for owner in {owner_of(name) for name in loaded} - set(wanted):
            with self._leases.alone_with(owner) as alone:
                # who calls goes before whom it calls
                ours = sorted((name for name in loaded if owner_of(name) == owner), key=lambda name: name != owner)
                for name in ours if alone else []:
                    self._client.unload(name)

    def name_of(self, model: ModelVersion) -> str:
        """In Triton: of the one that is called here."""
        return triton_name(model, self._inner.of(model))

    def _parts(self, model: ModelVersion) -> list[str]:
        return parts_of(self.name_of(model))

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        """Engine, precision and device, as the process that runs the network says; and the server's version."""
        name = self.name_of(model)
        if name not in self._info:
            self._warm(model)
        return self._info[name]

    def taken(self, model: ModelVersion) -> Mapping[str, float]:
        """What its process took of memory in its last run here, as hosts.memory has it; empty when nobody knows."""
        return self._taken.get(triton_name(model), {})

    def self_test(self) -> None:
        """Every int16 there is through shared memory and back, compared byte for byte; raises when it differs."""
        self._client.wait_ready(self._grace_s)
        self_test(self._client, self._place.client_prefix, SELF_TEST)

    # --------------------------------------------------------------------------------------- for the sessions

    def _warm(self, model: ModelVersion) -> None:
        """One window of air through the whole chain: memory is mapped, kernels are chosen."""
        roles = len(model.card.roles)
        air = Placement(VolumeGeometry(_WARM_SHAPE, np.diag([1.0, 1.0, 1.0, 1.0])), Rescale(1.0, 0.0))
        with self.open(_WARM_SHAPE, [_WARM_SHAPE] * roles) as session:
            for volume in (session.volume, *session.further):
                volume[...] = 0
            with session.ask(model, air.geometry, air.rescale, timeout_s=LOAD_S, further=[air] * roles):
                pass

    def _remember(self, name: str, info: dict[str, Any]) -> None:
        self._taken[name] = info.pop("taken", {})
        self._info[name] = {**info, "server": self._client.server()}

    def _ensure_loaded(self, model: ModelVersion, timeout_s: float, halt: Halt | None = None) -> str:
        """The model's name in Triton, loaded; of all processes one loads it, and calls of other models go on."""
        name, deadline = self.name_of(model), time.monotonic() + timeout_s
        while self._missing(model):
            with self._leases.loading(name) as ours:
                if ours and (missing := self._missing(model)):
                    self._write(model)
                    for part in missing:
                        self._client.load(part, _left(deadline))
                    break
            _left(deadline)
            if halt is not None:
                halt.check()
            time.sleep(_POLL_S)
        return name

    def _missing(self, model: ModelVersion) -> list[str]:
        return [part for part in self._parts(model) if not self._client.is_model_ready(part)]

    def _write(self, model: ModelVersion) -> None:
        place = self._place
        for folder in (place.repository, place.calls):
            folder.mkdir(parents=True, exist_ok=True)
        reachable = dataclasses.replace(model, path=place.plain(model.path))
        write_model(
            place.repository,
            reachable,
            cache=place.plain(place.cache),
            calls=place.plain(place.calls),
            threads=self._threads,
            net=self._net(model),
        )

    def _net(self, model: ModelVersion) -> Net | None:
        """Raises ModelFailed when the node cannot have Triton run it."""
        if self._inner.of(model) != BLS:
            return None
        from dicomnode.adapters.triton.native import net_of

        try:
            return net_of(model.path, model.card, net_name(model), self._inner.about.backends)
        except InvalidModelPackage as error:
            raise ModelFailed(f"{model.name} {model.version}: {error}") from error

    def _infer(self, name: str, inputs: list[Any], outputs: list[Any], timeout_s: float, halt: Halt | None) -> Any:
        """The server's answer. When it comes too late, or is wanted no more, the model is free again afterwards."""
        call, stub = uuid.uuid4().hex, self._stubs.stub(name)
        try:
            return self._client.infer(name, inputs, outputs, timeout_s, call=call, halt=halt)
        except (InferenceTimeout, InferenceStopped):
            self._see_it_end(name, call)
            raise
        except LostStub:
            self._revive(name, None if stub is None else stub.pid)
            raise

    def _see_it_end(self, name: str, call: str) -> None:
        if self._stubs.wait_idle(name, call, STOP_GRACE_S):
            return
        ended = self._stubs.end(name, call)
        if ended is not None:
            log.warning("%s did not stop within %g s: its process %d was ended", name, STOP_GRACE_S, ended)
            threading.Thread(target=self._revive_for_others, args=(name, ended), daemon=True).start()

    def _revive_for_others(self, name: str, dead: int) -> None:
        """Loading takes seconds, which who gave up need not wait for."""
        with contextlib.suppress(InferenceError, OutOfResources):  # who needs the model will try, and say so
            self._revive(name, dead)

    def _revive(self, name: str, dead: int | None) -> None:
        """Loads a model whose process died, `dead`, as long as nobody else has done so.

        Of a network with its host either may be dead: both are loaded anew, and no request of others is lost.
        """
        with self._leases.reviving(name):
            now = self._stubs.stub(name)
            if now is None or now.pid == dead or not self._stubs.lives(name):
                for part in parts_of(name):
                    touch(self._place.repository, part)
                    self._client.load(part, LOAD_S)


class TritonSession:
    """One volume, and those of further series, mapped into Triton, for any number of models."""

    @property
    def timings_s(self) -> Mapping[str, float]:
        return self.last_timings.as_mapping() if self.last_timings else {}

    @property
    def last_timings(self) -> Timings | None:
        """Of this thread's last run: several models may run on one volume at once."""
        return getattr(self._last, "timings", None)

    def __init__(self, engine: TritonEngine, regions: contextlib.ExitStack, shapes: Sequence[Shape]) -> None:
        self._engine, self._regions = engine, regions
        self._last, self._moving = threading.local(), threading.Lock()
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
        shared = self._engine._client.shared(self._engine._place.client_prefix, 2 * math.prod(shape))
        region = self._regions.enter_context(shared)
        return Mapped(region, region.array(shape, np.int16))

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
            part = TritonSession(self._engine, regions, [])
            in_place = box.is_whole_slices_of(main.shape)
            volume = main.part(box) if in_place else part._copied(main.array[box.slices])
            part._mapped = [volume, *self._mapped[1:]]
            yield part

    def _copied(self, volume: npt.NDArray[np.int16]) -> Mapped:
        """(slice, row, column) int16 in a region of its own."""
        slices, rows, columns = volume.shape
        copied = self._new((slices, rows, columns))
        copied.array[...] = volume
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
        client = self._engine._client
        client.wait_ready(min(self._engine._grace_s, _left(deadline)))
        with self._moving:
            for index, lost in enumerate(self._mapped):
                if not client.is_registered(lost.region.name):
                    self._mapped[index] = self._copied(lost.array)

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
        engine, found = self._engine, dict[str, npt.NDArray[Any]]()
        wanted = []
        for name, (shape, kind) in volume_arrays(model.card, self._mapped[which].shape).items():
            nbytes = math.prod(shape) * np.dtype(kind).itemsize
            region = outputs.enter_context(engine._client.shared(engine._place.client_prefix, nbytes))
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
        engine = self._engine
        used = [self._mapped[which], *self._mapped[1 : 1 + len(model.card.roles)]]
        inputs = [
            used[0].as_input(0, images),
            *(mapped.as_input(number) for number, mapped in enumerate(used[1:], 1)),
            *(input_of(key, value) for key, value in tensors.items()),
        ]
        if is_gathered(model.card):
            inputs = [tensor.set_shape([1, *tensor.shape()]) for tensor in inputs]
        wanted = [*outputs, plain_output("TIMINGS"), plain_output("INFO")]
        with engine._leases.using(engine.name_of(model)):
            name = engine._ensure_loaded(model, _left(deadline), halt)
            answer = engine._infer(name, inputs, wanted, _left(deadline), halt)
        timings, info = (ungathered(model.card, answer.as_numpy(name)) for name in ("TIMINGS", "INFO"))
        self._last.timings = Timings(*map(float, timings))
        engine._remember(name, json.loads(info.tobytes()))
        return answer


def _left(deadline: float) -> float:
    """Seconds; raises InferenceTimeout when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise InferenceTimeout("the model did not answer in time")
    return left
