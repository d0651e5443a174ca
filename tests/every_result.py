"""One of every object that the node can write, as its file says it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from pydicom import Dataset, dcmread

from dicomnode.domain.classification import runs
from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.domain.model_output import Classification
from dicomnode.encoding.findings import Findings, reference
from dicomnode.encoding.forms import FORMS, IMAGE_FORMS, encode_form
from dicomnode.encoding.image_findings import ImageFindings
from dicomnode.encoding.kinds import SOP_CLASSES
from dicomnode.encoding.outcome import Statements
from dicomnode.encoding.provenance import Preceding, Predecessor, Provenance
from dicomnode.encoding.results import (
    EncodedResult,
    encode_box_results,
    encode_class_results,
    encode_map_results,
    encode_measured_results,
    encode_results,
    encode_skipped_results,
)
from dicomnode.encoding.results_of_images import encode_image_results
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.images import plan_images
from dicomnode.imaging.masked_images import masked_instances, measured
from dicomnode.imaging.masks import SegmentMasks
from dicomnode.imaging.measure import measure_masks
from dicomnode.imaging.volume import plan_volume
from tests.class_models import document
from tests.made_images import f_plane, image
from tests.made_outputs import (
    BOTH,
    BOXES,
    BOXES_IMAGES,
    MAP,
    MEASURED,
    MEASURED_IMAGES,
    SEGMENTS,
    exclusive,
    on_image,
    radiographs,
    twice,
    values,
)
from tests.made_outputs import card as made_card
from tests.made_results import MADE
from tests.made_series import classic, pixels

MARKS = made_card({"segments": SEGMENTS, "kind": "both"}, of_images=True)
CLASSES, CLASSES_SERIES = (
    parse_model_card(document("regions", of=of, certain_from=0.5)) for of in ("image", "series")
)
_SCORES = [[0.9, 0.06, 0.04], [0.2, 0.7, 0.1], [0.4, 0.35, 0.25], [0.9, 0.06, 0.04], [0.9, 0.06, 0.04]]


# Of every kind an earlier object
EARLIER = tuple(
    Predecessor("2.25.1", f"2.25.9.{n}", sop_class, f"2.25.8.{n}", kind)
    for n, (kind, sop_class) in enumerate(SOP_CLASSES.items(), 1)
)
FIRST = Preceding("lungs", "2.0", "another maker", "AI", "ef" * 32, "ONNX Runtime 1.31 CPU", "fp32", "asked", "yes")
WITH = replace(MADE, job_id="j-7", predecessors=EARLIER, before=(FIRST,), parameters={"threshold": 0.25})


def every(made: Provenance) -> Mapping[str, tuple[str, ModelCard, list[Dataset]]]:
    """What it is of → (kind of result, the card, its objects)."""
    found: dict[str, tuple[str, ModelCard, list[Dataset]]] = {}
    for name, card, result in each(made):
        found.setdefault(name, (result.kind, card, []))[2].append(read(result))
    return found


def read(result: EncodedResult) -> Dataset:
    with odd_values_accepted():
        return dcmread(io.BytesIO(result.content))


def each(made: Provenance) -> Iterator[tuple[str, ModelCard, EncodedResult]]:
    """What it is of, the card, and the result; some are several objects."""
    yield from _of_segments(made)
    plan, images = plan_volume(classic()), plan_images(classic())
    for result in encode_map_results(values(plan.geometry.shape), plan, MAP, made):
        yield "SR: a map" if result.kind == "SR" else "MAP", MAP, result
    yield from _of_images(made)
    reports = {
        "classes of images": (CLASSES, encode_class_results(runs(_SCORES, _spec(CLASSES)), images, CLASSES, made)),
        "a class of the series": (
            CLASSES_SERIES,
            encode_class_results(runs(_SCORES[:1], _spec(CLASSES_SERIES)), plan, CLASSES_SERIES, made),
        ),
        "numbers of the series": (MEASURED, encode_measured_results([[1.5, 2.5]], plan, MEASURED, made)),
        "numbers of images": (
            MEASURED_IMAGES,
            encode_measured_results([[1.0, 2.0], [3.0, 4.0]], plan_images(radiographs(2)), MEASURED_IMAGES, made),
        ),
        "boxes": (BOXES, encode_box_results(twice(plan.geometry), plan, BOXES, made)),
        "no boxes": (BOXES, encode_box_results([], plan, BOXES, made)),
        "boxes on images": (
            BOXES_IMAGES,
            encode_box_results([on_image()], plan_images(radiographs(2)), BOXES_IMAGES, made),
        ),
        "skipped": (BOTH, encode_skipped_results("no lungs", plan, BOTH, made)),
        "skipped classes": (CLASSES, encode_skipped_results("no lungs", images, CLASSES, made)),
    }
    for name, (card, results) in reports.items():
        for result in results:
            yield f"SR: {name}", card, result
    yield from _pages(made)


def _pages(made: Provenance) -> Iterator[tuple[str, ModelCard, EncodedResult]]:
    """Of words and numbers: on a volume, on single images, of nothing."""
    plan, images = plan_volume(classic()), plan_images(radiographs(2))
    rows = [{"class": "Chest", "images": 3, "share": 0.75}, {"class": "(not certain)", "images": 1, "share": 0.25}]
    told = {
        "classes": Statements([rows], [], plan, CLASSES, made),
        "numbers of images": Statements([[{"image": 1, "value": None}]], [], images, MEASURED_IMAGES, made),
        "skipped": Statements([], ["Not evaluated: no lungs"], plan, BOTH, made),
    }
    for name, said in told.items():
        for result in encode_form(said, "PDF"):
            yield f"PDF: {name}", said.card, result


def _spec(card: ModelCard) -> Classification:
    assert card.classification is not None
    return card.classification


def _of_images(made: Provenance) -> Iterator[tuple[str, ModelCard, EncodedResult]]:
    """A radiograph with marks, under the UIDs of the first slice."""
    one, slice_ = image(), classic()[0]
    one.SeriesInstanceUID, one.SOPInstanceUID = slice_.SeriesInstanceUID, slice_.SOPInstanceUID
    plan = plan_images([one])
    labels = f_plane((one.Rows, one.Columns))[np.newaxis]
    masks = SegmentMasks(labels, np.stack([np.where(labels == n, 255, 0) for n in (1, 2)]).astype(np.uint8))
    marked = masked_instances(plan, [np.zeros(labels.shape, np.int16)], [masks])
    statistics = measured(marked, [1, 2], {1})
    results = encode_image_results(marked, statistics, plan, MARKS, made)
    segmentations = [reference(result, plan) for result in results if result.kind == "SEG"]
    findings = ImageFindings(marked, statistics, plan, MARKS, made, segmentations)
    for result in (*results, *(one for kind in IMAGE_FORMS for one in encode_form(findings, kind))):
        yield ("SR: segments on images" if result.kind == "SR" else f"{result.kind} of an image"), MARKS, result


def _of_segments(made: Provenance) -> Iterator[tuple[str, ModelCard, EncodedResult]]:
    plan = plan_volume(classic())
    shape = plan.geometry.shape
    masks, volume = exclusive(shape), pixels(shape)
    assert masks.labels is not None
    statistics = measure_masks(masks, volume, plan.geometry, plan.rescale, [1, 2])
    results = encode_results(masks, statistics, plan, BOTH, made)
    for result in results:
        yield "SR: segments" if result.kind == "SR" else result.kind, BOTH, result
    findings = Findings(masks.labels, volume, statistics, plan, BOTH, made, reference(results[0], plan))
    for kind in FORMS:
        for result in encode_form(findings, kind):
            yield kind, BOTH, result
    nothing = SegmentMasks(np.zeros(shape, np.uint8), np.zeros((2, *shape), np.uint8))
    empty = measure_masks(nothing, volume, plan.geometry, plan.rescale, [1, 2])
    for result in encode_results(nothing, empty, plan, BOTH, made):
        yield "SR: no segments", BOTH, result
