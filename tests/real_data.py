"""Real series of ../shared/data, where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


def folder_of(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip("../shared/data is absent")
    return DATA / name
