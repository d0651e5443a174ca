"""A network is opened before it is kept: what is none, or does not fit its card, is refused in words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino
import pytest
import torch
import yaml

from dicomnode import bootstrap
from dicomnode.adapters.model_formats import opening
from dicomnode.adapters.model_formats.opening import check_network, check_opens, is_opened
from dicomnode.config import Settings
from dicomnode.domain.model_card import ModelCard, card_document, parse_model_card
from dicomnode.domain.network_fit import check_answers, check_takes
from dicomnode.errors import InvalidModelPackage, NetworkUnfit
from tests.made_results import CARD
from tests.output_cards import CYST, FLOW, NODULE, SCORE, VOLUME, code, segment
from tests.output_cards import document as output_document
from tests.triton_models import Above, Both, Thresholds, document

PET = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 20], "to": [0, 1]}}
TWO_PARAMETERS = {"side": {"type": "boolean", "default": False}, "threshold": {"type": "number", "default": 0.5}}


def card(segments: int = 1, **more: Any) -> ModelCard:
    return parse_model_card(document("m", segments, **more))


def scripted(folder: Path, module: torch.nn.Module) -> Path:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(module).save(str(folder / "model.ts"))
    return folder / "model.ts"


def ir(folder: Path, shape: list[int]) -> Path:
    """A network of OpenVINO's own that gives its input back."""
    given = openvino.opset13.parameter(shape, openvino.Type.f32, name="x")
    openvino.save_model(openvino.Model([openvino.opset13.relu(given)], [given], "m"), folder / "model.xml")
    return folder / "model.xml"


# ----------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("module", "fits"),
    [
        (Thresholds(), {}),
        (Both(), {"inputs": [PET]}),
        (Above(), {"parameters": TWO_PARAMETERS}),
    ],
)
def test_a_network_that_is_what_its_card_says_is_taken(
    tmp_path: Path, module: torch.nn.Module, fits: Mapping[str, Any]
) -> None:
    check_opens(scripted(tmp_path, module), card(1, **fits))


def test_how_many_channels_it_takes_is_found_out_where_the_file_does_not_say(tmp_path: Path) -> None:
    with pytest.raises(NetworkUnfit, match=r"inputs: the network takes 2 channels and the card means 1"):
        check_opens(scripted(tmp_path, torch.nn.Conv3d(2, 2, 1)), card(1))


def test_parameters_that_the_network_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(NetworkUnfit, match=r"network: the network does not take 1 × 1 × 32 × 32 × 32"):
        check_opens(scripted(tmp_path, Thresholds()), card(1, parameters=TWO_PARAMETERS))


def test_an_ir_says_itself_what_it_takes(tmp_path: Path) -> None:
    file = ir(tmp_path, [1, 1, 32, 32, 32])
    with pytest.raises(NetworkUnfit, match=r"window: the network takes 32 × 32 × 32 and nothing else; .* 64 × 64"):
        check_opens(file, card(1, file="model.xml", window=[64, 64, 64]))
    with pytest.raises(NetworkUnfit, match=r"segments: .* 1 × 1 × 32 × 32 × 32, and the card means 1 × 2 ×"):
        check_opens(file, card(1, file="model.xml"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.xml", b"<a>", "this is no OpenVINO IR that can be read"),
        ("model.pt2", b"text", "this is no file of torch.export that can be read: File is not a zip file; copy or"),
        ("model.ts", b"text", "this is no TorchScript but no ZIP archive at all"),
    ],
)
def test_what_is_no_network(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidModelPackage, match=words):
        check_opens(tmp_path / name, card(1, file=name))


# --------------------------------------------------------------------------------------------- in a process


def write(folder: Path, name: str, content: bytes) -> ModelCard:
    given = document("m", 1, file=name)
    (folder / "model.yaml").write_text(yaml.safe_dump(given))
    (folder / name).write_bytes(content)
    return parse_model_card(given)


