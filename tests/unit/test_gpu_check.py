"""The verdict of `make gpu-check`: what was skipped or left out is never told as passed. Programs are stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.pre_post import bundle_on_gpu
from benchmarks.pre_post.on_gpu import measure

SCRIPT = Path(__file__).parents[1] / "gpu_check.sh"
PYTHON = """#!/bin/bash
case "$*" in
    *"-m gpu"*) echo "$TESTS" ;;
    *benchmarks.transport*) exit "$TRANSPORT" ;;
    *is_available*) exit "$NO_GPU" ;;
esac
"""


def checked(tmp_path: Path, **how: str) -> tuple[int, list[str]]:
    for name, text in {"python3": PYTHON, "nvidia-smi": "#!/bin/bash\necho a GPU\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TESTS": "30 passed in 9 s",
        "TRANSPORT": "0",
        "NO_GPU": "0",
        "DICOMNODE_GPU_CHECK_CONTAINER": "inside",
        **how,
    }
    command = ["bash", str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    head, _, verdict = done.stdout.partition("== verdict\n")
    assert head, done.stderr
    return done.returncode, verdict.splitlines()


def test_all_that_passed_is_said_to_have_passed(tmp_path: Path) -> None:
    status, lines = checked(tmp_path)
    assert (status, lines[-1]) == (0, "all of it passed")
    assert [line.split()[0] for line in lines[:-1]] == ["passed"] * 9


@pytest.mark.parametrize(
    ("how", "status", "line", "last"),
    [
        (
            {"TESTS": "26 passed, 5 skipped in 9 s"},
            0,
            "passed   3. tests that need a GPU (5 skipped: above it says why)",
            "what was tried passed; the lines above say what was not",
        ),
        ({"TRANSPORT": "1"}, 1, "FAILED   5. transport", "something failed: see above"),
        ({"NO_GPU": "1"}, 1, "FAILED   2. torch", "something failed: see above"),
        (
            {"DICOMNODE_GPU_CHECK_CONTAINER": ""},
            0,
            "not tried   10. NVIDIA's container",
            "what was tried passed; the lines above say what was not",
        ),
    ],
)
def test_what_did_not_pass_is_named(how: dict[str, str], status: int, line: str, last: str, tmp_path: Path) -> None:
    found, lines = checked(tmp_path, **how)
    assert (found, lines[-1]) == (status, last)
    assert any(one.startswith(line) for one in lines)


def test_what_is_measured_before_and_after_the_network_is_equal() -> None:
    before, after = measure((20, 64, 60), 1, torch.device("cpu"))
    assert before.startswith("before")
    assert after.endswith("equal")


def test_what_is_measured_of_a_bundle_has_the_labels_of_the_cpu() -> None:
    before, after = bundle_on_gpu.measure((24, 60, 52), 1, torch.device("cpu"))
    assert before.startswith("before")
    assert after.endswith("Dice 1.000000 and more")
