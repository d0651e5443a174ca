"""Model cards: what is wrong is named by its path; a card survives being written and read."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomnode.adapters.model_store import ModelStore, package_digest, read_card
from dicomnode.domain.model_card import card_document, parse_model_card
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


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
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
        ("output.segments", [], r"output\.segments"),
        ("output.segments.0.number", 2, r"output\.segments.*numbered"),
        ("output.segments.0.colour", [0, 0, 256], r"segments\[0\]\.colour"),
        ("output.segments.0.type.value", 10200004, r"segments\[0\]\.type\.value.*quote it"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(path: str, value: object, words: str) -> None:
    with pytest.raises(InvalidModelPackage, match=words):
        parse_model_card(with_change(path, value))


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
