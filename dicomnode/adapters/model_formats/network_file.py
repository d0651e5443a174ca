"""A network in a file of its own: ONNX, TorchScript, torch.export or OpenVINO IR.

What such a file says of itself (channels, window, classes) is read where that is possible, to begin a card with.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.adapters.model_formats.documents import CARD_FILE, as_yaml, slug
from dicomnode.errors import InvalidModelPackage

FORMATS = {".onnx": "onnx", ".ts": "torchscript", ".pt": "torchscript", ".pt2": "torch-export", ".xml": "openvino"}
_WHO, _WHAT_FOR, _WHERE = "WHO MADE IT?", "WHAT IS IT FOR?", "WHERE DOES IT FAIL?"
_WHICH, _WHAT = "WHICH CODE?", "WHAT IS IT?"
_QUESTIONS = (_WHO, _WHAT_FOR, _WHERE, _WHICH, _WHAT)
_TRIED = ((32, 32, 32), (64, 64))
_WORDS = {
    "onnx": "ONNX",
    "torchscript": "TorchScript",
    "torch-export": "torch.export",
    "openvino": "OpenVINO IR",
    "triton": "a Triton model directory",
}


@dataclass(frozen=True, slots=True)
class Shapes:
    """Of a network's first input and output, (batch, channels, ...); None for what is not fixed or not known."""

    input: tuple[int | None, ...] = ()
    output: tuple[int | None, ...] = ()


def is_one(file: Path) -> bool:
    return file.suffix.lower() in FORMATS


def companions(file: Path) -> list[Path]:
    """Files that belong to it: OpenVINO's weights, ONNX's external data."""
    if FORMATS.get(file.suffix.lower()) == "openvino":
        weights = file.with_suffix(".bin")
        if not weights.is_file():
            raise InvalidModelPackage(f"an OpenVINO IR has its weights in {weights.name}: put it beside", file.name)
        return [weights]
    names = (f"{file.name}.data", f"{file.name}_data", f"{file.stem}.data")
    return [file.with_name(name) for name in names if file.with_name(name).is_file()]


def needs_a_card(file: Path, package: Path | None = None, model: str = "") -> InvalidModelPackage:
    """What to say of a network that comes alone, or in a folder that says no more of it than the model's name."""
    name = file.relative_to(package or file.parent).as_posix()
    return needs_a_card_of(name, FORMATS[file.suffix.lower()], shapes_of(file), model or slug(file.stem))


def needs_a_card_of(file: str, form: str, shapes: Shapes, name: str) -> InvalidModelPackage:
    """`file`: in its package; `form`: one of model_card.FORMATS; `name`: for the model to begin with."""
    return InvalidModelPackage(
        f"this is a network in {_WORDS[form]} without a card, which has to say: name, version, manufacturer, "
        "intended_use, limits; input: modality, orientation, spacing_mm, intensity; network: window; output: "
        "segments with coded concepts, or what else docs/outputs.md has. Fill in what follows, and give it with "
        f"--card {CARD_FILE} (see docs/models.md)\n\n{draft(file, form, shapes, name)}",
        file,
    )


