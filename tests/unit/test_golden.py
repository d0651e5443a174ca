"""Golden cases: read strictly, run through an engine, and judged by figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dicomnode.adapters.golden_cases import MadeCase, check_place, read_golden_cases, write_case
from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, acceptance_document, parse_acceptance
from dicomnode.domain.golden import GoldenCase, parse_golden_cases
from dicomnode.domain.model_card import ModelCard, card_document, parse_model_card
from dicomnode.errors import EngineUnavailable, InvalidModelPackage, ModelFailed, UsageError
from dicomnode.imaging.geometry import Placement, Rescale
from dicomnode.imaging.golden import GivenVolume, read_dicom_volume
from dicomnode.ports import ModelVersion
from dicomnode.stages.accept import AcceptStage, read_answer, read_case
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_state import FakeClock
from tests.made_results import CARD
from tests.made_series import classic
from tests.made_series import write as write_dicom
from tests.triton_models import axial

SHAPE = (4, 5, 6)
AFFINE = axial(SHAPE, (3.0, 1.0, 1.0)).affine


def volume() -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.random.default_rng(1).integers(-200, 300, SHAPE).astype(np.int16)


def labels(above: float = 50.0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """As FakeEngine with one threshold gives them."""
    return (volume() > above).astype(np.uint8)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write(tmp_path, {"cases": [{"name": "a", "input": "a.npz", "expected": "b.npz"}]})
    np.savez(tmp_path / "golden/a.npz", volume=volume(), affine=AFFINE)
    np.savez(tmp_path / "golden/b.npz", labels=labels())
    return tmp_path


def write(package: Path, document: object) -> None:
    (package / "golden").mkdir(exist_ok=True)
    (package / "golden/cases.yaml").write_text(yaml.safe_dump(document))


def version(package: Path, card: ModelCard = CARD) -> ModelVersion:
    return ModelVersion(1, card.name, card.version, "d" * 64, package, card, False)


def accept(package: Path, engine: FakeEngine | None = None, card: ModelCard = CARD) -> Acceptance:
    stage = AcceptStage(engine or FakeEngine(), FakeClock(), 60)
    return stage.accept(version(package, card), read_golden_cases(package, card))


def test_a_case_that_gives_what_is_expected_passes_and_says_on_what(package: Path) -> None:
    found = accept(package)
    assert (found.outcome, found.engine, found.device) == (AcceptanceOutcome.PASSED, "thresholds", "CPU")
    assert dict(found.cases[0].figures) == {"Dice Lungs": 1.0, "Dice Bone": 1.0}
    assert "1 golden case passed on thresholds f32" in found.words
    assert parse_acceptance(acceptance_document(found)).words == found.words


def test_a_case_that_gives_something_else_fails_with_its_figures(package: Path) -> None:
    found = accept(package, FakeEngine([120.0]))
    assert found.outcome is AcceptanceOutcome.FAILED
    assert not found.allows_activation
    dice = dict(found.cases[0].figures)["Dice Lungs"]
    first, second = labels() == 1, labels(120.0) == 1
    assert dice == pytest.approx(2 * (first & second).sum() / (first.sum() + second.sum()), abs=1e-6)
    assert found.words.startswith("not accepted on thresholds f32, CPU: case a: Dice of Lungs is 0.")
    assert "0.999 is needed" in found.words


def test_how_much_is_enough_is_said_for_all_segments_or_for_each(package: Path) -> None:
    found = dict(accept(package, FakeEngine([52.0])).cases[0].figures)["Dice Lungs"]
    assert 0.9 < found < 0.999
    for enough, outcome in (
        (0.9, AcceptanceOutcome.PASSED),
        ({"Lungs": 0.9}, AcceptanceOutcome.PASSED),
        ({"Bone": 0.9}, AcceptanceOutcome.FAILED),
    ):
        write(package, {"cases": [{"name": "a", "input": "a.npz", "expected": "b.npz", "dice_least": enough}]})
        assert accept(package, FakeEngine([52.0])).outcome is outcome


def test_parameters_and_the_rescale_reach_the_engine(package: Path) -> None:
    case = {"name": "a", "input": "a.npz", "expected": "b.npz", "parameters": {"overlap": 0.5}}
    write(package, {"cases": [case]})
    np.savez(package / "golden/a.npz", volume=volume(), affine=AFFINE, slope=2.0, intercept=-50.0)
    np.savez(package / "golden/b.npz", labels=(volume() * 2.0 - 50.0 > 50.0).astype(np.uint8))
    engine = FakeEngine()
    assert accept(package, engine).outcome is AcceptanceOutcome.PASSED
    assert engine.parameters[0]["overlap"] == 0.5


def test_a_model_that_breaks_fails_its_case_and_an_engine_that_is_away_is_nobodys_fault(package: Path) -> None:
    found = accept(package, FakeEngine(failures=[ModelFailed("the network gives 7 classes")]))
    assert (found.outcome, found.cases[0].words) == (AcceptanceOutcome.FAILED, "the network gives 7 classes")
    with pytest.raises(EngineUnavailable):
        accept(package, FakeEngine(failures=[EngineUnavailable("down")]))


def test_a_package_without_golden_cases_is_not_judged(tmp_path: Path) -> None:
    found = accept(tmp_path, FakeEngine(failures=[ModelFailed("never run")]))
    assert (found.outcome, found.allows_activation) == (AcceptanceOutcome.NONE, True)
    assert "nobody has checked" in found.words


def test_further_series_are_given_by_number(package: Path) -> None:
    pet = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 20]}}
    card = parse_model_card({**card_document(CARD), "inputs": [pet]})
    with pytest.raises(InvalidModelPackage, match=r"golden/a\.npz: there is no volume_1"):
        accept(package, card=card)
    hot = np.full(SHAPE, 15, np.int16)
    np.savez(package / "golden/a.npz", volume=volume(), affine=AFFINE, volume_1=hot, affine_1=AFFINE)
    assert accept(package, card=card).outcome is AcceptanceOutcome.PASSED


def test_a_case_may_be_folders_of_dicom_files(package: Path) -> None:
    """FakeEngine: what is above -800 HU in the CT, where the series in the role exceeds the middle of its range."""
    pet = {"role": "pet", "modality": ["PT"], "intensity": {"from": [-4000, 0]}}
    card = parse_model_card({**card_document(CARD), "inputs": [pet]})
    for folder in ("ct", "pet"):
        write_dicom(classic(5), package / "golden" / folder)
    given = read_dicom_volume(package / "golden/ct")
    rescale = given.placement.rescale
    expected = (given.values * rescale.slope + rescale.intercept > -800).astype(np.uint8)
    assert 0 < expected.mean() < 1
    np.savez(package / "golden/b.npz", labels=expected)
    case = {"name": "a", "input": "ct", "roles": {"pet": "pet"}, "expected": "b.npz"}
    write(package, {"cases": [case]})
    assert accept(package, FakeEngine([-800.0]), card).outcome is AcceptanceOutcome.PASSED
    write(package, {"cases": [{**case, "roles": {}}]})
    with pytest.raises(InvalidModelPackage, match="case a: the card has the roles pet; name a folder for each"):
        accept(package, card=card)
    (package / "golden/ct/000.dcm").write_bytes(b"no")
    with pytest.raises(InvalidModelPackage, match=r"golden/ct: 000\.dcm cannot be read as DICOM"):
        read_dicom_volume(package / "golden/ct")


WRONG = {
    "cases is missing": {},
    "cases.yaml.cases: 1 to 100 cases": {"cases": []},
    r"cases\[0\]: unknown: tolerance": {"cases": [{"name": "a", "tolerance": 1}]},
    r"cases\[0\]: unknown: difference_most": {"cases": [{"name": "a", "difference_most": 1}]},
    r"cases\[0\]\.expected|expected is missing": {"cases": [{"name": "a", "input": "a.npz"}]},
    r"cases\[0\]\.input: '\.\./a' leaves the package": {
        "cases": [{"name": "a", "input": "../a", "expected": "b.npz"}]
    },
    r"cases\[0\]\.dice_least: 1\.5 is not above 0": {
        "cases": [{"name": "a", "input": "a.npz", "expected": "b.npz", "dice_least": 1.5}]
    },
    r"cases\[0\]\.dice_least: unknown: Liver": {
        "cases": [{"name": "a", "input": "a.npz", "expected": "b.npz", "dice_least": {"Liver": 0.9}}]
    },
    r"cases\[0\]\.parameters: blur is no parameter": {
        "cases": [{"name": "a", "input": "a.npz", "expected": "b.npz", "parameters": {"blur": 1}}]
    },
    "each with a name of its own": {"cases": [{"name": "a", "input": "a.npz", "expected": "b.npz"}] * 2},
    "case a: 'c.npz' is not in golden/": {"cases": [{"name": "a", "input": "a.npz", "expected": "c.npz"}]},
}


@pytest.mark.parametrize(("words", "document"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_named_with_its_path(package: Path, words: str, document: Mapping[str, Any]) -> None:
    write(package, document)
    with pytest.raises(InvalidModelPackage, match=words):
        read_golden_cases(package, CARD)


def test_a_golden_folder_without_cases_is_no_package_without_golden_cases(package: Path) -> None:
    (package / "golden/cases.yaml").unlink()
    with pytest.raises(InvalidModelPackage, match=r"golden/cases\.yaml: it is absent"):
        read_golden_cases(package, CARD)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"affine": AFFINE}, "there is no volume; there are: affine"),
        ({"volume": volume().astype(np.int32), "affine": AFFINE}, "volume is int32 4×5×6"),
        ({"volume": volume(), "affine": np.zeros((4, 4))}, "no affine of a volume"),
    ],
)
def test_arrays_that_are_no_volume_are_refused(package: Path, arrays: Any, words: str) -> None:
    np.savez(package / "golden/a.npz", **arrays)
    with pytest.raises(InvalidModelPackage, match=words):
        accept(package)


def test_a_file_that_is_no_npz_or_holds_objects_is_refused(package: Path) -> None:
    (package / "golden/a.npz").write_bytes(b"PK\3\4 not a zip")
    with pytest.raises(InvalidModelPackage, match=r"golden/a\.npz: this is no \.npz"):
        accept(package)
    with (package / "golden/a.npz").open("wb") as file:
        np.save(file, volume())
    with pytest.raises(InvalidModelPackage, match="this is no"):
        accept(package)
    np.savez(package / "golden/a.npz", volume=np.array([{}], dtype=object), affine=AFFINE)
    with pytest.raises(InvalidModelPackage, match="this is no"):
        accept(package)


def test_labels_of_another_shape_fail_the_case(package: Path) -> None:
    np.savez(package / "golden/b.npz", labels=labels()[1:])
    found = accept(package)
    assert (found.outcome, found.cases[0].words) == (
        AcceptanceOutcome.FAILED,
        "what is expected is (3, 5, 6), the volume (4, 5, 6)",
    )


def classifier() -> ModelCard:
    """Of single images of 5 × 6."""
    code = {"value": "1", "scheme": "SCT", "meaning": "x"}
    classes = [{"name": "Head", "code": code}, {"name": "Chest", "code": code}]
    document = {**card_document(CARD), "output": {"classification": {"finding": code, "classes": classes}}}
    return parse_model_card({**document, "input": {**document["input"], "size": [5, 6]}})


def test_a_classifiers_cases_are_judged_by_their_scores(package: Path) -> None:
    """FakeEngine: 0.9 for the class of an image by its mean, here above and below 50."""
    bright = np.stack([np.full((5, 6), value, np.int16) for value in (100, 0, 60)])
    np.savez(package / "golden/a.npz", volume=bright)
    right = np.array([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9]], dtype=np.float32)
    write(package, {"cases": [{"name": "a", "input": "a.npz", "expected": "b.npz", "difference_most": 0.001}]})
    for shift, outcome in ((0.0005, AcceptanceOutcome.PASSED), (0.01, AcceptanceOutcome.FAILED)):
        np.savez(package / "golden/b.npz", scores=right + np.float32(shift))
        found = accept(package, card=classifier())
        assert found.outcome is outcome
        assert dict(found.cases[0].figures)["largest difference"] == pytest.approx(shift, abs=1e-6)
    assert "a score differs by 0.0100, 0.001 is allowed" in found.words
    np.savez(package / "golden/b.npz", scores=right[:2])
    assert "what is expected is (2, 2)" in accept(package, card=classifier()).words


def test_a_classifiers_case_may_be_a_folder_of_images(package: Path) -> None:
    """Not a volume: the images lie in one place. FakeEngine takes the first class below a mean of 5000."""
    images = classic(4)
    for image in images:
        image.ImagePositionPatient = images[0].ImagePositionPatient
    write_dicom(images, package / "golden/images")
    np.savez(package / "golden/b.npz", scores=np.array([[0.9, 0.1]] * 4, dtype=np.float32))
    write(package, {"cases": [{"name": "a", "input": "images", "expected": "b.npz"}]})
    assert accept(package, FakeEngine([5000.0]), classifier()).outcome is AcceptanceOutcome.PASSED
    images[0].Rows, images[0].PixelData = 1, images[0].PixelData[: 2 * images[0].Columns]
    write_dicom(images[:1], package / "golden/images")
    with pytest.raises(InvalidModelPackage, match="several sizes"):
        accept(package, card=classifier())


def test_what_a_classifiers_case_says_is_read_strictly() -> None:
    case = {"name": "a", "input": "a", "expected": "b"}
    (read,) = parse_golden_cases({"cases": [{**case, "difference_most": 0.5}]}, classifier())
    assert read == replace(GoldenCase("a", "a", "b"), difference_most=0.5)
    with pytest.raises(InvalidModelPackage, match="unknown: dice_least"):
        parse_golden_cases({"cases": [{**case, "dice_least": 0.9}]}, classifier())


# ---------------------------------------------------------------------------------------------------- making one


def made(name: str = "b") -> MadeCase:
    placement = Placement(axial(SHAPE, (3.0, 1.0, 1.0)), Rescale(2.0, -1024.0))
    return MadeCase(name, [GivenVolume(volume(), placement)] * 2, labels(), {})


@pytest.mark.parametrize(
    "before",
    [
        "",
        "cases:\n- {name: a, input: a.npz, expected: b.npz}\n",
        "# ours\ncases:\n    - name: a\n      input: a.npz\n      expected: b.npz",
    ],
)
def test_a_made_case_is_read_as_it_was_made(tmp_path: Path, before: str) -> None:
    if before:
        (tmp_path / "golden").mkdir()
        for file in ("a.npz", "b.npz"):
            (tmp_path / "golden" / file).touch()
        (tmp_path / "golden/cases.yaml").write_text(before)
    write_case(tmp_path, CARD, made("c"))
    *others, case = read_golden_cases(tmp_path, CARD)
    assert (case.name, len(others)) == ("c", 1 if before else 0)
    assert (tmp_path / "golden/cases.yaml").read_text().startswith(before.rstrip() or "cases:")
    roles = [{"role": "late", "modality": ["CT"], "intensity": {"from": [0, 1]}}]
    model = version(tmp_path, parse_model_card({**card_document(CARD), "inputs": roles}))
    for given in read_case(model, case):
        assert np.array_equal(given.values, volume())
        assert given.placement.rescale == Rescale(2.0, -1024.0)
        assert np.array_equal(given.placement.geometry.affine, AFFINE)
    assert np.array_equal(read_answer(model, case), labels())


def test_no_case_is_written_over_another_or_beside_a_list(tmp_path: Path) -> None:
    write_case(tmp_path, CARD, made("b"))
    with pytest.raises(UsageError, match=r"golden/b.npz is there already"):
        check_place(tmp_path, "b")
    with pytest.raises(UsageError, match="is no name of a case"):
        check_place(tmp_path, "../b")
    with pytest.raises(UsageError, match="is no folder"):
        check_place(tmp_path / "golden/b.npz", "c")
    write(tmp_path, {"cases": []})
    (tmp_path / "golden/cases.yaml").write_text("cases: [{name: b, input: b.npz, expected: b-expected.npz}]\n")
    with pytest.raises(UsageError, match="no list to whose end"):
        write_case(tmp_path, CARD, made("c"))
    assert not (tmp_path / "golden/c.npz").exists()
