"""OHIF in Debian's Chromium draws a job's segmentation where the label map says, from the preview's service."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom import Dataset
from scipy.ndimage import maximum_filter, minimum_filter

from dicomnode.adapters.dicomweb.face.viewer import OhifFiles, find_ohif
from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.errors import NotFound
from dicomnode.imaging.volume import VolumePlan, plan_volume
from tests.browser import CHROMIUM, Page, browser
from tests.made_results import CARD, result, two_fs
from tests.made_series import OBLIQUE, SAGITTAL, classic, enhanced
from tests.previews import KEY, previewed, saved

SHAPE = (6, 22, 30)
_OHIF = Path(os.environ.get("DICOMNODE_TEST_OHIF", Path.home() / ".dicomnode" / "viewer"))

# Of the page all but the images is hidden: labels and bars lie over them.
_ONLY_IMAGES = """
(() => { const style = document.createElement('style');
  style.textContent = 'body * {visibility: hidden !important}' +
    'canvas.cornerstone-canvas {visibility: visible !important}';
  document.head.append(style); })()
"""
_VIEWPORT = "cornerstone.getRenderingEngines()[0].getViewports()[0]"
# OHIF makes viewports anew while it opens a segmentation: the same one, with it and all images, ten times in a row
_SETTLED = f"""
(() => {{ const v = {_VIEWPORT};
  const there = services.segmentationService.getSegmentationRepresentations(v.id).length
    && v.getImageIds().length === IMAGES && v.getCornerstoneImage();
  window.times = there && window.last === v ? (window.times ?? 0) + 1 : 0; window.last = v;
  return window.times >= 10; }})()
"""
_SHOW = f"""
(async () => {{ const v = {_VIEWPORT};
  await v.setImageIdIndex(INDEX); v.render();
  for (let n = 0; n < 3; n++) await new Promise(requestAnimationFrame); }})()
"""
_PLACES = f"""
(() => {{ const v = {_VIEWPORT}, box = v.canvas.getBoundingClientRect();
  return POINTS.map(p => {{ const [x, y] = v.worldToCanvas(p); return [x + box.x, y + box.y]; }}) }})()
"""
_VISIBLE = f"""
(() => {{ const s = services.segmentationService, id = {_VIEWPORT}.id;
  for (const r of s.getSegmentationRepresentations(id))
    for (const n of Object.keys(r.segments))
      s.setSegmentVisibility(id, r.segmentationId, Number(n), VISIBLE, r.type); }})()
"""
# The first image that OHIF's first viewport asks for is there only when that viewport is not any more.
_LATE_IMAGE = """
(() => { let first; const found = setInterval(() => {
  const stack = window.cornerstone?.StackViewport?.prototype;
  if (!stack) return;
  clearInterval(found);
  const load = stack._loadAndDisplayImageGPU;
  stack._loadAndDisplayImageGPU = async function (...image) {
    if (this.id !== 'default' || (first ??= this) !== this) return load.apply(this, image);
    while (this.getRenderingEngine().getViewport(this.id) === this) await new Promise(r => setTimeout(r, 20));
    await new Promise(r => setTimeout(r, 1500));
    const shown = await load.apply(this, image);
    window.cameLate = true;
    return shown; }; }, 1) })()
"""


@dataclass(frozen=True)
class Case:
    """A source, its label map on the plan's grid, and the objects that are shown."""

    plan: VolumePlan
    labels: npt.NDArray[np.uint8]
    objects: tuple[Dataset, ...]

    @property
    def segmentation(self) -> Dataset:
        return next(one for one in self.objects if one.Modality == "SEG")


def case(source: Sequence[Dataset]) -> Case:
    plan = plan_volume(source)
    labels = two_fs(plan.geometry.shape)
    _, _, segmentation, report = result(source, labels)
    assert segmentation is not None
    return Case(plan, labels, (*source, segmentation, report))


def values() -> npt.NDArray[np.int16]:
    """What the label map says, in the images themselves: dark, and bright where there is a segment."""
    return np.where(two_fs(SHAPE) > 0, 1100, 900).astype(np.int16)


def _classic(name: str, **more: Any) -> list[Dataset]:
    """In a study and a frame of reference of their own."""
    more |= {"StudyInstanceUID": deterministic_uid(name), "FrameOfReferenceUID": deterministic_uid("frame", name)}
    return classic(SHAPE[0], rows=SHAPE[1], columns=SHAPE[2], values=values(), series=name, **more)


def reversed_order() -> list[Dataset]:
    """The first image is the last along the normal."""
    found = _classic("reversed")
    for number, image in enumerate(reversed(found), 1):
        image.InstanceNumber = number
    return found[::-1]


