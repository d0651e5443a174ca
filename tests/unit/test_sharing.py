"""Models that run at the same time share the cores, and say what they took of memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.adapters.triton.hosts import memory
from dicomnode.adapters.triton.hosts.memory import watched
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork
from dicomnode.adapters.triton.hosts.sharing import SharedCores
from dicomnode.imaging.windows import WindowedNetwork, at_once, slabs

_HOLD = """
import sys
from pathlib import Path
from dicomnode.adapters.triton.hosts.sharing import SharedCores
with SharedCores(Path(sys.argv[1]), "other", 8).at_work():
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_whoever_computes_counts_and_nobody_else(tmp_path: Path) -> None:
    models = [SharedCores(tmp_path, f"model {n}", 8) for n in range(4)]
    assert models[0].threads == 8, "before anybody ever computed"
    with models[0].at_work():
        assert models[0].threads == 8
        with models[1].at_work():
            assert [model.threads for model in models] == [4, 4, 2, 2], "those that do not yet would be the third"
            with models[2].at_work(), models[3].at_work():
                assert models[0].threads == 2
        assert models[0].threads == 8


def test_there_is_a_thread_for_each_however_few_cores_there_are(tmp_path: Path) -> None:
    one, other = (SharedCores(tmp_path, name, 1) for name in ("one", "other"))
    with one.at_work(), other.at_work():
        assert one.threads == 1


def test_a_process_that_is_killed_leaves_its_cores_to_the_others(tmp_path: Path) -> None:
    mine = SharedCores(tmp_path, "mine", 8)
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin, mine.at_work():
        process.stdout.readline()
        assert mine.threads == 4
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert mine.threads == 8


@pytest.mark.parametrize(("share", "expected"), [(1.0, 5), (0.5, 2), (0.25, 1), (0.1, 1)])
def test_a_network_with_streams_has_fewer_windows_in_flight_when_it_shares(share: float, expected: int) -> None:
    streams = LoadedNetwork(None, torch.device("cpu"), 4, submit=lambda *inputs: lambda: inputs[0], in_flight=5)
    windowed = streams.windowed(before_each=lambda: None, share=lambda: share)
    assert windowed.in_flight() == expected
    assert streams.at_once(share) == min(expected, 4)


def test_windows_in_flight_become_fewer_while_the_volume_is_on_its_way() -> None:
    begun, most, allowed = [0], [0], [3]

    def begin(windows: torch.Tensor) -> object:
        begun[0] += 1
        most[0] = max(most[0], begun[0])
        done = at_once(lambda given: given)(windows)

        def answer() -> torch.Tensor:
            begun[0] -= 1
            return done()

        return answer

    image = torch.rand((1, 1, 40, 8, 8), generator=torch.Generator().manual_seed(1))
    network = WindowedNetwork(begin, 1, lambda: allowed[0])  # type: ignore[arg-type]
    found = slabs(image, network, (8, 8, 8), 0.0, "constant")
    next(found)
    assert most[0] == 3
    allowed[0], most[0] = 1, 0
    begun_then = begun[0]
    assert sum(slab.scores.shape[1] for slab in found) == 32
    assert begun_then > 1
    assert most[0] <= begun_then
    assert begun[0] == 0


def test_the_peak_of_memory_is_seen_though_it_is_given_back() -> None:
    with watched() as taken:
        made = np.ones(200_000_000, dtype=np.uint8)
        del made
    if not taken:
        pytest.skip("this kernel does not let a process look at its own peak")
    assert 150e6 < taken["host_bytes"] < 1e9


def test_what_the_system_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "gone" / "clear_refs")
    with watched() as taken:
        pass
    assert "host_bytes" not in taken
