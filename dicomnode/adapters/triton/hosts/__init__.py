"""What runs beside the network: inside Triton's Python backend, or in the worker's own process."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

# A node in a hospital calls nobody: OpenVINO and nncf tell their maker of every conversion unless this is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """As its maker calls it, where the system says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
