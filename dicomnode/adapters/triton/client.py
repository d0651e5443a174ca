"""One connection to Triton over its Unix socket, with errors in the node's own words."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from dicomnode.adapters.triton.cuda_memory import CudaRegion, new_region
from dicomnode.adapters.triton.scripted import without_stacks
from dicomnode.adapters.triton.shared_memory import Region, owner_is_gone, region
from dicomnode.adapters.triton.tensors import NOT_MAPPED
from dicomnode.adapters.triton.unregistering import Unregistering
from dicomnode.domain.halt import Halt
from dicomnode.errors import EngineUnavailable, InferenceError, InferenceTimeout, ModelFailed, OutOfResources

# Short: the server is on this machine, and comes back within a second or two when it was killed.
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_CALL_S = 10.0  # for calls that only change the server's tables
_POLL_S = 0.1
_LATE_S = 5.0  # beyond its deadline, until an answer that gRPC owes us is not waited for any more


class LostStub(EngineUnavailable):
    """The process that runs one model is dead; loading it anew revives it."""


log = logging.getLogger(__name__)

# load failed for model 'a-1': version 1 is at UNAVAILABLE state: Internal: InvalidModelPackage: why
_NOT_LOADED = re.compile(r"^load failed for model '[^']*': (version \S+ is at UNAVAILABLE state: )?(\w+: )*")
# Failed to process the request(s) for model 'a-1_0_0', message: ValueError: why
_NOT_RUN = re.compile(
    r"^Failed to process the request\(s\) for model (instance )?'[^']*', message: ((Value|Runtime)Error: )?"
)
_RAISED_AT = re.compile(r"\n\nAt:\n.*", re.DOTALL)


class LostRegion(EngineUnavailable):
    """The server does not know a region: it was started anew since."""


class LostGpuRegion(EngineUnavailable):
    """A model's process cannot read a region on the GPU, which the server itself could."""


class NotMapped(EngineUnavailable):
    """A model's process does not see our memory; what Triton itself brings there it does."""


class LostModel(EngineUnavailable):
    """The model is not loaded: the server was started anew since, or another worker unloaded it."""


def error_of(error: InferenceServerException) -> InferenceError | OutOfResources:
    """What a server's answer means to the node."""
    status, message = str(error.status() or ""), str(error.message() or error)
    lower = message.lower()
    if "DEADLINE_EXCEEDED" in status:
        return InferenceTimeout("the model did not answer in time")
    if "UNAVAILABLE" in status and "model" not in lower:
        return EngineUnavailable(f"Triton does not answer: {message}")
    if "CANCELLED" in status:
        return EngineUnavailable(f"the call was cancelled: {message}")
    if "shared memory region" in lower and ("unable to find" in lower or "not registered" in lower):
        return LostRegion(message)
    if NOT_MAPPED in message:
        return NotMapped(message)
    if "cudaipc" in lower:
        return LostGpuRegion(message)
    if "stub process" in lower or "not healthy" in lower:
        return LostStub(message)
    if "unknown model" in lower or "is not ready" in lower or "no longer available" in lower or "unloaded" in lower:
        return LostModel(message)
    if "shared memory pool" in lower or "no space left" in lower:
        return OutOfResources(f"Triton has no shared memory left: {message}")
    return ModelFailed(_cause(message))


def _cause(message: str) -> str:
    """Why a model did not load or run, in its own process's words: without what Triton and Python put round them."""
    reason = _NOT_RUN.sub("", _NOT_LOADED.sub("", message))
    if reason != message:
        log.info("Triton says: %s", message)  # where in the code it was is for those who mend it
    if reason == message:
        return message
    return without_stacks(_RAISED_AT.sub("", reason).rstrip("; \n"))


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        raise error_of(error) from error
    except ValueError as error:
        if "closed channel" not in str(error):  # gRPC's only word for it
            raise
        raise EngineUnavailable("the connection to Triton was closed here") from error


