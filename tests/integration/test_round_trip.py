"""Every kind of segmentation of every real series that is a volume: no flip, no shift, whoever reads it.

`python -m benchmarks.round_trip.run` prints the same as a table, which docs/round-trip.md has.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import dcmqi_readers, round_trip

DATA = Path(__file__).parents[3] / "shared" / "data"
GOLDEN = Path(__file__).parents[1] / "golden" / "volumes.json"
# Seconds all together; the others take minutes
QUICK = ("seg_sr/dcmqi-24x38x3/image", "seg_sr/dcmqi-24x38x3/multiframe", "mr/t1-j2k-multifragment")

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there"),
    pytest.mark.skipif(dcmqi_readers.programs() is None, reason="dcmqi (PyPI) is not installed"),
]


@pytest.mark.parametrize(
    "folder", [pytest.param(f, marks=[] if f in QUICK else pytest.mark.slow) for f in round_trip.SERIES]
)
def test_every_voxel_comes_back_to_its_place(folder: str, tmp_path: Path) -> None:
    plan, stored = round_trip.series(DATA / folder, tmp_path / "in")
    kinds = []
    for number, one in enumerate(round_trip.made(plan, stored)):
        kinds.append(one.kind)
        for name, read in round_trip.READERS.items():
            place = tmp_path / f"{number} {name}"
            place.mkdir()
            found = read(one, plan, place)
            if found is None:
                assert (one.kind, name == "the node") == ("RTSTRUCT", False)
                continue
            np.testing.assert_array_equal(found, one.wanted, f"{one.kind}, {name}")
    assert sorted(kinds) == sorted(round_trip.KINDS)


@pytest.mark.parametrize("folder", QUICK)
def test_no_flip_or_shift_is_the_same_mask(folder: str, tmp_path: Path) -> None:
    """That the comparison can fail."""
    plan, stored = round_trip.series(DATA / folder, tmp_path / "in")
    for one in round_trip.made(plan, stored):
        for axis in (1, 2, 3):
            for other in (np.flip(one.wanted, axis), np.roll(one.wanted, 1, axis), np.roll(one.wanted, -1, axis)):
                assert (other != one.wanted).any()


def test_no_series_is_forgotten() -> None:
    expected = json.loads(GOLDEN.read_text())
    assert set(round_trip.SERIES) == {
        folder for folder, verdicts in expected.items() if any("shape" in verdict for verdict in verdicts)
    }
