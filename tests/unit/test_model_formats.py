"""What people have models in: recognised, given a card, kept as it came; every error names file and key."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino
import pytest
import torch
import yaml

from dicomnode.adapters.model_formats.concepts import coded, private, segment
from dicomnode.adapters.model_store import ModelStore
from dicomnode.domain.model_card import parse_model_card
from dicomnode.errors import InvalidModelPackage
from tests.model_bundles import Change, card_of, edit
from tests.triton_directories import python_model, two_steps
from tests.triton_models import Thresholds, document

# ------------------------------------------------------------------------------------------------ concepts


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spleen", "78961009"),
        ("kidney_left", "64033007"),
        ("Right Kidney", "64033007"),
        ("IVC", "64131007"),
        ("inferior_vena_cava", "64131007"),
        ("Lungs", "39607008"),
        ("oesophagus", "32849002"),
        ("tumour", "108369006"),
    ],
)
def test_common_organs_have_their_snomed_concept(name: str, value: str) -> None:
    assert (coded(name)["value"], coded(name)["scheme"]) == (value, "SCT")


def test_other_names_have_a_code_of_the_nodes_own_that_stays() -> None:
    found = [private(name) for name in ("lv_pool", "Portal and Splenic Veins", "Portal and Splenic Arteries", "胃")]
    assert len({one["value"] for one in found}) == 4
    assert all(len(one["value"]) <= 16 and one["scheme"] == "99DICOMNODE" for one in found)
    assert coded("lv_pool") == {"value": "LV-POOL", "scheme": "99DICOMNODE", "meaning": "Lv pool"}
    assert segment(1, "pancreatic tumor")["category"]["meaning"] == "Morphologically Altered Structure"
    assert segment(21, "liver")["colour"] == segment(1, "liver")["colour"]


# ------------------------------------------------------------------------------------------------- nnU-Net


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")
    (folder / "plans.json").write_text(
        json.dumps({"dataset_name": "Dataset009_Spleen", "image_reader_writer": "SimpleITKIO"})
    )
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "spleen": 1, "liver": 2},
        "file_ending": ".nii",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def test_an_nnunet_folders_card_follows_from_it(tmp_path: Path, nnunet: Path) -> None:
    card = card_of(nnunet, tmp_path)
    assert card.name == "dataset009_spleen"
    assert (card.network.format, card.network.file) == ("nnunet", "fold_0/checkpoint_final.pth")
    assert (card.input.modality, card.input.orientation) == (("CT",), "LPS")
    assert [s.name for s in card.segments] == ["Spleen", "Liver"]
    (nnunet / "fold_0" / "checkpoint_final.pth").write_bytes(b"other weights")
    assert card_of(nnunet, tmp_path).version != card.version


def test_further_channels_and_regions_follow_too(tmp_path: Path, nnunet: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found["channel_names"] = {"0": "T2", "1": "ADC"}
        found["labels"] = {"background": 0, "whole": [1, 2], "core": [2]}
        found["regions_class_order"] = [1, 2]

    edit(nnunet / "dataset.json", change)
    edit(nnunet / "plans.json", lambda d: d.update(image_reader_writer="NibabelIOWithReorient"))
    card = card_of(nnunet, tmp_path)
    assert (card.input.modality, card.input.orientation) == (("MR",), "RAS")
    assert [(role.name, role.modality) for role in card.roles] == [("adc", ("MR",))]
    assert [s.name for s in card.segments] == ["Whole", "Core"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("channel_names"), r"dataset\.json\.channel_names: .*missing"),
        (
            lambda d: d.update(channel_names={"0": "x-ray of nothing"}),
            r"channel_names: .*model\.yaml.*modality: \[CT\]",
        ),
        (lambda d: d.pop("labels"), r"dataset\.json\.labels: .*missing"),
        (lambda d: d.update(labels={"background": 0, "a": 1, "b": 3}), r"dataset\.json\.labels: .*without a gap"),
    ],
)
def test_what_an_nnunet_folder_lacks_is_named(tmp_path: Path, nnunet: Path, change: Change, words: str) -> None:
    edit(nnunet / "dataset.json", change)
    with pytest.raises(InvalidModelPackage, match=words):
        card_of(nnunet, tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path, nnunet: Path) -> None:
    (nnunet / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(InvalidModelPackage, match=r"there is no fold_\*/checkpoint_final\.pth"):
        card_of(nnunet, tmp_path)


# --------------------------------------------------------------------------------------------- other forms


CONFIG = """
name: "lungs"
backend: "onnxruntime"
input [{ name: "x", data_type: TYPE_FP32, dims: [1, 1, 32, 48, 64] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [1, 2, 32, 48, 64] }]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two versions of a network, as Triton has them."""
    for version in ("2", "10"):
        (tmp_path / "model" / version).mkdir(parents=True)
        scripted(tmp_path / "model" / version / "model.pt", Thresholds())
    (tmp_path / "model" / "config.pbtxt").write_text(CONFIG)
    return tmp_path / "model"


def test_a_triton_directorys_network_runs_with_a_card(tmp_path: Path, directory: Path) -> None:
    whole = dict(document("x", 1))
    said = {key: whole[key] for key in ("manufacturer", "intended_use", "limits", "input", "output")}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(said))
    card, _, place = ModelStore(tmp_path / "store").add(directory, tmp_path / "card.yaml")
    assert (card.name, card.version, card.network.file) == ("lungs", "10", "10/model.pt")
    assert (card.network.format, card.network.window) == ("torchscript", (32, 48, 64))
    assert (place / "config.pbtxt").read_text() == CONFIG
    assert drafted(tmp_path, directory)["network"]["file"] == "10/model.pt"  # what it lacks is asked for


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CONFIG + CONFIG.splitlines()[3], r"config\.pbtxt\.input: 2 tensors"),
        ("name: 7", r"config\.pbtxt: "),
        (
            'default_model_filename: "other.pt"',
            r"config\.pbtxt\.default_model_filename: no version of it has a o",
        ),
    ],
)
def test_what_is_wrong_with_a_triton_directory_is_named(
    tmp_path: Path, directory: Path, config: str, words: str
) -> None:
    (directory / "config.pbtxt").write_text(config)
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(dict(document("x", 1))))
    with pytest.raises(InvalidModelPackage, match=words):
        card_of(directory, tmp_path, tmp_path / "card.yaml")


@pytest.mark.parametrize(("make", "file"), [(python_model, "config.pbtxt"), (two_steps, "both/config.pbtxt")])
def test_what_only_triton_runs_is_taken_with_a_card(tmp_path: Path, make: Callable[[Path], Path], file: str) -> None:
    directory = make(tmp_path / "given")
    draft = drafted(tmp_path, directory)
    assert draft["network"] == {"file": file, "format": "triton", "window": [32, 48, 64]}
    whole = dict(document("x", 1))
    said = {key: whole[key] for key in ("manufacturer", "intended_use", "limits", "input", "output")}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(said))
    card = card_of(directory, tmp_path, tmp_path / "card.yaml")
    assert (card.network.file, card.network.format, card.network.window) == (file, "triton", (32, 48, 64))
    assert (card.name, card.version) == (("both", "1") if make is two_steps else ("thresholds", "1"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("TYPE_FP32, dims: [1,", "TYPE_STRING, dims: [1,", r"input\[0\]\.data_type: x is TYPE_STRING"),
        ("dims: [1, 32, 48, 64]", "dims: [64]", r"input\[0\]\.dims: \[64\] is no window"),
        ("output [", "# output [", r"\.output: no tensor is there"),
        ("input [", "sequence_batching {} input [", r"sequence_batching: a model that remembers"),
        ("input [", "model_transaction_policy { decoupled: true } input [", r"decoupled: one answer to each"),
    ],
)
def test_what_the_node_cannot_call_is_refused_with_the_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    directory = python_model(tmp_path / "given")
    config = directory / "config.pbtxt"
    config.write_text(config.read_text().replace(old, new))
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(dict(document("x", 1))))
    with pytest.raises(InvalidModelPackage, match=words):
        card_of(directory, tmp_path, tmp_path / "card.yaml")


def test_an_ensemble_comes_with_all_its_models(tmp_path: Path) -> None:
    directory = two_steps(tmp_path / "given")
    shutil.rmtree(directory / "moved")
    with pytest.raises(InvalidModelPackage, match=r"the ensemble both runs moved, which is not here"):
        card_of(directory, tmp_path)
    shutil.rmtree(directory / "both")
    python_model(directory / "other")
    with pytest.raises(InvalidModelPackage, match=r"which of split, thresholds is to be run\?"):
        card_of(directory, tmp_path)


def test_what_is_nothing_of_all_this_is_said(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InvalidModelPackage, match=r"photos: there is no model\.yaml, and it is neither a MONAI"):
        card_of(tmp_path / "photos", tmp_path)
    (tmp_path / "letter.docx").write_bytes(b"")
    with pytest.raises(InvalidModelPackage, match=r"letter\.docx: this is no model package"):
        card_of(tmp_path / "letter.docx", tmp_path)


def scripted(file: Path, module: torch.nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(file))
    return file


class Few(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv3d(2, 4, 3, padding=1), torch.nn.Conv3d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.first(x))
        return found


def in_openvino(file: Path, module: torch.nn.Module, shape: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = openvino.convert_model(module.eval(), example_input=torch.zeros(shape), input=shape)
    openvino.save_model(model, file)


def str_of_error(tmp_path: Path, file: Path) -> str:
    with pytest.raises(InvalidModelPackage) as error:
        card_of(file, tmp_path)
    return str(error.value)


def drafted(tmp_path: Path, file: Path) -> dict[str, Any]:
    """The card that the error prints."""
    with pytest.raises(InvalidModelPackage, match=r"--card model\.yaml") as error:
        card_of(file, tmp_path)
    found: dict[str, Any] = yaml.safe_load(str(error.value).partition("\n\n")[2])
    return found


def test_a_network_alone_is_answered_with_a_card_to_begin_with(tmp_path: Path) -> None:
    found = drafted(tmp_path, scripted(tmp_path / "lungs.ts", Few()))
    assert found["network"] == {"file": "lungs.ts", "window": [96, 96, 96]}
    assert [s["number"] for s in found["output"]["segments"]] == [1, 2]
    assert "# of the file: input any × 2 × any" in str_of_error(tmp_path, tmp_path / "lungs.ts")
    parse_model_card(found)  # it is a card; what it asks is for people to answer
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(found, sort_keys=False))
    with pytest.raises(InvalidModelPackage, match=r"model\.yaml\.manufacturer: 'WHO MADE IT\?' is a question"):
        card_of(tmp_path / "lungs.ts", tmp_path, tmp_path / "card.yaml")


def test_openvino_and_exported_networks_tell_their_shapes(tmp_path: Path) -> None:
    example = torch.zeros(1, 2, 16, 24, 32)
    in_openvino(tmp_path / "net.xml", Few(), [1, 2, 16, 24, 32])
    assert drafted(tmp_path, tmp_path / "net.xml")["network"]["window"] == [16, 24, 32]
    torch.export.save(torch.export.export(Few().eval(), (example,)), tmp_path / "net.pt2")
    found = drafted(tmp_path, tmp_path / "net.pt2")
    assert found["network"]["window"] == [16, 24, 32]
    assert len(found["output"]["segments"]) == 2
    (tmp_path / "net.bin").unlink()
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(document("net", 2, file="net.xml")))
    with pytest.raises(InvalidModelPackage, match=r"net\.xml: .*net\.bin"):
        card_of(tmp_path / "net.xml", tmp_path, tmp_path / "card.yaml")


def test_a_classifier_alone_is_drafted_as_one(tmp_path: Path) -> None:
    layers = torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2, 5)
    in_openvino(tmp_path / "slices.xml", torch.nn.Sequential(*layers), [1, 1, 64, 48])
    found = drafted(tmp_path, tmp_path / "slices.xml")
    assert found["input"]["size"] == [64, 48]
    assert (found["output"]["classification"]["of"], len(found["output"]["classification"]["classes"])) == (
        "image",
        5,
    )
    parse_model_card(found)


def test_a_network_with_its_card_is_a_package(tmp_path: Path) -> None:
    file = scripted(tmp_path / "thresholds.ts", Thresholds())
    text = "# by hand\n" + yaml.safe_dump(document("thresholds", 1, file="thresholds.ts"))
    (tmp_path / "card.yaml").write_text(text)
    card, _, place = ModelStore(tmp_path / "store").add(file, tmp_path / "card.yaml")
    assert card.name == "thresholds"
    assert sorted(p.name for p in place.iterdir()) == ["model.yaml", "thresholds.ts"]
    assert (place / "model.yaml").read_text() == text
    said = dict(document("thresholds", 1))
    said["network"] = {key: value for key, value in said["network"].items() if key != "file"}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(said))  # it need not name the only file that there is
    unnamed, _, _ = ModelStore(tmp_path / "unnamed").add(file, tmp_path / "card.yaml")
    assert unnamed == card
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(document("thresholds", 1, file="other.ts")))
    with pytest.raises(InvalidModelPackage, match=r"network\.file: 'other\.ts' is not in the package"):
        card_of(file, tmp_path, tmp_path / "card.yaml")


def test_weights_without_a_network_are_told_from_a_network(tmp_path: Path) -> None:
    torch.save(Few().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InvalidModelPackage, match=r"weights\.pt: .*state dict.*torch\.jit\.trace"):
        card_of(tmp_path / "weights.pt", tmp_path)


@pytest.mark.parametrize("name", ["net.onnx", "net.xml", "net.pt2"])
def test_a_broken_network_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(InvalidModelPackage, match=rf"{name}: .*does not read it"):
        card_of(tmp_path / name, tmp_path)