class Client:
    """Calls of one client; safe to use from several threads at once."""

    def __init__(self, url: str) -> None:
        self._triton = triton.InferenceServerClient(url=url, channel_args=_CHANNEL)
        self._closed, self._unregistering = threading.Event(), Unregistering()

    def close(self) -> None:
        """Ends what other threads wait for or have in flight, too: they get EngineUnavailable."""
        self._closed.set()
        self._triton.close()

    def is_ready(self) -> bool:
        try:
            with own_errors():
                return bool(self._triton.is_server_ready(client_timeout=2.0))
        except (InferenceError, OutOfResources):
            return False

    def wait_ready(self, grace_s: float) -> None:
        """Raises EngineUnavailable when the server is not there after so long, or when this client is closed."""
        deadline = time.monotonic() + grace_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"Triton was not ready within {grace_s:g} s")
            if self._closed.wait(_POLL_S):
                raise EngineUnavailable("the connection to Triton was closed here")

    def server(self) -> str:
        with own_errors():
            metadata = self._triton.get_server_metadata(client_timeout=_CALL_S)
        return f"{metadata.name} {metadata.version}"

    def is_model_ready(self, name: str) -> bool:
        with own_errors():
            return bool(self._triton.is_model_ready(name, client_timeout=_CALL_S))

    def load(self, name: str, timeout_s: float) -> None:
        with own_errors():
            self._triton.load_model(name, client_timeout=timeout_s)

    def unload(self, name: str) -> None:
        with own_errors():
            self._triton.unload_model(name, client_timeout=_CALL_S)

    def loaded(self) -> list[str]:
        with own_errors():
            index = self._triton.get_model_repository_index(client_timeout=_CALL_S)
        return [model.name for model in index.models if model.state == "READY"]

    def is_registered(self, name: str) -> bool:
        with own_errors():
            return name in self._regions()

    def is_registered_on_gpu(self, name: str) -> bool:
        with own_errors():
            return name in self._gpu_regions()

    def _regions(self) -> Any:
        return self._triton.get_system_shared_memory_status(client_timeout=_CALL_S).regions

    def _gpu_regions(self) -> Any:
        return self._triton.get_cuda_shared_memory_status(client_timeout=_CALL_S).regions

    def forget_dead_clients(self, prefix: str) -> list[str]:
        """Unregisters the regions of clients that were killed: the server would hold their memory for ever."""
        with own_errors():
            gone = [name for name in self._regions() if owner_is_gone(name, prefix)]
            for name in gone:
                self._triton.unregister_system_shared_memory(name, client_timeout=_CALL_S)
            on_gpu = [name for name in self._gpu_regions() if owner_is_gone(name, prefix)]
            for name in on_gpu:
                self._triton.unregister_cuda_shared_memory(name, client_timeout=_CALL_S)
        return [*gone, *on_gpu]

    @contextlib.contextmanager
    def shared(self, prefix: str, nbytes: int) -> Iterator[Region]:
        """A new region that the server knows by its name, until the block ends."""
        with region(prefix, nbytes) as made:
            with own_errors():
                self._triton.register_system_shared_memory(made.name, made.key, made.nbytes, client_timeout=_CALL_S)
            made.unlink()
            try:
                yield made
            finally:
                self._unregistering.take(made.name, lambda: self._is_gone(made.name), lambda: None)

    def _is_gone(self, name: str) -> bool:
        return _said_so(lambda: self._triton.unregister_system_shared_memory(name, client_timeout=_CALL_S))

    def register_on_gpu(self, given: CudaRegion, number: int) -> None:
        """`number`: by which the server counts the GPU that the region lies on."""
        with own_errors():
            self._triton.register_cuda_shared_memory(
                given.name, given.raw_handle, number, given.nbytes, client_timeout=_CALL_S
            )

    @contextlib.contextmanager
    def shared_on_gpu(
        self, prefix: str, content: npt.NDArray[np.uint8], here: int, there: int
    ) -> Iterator[CudaRegion]:
        """`content`, (n) uint8 and writable, copied to a GPU, where the server knows it until the block ends.

        `here` and `there`: how this process and the server count the GPU. Raises NoCudaMemory too.
        """
        with contextlib.ExitStack() as undo:
            made = new_region(prefix, content.nbytes, here)
            undo.callback(made.free)
            made.fill(content)
            self.register_on_gpu(made, there)
            undo.pop_all()
        try:
            yield made
        finally:
            self._unregistering.take(made.name, lambda: self._is_gone_from_gpu(made.name), made.free)

    def _is_gone_from_gpu(self, name: str) -> bool:
        """Newer servers take the order at once, and let go of the region when its last call has ended."""
        if not _said_so(lambda: self._triton.unregister_cuda_shared_memory(name, client_timeout=_CALL_S)):
            return False
        try:
            return not self.is_registered_on_gpu(name)
        except EngineUnavailable:
            return True

    def infer(
        self,
        model: str,
        inputs: list[triton.InferInput],
        outputs: list[triton.InferRequestedOutput],
        timeout_s: float,
        *,
        call: str = "",
        halt: Halt | None = None,
    ) -> triton.InferResult:
        """`call` is the id by which the model's process knows it; once `halt` is said it is cancelled."""
        answered, answer = threading.Event(), _Answer()

        def take(result: triton.InferResult | None, error: InferenceServerException | None) -> None:
            answer.result, answer.error = result, error
            answered.set()

        halt = halt or Halt()
        with own_errors():
            context = self._triton.async_infer(
                model, inputs, take, outputs=outputs, request_id=call, client_timeout=timeout_s
            )
            with halt.calling(context.cancel):
                in_time = answered.wait(timeout_s + _LATE_S)
            halt.check()
            if not in_time:
                context.cancel()
                raise InferenceTimeout("the model did not answer in time")
            if answer.error is not None:
                raise answer.error
        return answer.result


