"""The inference engine port without Triton: the same host code, called in the worker's own process.

For platforms that have no tritonserver (macOS, aarch64), and for tests. Label maps are the same, bit for bit; what
is lost is the isolation: a network that crashes takes the worker with it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.dlpack import from_dlpack

from dicomnode.adapters.triton.hosts import cores
from dicomnode.adapters.triton.hosts.choice import open_host
from dicomnode.adapters.triton.hosts.model import Host, HostSettings
from dicomnode.adapters.triton.repository import triton_name
from dicomnode.adapters.triton.scripted import without_stacks
from dicomnode.adapters.triton.tensors import (
    Answers,
    Shape,
    Timings,
    numbered,
    placements_of,
    small_inputs,
    timed_out,
    ungathered,
    without_header,
)
from dicomnode.domain.engines import TRITON
from dicomnode.domain.halt import Halt
from dicomnode.errors import DicomNodeError, InferenceTimeout, InvalidModelPackage, ModelFailed
from dicomnode.imaging.box import Box
from dicomnode.ports import InferenceRequest, ModelVersion

# What torch, OpenVINO, onnxruntime and numpy raise when a network or its input is at fault.
_FAULTS = (torch.jit.Error, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, OSError)


log = logging.getLogger(__name__)


class InProcessEngine:
    """`folder` keeps converted networks; `threads`: CPU threads a model may use, 0 for all cores."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self._cache = Path(folder) / "cache"
        self._threads = threads or cores()
        self._hosts: dict[str, Host] = {}
        self._loading = threading.Lock()
        self._turn = _Turn()  # the CPU has room for one network at a time

    def __enter__(self) -> InProcessEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._hosts.clear()

    @contextlib.contextmanager
    def open(self, shape: Shape, further: Sequence[Shape] = ()) -> Iterator[InProcessSession]:
        yield InProcessSession(self, shape, further)

    def load(self, model: ModelVersion) -> None:
        self.describe(model)

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        with self._loading:
            wanted = {triton_name(model) for model in models}
            self._hosts = {name: host for name, host in self._hosts.items() if name in wanted}
        failures: list[ModelFailed] = []
        for model in models:
            try:
                self.describe(model)
            except ModelFailed as error:  # of one model: the others are loaded all the same
                failures.append(error)
        if failures:
            raise failures[0]

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        """Of a model that is loaded at once, whatever runs and whatever is loaded meanwhile."""
        return {**self._host(model).info, "server": "in-process"}

    def taken(self, model: ModelVersion) -> Mapping[str, float]:
        """Nobody knows: other threads of this process take memory, too."""
        return {}

    def _host(self, model: ModelVersion) -> Host:
        name = triton_name(model)
        if (host := self._hosts.get(name)) is not None:
            return host
        with self._loading:
            if (host := self._hosts.get(name)) is None:
                host = self._hosts[name] = self._loaded(model)
            return host

    def _loaded(self, model: ModelVersion) -> Host:
        # there is no Triton here that a host could call: the card says what runs it in place of that
        chosen = ("", "") if model.chosen_engine == TRITON else (model.chosen_engine, model.chosen_precision)
        settings = HostSettings(Path(model.path), self._cache, self._threads, *chosen)
        try:
            return open_host(_BACKEND, settings)
        except (*_FAULTS, InvalidModelPackage) as error:
            log.info("%s was not loaded", triton_name(model), exc_info=error)
            raise ModelFailed(
                f"{model.name} {model.version} cannot be loaded: {without_stacks(str(error)) or repr(error)}"
            ) from error

    def _execute(self, model: ModelVersion, request: _Request) -> Mapping[str, torch.Tensor]:
        """In a thread that is left to itself once nobody waits any more: no thread can be ended from outside.

        It stops before its next window; until then other inferences wait for it.
        """
        answer, woken = Future[Mapping[str, torch.Tensor]](), threading.Event()
        answer.add_done_callback(lambda _: woken.set())
        thread = threading.Thread(target=self._answer, args=(model, request, answer), name="network", daemon=True)
        with request.halt.calling(woken.set):
            thread.start()
            woken.wait(max(request.deadline - time.monotonic(), 0.0))
        request.halt.check()
        if not answer.done():
            raise InferenceTimeout("the model did not answer in time")
        return answer.result()

    def _answer(self, model: ModelVersion, request: _Request, answer: Future[Mapping[str, torch.Tensor]]) -> None:
        try:
            answer.set_result(self._tensors(model, request))
        except DicomNodeError as error:  # for the one who asked; it is raised there
            answer.set_exception(error)
        finally:
            if not answer.done():  # a bug, which the thread says itself
                answer.set_exception(ModelFailed(f"{triton_name(model)}: internal error; the log has more"))

    def _tensors(self, model: ModelVersion, request: _Request) -> Mapping[str, torch.Tensor]:
        host = self._host(model)
        with self._turn.of(request):
            try:
                (response,) = host.execute([request])
            except _FAULTS as error:
                log.info("%s failed", triton_name(model), exc_info=error)  # where, for those who mend it
                raise ModelFailed(without_stacks(str(error)) or repr(error)) from error
        if response.error is not None:
            raise InferenceTimeout("the model did not answer in time")
        return {tensor.name: from_dlpack(tensor.to_dlpack()) for tensor in response.outputs}


