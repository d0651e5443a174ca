"""Jobs of models that mark single images: from received files to stored objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.errors import InvalidModelPackage
from dicomnode.imaging.decode import read_frames
from dicomnode.imaging.headers import read_instances
from dicomnode.imaging.images import plan_images
from dicomnode.ports import JobFinished, JobOutcome, JobRefused
from tests.made_images import coloured, f_plane, image
from tests.made_series import classic, write
from tests.output_cards import document, segment
from tests.unit.test_two_series import Bench, work_on

OUTPUT: dict[str, Any] = {"segments": [segment(1), segment(2)]}
MODALITIES = ["CR", "DX", "MG", "US", "CT"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    found = Bench(tmp_path)
    found.engine.thresholds = (1000.0, 2500.0)  # between the values of made_images.planes
    return found


def card(output: dict[str, Any] = OUTPUT, **given: Any) -> dict[str, Any]:
    return document("marker", output, of_images=True, input={"modality": MODALITIES, **given})


def job(bench: Bench, series: Sequence[Dataset], document: dict[str, Any] | None = None, **how: Any) -> JobOutcome:
    work = work_on(bench, parse_model_card(document or card()), **how)
    modality = str(series[0].Modality)
    return bench.perform(
        replace(work, series=replace(bench.series(series, f"own-{len(bench.engine.runs)}"), modality=modality))
    )


def done(*what: Any, **how: Any) -> JobFinished:
    outcome = job(*what, **how)
    assert isinstance(outcome, JobFinished), outcome
    return outcome


def test_views_of_two_sizes(bench: Bench) -> None:
    outcome = done(bench, [image(1, (40, 24)), image(2, (24, 40), PixelSpacing=[0.3, 0.3])])
    assert [r.kind for r in outcome.results] == ["SEG", "SEG", "SR"]
    assert [row["image"] for row in outcome.details["measurements"]] == [1, 1, 2, 2]
    first, _, third, _ = outcome.details["measurements"]
    assert (first["area_mm2"], first["pixels"]) == (None, int((f_plane((40, 24)) == 1).sum()))
    assert third["area_mm2"] == pytest.approx((f_plane((24, 40)) == 1).sum() * 0.09)
    assert "in pixels" in outcome.note


def test_the_gate_names_what_it_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.encoding.seg_images.patient_orientation", lambda source: ["A", "F"])
    outcome = job(bench, [image(1)])
    assert not isinstance(outcome, JobFinished)
    assert "PatientOrientation differs from its image's" in outcome.reason


def test_slices_of_a_volume_are_one_segmentation_of_it(bench: Bench) -> None:
    bench.engine.thresholds = (-800.0, -600.0)
    outcome = done(bench, classic(6))
    assert [r.kind for r in outcome.results] == ["SEG", "SR"]
    made = bench.files(outcome)["SEG"]
    assert made.FrameOfReferenceUID == classic(1)[0].FrameOfReferenceUID
    assert outcome.details["measurements"][0]["volume_ml"] > 0


def test_probabilities(bench: Bench) -> None:
    outcome = done(bench, [image(1)], card({**OUTPUT, "kind": "probabilities"}))
    assert [r.kind for r in outcome.results] == ["SEG-PROB", "SR"]


def test_nothing_found(bench: Bench) -> None:
    bench.engine.thresholds = (5000.0, 6000.0)
    outcome = done(bench, [image(1)])
    assert ([r.kind for r in outcome.results], outcome.note.split(";")[0]) == (
        ["SR"],
        "nothing was found: no SEG, and the SR says so",
    )


def test_millimetres_need_images_that_have_them(bench: Bench) -> None:
    by_rule = job(bench, [image(1)], parameters={"minimum_area_mm2": 3})
    by_card = job(bench, [image(1)], card(pixel_spacing_mm=[0.2, 0.2]))
    for outcome in (by_rule, by_card):
        assert isinstance(outcome, JobRefused)
        assert "does not say how large its pixels are" in str(outcome)
    done(Bench(bench.store.root / "other"), [image(1, PixelSpacing=[1, 1])], card(pixel_spacing_mm=[0.2, 0.2]))


def test_what_needs_a_frame_of_reference_is_not_made_and_said(bench: Bench) -> None:
    outcome = done(bench, [image(1)], objects=("SEG", "RTSTRUCT"))
    assert "RTSTRUCT, which marker does not give; contours need a frame of reference" in outcome.note
    by_profile = done(Bench(bench.store.root / "other"), [image(1)], forms=("RTSTRUCT",))
    assert "no RTSTRUCT: contours need a frame of reference" in by_profile.note


def test_a_card_of_images_is_written_as_it_was_read() -> None:
    read = parse_model_card(card(pixel_spacing_mm=[0.2, 0.1]))
    assert (read.output.of_images, read.input.pixel_spacing_mm) == (True, (0.2, 0.1))
    assert parse_model_card(card_document(read)) == read
    assert set(read.parameters) == {"overlap", "minimum_area_mm2"}
    assert set(parse_model_card(card()).parameters) == {"minimum_area_mm2"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": [{"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 1]}}]}, "inputs: .* one series"),
        ({"network": {"file": "x", "format": "monai-bundle"}}, "output: a monai-bundle gives segments"),
        ({"after": [{"model": "other", "only_if": {"finds": "x"}}]}, "after"),
        ({"output": {"map": {}}}, "a Parametric Map needs a frame of reference"),
    ],
)
def test_what_images_cannot_have_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidModelPackage, match=words):
        parse_model_card({**card(), **change})


def test_a_pixel_spacing_is_of_segments(bench: Bench) -> None:
    values = {"measurements": {"of": "image", "values": []}}
    with pytest.raises(InvalidModelPackage):
        parse_model_card(card(values, pixel_spacing_mm=[0.2, 0.2]))
    with pytest.raises(InvalidModelPackage, match="spacing is above zero"):
        parse_model_card(card(pixel_spacing_mm=[0.2, 0]))


def test_every_object_says_whose_it_is(bench: Bench) -> None:
    outcome = done(bench, [image(1)])
    for result in outcome.results:
        made = pydicom.dcmread(bench.store.path(result.path))
        assert made.StudyInstanceUID == image(1).StudyInstanceUID
        assert "marker" in [one.get("ManufacturerModelName") for one in made.ContributingEquipmentSequence]


def test_colour_is_refused_unless_the_card_takes_its_luminance(bench: Bench) -> None:
    bench.engine.thresholds = (60.0, 180.0)
    refused = job(bench, [coloured()])
    assert isinstance(refused, JobRefused)
    assert (refused.code, "RGB" in refused.reason) == ("not-monochrome", True)
    other = Bench(bench.store.root / "other")
    other.engine.thresholds = (60.0, 180.0)
    outcome = done(other, [coloured()], card(colour="luminance"), objects=("SEG", "SR", "GSPS"), forms=("GSPS",))
    first, second = outcome.details["measurements"]
    plane = f_plane((43, 29))
    assert [first["pixels"], second["pixels"]] == [(plane == 1).sum(), (plane == 2).sum()]
    assert (first["mean"], second["mean"]) == (120, 240)
    assert [r.kind for r in outcome.results] == ["SEG", "SR"]
    assert "the images are RGB: values are of their luminance" in outcome.note
    assert "no GSPS: a Grayscale Softcopy Presentation State is of grey images" in outcome.note


def test_red_is_as_bright_as_it_looks(tmp_path: Path) -> None:
    (path,) = write([coloured()], tmp_path)
    (instance,) = instances = read_instances([path])
    plan = plan_images([instance.header])
    assert plan.colour == "RGB"
    values = np.zeros(plan.stacks[0].shape, dtype=np.int16)
    read_frames(plan.stacks[0], instances, values)
    assert set(np.unique(values)) == {6, 120, 240}  # 0.299 of 20


def test_a_palette_is_refused_always(bench: Bench) -> None:
    palette = image(1, PhotometricInterpretation="PALETTE COLOR")
    outcome = job(bench, [palette], card(colour="luminance"))
    assert isinstance(outcome, JobRefused)
    assert outcome.code == "not-monochrome"


def test_a_volume_is_never_of_colour() -> None:
    volume = document("volume", OUTPUT, input={"colour": "luminance"})
    with pytest.raises(InvalidModelPackage, match=r"input\.colour: only a model of single images"):
        parse_model_card(volume)
    read = parse_model_card(card(colour="luminance"))
    assert parse_model_card(card_document(read)) == read
