"""The window of an image from black to white, and images that are given to a model in theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.errors import InvalidModelPackage
from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.golden import read_dicom_images
from dicomnode.imaging.images import plan_images
from dicomnode.imaging.voi import window_ends
from dicomnode.ports import JobFinished
from tests.made_images import f_plane, image
from tests.made_series import write
from tests.output_cards import document, segment
from tests.unit.test_images_job import job
from tests.unit.test_two_series import Bench


def table(entries: int, first: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [entries, first, 12], b"\0\0" * 4
    return item


@pytest.mark.parametrize(
    ("attributes", "ends"),
    [
        ({"WindowCenter": 2048, "WindowWidth": 4096}, (0, 4095)),
        ({"WindowCenter": [100, 7], "WindowWidth": [51, 9]}, (74.5, 124.5)),
        ({"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "LINEAR_EXACT"}, (75, 125)),
        ({"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "SIGMOID"}, (75, 125)),
        ({"WindowCenter": 100, "WindowWidth": 1, "VOILUTSequence": [table(256, 300)]}, (300, 555)),
        ({"VOILUTSequence": [table(0, -10)]}, (-10, 65525)),
        ({}, (-100, 8090)),
    ],
)
def test_the_ends_of_a_window(attributes: dict[str, Any], ends: tuple[float, float]) -> None:
    assert window_ends(image(**attributes), Rescale(2.0, -100.0), (0, 4095)) == ends


def test_an_inverted_image_has_its_window_turned_over() -> None:
    (frame,) = plan_images(
        [image(PhotometricInterpretation="MONOCHROME1", WindowCenter=1000.5, WindowWidth=201)]
    ).frames
    assert frame.window == (4095 - 1100, 4095 - 900)


def windowed(**given: Any) -> dict[str, Any]:
    return document(
        "marker",
        {"segments": [segment(1), segment(2)]},
        of_images=True,
        input={"modality": ["DX"], "intensity": {"from": "window", "to": [0, 1]}, **given},
    )


def test_each_image_is_given_in_its_own_window(tmp_path: Path) -> None:
    """The same picture from two makers, of which one has four times the values."""
    bench = Bench(tmp_path)
    bench.engine.thresholds = (0.3, 0.7)
    first = image(1, WindowCenter=1600, WindowWidth=3200)
    second = image(2, WindowCenter=400, WindowWidth=800)
    second.PixelData = (second.pixel_array // 4).astype("<u2").tobytes()
    outcome = job(bench, [first, second], windowed())
    assert isinstance(outcome, JobFinished), outcome
    one, two, three, four = outcome.details["measurements"]
    assert [one["pixels"], two["pixels"]] == [three["pixels"], four["pixels"]]
    plane = f_plane((43, 29))
    assert [one["pixels"], two["pixels"]] == [(plane == 1).sum(), (plane == 2).sum()]
    assert one["mean"] == pytest.approx(4 * three["mean"], rel=0.01)  # what is measured are the file's own values


def test_golden_images_are_given_so_too(tmp_path: Path) -> None:
    write([image(1, WindowCenter=1600, WindowWidth=3200), image(2, WindowCenter=400, WindowWidth=800)], tmp_path)
    given = read_dicom_images(tmp_path, parse_model_card(windowed()).input)
    shown = given.values * given.placement.rescale.slope + given.placement.rescale.intercept
    pixels = image().pixel_array.astype(float)
    np.testing.assert_allclose(shown[0], (pixels - -0.5) / 3199, atol=1e-3)
    np.testing.assert_allclose(shown[1], np.minimum((pixels - -0.5) / 799, 32767 / 8192), atol=1e-3)


def test_the_card_says_it_and_only_of_images() -> None:
    read = parse_model_card(windowed())
    assert (read.input.windowed, read.input.intensity_from) == (True, (0.0, 1.0))
    assert parse_model_card(card_document(read)) == read
    volume = document("volume", {"segments": [segment(1)]}, input={"intensity": {"from": "window"}})
    with pytest.raises(InvalidModelPackage, match=r"input\.intensity\.from: only a model of single images"):
        parse_model_card(volume)
    with pytest.raises(InvalidModelPackage, match=r"input\.intensity: unknown: too"):
        parse_model_card(windowed(intensity={"from": "window", "too": 1}))
