"""MONAI bundles as packages: the card that follows from one, and errors that name file and key."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomnode.adapters.model_formats.concepts import segment
from dicomnode.adapters.model_store import ModelStore, package_digest
from dicomnode.domain.model_card import parse_model_card
from dicomnode.errors import InvalidModelPackage
from tests import model_bundles
from tests.model_bundles import Change, card_of, edit
from tests.triton_models import document


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return model_bundles.spleen(tmp_path / "spleen_ct_segmentation")


def test_a_bundles_card_follows_from_it(tmp_path: Path, bundle: Path) -> None:
    card = card_of(bundle, tmp_path)
    assert (card.name, card.version, card.manufacturer) == ("spleen-ct-segmentation", "0.5.9", "nobody")
    assert "not to be used for diagnostic purposes" in card.intended_use
    assert (card.input.modality, card.input.orientation, card.input.spacing_mm) == (("CT",), "RAS", (2.5, 2.5, 3.0))
    assert (card.input.intensity_from, card.input.intensity_to, card.input.clip) == ((-57.0, 164.0), (0.0, 1.0), True)
    network = card.network
    assert (network.format, network.file) == ("monai-bundle", "models/model.pt")
    assert (network.window, network.overlap, network.restore) == ((32, 32, 32), 0.5, "probabilities")
    (only,) = card.segments
    assert (only.name, only.type.value, only.type.scheme) == ("Spleen", "78961009", "SCT")


def test_what_came_is_kept_as_it_is_with_the_card_beside_it(tmp_path: Path, bundle: Path) -> None:
    store = ModelStore(tmp_path / "store")
    card, digest, place = store.add(bundle)
    kept = {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    text = kept.pop("model.yaml")
    assert kept == {p.relative_to(bundle).as_posix(): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    assert parse_model_card(yaml.safe_load(text)) == card
    assert package_digest(place) == digest
    assert store.add(bundle) == (card, digest, place)
    zipped = Path(shutil.make_archive(str(tmp_path / "sent"), "zip", bundle.parent, bundle.name))
    assert store.add(zipped) == (card, digest, place)
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["spleen-ct-segmentation"]


def test_checking_keeps_nothing(tmp_path: Path, bundle: Path) -> None:
    store = ModelStore(tmp_path / "store")
    with store.tried(bundle) as tried:
        assert tried[:2] == store.add(bundle)[:2]
    shutil.rmtree(tmp_path / "store")
    with store.tried(bundle):
        pass
    assert not (tmp_path / "store").exists()


def test_a_card_in_the_bundle_is_laid_over_what_follows(tmp_path: Path, bundle: Path) -> None:
    said = {
        "manufacturer": "A hospital",
        "input": {"modality": ["MR"]},
        "output": {"segments": [segment(1, "liver")]},
    }
    (bundle / "model.yaml").write_text(yaml.safe_dump(said))
    card = card_of(bundle, tmp_path)
    assert (card.manufacturer, card.input.modality, card.segments[0].name) == ("A hospital", ("MR",), "Liver")
    assert (card.version, card.input.spacing_mm) == ("0.5.9", (2.5, 2.5, 3.0))


def test_a_card_given_beside_counts_as_well(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "card.yaml").write_text("limits: adults only\nversion: 7.0.0\n")
    card = card_of(bundle, tmp_path, tmp_path / "card.yaml")
    assert (card.limits, card.version, card.name) == ("adults only", "7.0.0", "spleen-ct-segmentation")


def test_a_whole_card_in_a_bundle_makes_it_a_package_of_our_own(tmp_path: Path, bundle: Path) -> None:
    (bundle / "models" / "model.ts").write_bytes(b"a network")
    own = document("own", 1, file="models/model.ts")
    (bundle / "model.yaml").write_text(yaml.safe_dump(own))
    assert card_of(bundle, tmp_path).network.format == "auto"


def data_format(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["network_data_format"]
    return found


def image(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = data_format(document)["inputs"]["image"]
    return found


def prediction(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = data_format(document)["outputs"]["pred"]
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("network_data_format"), r"metadata\.json\.network_data_format\.inputs: image is missing"),
        (lambda d: data_format(d).pop("outputs"), r"network_data_format\.outputs: pred is missing"),
        (
            lambda d: data_format(d)["inputs"]["image"].update(modality="echo", format="magnitude"),
            r"inputs\.image\.modality: 'echo' is no modality.*model\.yaml",
        ),
        (lambda d: data_format(d)["outputs"]["pred"].pop("channel_def"), r"outputs\.pred\.channel_def: .*missing"),
        (lambda d: data_format(d)["outputs"]["pred"].update(channel_def={"a": "x"}), r"channel_def: .*numbered"),
    ],
)
def test_what_the_metadata_lacks_is_named(tmp_path: Path, bundle: Path, change: Change, words: str) -> None:
    edit(bundle / "configs" / "metadata.json", change)
    with pytest.raises(InvalidModelPackage, match=words):
        card_of(bundle, tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("metadata", lambda d: prediction(d).update(type="tuples", format="points"), "gives 'points': landmarks"),
        ("metadata", lambda d: prediction(d).update(type="object", format="dict"), "gives 'dict': boxes .*`boxes`"),
        ("metadata", lambda d: prediction(d).update(format="magnitude"), "gives 'magnitude': an image .*`map`"),
        ("metadata", lambda d: image(d).update(type="noise", format="image"), "makes images out of noise"),
        ("metadata", lambda d: image(d).update(modality="regular", format="RGB"), "pictures in colour.*luminance"),
        (
            "metadata",
            lambda d: d.update(generator_data_format=d.pop("network_data_format")),
            "several networks, as those have that make images",
        ),
        (
            "metadata",
            lambda d: data_format(d).update(outputs={"nuclei": prediction(d), "kinds": prediction(d)}),
            "answers with nuclei, kinds",
        ),
        ("inference", lambda d: d["evaluator"].update(prepare_batch="$x"), "clicks or prompts"),
        ("inference", lambda d: d["evaluator"].update(_target_="scripts.Evaluator"), "clicks or prompts"),
    ],
)
def test_what_is_neither_segmentation_nor_classes_is_refused(
    tmp_path: Path, bundle: Path, file: str, change: Change, words: str
) -> None:
    edit(bundle / "configs" / f"{file}.json", change)
    with pytest.raises(InvalidModelPackage, match=words):
        card_of(bundle, tmp_path)


def test_a_bundle_that_is_asked_for_labels_it_does_not_name_is_refused(tmp_path: Path, bundle: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found["evaluator"].update(_target_="scripts.Evaluator", hyper_kwargs={"everything_labels": [1, 7]})

    edit(bundle / "configs" / "inference.json", change)
    with pytest.raises(InvalidModelPackage, match=r"hyper_kwargs: these are no numbers of metadata\.json"):
        card_of(bundle, tmp_path)


def test_labels_that_only_inference_json_names_are_found(tmp_path: Path, bundle: Path) -> None:
    edit(bundle / "configs" / "metadata.json", lambda d: data_format(d)["outputs"]["pred"].pop("channel_def"))
    labels = {"background": 0, "liver": 1, "pancreas": 2}
    edit(bundle / "configs" / "inference.json", lambda d: d.update(labels=labels))
    assert [s.name for s in card_of(bundle, tmp_path).segments] == ["Liver", "Pancreas"]


def test_a_bundle_for_no_modality_in_particular_leaves_that_to_the_rules(tmp_path: Path, bundle: Path) -> None:
    edit(bundle / "configs" / "metadata.json", lambda d: image(d).update(modality="none", format="magnitude"))
    assert {"CT", "MR", "PT", "US", "DX"} <= set(card_of(bundle, tmp_path).input.modality)


def test_labels_are_what_the_bundle_numbers_them(tmp_path: Path, bundle: Path) -> None:
    numbered = {"0": "background", "3": "spleen", "12": "pancreas"}
    edit(bundle / "configs" / "metadata.json", lambda d: prediction(d).update(channel_def=numbered))
    assert [(s.number, s.label, s.name) for s in card_of(bundle, tmp_path).segments] == [
        (1, 3, "Spleen"),
        (2, 12, "Pancreas"),
    ]


def test_labels_that_only_the_metadatas_label_def_names_are_found(tmp_path: Path, bundle: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        del prediction(found)["channel_def"]
        prediction(found)["label_def"] = {"0": "background", "1": "liver"}

    edit(bundle / "configs" / "metadata.json", change)
    assert [s.name for s in card_of(bundle, tmp_path).segments] == ["Liver"]


def test_a_bundle_without_its_weights_says_where_to_get_them(tmp_path: Path, bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(InvalidModelPackage, match=r"models/model\.pt: .*monai\.bundle download"):
        card_of(bundle, tmp_path)


def test_a_file_that_is_no_json_is_named(tmp_path: Path, bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").write_text("{")
    with pytest.raises(InvalidModelPackage, match=r"configs/metadata\.json: "):
        card_of(bundle, tmp_path)


def test_channels_of_one_image_are_series_with_roles(tmp_path: Path, bundle: Path) -> None:
    image = {"channel_def": {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}, "modality": "MR", "num_channels": 4}
    edit(bundle / "configs" / "metadata.json", lambda d: data_format(d)["inputs"]["image"].update(image))
    card = card_of(bundle, tmp_path)
    assert [role.name for role in card.roles] == ["t1", "t2", "flair"]
    assert card.limits.startswith("the main series is T1c; ")
    assert {role.modality for role in card.roles} == {("MR",)}


def test_a_classification_of_images_has_their_size_and_classes(tmp_path: Path, bundle: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        formats = data_format(found)
        formats["inputs"]["image"].update(spatial_shape=[320, 256], modality="Mammogram", format="magnitude")
        labels = {"0": "A", "1": "B", "2": "C", "3": "D"}
        formats["outputs"]["pred"] = {
            "type": "image",
            "format": "labels",
            "spatial_shape": [1, 4],
            "channel_def": labels,
        }

    edit(bundle / "configs" / "metadata.json", change)
    card = card_of(bundle, tmp_path)
    assert card.input.size == (256, 320)
    assert card.classification is not None
    assert [c.name for c in card.classification.classes] == ["A", "B", "C", "D"]
    assert (card.classification.of, card.input.modality) == ("image", ("MG",))
