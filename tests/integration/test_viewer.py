"""OHIF in Debian's Chromium draws a job's segmentation where the label map says, from the preview's service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset
from scipy.ndimage import maximum_filter, minimum_filter

from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.encoding.seg import encode_segmentation
from dicomnode.encoding.sr import encode_report
from dicomnode.imaging.masks import SegmentMasks
from dicomnode.imaging.measure import measure, with_diameters
from dicomnode.imaging.volume import VolumePlan, plan_volume
from tests.browser import Page
from tests.made_results import CARD, MADE, result, two_fs
from tests.made_series import OBLIQUE, SAGITTAL, classic, enhanced, pixels
from tests.ohif import (
    VIEWPORT,
    drawn,
    half_a_pixel,
    let_in,
    ohif_or_skip,
    open_segmentation,
    picture,
    places,
    sampled,
    slice_of,
)
from tests.previews import previewed, saved

SHAPE = (6, 22, 30)

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
    ohif = ohif_or_skip()
    folder = tmp_path_factory.mktemp("viewer")
    objects = [one for case in cases.values() for one in case.objects]
    with previewed(saved(folder / "store", objects), ohif) as address, let_in(address, folder) as found:
        yield found, address


def opened(page: tuple[Page, str], case: Case) -> Page:
    """The case's segmentation over its images, and nothing else on the page."""
    browser, address = page
    study, series = case.segmentation.StudyInstanceUID, case.segmentation.SeriesInstanceUID
    open_segmentation(browser, address, study, series, len(case.plan.frames))
    return browser


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_the_segmentation_is_drawn_where_the_label_map_says(
    page: tuple[Page, str], cases: dict[str, Case], name: str
) -> None:
    case = cases[name]
    browser = opened(page, case)
    images = browser.evaluate(f"{VIEWPORT}.getImageIds()")
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
    for index, image_id in enumerate(browser.evaluate(f"{VIEWPORT}.getImageIds()")):
        k = slice_of(image_id, case.plan)
        plain = sampled(browser, picture(browser, index, overlay=False), case.plan, k)
        assert np.array_equal(plain[..., 1] > 128, case.labels[k] > 0), f"image of slice {k}"


_LINES = """
[...document.querySelectorAll('.svg-layer line')].filter(line => line.getBoundingClientRect().width)
  .map(line => ['x1', 'y1', 'x2', 'y2'].map(name => Number(line.getAttribute(name))))
"""


@pytest.mark.slow
def test_a_diameter_is_drawn_on_its_image_and_what_has_no_place_hides_it_not(
    page: tuple[Page, str], tmp_path: Path
) -> None:
    source = _classic("measured")
    plan = plan_volume(source)
    labels = two_fs(SHAPE)
    report, ends = measured(plan, labels)
    with previewed(saved(tmp_path, [*source, report]), ohif_or_skip()) as address:
        browser = page[0]
        query = f"StudyInstanceUIDs={report.StudyInstanceUID}&initialSeriesInstanceUID={report.SeriesInstanceUID}"
        browser.open(f"{address}/viewer?{query}")
        browser.wait_for(f"{VIEWPORT}.getImageIds().length === {SHAPE[0]} && {VIEWPORT}.getCornerstoneImage()", 180.0)
        images = browser.evaluate(f"{VIEWPORT}.getImageIds()")
        index = next(n for n, image in enumerate(images) if slice_of(image, plan) == round(ends[0, 0]))
        browser.evaluate(f"(async () => {{ await {VIEWPORT}.setImageIdIndex({index}); {VIEWPORT}.render(); }})()")
        first, *_ = browser.wait_for(f"(lines => lines.length && lines)({_LINES})", 60.0)
        wanted = places(browser, plan, ends)
        box = browser.evaluate(f"(box => [box.x, box.y])({VIEWPORT}.canvas.getBoundingClientRect())")
        found = np.array(first).reshape(2, 2) + box
        assert np.abs(found - wanted).max() <= half_a_pixel(browser, plan)


def measured(plan: VolumePlan, labels: npt.NDArray[np.uint8]) -> tuple[Dataset, npt.NDArray[np.float64]]:
    """A report with a line for segment 1 and none for segment 2; the line's ends as (slice, row, column)."""
    first, *others = CARD.output.segments
    card = replace(CARD, output=replace(CARD.output, segments=(replace(first, diameter=True), *others)))
    numbers = measure(labels, pixels(SHAPE), plan.geometry, plan.rescale, [1, 2])
    statistics = with_diameters(numbers, SegmentMasks(labels), plan.frames, {1})
    file = encode_segmentation(labels, plan, card, MADE)
    assert file is not None
    diameter = statistics[0].diameter
    assert diameter is not None
    ends = np.c_[np.array(diameter.ends), [1, 1]] @ np.linalg.inv(plan.geometry.affine).T
    return encode_report(statistics, plan, card, MADE, file.header), ends[:, :3]


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
