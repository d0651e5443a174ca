"""Does what the node writes lie in the same place in the patient, whoever reads it?

Of every series of ../shared/data that is a volume, each kind of segmentation of an F in three dimensions is read back
by highdicom, by dcmqi's programs and by the node, and compared voxel for voxel; then what other makers wrote is read
by them and by us. Prints docs/round-trip.md; exit status 1 where anything differs.

    python -m benchmarks.round_trip.run > docs/round-trip.md
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dicomnode.domain.quantity import quantity
from tests import dcmqi_readers, reference_objects, round_trip
from tests.round_trip import Made, VolumePlan

DATA = Path(__file__).parents[3] / "shared" / "data"
_LIBRARIES = ("highdicom", "dcmqi", "pydicom")
_SAME, _NOT_READ = "identical", "—"

_HEAD = """# Round trip

Does a mask lie for a reader where it lay for the model? `python -m benchmarks.round_trip.run > docs/round-trip.md`
printed this on {day}, with {versions};
`tests/integration/test_round_trip.py` asserts the same.

The mask is an F in three dimensions, which no flip, turn or shift makes into itself, in two segments. Each kind is
made from it as a job makes it, passes the gate, and is read as a file; voxels are compared in the patient (LPS mm),
by the positions, orientations and spacings that each reader takes from the file. A map's values are all different.
Structure sets are read by no other of these: their contours are filled again by the even-odd rule.

OHIF is not in these tables: [viewer.md](viewer.md) has how near to the label map it draws the same F on the same
series, and on made ones, reversed and enhanced among them.
"""


def main(arguments: Sequence[str]) -> int:
    if arguments:
        sys.exit(__doc__)
    if not DATA.is_dir() or dcmqi_readers.programs() is None:
        sys.exit("../shared/data, or dcmqi from PyPI, is not there")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    print(_HEAD.format(day=datetime.now(UTC).date(), versions=versions))
    good = [_table(), _references()]
    return 0 if all(good) else 1


def _table() -> bool:
    print("| source | slices × rows × columns | reader |", " | ".join(round_trip.KINDS), "|")
    print("|---|---|---|" + "---|" * len(round_trip.KINDS))
    seen: Counter[str] = Counter()
    for folder, words in round_trip.SERIES.items():
        with tempfile.TemporaryDirectory() as name:
            plan, stored = round_trip.series(DATA / folder, Path(name) / "in")
            verdicts = {one.kind: list(_verdicts(one, plan, Path(name))) for one in round_trip.made(plan, stored)}
        size = " × ".join(map(str, plan.geometry.shape))
        for row, reader in enumerate(round_trip.READERS):
            found = [verdicts[kind][row] for kind in round_trip.KINDS]
            seen.update(found)
            print(f"| {words} | {size} | {reader} |", " | ".join(found), "|", flush=True)
    compared = seen.total() - seen[_NOT_READ]
    print(f"\n{seen[_SAME]} of {compared} readings are identical voxel for voxel; — is what a reader cannot read.\n")
    return seen[_SAME] == compared


def _verdicts(one: Made, plan: VolumePlan, folder: Path) -> Iterator[str]:
    for name, read in round_trip.READERS.items():
        place = folder / f"{one.kind} {name}"
        place.mkdir()
        try:
            found = read(one, plan, place)
        except AssertionError as error:
            yield f"not read: {str(error).splitlines()[-1]}"
            continue
        if found is None:
            yield _NOT_READ
        else:
            different = int(np.count_nonzero(found != one.wanted))
            yield f"{different} voxels differ" if different else _SAME


def _references() -> bool:
    """What others wrote, read by us and by them."""
    print("## What others wrote\n")
    print("Our reading of reference objects, beside that of their makers' programs, dcmqi and highdicom.\n")
    print("| object | the same to us as |", "to |\n|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as name:
        for number, (file, words) in enumerate(_objects()):
            try:
                same = _alike(DATA / "seg_sr" / file, Path(name) / str(number))
            except AssertionError as error:
                good, same = False, [(str(error).splitlines()[0], "nobody")]
            print("\n".join(f"| {words} | {what} | {reader} |" for what, reader in same), flush=True)
    return good


def _objects() -> list[tuple[str, str]]:
    return [*reference_objects.SEGMENTATIONS.items(), *reference_objects.REPORTS.items()]


def _alike(file: Path, folder: Path) -> list[tuple[str, str]]:
    relative = str(file.relative_to(DATA / "seg_sr"))
    if relative in reference_objects.REPORTS:
        return [(f"{reference_objects.measurements_alike(file, folder)} measurements", "dcmqi")]
    found = reference_objects.voxels_alike(file, folder)
    return [(f"{voxels} voxels of {quantity(n, 'segment')}", reader) for reader, (n, voxels) in found.items()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
