"""What a model's process takes of memory while it answers: so that the node knows what the next run will need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5)
Taken = dict[str, float]


@contextmanager
def watched() -> Iterator[Taken]:
    """Is filled when the block ends: "host_bytes" and "gpu_bytes", at the peak and beyond what there was before.

    What the system does not tell is left out.
    """
    taken: Taken = {}
    before = _resident("VmRSS") if _reset() else None
    on_gpu = torch.cuda.is_available()
    kept = torch.cuda.memory_reserved() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    yield taken
    peak = _resident("VmHWM")
    if before is not None and peak is not None:
        taken["host_bytes"] = max(peak - before, 0.0)
    if on_gpu:
        # torch keeps what it has once taken: the next run needs only what is more than that
        taken["gpu_bytes"] = float(max(torch.cuda.max_memory_reserved() - kept, 0))


def _reset() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _resident(key: str) -> float | None:
    """Of this process, in bytes (proc_pid_status(5))."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)
