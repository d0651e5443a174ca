"""A model directory of Triton's own: config.pbtxt, and numbered folders with the model in them.

Its network runs on the node's engines, inside the node's chain: what its tensors mean, in which grid and units, is in
a card and in nothing that Triton has. Directories whose model is a program (Python, DALI, ensembles) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomnode.adapters.model_formats import network_file
from dicomnode.adapters.model_formats.documents import Document, mapping, slug
from dicomnode.errors import InvalidModelPackage

WORDS = "a Triton model directory"
CONFIG = "config.pbtxt"


def is_one(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def card(folder: Path, given: Mapping[str, Any]) -> Document:
    """The network's file of the highest version; everything else has to be `given`."""
    config = _config(folder)
    file = _network(folder, str(config.default_model_filename))
    if "output" not in given:
        raise network_file.needs_a_card(file, folder)
    _check_tensors(config, 1 if "parameters" not in given else 2)
    name = str(config.name) or folder.name
    return {
        "name": slug(name),
        "version": file.parent.name,
        "network": {
            "file": file.relative_to(folder).as_posix(),
            "format": network_file.FORMATS[file.suffix.lower()],
            **_window(config),
        },
        **({"inputs": []} if "inputs" not in given else {}),
        "output": mapping(given["output"]),
    }


def _config(folder: Path) -> Any:
    """Triton's ModelConfig."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse((folder / CONFIG).read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidModelPackage(" ".join(str(error).split()), CONFIG) from error


def _network(folder: Path, named: str) -> Path:
    versions = [p for p in folder.iterdir() if p.is_dir() and p.name.isdigit()]
    for version in sorted(versions, key=lambda p: int(p.name), reverse=True):
        files = [p for p in sorted(version.iterdir()) if network_file.is_one(p) and (not named or p.name == named)]
        if len(files) == 1:
            return files[0]
    raise InvalidModelPackage(
        "no version of it is a network in a file (model.onnx, model.pt, model.xml); what is a program in Triton is "
        "not run here: export its network to ONNX or TorchScript, and add that with --card",
        CONFIG,
    )


def _check_tensors(config: Any, inputs: int) -> None:
    """Where the configuration names tensors, one comes in (two with parameters) and one goes out."""
    for key, found, wanted in (("input", config.input, inputs), ("output", config.output, 1)):
        if len(found) not in (0, wanted):
            raise InvalidModelPackage(
                f"{len(found)} tensors are there, the node knows what to do with {wanted}", f"{CONFIG}.{key}"
            )


def _window(config: Any) -> Document:
    """The last three lengths of the input, where all are fixed."""
    dims = [int(n) for n in config.input[0].dims] if config.input else []
    spatial = dims[-3:]
    return {"window": spatial} if len(dims) >= 4 and min(spatial) > 0 else {}
