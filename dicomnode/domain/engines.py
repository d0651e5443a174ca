"""Which engines read which networks, and what is worth trying where."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

from dicomnode.domain.model_card import NO_WINDOW, NetworkSpec
from dicomnode.errors import InvalidModelPackage

_FORMATS = {
    ".onnx": "onnx",
    ".ts": "torchscript",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".pt2": "torch-export",
    ".xml": "openvino",
}
TRITON = "triton"  # as an engine: the network is a model of Triton's own, which its host calls
# The last is what the file was made for: it needs no conversion
_ENGINES: dict[str, tuple[str, ...]] = {
    "torchscript": ("openvino", "torchscript"),
    "torch-export": ("openvino", "torch"),
    "onnx": ("openvino", "tensorrt", "onnxruntime"),
    "openvino": ("openvino",),
}
_ON_CPU = {
    "openvino": ("fp32", "bf16", "int8"),
    "torchscript": ("fp32", "bf16"),
    "torch": ("fp32", "bf16"),
    "onnxruntime": ("fp32",),
}
_ON_GPU = {
    "openvino": _ON_CPU["openvino"],  # the CPU is there as well, and for some files nothing else
    "torchscript": ("fp32", "bf16", "fp16"),
    "torch": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32",),
    "tensorrt": ("fp32", "bf16", "fp16", "int8"),
}


class Candidate(NamedTuple):
    """An engine and a precision, as the card names them."""

    engine: str
    precision: str


def format_of(spec: NetworkSpec) -> str:
    """One of model_card.FORMATS, never auto; raises InvalidModelPackage."""
    if spec.format != "auto":
        return spec.format
    suffix = PurePosixPath(spec.file).suffix.lower()
    if suffix not in _FORMATS:
        raise InvalidModelPackage(
            f"what {spec.file!r} is does not show in its name; say network.format", "model.yaml.network.file"
        )
    return _FORMATS[suffix]


def _engines(spec: NetworkSpec) -> tuple[str, ...]:
    """As engines_of; a bundle whose chain is the node's, which its card's window tells, has its network traced."""
    form = format_of(spec)
    return engines_of("torchscript" if form == "monai-bundle" and spec.window != NO_WINDOW else form)


def engines_of(format: str) -> tuple[str, ...]:
    """That read this format; the last is what the file was made for."""
    return _ENGINES.get(format, ())


def own_way(spec: NetworkSpec) -> str:
    """Of a format without `candidates`: why there is nothing to choose from, the end of a sentence on the model."""
    words = {"monai-bundle": "is a MONAI bundle with a chain of its own", "nnunet": "is an nnU-Net model"}
    return f"{words.get(format_of(spec), 'is run by Triton alone')}, which brings its own way of running"


def reference_of(spec: NetworkSpec) -> Candidate:
    """What the others are compared with: what the file was made for, in full."""
    return Candidate(_engines(spec)[-1], "fp32")


def candidates(spec: NetworkSpec, has_gpu: bool) -> list[Candidate]:
    """All that could run it, the reference first; empty for a format that brings its own way of running."""
    engines = _engines(spec)
    if not engines:
        return []
    tried = _ON_GPU if has_gpu else _ON_CPU
    found = [Candidate(engine, p) for engine in reversed(engines) for p in tried.get(engine, ())]
    reference = reference_of(spec)
    return [reference, *(candidate for candidate in found if candidate != reference)]
