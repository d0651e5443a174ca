"""Model cards: what is wrong is named by its path; a card survives being written and read."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomnode.adapters.model_store import ModelStore, package_digest, read_card
from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.domain.model_parameter import as_numbers, complaints, settled
from dicomnode.errors import InvalidModelPackage

CARD: dict[str, Any] = {
    "name": "organs",
    "version": "1.2.0",
    "manufacturer": "nobody",
    "intended_use": "tests",
    "limits": "all",
    "input": {"modality": ["CT"], "spacing_mm": [1.5, 1.5, 2], "intensity": {"from": [-57, 164], "to": [0, 1]}},
    "network": {"file": "model.ts", "window": [96, 96, 96]},
    "output": {
        "segments": [
            {
                "number": 1,
                "name": "Liver",
                "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
                "type": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"},
                "colour": [221, 130, 101],
            }
        ]
    },
}


def with_change(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(CARD)
    *parents, last = path.split(".")
    place: Any = document
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[last] = value
    return document


def test_a_card_survives_being_written_and_read() -> None:
    card = parse_model_card(CARD)
    assert parse_model_card(card_document(card)) == card
    assert card.input.orientation == "RAS"
    assert card.network.engine == "auto"


PET: dict[str, Any] = {"role": "pet", "modality": ["PT"], "unit": "g/ml", "intensity": {"from": [0, 20]}}
PARAMETERS: dict[str, Any] = {
    "threshold": {"type": "number", "default": 0.5, "at_least": 0, "at_most": 1, "description": "of the score"},
    "rounds": {"type": "integer", "default": 2, "one_of": [1, 2, 4]},
    "kernel": {"type": "text", "default": "soft", "one_of": ["sharp", "soft"]},
    "fine": {"type": "boolean", "default": False},
}


def test_roles_and_parameters_survive_being_written_and_read() -> None:
    card = parse_model_card({**CARD, "inputs": [PET], "parameters": PARAMETERS})
    assert parse_model_card(yaml.safe_load(yaml.safe_dump(card_document(card)))) == card
    (pet,) = card.roles
    assert (pet.name, pet.modality, pet.intensity_from, pet.intensity_to) == ("pet", ("PT",), (0, 20), (0, 1))
    assert (pet.needs_same_frame_of_reference, pet.unit, card.input.unit) == (True, "g/ml", "")
    assert list(card.parameters) == ["overlap", "minimum_volume_ml", *sorted(PARAMETERS)]
    assert hash(card) == hash(parse_model_card(card_document(card)))


def test_a_card_without_roles_and_parameters_is_written_as_before() -> None:
    card = parse_model_card(CARD)
    assert not {"inputs", "parameters"} & card_document(card).keys()
    assert (card.roles, list(card.parameters)) == ((), ["overlap", "minimum_volume_ml"])
    assert card.parameters["overlap"].default == card.network.overlap


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("overlap", (0, 0.5, 0.999), (1, 1.0, -0.1, "0.5", True, float("nan"), None)),
        ("minimum_volume_ml", (0, 12.5), (-1, [1], float("inf"))),
        ("threshold", (0, 1, 0.25), (1.01, -1, "high")),
        ("rounds", (1, 2, 4), (3, 2.0, True)),
        ("kernel", ("soft", "sharp"), ("B30f", 1, "", "so\nft")),
        ("fine", (True, False), (0, 1, "yes")),
    ],
)
def test_a_parameter_takes_what_it_is_and_says_what_is_wrong_with_the_rest(
    name: str, good: tuple[object, ...], bad: tuple[object, ...]
) -> None:
    spec = parse_model_card({**CARD, "parameters": PARAMETERS}).parameters[name]
    assert [spec.check(value) for value in good] == [""] * len(good)
    assert all(spec.check(value) for value in bad)


def test_parameters_of_a_job_are_settled_to_one_form() -> None:
    card = parse_model_card({**CARD, "parameters": PARAMETERS})
    given = {"overlap": 0, "kernel": "sharp", "fine": True}
    values = settled(card.parameters, given)
    assert values == {
        "overlap": 0.0,
        "minimum_volume_ml": 0.0,
        "threshold": 0.5,
        "rounds": 2,
        "kernel": "sharp",
        "fine": True,
    }
    assert isinstance(values["overlap"], float)
    assert as_numbers(card.own_parameters, values) == [1.0, 0.0, 2.0, 0.5]  # fine, kernel, rounds, threshold
    assert complaints(card.parameters, {"overlap": 2, "speed": 1, "rounds": 1}) == [
        "speed is no parameter of it; it takes overlap, minimum_volume_ml, fine, kernel, rounds, threshold",
        "overlap: 2 is not below 1",
    ]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("inputs", [PET, PET], r"inputs: each role has a name of its own"),
        ("inputs", [{**PET, "role": "a b"}], r"inputs\[0\]\.role"),
        ("inputs", [{**PET, "spacing_mm": 1}], r"inputs\[0\]: unknown: spacing_mm"),
        ("inputs", [{**PET, "frame_of_reference": "other"}], r"inputs\[0\]\.frame_of_reference.*same, any"),
        ("parameters", {"overlap": {"type": "number", "default": 0.5}}, r"parameters\.overlap: .*every such model"),
        ("parameters", {"Speed": {"type": "number", "default": 0.5}}, r"parameters\.Speed: .*lower-case"),
        ("parameters", {"speed": {"type": "float", "default": 0.5}}, r"parameters\.speed\.type"),
        ("parameters", {"speed": {"type": "number", "default": 2, "at_most": 1}}, r"speed\.default: 2 is over 1"),
        ("parameters", {"speed": {"type": "text", "default": "x"}}, r"parameters\.speed: a text needs one_of"),
        ("parameters", {"speed": {"type": "text", "default": "x", "one_of": ["x", 1]}}, r"one_of\[1\]"),
        ("parameters", {"speed": {"type": "boolean", "default": True, "at_least": 0}}, r"speed\.at_least"),
        ("name", "Organs!", r"model\.yaml\.name"),
        ("version", "", r"model\.yaml\.version"),
        ("input.spacing_mm", [1, 1], r"input\.spacing_mm: 3 numbers are needed, 2 are there"),
        ("input.spacing_mm", [1, 0, 1], r"input\.spacing_mm"),
        ("input.orientation", "RAP", r"input\.orientation"),
        ("input.intensity.from", [10, 10], r"intensity\.from"),
        ("input.intensity.window", [0, 1], "unknown: window"),
        ("network.file", "../outside.ts", r"network\.file.*leaves the package"),
        ("network.window", [96, 96.5, 96], r"network\.window"),
        ("network.engine", "tensorflow", r"network\.engine.*one of auto"),
        ("network.overlap", 1, r"network\.overlap"),
        ("network.restore", "logits", r"network\.restore.*one of labels, scores"),
        ("output.segments", [], r"output\.segments"),
        ("output.segments.0.number", 2, r"output\.segments.*numbered"),
        ("output.segments.0.colour", [0, 0, 256], r"segments\[0\]\.colour"),
        ("output.segments.0.value", 256, r"segments\[0\]\.value: .*1 to 255"),
        ("output.segments.0.type.value", 10200004, r"segments\[0\]\.type\.value.*quote it"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(path: str, value: object, words: str) -> None:
    with pytest.raises(InvalidModelPackage, match=words):
        parse_model_card(with_change(path, value))


def test_a_chain_of_its_own_needs_no_window_spacing_or_intensity() -> None:
    bare = copy.deepcopy(CARD)
    bare["network"] = {"file": "models/model.pt", "format": "monai-bundle"}
    bare["input"] = {"modality": ["CT"]}
    bare["inputs"] = [{"role": "pet", "modality": ["PT"]}]
    card = parse_model_card(bare)
    assert card.network.brings_its_chain
    assert parse_model_card(card_document(card)) == card
    bare["network"]["format"] = "onnx"
    with pytest.raises(InvalidModelPackage, match=r"model\.yaml\.input: spacing_mm is missing"):
        parse_model_card(bare)
    plain = copy.deepcopy(CARD)
    del plain["network"]["window"]
    with pytest.raises(InvalidModelPackage, match=r"model\.yaml\.network: window is missing"):
        parse_model_card(plain)


def test_what_goes_back_to_the_scanners_grid_is_the_cards_to_say() -> None:
    card = parse_model_card(with_change("network.restore", "probabilities"))
    assert parse_model_card(card_document(card)) == card
    assert parse_model_card(CARD).network.restore == "labels"


def test_a_segment_may_have_another_value_in_the_packages_own_label_map() -> None:
    card = parse_model_card(with_change("output.segments.0.value", 4))
    assert (card.segments[0].number, card.segments[0].label) == (1, 4)
    assert parse_model_card(card_document(card)) == card
    assert parse_model_card(CARD).segments[0].label == 1
    two = copy.deepcopy(CARD["output"]["segments"][0])
    with pytest.raises(InvalidModelPackage, match="a value of its own"):
        parse_model_card(with_change("output.segments", [{**two, "value": 2}, {**two, "number": 2}]))


def test_what_is_missing_is_named() -> None:
    document = copy.deepcopy(CARD)
    del document["network"]["file"]
    with pytest.raises(InvalidModelPackage, match=r"model\.yaml\.network: file is missing"):
        parse_model_card(document)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "model.yaml").write_text(yaml.safe_dump(CARD))
    (folder / "model.ts").write_bytes(b"network")
    return folder


def test_a_package_is_kept_by_its_content(tmp_path: Path, package: Path) -> None:
    store = ModelStore(tmp_path / "models")
    card, digest, place = store.add(package)
    assert store.add(package) == (card, digest, place)
    assert package_digest(place) == digest
    (package / "model.ts").write_bytes(b"other network")
    assert store.add(package)[1] != digest
    assert read_card(place) == card
    assert (place / "model.ts").read_bytes() == b"network"


def test_a_package_without_its_network_or_card_is_refused(package: Path) -> None:
    (package / "model.ts").unlink()
    with pytest.raises(InvalidModelPackage, match=r"'model\.ts' is not in the package"):
        read_card(package)
    (package / "model.yaml").write_text("a: [")
    with pytest.raises(InvalidModelPackage, match=r"model\.yaml"):
        read_card(package)
    (package / "model.yaml").unlink()
    with pytest.raises(InvalidModelPackage, match=r"there is no model\.yaml"):
        read_card(package)


def test_a_card_may_say_how_many_of_it_run_at_once() -> None:
    assert "at_once" not in card_document(parse_model_card(CARD))["network"]
    card = parse_model_card(with_change("network.at_once", 1))
    assert card.network.at_once == 1
    assert parse_model_card(card_document(card)) == card


@pytest.mark.parametrize("wrong", [0, -1, 1.5])
def test_at_once_is_a_whole_number_above_zero(wrong: float) -> None:
    with pytest.raises(InvalidModelPackage, match=r"network.at_once: .* is no whole number above zero"):
        parse_model_card(with_change("network.at_once", wrong))
