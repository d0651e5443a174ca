"""Every real series ends as a volume or a named reason, as a radiologist or physicist would have it."""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.errors import CannotDecode, NotAVolume
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.headers import Instance, read_instances, text

DATA = Path(__file__).parents[3] / "shared" / "data"
GOLDEN = Path(__file__).parents[1] / "golden" / "volumes.json"
EXPECTED: dict[str, list[dict[str, Any]]] = json.loads(GOLDEN.read_text())

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there"),
]


def verdict(instances: list[Instance]) -> dict[str, Any]:
    try:
        plan = plan_instances(instances)
        volume = np.empty(plan.geometry.shape, dtype=np.int16)
        read_volume(plan, instances, volume)
    except NotAVolume as error:
        return {"images": len(instances), "refused": error.reason}
    except CannotDecode:
        return {"images": len(instances), "refused": "cannot-decode"}
    real = volume * plan.rescale.slope + plan.rescale.intercept
    return {
        "images": len(instances),
        "shape": list(plan.geometry.shape),
        "spacing_mm": [round(float(v), 3) for v in plan.geometry.spacing_mm],
        "tilt_degrees": abs(round(plan.geometry.tilt_degrees, 1)),
        "unit": plan.unit,
        "range": [round(float(real.min()), 2), round(float(real.max()), 2)],
    }


def verdicts(folder: str, scratch: Path) -> list[dict[str, Any]]:
    """Of the series in a folder, or in an archive, in the order of their UIDs."""
    place = DATA / folder
    if place.suffix == ".zip":
        zipfile.ZipFile(place).extractall(scratch)
        paths = [p for p in sorted(scratch.rglob("*")) if p.is_file()]
    else:
        paths = [p for p in sorted(place.iterdir()) if p.is_file() and p.suffix != ".zip"]
    series: dict[str, list[Instance]] = defaultdict(list)
    for path in paths:
        try:
            [instance] = read_instances([path])
        except CannotDecode:
            continue
        series[text(instance.header, "SeriesInstanceUID")].append(instance)
    return [verdict(series[uid]) for uid in sorted(series)]


@pytest.mark.parametrize("folder", EXPECTED)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_real_series_is_judged_rightly(folder: str, tmp_path: Path) -> None:
    assert verdicts(folder, tmp_path) == EXPECTED[folder]


def test_no_folder_is_forgotten() -> None:
    present = {
        str(p.parent.relative_to(DATA))
        for p in DATA.rglob("*.dcm")
        if not {"fuzz-corpus-v3", "not-dicom"} & set(p.parts)
    }
    present |= {str(p.relative_to(DATA)) for p in DATA.rglob("*.zip")}
    assert present <= set(EXPECTED)


def test_broken_files_are_refused_and_nothing_else_happens() -> None:
    files = sorted((DATA / "broken" / "fuzz-corpus-v3").rglob("*.dcm"))
    outcomes: dict[str, int] = defaultdict(int)
    for path in files:
        try:
            outcomes[verdict(read_instances([path])).get("refused", "volume")] += 1
        except CannotDecode:
            outcomes["unreadable"] += 1
    assert sum(outcomes.values()) == len(files) > 200
    assert outcomes["single-slice"] > 100
