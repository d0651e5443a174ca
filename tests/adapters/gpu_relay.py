"""A Triton with a fake GPU: hands calls on to a real one, and has it read the fake's memory as if it were a GPU's.

What a client registers as CUDA memory the real server gets as system shared memory, under the same name: its handle
is a file's name (see fake_cuda). What a model says of itself gains the fake GPU. All else, the models included, is
real, so that volumes take the way of CUDA shared memory through the whole engine.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as messages

_SERVICE = "/inference.GRPCInferenceService/"
_ANY_SIZE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class GpuRelay(grpc.GenericRpcHandler):
    """`target`: the real server's address; `folder`: where the relay's own socket is put; `uuid`: of the fake GPU."""

    def __init__(self, target: str, folder: Path, uuid: str) -> None:
        self.url, self._uuid = f"unix:{folder}/relay.sock", uuid
        self.registered: dict[str, str] = {}  # names of CUDA regions → their files
        self.read: list[tuple[str, int]] = []  # CUDA regions that calls of models read, and from which byte
        self.refuses = self.brings_to_cpu = False
        self.failures: list[str] = []  # what the next models' processes say that are given a CUDA region
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(target, options=_ANY_SIZE)
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=_ANY_SIZE)
        self._server.add_generic_rpc_handlers((self,))
        assert self._server.add_insecure_port(self.url)
        self._own: dict[str, Callable[[bytes, Any], bytes]] = {
            "CudaSharedMemoryRegister": self._register,
            "CudaSharedMemoryUnregister": self._unregister,
            "CudaSharedMemoryStatus": self._status,
            "SystemSharedMemoryStatus": self._system_status,
            "ModelInfer": self._infer,
        }

    def __enter__(self) -> GpuRelay:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()
        self._channel.close()

    def service(self, details: Any) -> Any:
        name = details.method.removeprefix(_SERVICE)
        handle = self._own.get(name, lambda request, context: self._forwarded(name, request, context))
        return grpc.unary_unary_rpc_method_handler(handle)

    def _forwarded(self, name: str, request: bytes, context: Any) -> bytes:
        call = self._channel.unary_unary(_SERVICE + name).future(request, timeout=context.time_remaining())
        context.add_callback(call.cancel)
        try:
            answer: bytes = call.result()
        except grpc.FutureCancelledError:
            context.abort(grpc.StatusCode.CANCELLED, "cancelled")
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return answer

    def _register(self, request: bytes, context: Any) -> bytes:
        asked = messages.CudaSharedMemoryRegisterRequest.FromString(request)
        if self.refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "failed to register shared memory region: invalid args")
        file = asked.raw_handle.rstrip(b"\0").decode()
        forwarded = messages.SystemSharedMemoryRegisterRequest(
            name=asked.name, key=f"/{file}", byte_size=asked.byte_size
        )
        self._forwarded("SystemSharedMemoryRegister", forwarded.SerializeToString(), context)
        with self._lock:
            self.registered[asked.name] = file
        return b""

    def _unregister(self, request: bytes, context: Any) -> bytes:
        name = messages.CudaSharedMemoryUnregisterRequest.FromString(request).name
        forwarded = messages.SystemSharedMemoryUnregisterRequest(name=name)
        self._forwarded("SystemSharedMemoryUnregister", forwarded.SerializeToString(), context)
        with self._lock:
            self.registered.pop(name, None)
        return b""

    def _status(self, request: bytes, context: Any) -> bytes:
        """Of what the server still knows: one that was started anew knows none."""
        known = messages.SystemSharedMemoryStatusResponse.FromString(
            self._forwarded("SystemSharedMemoryStatus", b"", context)
        )
        answer = messages.CudaSharedMemoryStatusResponse()
        for name in set(known.regions) & set(self.registered):
            answer.regions[name].name = name
        return bytes(answer.SerializeToString())

    def _system_status(self, request: bytes, context: Any) -> bytes:
        """Without what clients take for memory on the GPU."""
        known = messages.SystemSharedMemoryStatusResponse.FromString(
            self._forwarded("SystemSharedMemoryStatus", request, context)
        )
        for name in self.registered:
            known.regions.pop(name, None)
        return bytes(known.SerializeToString())

    def _infer(self, request: bytes, context: Any) -> bytes:
        asked = messages.ModelInferRequest.FromString(request)
        used = [
            (name, tensor.parameters["shared_memory_offset"].int64_param)
            for tensor in asked.inputs
            if (name := tensor.parameters["shared_memory_region"].string_param) in self.registered
        ]
        if used and "selftest" not in asked.model_name:
            self.read += used
            if self.failures:
                context.abort(grpc.StatusCode.INTERNAL, self.failures.pop(0))
        answer = messages.ModelInferResponse.FromString(self._forwarded("ModelInfer", request, context))
        nbytes = sum(
            tensor.parameters["shared_memory_byte_size"].int64_param
            for tensor in asked.inputs
            if tensor.parameters["shared_memory_region"].string_param in self.registered
        )
        self._name_the_gpu(answer, bool(used) and not self.brings_to_cpu, nbytes)
        return bytes(answer.SerializeToString())

    def _name_the_gpu(self, answer: Any, found_there: bool, nbytes: int) -> None:
        """In INFO, as a host says it that runs on one; `nbytes`: that it read there."""
        gpu = {"uuid": self._uuid, "number": 0, "found_there": found_there}
        plain = [tensor for tensor in answer.outputs if "shared_memory_region" not in tensor.parameters]
        for number, tensor in enumerate(plain):
            if tensor.name == "INFO":
                said = {**json.loads(answer.raw_output_contents[number]), "gpu": gpu}
                said["taken"] = {**said["taken"], "gpu_bytes": float(nbytes)}
                answer.raw_output_contents[number] = json.dumps(said).encode()
                tensor.shape[-1] = len(answer.raw_output_contents[number])
