"""OHIF draws an F in three dimensions where it lies on every real series that is a volume.

`pytest -m slow -rP tests/integration/test_viewer_real.py` prints the figures of docs/viewer.md.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian
from scipy.ndimage import distance_transform_edt

from dicomnode.adapters.dicomweb.face.viewer import OhifFiles
from dicomnode.errors import CannotDecode
from dicomnode.imaging.headers import odd_values_accepted, read_instances
from dicomnode.imaging.volume import VolumePlan
from tests import round_trip
from tests.browser import Page
from tests.made_results import two_fs
from tests.ohif import VIEWPORT, let_in, ohif_or_skip, open_segmentation, picture, places, sampled, slice_of
from tests.previews import previewed
from tests.real_data import DATA

_LOOKED_AT = 3  # slices of a series
_DEFLATED = ("multi/sts_002/ct/image", "mr/qin-prostate-adc/pm-example-dcm.zip")
CASES = [(folder, "SEG") for folder in round_trip.SERIES] + [(folder, "SEG, deflated") for folder in _DEFLATED]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there"),
]


@dataclass(frozen=True, eq=False)
class Served:
    """`files` are shown; `stored` is (slice, row, column) of the images, `labels` of the segmentation."""

    plan: VolumePlan
    stored: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    segmentation: Dataset
    files: Sequence[Path]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, OhifFiles]]:
    ohif = ohif_or_skip()
    folder = tmp_path_factory.mktemp("browser")
    with previewed([], ohif) as address, let_in(address, folder) as page:
        yield page, ohif


def served(folder: str, kind: str, scratch: Path) -> Served:
    plan, stored = round_trip.series(DATA / folder, scratch / "in")
    made = next(one for one in round_trip.made(plan, stored) if one.kind == kind.partition(",")[0])
    file = scratch / "seg.dcm"
    with odd_values_accepted():
        dataset = dcmread(io.BytesIO(made.content))
        if kind.endswith("deflated"):
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(file, enforce_file_format=True)
    images = list(_images(scratch / "in" if folder.endswith(".zip") else DATA / folder, plan))
    return Served(plan, stored, two_fs(plan.geometry.shape), dataset, [*images, file])


def _images(place: Path, plan: VolumePlan) -> Iterator[Path]:
    wanted = {frame.sop_instance_uid for frame in plan.frames}
    for file in sorted(p for p in place.rglob("*") if p.is_file()):
        try:
            [instance] = read_instances([file])
        except CannotDecode:
            continue
        if instance.header.SOPInstanceUID in wanted:
            yield file


@pytest.mark.parametrize(("folder", "kind"), CASES)
def test_an_f_is_drawn_where_it_lies(viewer: tuple[Page, OhifFiles], folder: str, kind: str, tmp_path: Path) -> None:
    page, ohif = viewer
    one = served(folder, kind, tmp_path)
    header = one.segmentation
    with previewed(one.files, ohif) as address:
        open_segmentation(page, address, header.StudyInstanceUID, header.SeriesInstanceUID, len(one.plan.frames))
        found = [_of_slice(page, index, one) for index in _looked_at(page, one)]
    print(f"| {round_trip.SERIES[folder]} | {kind} | {len(found)} | {max(found):.2f} |")
    assert max(found) < 1.0


def _looked_at(page: Page, one: Served) -> list[int]:
    """Indices of the viewer's images: of slices with a segment, from first to last."""
    images = page.evaluate(f"{VIEWPORT}.getImageIds()")
    full = [index for index, image in enumerate(images) if one.labels[slice_of(image, one.plan)].any()]
    return [full[round(n)] for n in np.linspace(0, len(full) - 1, min(_LOOKED_AT, len(full)))]


def _of_slice(page: Page, index: int, one: Served) -> float:
    """How far from its place a segment is drawn, in pixels of the image; fails where another image is shown."""
    k = slice_of(page.evaluate(f"{VIEWPORT}.getImageIds()")[index], one.plan)
    bare, overlaid = (picture(page, index, overlay=overlay) for overlay in (False, True))
    assert _is_image(sampled(page, bare, one.plan, k)[..., 1], one.stored, k), f"another image than that of slice {k}"
    return _apart(page, (overlaid != bare).any(axis=-1), one.labels[k] > 0, one.plan, k)


def _is_image(shown: npt.NDArray[np.int16], stored: npt.NDArray[np.int16], k: int) -> bool:
    """Within the window grey values rise with the stored ones of that slice, and with those of no other more."""
    if stored[k].std() == 0:
        return bool(shown.std() == 0)
    inside = (shown > 1) & (shown < 254) if stored[k].max() > stored[k].min() + 1 else np.ones_like(shown, bool)
    alike = [_correlation(shown[inside], values[inside]) for values in stored]
    return alike[k] > 0.9 and alike[k] >= max(alike) - 1e-9


def _correlation(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _apart(
    page: Page, coloured: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_], plan: VolumePlan, k: int
) -> float:
    """Of what is drawn and what should be the farthest from any of the other, in pixels of the image.

    `coloured` is (y, x) of the screen, `wanted` (row, column) of the slice.
    """
    origin, right, below = places(page, plan, np.array([[k, 0, 0], [k, 0, 1], [k, 1, 0]]))
    steps = np.column_stack([below - origin, right - origin])
    y, x = np.indices(coloured.shape)
    found = (np.stack([x + 0.5, y + 0.5], axis=-1) - origin) @ np.linalg.inv(steps).T
    row, column = np.moveaxis(np.rint(found).astype(int), -1, 0)
    inside = (row >= 0) & (row < wanted.shape[0]) & (column >= 0) & (column < wanted.shape[1])
    there = np.zeros_like(coloured)
    there[inside] = wanted[row[inside], column[inside]]
    assert coloured.any(), f"nothing is drawn in slice {k}"
    farthest = max(_farthest(coloured, there), _farthest(there, coloured))
    return farthest / float(np.linalg.norm(steps, axis=0).min())


def _farthest(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Of one from the other, in pixels of the screen."""
    return float(distance_transform_edt(~other)[one].max())