def _said_so(unregister: Callable[[], Any]) -> bool:
    """Whether the server did it, or is another one by now: one that was killed knows no region any more."""
    try:
        with own_errors():
            unregister()
    except EngineUnavailable:
        return True
    except (InferenceError, OutOfResources):  # a call that was cancelled has not ended yet
        return False
    return True


@dataclass
class _Answer:
    """What gRPC's thread hands over."""

    result: Any = None
    error: InferenceServerException | None = None


def input_of(name: str, array: npt.NDArray[Any]) -> triton.InferInput:
    """A small tensor, sent with the request itself."""
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor


class Registered(Protocol):
    """A region that the server knows, wherever it lies."""

    name: str
    nbytes: int


def shared_input(
    name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, shared: Registered, offset: int = 0
) -> triton.InferInput:
    """A tensor that lies in a region, `offset` bytes from its beginning."""
    tensor = triton.InferInput(name, list(shape), np_to_triton_dtype(np.dtype(dtype)))
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    tensor.set_shared_memory(shared.name, nbytes, offset)
    return tensor


def plain_output(name: str) -> triton.InferRequestedOutput:
    """A small tensor, sent with the answer itself."""
    return triton.InferRequestedOutput(name)


def shared_output(name: str, shared: Registered) -> triton.InferRequestedOutput:
    output = triton.InferRequestedOutput(name)
    output.set_shared_memory(shared.name, shared.nbytes)
    return output


def self_test(client: Client, prefix: str, model: str, *, values: int = 1 << 16, timeout_s: float = 10.0) -> None:
    """Sends every int16 there is through shared memory and compares what comes back, byte for byte.

    Raises ModelFailed when it differs, EngineUnavailable and its kin when nothing comes.
    """
    pattern = np.arange(values, dtype=np.int64).astype(np.uint16).view(np.int16)
    with client.shared(prefix, pattern.nbytes) as given, client.shared(prefix, pattern.nbytes) as got:
        given.array(pattern.shape, np.int16)[...] = pattern
        client.infer(
            model, [shared_input("INPUT", pattern.shape, np.int16, given)], [shared_output("OUTPUT", got)], timeout_s
        )
        if not np.array_equal(got.array(pattern.shape, np.int16), pattern):
            raise ModelFailed("Triton's self-test failed: a tensor came back from shared memory changed")
