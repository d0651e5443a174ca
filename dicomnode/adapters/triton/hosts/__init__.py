"""What runs beside the network: inside Triton's Python backend, or in the worker's own process."""

from __future__ import annotations

import os
import sys

# A node in a hospital calls nobody: OpenVINO tells its maker of every conversion unless this package is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