class InProcessSession:
    """One volume, and those of further series, in ordinary memory."""

    @property
    def timings_s(self) -> Mapping[str, float]:
        return self.last_timings.as_mapping() if self.last_timings else {}

    @property
    def last_timings(self) -> Timings | None:
        """Of this thread's last run: several models may run on one volume at once."""
        return getattr(self._last, "timings", None)

    def __init__(self, engine: InProcessEngine, shape: Shape, further: Sequence[Shape] = ()) -> None:
        self._engine, self._last = engine, threading.local()
        self._volumes = [np.zeros(each, dtype=np.int16) for each in (shape, *further)]
        self._shown = [volume.view() for volume in self._volumes]

    @property
    def volume(self) -> npt.NDArray[np.int16]:
        """(slice, row, column) int16, stored values."""
        return self._shown[0]

    @property
    def further(self) -> Sequence[npt.NDArray[np.int16]]:
        """As `volume`, of further series, each in its own grid."""
        return self._shown[1:]

    def freeze(self) -> None:
        """Of what is shown alone: torch warns of tensors over memory that is read-only."""
        for volume in self._shown:
            volume.flags.writeable = False

    @contextlib.contextmanager
    def ask(self, request: InferenceRequest) -> Iterator[Answers]:
        main, card = self._volumes[request.which][request.images], request.model.card
        placements = placements_of(request, main.shape)
        used = (main, *self._volumes[1 : len(placements)])
        found = self._asked(request, used, small_inputs(placements, request.parameters))
        yield {name: without_header(name, ungathered(card, found[name]).numpy()) for name in card.output.arrays}

    @contextlib.contextmanager
    def part(self, box: Box) -> Iterator[InProcessSession]:
        """Whole slices are read where they lie; another box is copied."""
        part = InProcessSession(self._engine, (0, 0, 0))
        part._volumes = [np.ascontiguousarray(self._volumes[0][box.slices]), *self._volumes[1:]]
        part._shown = [part._volumes[0].view(), *self._shown[1:]]
        part._shown[0].flags.writeable = self._shown[0].flags.writeable
        yield part

    def _asked(
        self,
        request: InferenceRequest,
        volumes: Sequence[npt.NDArray[np.int16]],
        small: Mapping[str, npt.NDArray[Any]],
    ) -> Mapping[str, torch.Tensor]:
        named = {numbered("VOLUME", n): volume for n, volume in enumerate(volumes)}
        tensors = {name: torch.from_numpy(array) for name, array in {**named, **small}.items()}
        triton_request = _Request(
            {name: _Tensor.from_dlpack(name, tensor) for name, tensor in tensors.items()},
            time.monotonic() + request.timeout_s,
            request.halt,
        )
        try:
            outputs = self._engine._execute(request.model, triton_request)
        except InferenceTimeout as error:
            raise timed_out(request) from error
        self._last.timings = Timings(*ungathered(request.model.card, outputs["TIMINGS"]).tolist())
        return outputs


# ------------------------------------------------------------------ a stand-in for triton_python_backend_utils


@dataclass(frozen=True, eq=False)
class _Tensor:
    name: str
    value: torch.Tensor

    @classmethod
    def from_dlpack(cls, name: str, value: torch.Tensor) -> _Tensor:
        return cls(name, value)

    def to_dlpack(self) -> torch.Tensor:
        return self.value  # torch.from_dlpack takes whatever has __dlpack__


@dataclass(frozen=True, eq=False)
class _Request:
    inputs: Mapping[str, _Tensor]
    deadline: float  # time.monotonic()
    halt: Halt

    def is_cancelled(self) -> bool:
        return self.halt.is_said or time.monotonic() > self.deadline

    def request_id(self) -> str:
        return ""


@dataclass(frozen=True, eq=False)
class _Response:
    outputs: Sequence[_Tensor] = field(default_factory=tuple)
    error: str | None = None


class _Turn:
    """One request at a time, and nobody waits who is wanted no more."""

    def __init__(self) -> None:
        self._changed, self._taken = threading.Condition(), False

    @contextlib.contextmanager
    def of(self, request: _Request) -> Iterator[None]:
        """Raises InferenceTimeout where it is over or cancelled before its turn has come."""
        with request.halt.calling(self._wake), self._changed:
            left_s = max(request.deadline - time.monotonic(), 0.0)
            self._changed.wait_for(lambda: not self._taken or request.is_cancelled(), left_s)
            if self._taken or request.is_cancelled():
                raise InferenceTimeout("nobody waits for it any more")
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Backend:
    Tensor = _Tensor
    InferenceResponse = _Response
    TritonError = str

    @staticmethod
    def get_input_tensor_by_name(request: _Request, name: str) -> _Tensor | None:
        return request.inputs.get(name)


_BACKEND: Any = _Backend()