def test_a_package_with_such_a_file_is_not_kept(tmp_path: Path) -> None:
    package, home = tmp_path / "package", tmp_path / "home"
    package.mkdir()
    write(package, "model.onnx", b"text")
    with pytest.raises(NetworkUnfit, match=r"model.yaml.network.file: it is not read: .*INVALID_PROTOBUF") as refused:
        bootstrap.add_package(Settings(home=home), package)
    assert refused.value.exit_code == 1
    assert str(home) not in str(refused.value)
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("code", "timeout_s", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", 60, r"it ends the process that opens it \(signal 11\)"),
        ("import time; time.sleep(60)", 1, "it gave no answer for one window in 1 s on this machine"),
        ("raise SystemExit(3)", 60, "it is not read: no word of why"),
    ],
)
def test_a_file_that_ends_what_reads_it_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, timeout_s: float, words: str
) -> None:
    (tmp_path / "reader.py").write_text(code)
    monkeypatch.setattr(opening, "__name__", "reader")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(NetworkUnfit, match=words):
        check_network(tmp_path, write(tmp_path, "model.onnx", b""), timeout_s)


@pytest.mark.parametrize(
    "network", [{"engine": "triton"}, {"format": "triton", "file": "config.pbtxt"}, {"format": "nnunet"}]
)
def test_what_would_have_to_be_run_is_not_opened(network: Mapping[str, Any]) -> None:
    assert not is_opened(card(1, **network))


# ------------------------------------------------------------------------------------------------- the card


def gives(output: Mapping[str, Any], **given: Any) -> ModelCard:
    whole = card_document(CARD)
    return parse_model_card({**whole, "input": {**whole["input"], **given}, "output": output})


SIZE: dict[str, Any] = {"size": [64, 48]}


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([(1, 1, 32, 32, 32)] * 2, r"parameters: the network takes 2 tensors"),
        ([(1, 1, 32, 32)], r"input: the network takes 1 × 1 × 32 × 32, and .* a network of single images has a size"),
        ([(None, 3, None, None, None)], r"inputs: the network takes 3 channels and the card means 1"),
        ([(1, 1, 32, 32, 16)], r"network.window: the network takes 32 × 32 × 16 and nothing else"),
    ],
)
def test_what_it_takes_is_what_the_card_means(declared: list[tuple[int | None, ...]], words: str) -> None:
    with pytest.raises(NetworkUnfit, match=words):
        check_takes(card(1), declared)
    check_takes(card(1), [(None, 1, None, None, None)])
    check_takes(card(1), [(1, 1, 32, 32, 32)])


def test_single_images_have_a_size() -> None:
    of_images = gives(card_document(CARD)["output"], **SIZE)
    check_takes(of_images, [(None, 1, 64, 48)])
    with pytest.raises(NetworkUnfit, match=r"input.size: the network takes 64 × 64 and nothing else"):
        check_takes(of_images, [(1, 1, 64, 64)])
    with pytest.raises(NetworkUnfit, match=r"input.size: .* a network of volumes has no size"):
        check_takes(of_images, [(1, 1, 64, 64, 64)])


NUMBERS = {"measurements": {"of": "series", "values": [SCORE, VOLUME]}}
CLASSES = {"classification": {"finding": code("363698007", "Finding Site"), "classes": [NODULE, CYST]}}
FOUND = {"boxes": {"classes": [NODULE]}}
WINDOW = (24, 24, 16)


@pytest.mark.parametrize(
    ("output", "right", "wrong"),
    [
        (NUMBERS, [(1, 2)], [(1, 3)]),
        (CLASSES, [(1, 2)], [(1, 2, 1)]),
        ({"map": FLOW}, [(1, 1, *WINDOW)], [(1, 2, *WINDOW)]),
        (FOUND, [(7, 6), (7,)], [(7, 4), (7,)]),
        (FOUND, [(0, 6), (0,), (0,)], [(7, 6)]),
        ({"segments": [segment(1)]}, [(1, 2, *WINDOW), (1, 2, 12, 12, 8)], [(1, 1, *WINDOW)]),
        ({"segments": [segment(1)], "channels": "independent"}, [(1, 1, *WINDOW)], [(1, 2, *WINDOW)]),
    ],
)
def test_what_it_answers_is_what_the_card_means(
    output: Mapping[str, Any], right: list[tuple[int, ...]], wrong: list[tuple[int, ...]]
) -> None:
    of = parse_model_card(output_document("m", output, of_images="classification" in output))
    check_answers(of, right)
    with pytest.raises(NetworkUnfit, match=r"model.yaml.output"):
        check_answers(of, wrong)