SOURCES: dict[str, Sequence[Dataset]] = {
    "axial": _classic("axial"),
    "reversed": reversed_order(),
    "sagittal": _classic("sagittal", orientation=SAGITTAL),
    "oblique": _classic("oblique", orientation=OBLIQUE, spacing=(0.9, 0.7)),
    "enhanced": [enhanced(SHAPE[0], rows=SHAPE[1], columns=SHAPE[2], values=values(), order=(3, 1, 0, 5, 4, 2))],
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {name: case(source) for name, source in SOURCES.items()}


@pytest.fixture(scope="module")
def page(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, str]]:
    """A browser that has been let in, and the service's address."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    try:
        ohif = OhifFiles(find_ohif(_OHIF))
    except NotFound as reason:
        pytest.skip(f"{reason} (or name its folder in DICOMNODE_TEST_OHIF)")
    folder = tmp_path_factory.mktemp("viewer")
    objects = [one for case in cases.values() for one in case.objects]
    with previewed(saved(folder / "store", objects), ohif) as address, browser(folder) as found:
        found.open(f"{address}/open?key={KEY}")
        found.wait_for("!!window.services")
        yield found, address


def opened(page: tuple[Page, str], case: Case) -> Page:
    """The case's segmentation over its images, and nothing else on the page."""
    browser, address = page
    study, series = case.segmentation.StudyInstanceUID, case.segmentation.SeriesInstanceUID
    browser.open(f"{address}/viewer?StudyInstanceUIDs={study}&initialSeriesInstanceUID={series}")
    browser.wait_for(_SETTLED.replace("IMAGES", str(len(case.plan.frames))), timeout_s=180.0)
    browser.evaluate(_ONLY_IMAGES)
    return browser


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


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_the_segmentation_is_drawn_where_the_label_map_says(
    page: tuple[Page, str], cases: dict[str, Case], name: str
) -> None:
    case = cases[name]
    browser = opened(page, case)
    images = browser.evaluate(f"{_VIEWPORT}.getImageIds()")
    assert sorted(slice_of(one, case.plan) for one in images) == list(range(SHAPE[0]))
    for index, image_id in enumerate(images):
        k = slice_of(image_id, case.plan)
        bare, overlaid = (picture(browser, index, overlay=overlay) for overlay in (False, True))
        plain = sampled(browser, bare, case.plan, k)
        assert not drawn(bare).any()
        # bright in the image where the label map has a segment: so the points are where the pixels are drawn
        assert np.array_equal(plain[..., 1] > 128, case.labels[k] > 0), f"image of slice {k}"
        assert np.array_equal(drawn(sampled(browser, overlaid, case.plan, k)), case.labels[k]), f"slice {k}"
        nothing_beside(drawn(overlaid) > 0, bare[..., 1] > 128, half_a_pixel(browser, case.plan))


@pytest.mark.slow
def test_an_image_that_came_late_stays_under_no_other_overlay(page: tuple[Page, str], cases: dict[str, Case]) -> None:
    """OHIF makes its viewport anew when it opens a segmentation; what the former one waited for is not shown."""
    case = cases["axial"]
    script = page[0].call("Page.addScriptToEvaluateOnNewDocument", source=_LATE_IMAGE)
    try:
        browser = opened(page, case)
        browser.wait_for("window.cameLate")
    finally:
        page[0].call("Page.removeScriptToEvaluateOnNewDocument", **script)
    for index, image_id in enumerate(browser.evaluate(f"{_VIEWPORT}.getImageIds()")):
        k = slice_of(image_id, case.plan)
        plain = sampled(browser, picture(browser, index, overlay=False), case.plan, k)
        assert np.array_equal(plain[..., 1] > 128, case.labels[k] > 0), f"image of slice {k}"


def nothing_beside(coloured: npt.NDArray[np.bool_], bright: npt.NDArray[np.bool_], within: int) -> None:
    """The whole of the screen: what is coloured is what is bright, within half a pixel of the image.

    Images are drawn smooth between pixels, segments are not.
    """
    for one, other in ((coloured, bright), (bright, coloured)):
        assert not (one & ~maximum_filter(other, size=2 * within + 1)).any()
        assert not (~one & minimum_filter(other, size=2 * within + 1)).any()


def test_the_segments_are_of_the_two_colours() -> None:
    """Or the test above could not tell them apart."""
    colours = np.array([segment.colour for segment in CARD.segments], dtype=np.int16)
    assert drawn(colours).tolist() == [1, 2]
