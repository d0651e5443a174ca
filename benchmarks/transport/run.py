"""How long does a volume take to a model inside Triton and back: shared memory, gRPC or HTTP?

One run, interleaved rounds, the same model (the node's self-test, which gives back what it gets), the same server:
gRPC over its Unix socket, HTTP over the loopback. int16 goes in and comes back; every answer is compared with what
was sent, outside the timed part.

Where there is a GPU, a second table: how long until a model there has read a volume (see to_gpu).

    python -m benchmarks.transport.run [--rounds 5] [--mb 2 20 200]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tritonclient.http as triton_http

from benchmarks.transport.to_gpu import measure_to_gpu, number_here, why_not
from dicomnode.adapters.triton.client import Client, input_of, plain_output, shared_input, shared_output
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.repository import SELF_TEST
from dicomnode.adapters.triton.server import TritonServer
from tests.servers import free_port

Volume = npt.NDArray[np.int16]
Echo = Callable[[Volume], Volume]
TIMEOUT_S = 120.0


@contextmanager
def by_shared_memory(client: Client, prefix: str, most_bytes: int) -> Iterator[Echo]:
    """As the node does it, with the copy into the region counted (the node decodes straight into it)."""
    with client.shared(prefix, most_bytes) as given, client.shared(prefix, most_bytes) as got:

        def echo(volume: Volume) -> Volume:
            given.array(volume.shape, np.int16)[...] = volume
            tensor = shared_input("INPUT", volume.shape, np.int16, given)
            client.infer(SELF_TEST, [tensor], [shared_output("OUTPUT", got)], TIMEOUT_S)
            return got.array(volume.shape, np.int16)

        yield echo


@contextmanager
def by_grpc(client: Client) -> Iterator[Echo]:
    def echo(volume: Volume) -> Volume:
        answer = client.infer(SELF_TEST, [input_of("INPUT", volume)], [plain_output("OUTPUT")], TIMEOUT_S)
        result: Volume = answer.as_numpy("OUTPUT")
        return result

    yield echo


@contextmanager
def by_http(port: int) -> Iterator[Echo]:
    client = triton_http.InferenceServerClient(
        f"127.0.0.1:{port}", connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
    )

    def echo(volume: Volume) -> Volume:
        tensor = triton_http.InferInput("INPUT", list(volume.shape), "INT16")
        tensor.set_data_from_numpy(volume, binary_data=True)
        output = triton_http.InferRequestedOutput("OUTPUT", binary_data=True)
        result: Volume = client.infer(SELF_TEST, [tensor], outputs=[output]).as_numpy("OUTPUT")
        return result

    try:
        yield echo
    finally:
        client.close()


def timed(echo: Echo, volume: Volume) -> float:
    started = time.perf_counter()
    answer = echo(volume)
    took = time.perf_counter() - started
    if not np.array_equal(answer, volume):
        raise SystemExit("a volume came back changed")
    return took


def measure(sizes_mb: list[int], rounds: int) -> dict[int, dict[str, list[float]]]:
    """Seconds by size and transport; the first round, in which pools grow, is left out."""
    seconds: dict[int, dict[str, list[float]]] = {}
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = TritonServer(Path(folder), http_port=port)
        with server:
            client = Client(server.place.url)
            most = max(sizes_mb) * 10**6
            with (
                by_shared_memory(client, server.place.client_prefix, most) as shared,
                by_grpc(client) as grpc,
                by_http(port) as http,
            ):
                ways = {"shared memory": shared, "gRPC": grpc, "HTTP": http}
                for size in sizes_mb:
                    volume = np.random.default_rng(size).integers(-1024, 3071, size * 500_000).astype(np.int16)
                    taken = [{name: timed(echo, volume) for name, echo in ways.items()} for _ in range(rounds + 1)]
                    seconds[size] = {name: [row[name] for row in taken[1:]] for name in ways}
            client.close()
    return seconds


def to_gpu(sizes_mb: list[int], rounds: int) -> dict[int, dict[str, list[float]]] | str:
    """Seconds by size and way, or why there are none."""
    if words := why_not():
        return words
    with tempfile.TemporaryDirectory() as folder:
        return measure_to_gpu(sizes_mb, rounds, Path(folder), number_here())


def table(seconds: dict[int, dict[str, list[float]]], way: str = "MB each way") -> str:
    lines = [f"| {way} | transport | median s | fastest s | × shared memory |", "|---|---|---|---|---|"]
    for size, ways in seconds.items():
        base = ways["shared memory"]
        for name, taken in ways.items():
            # round by round, so that what else the machine does hits both sides
            ratio = statistics.median(b / a for a, b in zip(base, taken, strict=True))
            lines.append(f"| {size} | {name} | {statistics.median(taken):.3f} | {min(taken):.3f} | {ratio:.1f} |")
    return "\n".join(lines)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--mb", type=int, nargs="+", default=[2, 20, 200])
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    if find_server() is None:
        print("there is no tritonserver here", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    seconds, on_gpu = measure(given.mb, given.rounds), to_gpu(given.mb, given.rounds)
    if given.json:
        print(json.dumps({"each way": seconds, "to the GPU": on_gpu}))
    else:
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start")
        print(table(seconds))
        print()
        print(
            f"CUDA shared memory: not measured, {on_gpu}"
            if isinstance(on_gpu, str)
            else table(on_gpu, "MB to the GPU")
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
