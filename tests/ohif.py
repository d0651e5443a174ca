"""OHIF in Debian's Chromium: a segmentation opened in it, scrolled, and what is drawn where."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dicomnode.adapters.dicomweb.face.viewer import OhifFiles, find_ohif
from dicomnode.errors import NotFound
from dicomnode.imaging.volume import VolumePlan
from tests.browser import CHROMIUM, Page, browser
from tests.previews import KEY

_OHIF = Path(os.environ.get("DICOMNODE_TEST_OHIF", Path.home() / ".dicomnode" / "viewer"))

# Of the page all but the images is hidden: labels and bars lie over them.
_ONLY_IMAGES = """
(() => { const style = document.createElement('style');
  style.textContent = 'body * {visibility: hidden !important}' +
    'canvas.cornerstone-canvas {visibility: visible !important}';
  document.head.append(style); })()
"""
VIEWPORT = "cornerstone.getRenderingEngines()[0].getViewports()[0]"
# OHIF makes viewports anew while it opens a segmentation: the same one, with it and all images, ten times in a row
_SETTLED = f"""
(() => {{ const v = {VIEWPORT};
  const there = services.segmentationService.getSegmentationRepresentations(v.id).length
    && v.getImageIds().length === IMAGES && v.getCornerstoneImage();
  window.times = there && window.last === v ? (window.times ?? 0) + 1 : 0; window.last = v;
  return window.times >= 10; }})()
"""
_SHOW = f"""
(async () => {{ const v = {VIEWPORT};
  await v.setImageIdIndex(INDEX); v.render();
  for (let n = 0; n < 3; n++) await new Promise(requestAnimationFrame); }})()
"""
_PLACES = f"""
(() => {{ const v = {VIEWPORT}, box = v.canvas.getBoundingClientRect();
  return POINTS.map(p => {{ const [x, y] = v.worldToCanvas(p); return [x + box.x, y + box.y]; }}) }})()
"""
_VISIBLE = f"""
(() => {{ const s = services.segmentationService, id = {VIEWPORT}.id;
  for (const r of s.getSegmentationRepresentations(id))
    for (const n of Object.keys(r.segments))
      s.setSegmentVisibility(id, r.segmentationId, Number(n), VISIBLE, r.type); }})()
"""


def ohif_or_skip() -> OhifFiles:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    try:
        return OhifFiles(find_ohif(_OHIF))
    except NotFound as reason:
        pytest.skip(f"{reason} (or name its folder in DICOMNODE_TEST_OHIF)")


@contextmanager
def let_in(address: str, folder: Path) -> Iterator[Page]:
    """A browser that has been let in by the service at this address."""
    with browser(folder) as page:
        page.open(f"{address}/open?key={KEY}")
        page.wait_for("!!window.services")
        yield page


def open_segmentation(page: Page, address: str, study: str, series: str, images: int) -> None:
    """The segmentation over its images, so many, and nothing else on the page."""
    page.open(f"{address}/viewer?StudyInstanceUIDs={study}&initialSeriesInstanceUID={series}")
    page.wait_for(_SETTLED.replace("IMAGES", str(images)), timeout_s=180.0)
    page.evaluate(_ONLY_IMAGES)


def slice_of(image_id: str, plan: VolumePlan) -> int:
    """Which slice of the plan the viewer's image is of: by its UID and frame."""
    instance, _, frame = image_id.partition("/instances/")[2].partition("/frames/")
    for k, one in enumerate(plan.frames):
        if one.sop_instance_uid == instance and one.number == int(frame):
            return k
    raise AssertionError(f"{image_id} is no image of the series")


def picture(page: Page, index: int, *, overlay: bool) -> npt.NDArray[np.int16]:
    """(y, x, RGB) int16, the page with that image, once it changes no more."""
    page.evaluate(_VISIBLE.replace("VISIBLE", json.dumps(overlay)))
    page.evaluate(_SHOW.replace("INDEX", str(index)))
    found = page.picture()
    while found != (again := page.picture()):
        found = again
    return np.asarray(Image.open(io.BytesIO(found)).convert("RGB"), dtype=np.int16)


def places(page: Page, plan: VolumePlan, index: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """(n, xy) where on the page (slice, row, column) lie, by the headers and the viewer's camera."""
    points = (plan.geometry.affine @ np.c_[index, np.ones(len(index))].T).T[:, :3]
    return np.array(page.evaluate(_PLACES.replace("POINTS", json.dumps(points.tolist()))))


def half_a_pixel(page: Page, plan: VolumePlan) -> int:
    """Of the image, in pixels of the screen."""
    first, right, below = places(page, plan, np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]]))
    return int(np.ceil(max(np.abs(right - first).max(), np.abs(below - first).max()) / 2))


def sampled(page: Page, shown: npt.NDArray[np.int16], plan: VolumePlan, k: int) -> npt.NDArray[np.int16]:
    """(row, column, RGB) what is shown where the headers say that the centres of the slice's pixels are."""
    rows, columns = np.indices(plan.geometry.shape[1:])
    index = np.stack([np.full_like(rows, k), rows, columns], axis=-1).reshape(-1, 3)
    x, y = np.floor(places(page, plan, index)).astype(int).T
    return shown[y, x].reshape(*rows.shape, 3)


def drawn(shown: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """The segment by its colour: the first is blue, the second yellow; images are grey."""
    red, blue = shown[..., 0], shown[..., 2]
    return np.select([blue - red > 25, red - blue > 25], [1, 2], 0).astype(np.uint8)
