"""dcmqi's programs: readers of SEG, parametric maps and TID 1500 that share nothing with highdicom or pydicom."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_TYPES = {"unsigned char": "u1", "short": "<i2", "unsigned short": "<u2", "float": "<f4", "double": "<f8"}


@dataclass(frozen=True, eq=False)
class Volume:
    """`values` (slice, row, column); `affine` takes (slice, row, column, 1) to LPS mm; `segments` by pixel value."""

    values: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    segments: dict[int, dict[str, Any]]


def programs() -> Path | None:
    """The folder with dcmqi's programs; None where the package is not installed."""
    found = importlib.util.find_spec("dcmqi")
    return Path(found.origin).parent / "bin" if found and found.origin else None


def _run(program: str, *words: object) -> None:
    folder = programs()
    assert folder is not None
    ran = subprocess.run(
        [folder / program, *map(str, words)], capture_output=True, text=True, errors="replace", timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def segmentation(file: Path, folder: Path) -> list[Volume]:
    """Its segments, in as many volumes as dcmqi makes of them."""
    folder.mkdir(parents=True)
    _run("segimage2itkimage", "--inputDICOM", file, "--outputDirectory", folder, "--prefix", "s")
    described = json.loads((folder / "s-meta.json").read_text())["segmentAttributes"]
    return [
        _volume(folder / f"s-{number}.nrrd", {one["labelID"]: one for one in segments})
        for number, segments in enumerate(described, 1)
    ]


def report(file: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    _run("tid1500reader", "--inputDICOM", file, "--outputMetadata", folder / "r.json")
    found: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return found


def parametric_map(file: Path, folder: Path) -> tuple[Volume, dict[str, Any]]:
    """Its values, and what dcmqi says of their meaning."""
    folder.mkdir(parents=True)
    _run("paramap2itkimage", "--inputDICOM", file, "--outputDirectory", folder, "--prefix", "m")
    described: dict[str, Any] = json.loads((folder / "m-meta.json").read_text())
    return _volume(folder / "m-pmap.nrrd", {}), described


def nrrd(path: Path) -> Volume:
    """A NRRD file (teem.sourceforge.net/nrrd/format.html) in LPS or RAS."""
    return _volume(path, {})


def _volume(path: Path, segments: dict[int, dict[str, Any]]) -> Volume:
    head, content = path.read_bytes().split(b"\n\n", 1)
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line and line[0] != "#")
    sizes = [int(size) for size in fields["sizes"].split()]
    raw = gzip.decompress(content) if fields["encoding"] in ("gzip", "gz") else content
    values = np.frombuffer(raw, _TYPES[fields["type"]]).reshape(sizes[::-1])
    affine = np.eye(4)
    affine[:3, :3] = np.array(_vectors(fields["space directions"]))[::-1].T  # fastest axis first
    affine[:3, 3] = _vectors(fields["space origin"])[0]
    if fields["space"] == "right-anterior-superior":
        affine[:2] *= -1
    return Volume(values, affine, segments)


def _vectors(text: str) -> list[list[float]]:
    return [[float(v) for v in vector.split(",")] for vector in re.findall(r"\(([^)]*)\)", text)]


def onto(volume: Volume, affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Its values at the voxels of another grid of `shape`; fails where one lies beside that grid's."""
    where = np.argwhere(volume.values)
    to_there = np.linalg.inv(affine) @ volume.affine
    there = where @ to_there[:3, :3].T + to_there[:3, 3]
    whole = np.rint(there).astype(int)
    step_mm = np.linalg.norm(affine[:3, :3], axis=0)
    assert not len(where) or np.abs((there - whole) * step_mm).max() < 0.02, "the voxels lie beside the grid's"
    assert ((whole >= 0) & (whole < shape)).all(), "there is something where the other grid is not"
    found = np.zeros(shape, volume.values.dtype)
    found[tuple(whole.T)] = volume.values[tuple(where.T)]
    return found
