"""Hosts keep to the device of their network: what a GPU would refuse is refused here, without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real device here, and torch has place for one")
@pytest.mark.parametrize("file", ["on_strict_device.py", "bundles_on_strict_device.py"])
def test_nothing_of_the_cpu_meets_what_is_on_a_device(file: str) -> None:
    """In a process of its own: torch has one place for a device of others, and keeps it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/adapters/{file}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
