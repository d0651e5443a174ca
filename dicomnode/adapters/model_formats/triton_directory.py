"""A model directory of Triton's own: config.pbtxt, and numbered folders with the model in them.

What its tensors mean, in which grid and units, is in a card and in nothing that Triton has. Where the model is a
network in a file that the node's engines read, either may run it; everything else (programs in Python, plans of
TensorRT, ensembles with the directories of their models beside them) only Triton does, called for each window.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomnode.adapters.model_formats import network_file
from dicomnode.adapters.model_formats.documents import Document, mapping, slug
from dicomnode.adapters.triton_config import CONFIG, TritonModel, check_callable, check_tensors, is_one, read_models
from dicomnode.domain.model_card import NO_WINDOW
from dicomnode.errors import InvalidModelPackage

__all__ = ["CONFIG", "WORDS", "card", "is_one"]

WORDS = "a Triton model directory"


def card(folder: Path, given: Mapping[str, Any]) -> Document:
    """The network's file of the highest version; everything else has to be `given`."""
    *_, model = read_models(folder)
    file = None if model.folder != folder else _network(model)
    if "output" not in given:
        raise _needs_a_card(folder, model, file)
    inputs = 1 if not given.get("parameters") else 2
    if file is None:
        images = "size" in mapping(given.get("input"))
        check_callable(model, inputs, 2 + (2 if images else len(NO_WINDOW)))
    else:
        check_tensors(model, inputs, needed=False)
    return {
        "name": slug(model.name),
        "version": model.versions[0].name if model.versions else "1",
        "network": _entry(folder, model, file),
        **({"inputs": []} if "inputs" not in given else {}),
        "output": mapping(given["output"]),
    }


def _entry(folder: Path, model: TritonModel, file: Path | None) -> Document:
    """`network` of the card; the configuration itself is the file of what only Triton runs."""
    if file is None:
        found: Document = {"file": (model.folder / CONFIG).relative_to(folder).as_posix(), "format": "triton"}
    else:
        found = {
            "file": file.relative_to(folder).as_posix(),
            "format": network_file.FORMATS[file.suffix.lower()],
        }
    return {**found, **_window(model.config)}


def _network(model: TritonModel) -> Path | None:
    """The file of the highest version that the node's engines read; None where only Triton runs the model.

    Raises InvalidModelPackage when there is nothing to run.
    """
    named = str(model.config.default_model_filename)
    if model.is_ensemble:
        return None
    for version in model.versions:
        files = [p for p in sorted(version.iterdir()) if network_file.is_one(p) and (not named or p.name == named)]
        if len(files) == 1 and model.backend != "python":
            return files[0]
    if not any(path.is_file() for version in model.versions for path in version.rglob("*")):
        raise InvalidModelPackage("there is no numbered folder with a model in it, as in 1/model.onnx", CONFIG)
    if named and not any((version / named).exists() for version in model.versions):
        raise InvalidModelPackage(f"no version of it has a {named}", f"{CONFIG}.default_model_filename")
    if not model.backend:
        raise InvalidModelPackage("which backend runs it is not said", f"{CONFIG}.backend")
    return None


def _needs_a_card(folder: Path, model: TritonModel, file: Path | None) -> InvalidModelPackage:
    if file is not None:
        return network_file.needs_a_card(file, folder, slug(model.name))
    check_tensors(model, len(model.config.input) or 1, needed=True)
    batch = (None,) if model.batches else ()
    given, found = ((*batch, *_lengths(t[0])) for t in (model.config.input, model.config.output))
    name = (model.folder / CONFIG).relative_to(folder).as_posix()
    return network_file.needs_a_card_of(name, "triton", network_file.Shapes(given, found), slug(model.name))


def _lengths(tensor: Any) -> tuple[int | None, ...]:
    return tuple(int(n) if n > 0 else None for n in tensor.dims)


def _window(config: Any) -> Document:
    """The last three lengths of the input, where all are fixed."""
    dims = [int(n) for n in config.input[0].dims] if config.input else []
    spatial = dims[-3:]
    return {"window": spatial} if len(dims) >= 4 and min(spatial) > 0 else {}