def check_answered(document: object, path: str = CARD_FILE) -> None:
    """Refuses a card in which a question of the draft stands as its answer."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            check_answered(value, f"{path}.{key}")
    elif isinstance(document, list):
        for number, value in enumerate(document):
            check_answered(value, f"{path}[{number}]")
    elif document in _QUESTIONS:
        raise InvalidModelPackage(f"{document!r} is a question: put the answer there", path)


def draft(file: str, form: str, shapes: Shapes, name: str) -> str:
    """A card to begin with, as YAML; arguments as of needs_a_card_of.

    What the file does not tell is a question in capital letters.
    """
    classes = shapes.output[1] if len(shapes.output) > 1 else None
    window = list(shapes.input[2:]) if len(shapes.input) == 5 else [None, None, None]
    document = {
        "name": name,
        "version": "1.0.0",
        "manufacturer": _WHO,
        "intended_use": _WHAT_FOR,
        "limits": _WHERE,
        "input": _input(shapes),
        "network": {
            "file": file,
            **({"format": form} if form == "triton" else {}),
            **({} if len(shapes.input) == 4 else {"window": [n or 96 for n in window]}),
        },
        "output": _output(shapes, classes),
    }
    known = f"# of the file: input {_shown(shapes.input)}\n# and output {_shown(shapes.output)}\n"
    return known + as_yaml(document)


def _input(shapes: Shapes) -> dict[str, object]:
    given: dict[str, object] = {"modality": ["CT"], "intensity": {"from": [-1000, 1000], "to": [0, 1], "clip": True}}
    if len(shapes.input) == 4:
        return {**given, "size": [n or 224 for n in shapes.input[2:]]}
    return {**given, "orientation": "RAS", "spacing_mm": [1.5, 1.5, 2.0]}


def _output(shapes: Shapes, classes: int | None) -> dict[str, object]:
    code = {"value": _WHICH, "scheme": "SCT", "meaning": _WHAT}
    if len(shapes.output) == 2:
        names = [{"name": f"Class {n}", "code": code} for n in range(classes or 2)]
        of = "image" if len(shapes.input) == 4 else "series"
        return {"classification": {"of": of, "finding": code, "classes": names, "scores": "logits"}}
    category = {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"}
    return {
        "segments": [
            {"number": n, "name": f"Label {n}", "category": category, "type": code, "colour": [221, 130, 101]}
            for n in range(1, max(classes or 2, 2))
        ]
    }


def _shown(shape: Sequence[int | None]) -> str:
    return " × ".join("any" if n is None else str(n) for n in shape) or "nothing"


def shapes_of(file: Path) -> Shapes:
    """Raises InvalidModelPackage when the file is no network of its kind."""
    read = {"onnx": _of_onnx, "openvino": _of_openvino, "torchscript": _of_torchscript, "torch-export": _of_exported}
    return read[FORMATS[file.suffix.lower()]](file)


def _of_openvino(file: Path) -> Shapes:
    import openvino

    try:
        model = openvino.Core().read_model(file)
    except RuntimeError as error:
        raise InvalidModelPackage(f"OpenVINO does not read it: {' '.join(str(error).split())}", file.name) from error
    shapes = [port.partial_shape for port in (model.inputs[0], model.outputs[0])]
    sizes = [tuple(d.get_length() if d.is_static else None for d in s) if s.rank.is_static else () for s in shapes]
    return Shapes(*sizes)


_of_onnx = _of_openvino  # which reads both


def _of_torchscript(file: Path) -> Shapes:
    """TorchScript keeps no shapes: small inputs are tried."""
    import torch

    check_scripted(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise InvalidModelPackage(f"torch does not read it: {str(error).splitlines()[0]}", file.name) from error
        found = (_tried(module, (1, channels, *size)) for size in _TRIED for channels in range(1, 5))
        return next(filter(None, found), Shapes())


def check_scripted(file: Path) -> None:
    """Raises InvalidModelPackage for a state dict, which has the same suffix."""
    if not _is_scripted(file):
        is_zip = zipfile.is_zipfile(file)
        found = "weights without their network (a state dict)" if is_zip else "no ZIP archive at all"
        raise InvalidModelPackage(
            f"this is no TorchScript but {found}; save the network by "
            "`torch.jit.trace(network, window).save('model.ts')`, or export it to ONNX",
            file.name,
        )


def _tried(module: Any, shape: tuple[int, ...]) -> Shapes | None:
    """What the network gives for an input of this shape; None when it does not take it."""
    import torch

    try:
        with torch.no_grad():
            answer = module(torch.zeros(shape))
    except RuntimeError:
        return None
    if not isinstance(answer, torch.Tensor) or answer.ndim < 2:
        return None
    free = (None,) * (len(shape) - 2)
    return Shapes((None, shape[1], *free), (None, answer.shape[1], *free[: answer.ndim - 2]))


def _is_scripted(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as opened:
        return any("/code/" in name for name in opened.namelist())


def _of_exported(file: Path) -> Shapes:
    import torch

    try:
        program = torch.export.load(file)
    except (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise InvalidModelPackage(f"torch.export does not read it: {error}", file.name) from error
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = [program.graph_signature.user_inputs[0], program.graph_signature.user_outputs[0]]
    shapes = [getattr(values.get(str(name)), "shape", ()) for name in names]
    return Shapes(*(tuple(int(n) if isinstance(n, int) else None for n in shape) for shape in shapes))
