"""Which models a Triton has loaded: each is loaded when it is missing, and revived when its process is lost.

The server belongs to another process and may be killed at any moment; what it forgets then is found out from its
answers. A call that nobody waits for any more is cancelled, and when its model goes on all the same, the model's
process is ended and a new one loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from dicomnode.adapters.triton.client import Client, LostStub
from dicomnode.adapters.triton.cuda_memory import Gpu
from dicomnode.adapters.triton.inner_choice import InnerChoice
from dicomnode.adapters.triton.leases import Leases
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import (
    net_name,
    net_of_host,
    owner_of,
    parts_of,
    touch,
    triton_name,
    write_model,
)
from dicomnode.adapters.triton.stubs import Stubs, end_loading
from dicomnode.domain.halt import Halt
from dicomnode.domain.inner import BLS, backend_of
from dicomnode.errors import (
    InferenceError,
    InferenceStopped,
    InferenceTimeout,
    InvalidModelPackage,
    ModelFailed,
    OutOfResources,
)
from dicomnode.ports import ModelVersion

if TYPE_CHECKING:
    from dicomnode.adapters.triton.native import Net

log = logging.getLogger(__name__)

LOAD_S = 300.0
STOP_GRACE_S = 3.0  # from a call's cancelling until a model that does not heed it is ended with its process
_POLL_S = 0.02  # while another process loads the model


class LoadedModels:
    """`threads`: CPU threads a model may use; `inner`: one of domain.inner.INNER.

    A network that is a model of Triton's own is loaded, unloaded and revived together with its host.
    """

    def __init__(self, client: Client, place: Place, threads: int, inner: str) -> None:
        self._client, self._place, self._threads = client, place, threads
        self._inner = InnerChoice(place.about, inner)
        self._info: dict[str, Mapping[str, str]] = {}
        self._taken: dict[str, Mapping[str, float]] = {}
        self._gpus: dict[str, Gpu | None] = {}
        self._leases = Leases(place.folder / "leases")
        self.stubs = Stubs(place.calls)

    # ---------------------------------------------------------------------------------------- what is known

    def reads(self, model: ModelVersion) -> bool:
        """Whether this server has a backend for the network's file."""
        return backend_of(model.card.network) in self._inner.about.backends

    def name_of(self, model: ModelVersion) -> str:
        """In Triton: of the one that is called here."""
        return triton_name(model, self._inner.of(model))

    def info(self, model: ModelVersion) -> Mapping[str, str]:
        """What its process said of itself in its last answer here; empty when it gave none, or is gone since."""
        return self._info.get(self.name_of(model), {})

    def taken(self, model: ModelVersion) -> Mapping[str, float]:
        """What its process took of memory in its last run here, as hosts.memory has it; empty when nobody knows."""
        return self._taken.get(self.name_of(model), {})

    def gpu_of(self, model: ModelVersion) -> Gpu | None:
        """On which its process reads the main volume, as it said with its last answer here."""
        return self._gpus.get(self.name_of(model))

    def remember(self, model: ModelVersion, info: dict[str, Any]) -> bool:
        """What came with an answer; whether the model's process found its main volume on the GPU."""
        name = self.name_of(model)
        self._taken[name] = info.pop("taken", {})
        gpu = info.pop("gpu", None)
        self._gpus[name] = None if gpu is None else Gpu(gpu["uuid"], gpu["number"])
        self._info[name] = {**info, "server": self._client.server()}
        return gpu is not None and bool(gpu["found_there"])

    def forget_lost(self, model: ModelVersion) -> None:
        """Makes `info` empty when the model is not loaded any more."""
        if self._missing(model):
            self._info.pop(self.name_of(model), None)

    # ------------------------------------------------------------------------------------ loading, unloading

    def using(self, model: ModelVersion) -> AbstractContextManager[None]:
        """While a call of the model runs, nobody unloads it."""
        return self._leases.using(self.name_of(model))

    def ensure_loaded(self, model: ModelVersion, timeout_s: float, halt: Halt) -> str:
        """The model's name in Triton, loaded; of all processes one loads it, and calls of other models go on."""
        name, deadline = self.name_of(model), time.monotonic() + timeout_s
        while self._missing(model):
            with self._leases.loading(name) as ours:
                if ours and (missing := self._missing(model)):
                    self._write(model)
                    for part in missing:
                        self._load(part, left(deadline))
                    break
            left(deadline)
            halt.check()
            time.sleep(_POLL_S)
        return name

    def _load(self, part: str, timeout_s: float) -> None:
        """A process that loads for as long as it may and does not end is ended: it would go on for ever."""
        try:
            self._client.load(part, timeout_s)
        except InferenceTimeout:
            ended = end_loading(self._place.plain_repository / part, LOAD_S)
            if ended:
                log.warning("%s did not load within %g s: its process was ended (%s)", part, timeout_s, ended)
            raise

    def unload_all_but(self, wanted: Collection[str]) -> None:
        """What runs a call, of whichever process, stays loaded: it is looked at again the next time."""
        loaded = self._client.loaded()
        for owner in {owner_of(name) for name in loaded} - set(wanted):
            with self._leases.alone_with(owner) as alone:
                # who calls goes before whom it calls
                ours = sorted((name for name in loaded if owner_of(name) == owner), key=lambda name: name != owner)
                for name in ours if alone else []:
                    self._client.unload(name)

    def _missing(self, model: ModelVersion) -> list[str]:
        return [part for part in parts_of(self.name_of(model)) if not self._client.is_model_ready(part)]

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

    # -------------------------------------------------------------------------------------------- calling

    def infer(self, name: str, inputs: list[Any], outputs: list[Any], timeout_s: float, halt: Halt) -> Any:
        """The server's answer. When it comes too late, or is wanted no more, the model is free again afterwards."""
        call, stub = uuid.uuid4().hex, self.stubs.stub(name)
        try:
            return self._client.infer(name, inputs, outputs, timeout_s, call=call, halt=halt)
        except (InferenceTimeout, InferenceStopped):
            self._see_it_end(name, call)
            raise
        except LostStub:
            self._revive(name, None if stub is None else stub.pid)
            raise

    def _see_it_end(self, name: str, call: str) -> None:
        if self.stubs.wait_idle(name, call, STOP_GRACE_S):
            return
        ended = self.stubs.end(name, call, net_of_host(name))
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
            now = self.stubs.stub(name)
            if now is None or now.pid == dead or not self.stubs.lives(name):
                for part in parts_of(name):
                    touch(self._place.repository, part)
                    self._load(part, LOAD_S)


def left(deadline: float) -> float:
    """Seconds until `deadline`, of time.monotonic(); raises InferenceTimeout when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise InferenceTimeout("the model did not answer in time")
    return seconds
