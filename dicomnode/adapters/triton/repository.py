"""The model repository that Triton serves: one folder a model, written by the node.

    repository/
      torso-ct-1.0.0-3f2a9c01-2/
        config.pbtxt
        1/model.py        a few lines that hand over to dicomnode.adapters.triton.hosts
      torso-ct-1.0.0-3f2a9c01-2-bls/    as the one before, for a network that is a model of Triton's own:
      torso-ct-1.0.0-3f2a9c01-2~net/
        config.pbtxt
        1/model.onnx

A model package is another Triton model as soon as its digest differs, so that a new one never disturbs the
requests of the old. Writing is idempotent and atomic file by file: several workers may do it at once.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode.adapters.triton.tensors import REGIONS, is_gathered
from dicomnode.adapters.triton_config import CONFIG
from dicomnode.domain.inner import BLS, LOCAL
from dicomnode.domain.model_card import ModelCard
from dicomnode.ports import ModelVersion

if TYPE_CHECKING:
    from dicomnode.adapters.triton.native import Entry, Net

SELF_TEST = "dicomnode-selftest"
# Counts up when the host's inputs, outputs or parameters change: a server that outlives an upgrade of the node still
# runs the old entry, which takes others.
TENSORS = 5

_MODEL_CODE = '''\
"""Written by dicomnode: hands over to dicomnode.adapters.triton.hosts."""

import os
import sys

# the stub's interpreter is isolated and reads no PYTHONPATH by itself
sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

import triton_python_backend_utils as backend

from dicomnode.adapters.triton.hosts.choice import open_host
from dicomnode.adapters.triton.hosts.model import HostSettings


class TritonPythonModel:
    def initialize(self, args):
        self._host = open_host(backend, HostSettings.from_arguments(args))

    def execute(self, requests):
        return self._host.execute(requests)
'''

_SELF_TEST_CODE = '''\
"""Written by dicomnode: hands over to dicomnode.adapters.triton.hosts.selftest."""

import os
import sys

# the stub's interpreter is isolated and reads no PYTHONPATH by itself
sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

import triton_python_backend_utils as backend

from dicomnode.adapters.triton.hosts.selftest import SelfTest


class TritonPythonModel:
    def initialize(self, args):
        self._host = SelfTest(backend)

    def execute(self, requests):
        return self._host.execute(requests)
'''


REQUESTS_MOST = 8  # at once, of a model whose host gathers their images


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of a model: Triton's data type, and -1 for a length that varies."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


_PARAMETERS = TensorSpec("PARAMETERS", "TYPE_UINT8", (-1,))
_ANSWERS = {
    spec.name: spec
    for spec in (
        TensorSpec("LABELMAP", "TYPE_UINT8", (-1, -1, -1)),
        TensorSpec("PROBABILITIES", "TYPE_UINT8", (-1, -1, -1, -1)),
        TensorSpec("MAP", "TYPE_FP32", (-1, -1, -1)),
        TensorSpec("SCORES", "TYPE_FP32", (-1, -1)),
        TensorSpec("BOXES", "TYPE_FP32", (-1, -1)),
    )
}
_ABOUT = (TensorSpec("TIMINGS", "TYPE_FP32", (3,)), TensorSpec("INFO", "TYPE_UINT8", (-1,)))


_REGIONS = TensorSpec(REGIONS, "TYPE_UINT8", (-1,), optional=True)


def _volume(number: str, *, optional: bool) -> tuple[TensorSpec, ...]:
    """A volume with its place and its meaning; the main one has no number, those of the roles "_1" and so on."""
    return (
        TensorSpec(f"VOLUME{number}", "TYPE_INT16", (-1, -1, -1), optional),
        TensorSpec(f"RESCALE{number}", "TYPE_FP32", (2,)),
        TensorSpec(f"AFFINE{number}", "TYPE_FP64", (4, 4)),
    )


def _inputs(card: ModelCard) -> tuple[TensorSpec, ...]:
    """Volumes come as tensors, or it is said where they lie; images that are gathered come as tensors."""
    if is_gathered(card):
        return (*_volume("", optional=False), _PARAMETERS)
    numbers = ["", *(f"_{n}" for n in range(1, len(card.roles) + 1))]
    return (*(spec for number in numbers for spec in _volume(number, optional=True)), _PARAMETERS, _REGIONS)


_NET, _BLS = "~net", "-bls"  # no model's name or version has a tilde


def triton_name(model: ModelVersion, inner: str = LOCAL) -> str:
    """What the model is called inside Triton; another digest, engine, or other tensors, another name."""
    chosen = f"-{model.chosen_engine}-{model.chosen_precision}" if model.chosen_engine else ""
    return f"{model.name}-{model.version}-{model.digest[:8]}-{TENSORS}{chosen}{_BLS if inner == BLS else ''}"


def net_name(model: ModelVersion) -> str:
    """Of the network that a host calls."""
    return triton_name(model) + _NET


def owner_of(name: str) -> str:
    """The host that a network belongs to, and its parts; a host belongs to itself."""
    head, found, _ = name.partition(_NET)
    return head + _BLS if found else name


def parts_of(name: str) -> list[str]:
    """What has to be loaded for a host, in this order; Triton loads the steps of an ensemble with it."""
    net = net_of_host(name)
    return [net, name] if net else [name]


def net_of_host(name: str) -> str:
    """The network that a host calls; its parts' names begin with it. "" of a host that calls none."""
    return name.removesuffix(_BLS) + _NET if name.endswith(_BLS) else ""


def write_model(
    repository: Path, model: ModelVersion, *, cache: Path, calls: Path, threads: int, net: Net | None = None
) -> str:
    """Writes the entry of a model package where it is not there already; its name in Triton.

    `net`: of a network that is a model of Triton's own, which is written before.
    """
    name = triton_name(model, LOCAL if net is None else BLS)
    parameters = {
        "package": str(model.path),
        "cache": str(cache),
        "calls": str(calls / name),
        "threads": str(threads),
        "engine": model.chosen_engine,
        "precision": model.chosen_precision,
        # a volume on the GPU comes as it lies there; without this the backend brings every input to the CPU
        "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
        **({} if net is None else {"inner": net.inner.as_text()}),
    }
    for entry in () if net is None else net.entries:
        _write_net(repository / entry.name, entry)
    inputs = _inputs(model.card)
    outputs = (*(_ANSWERS[answer] for answer in model.card.output.arrays), *_ABOUT)
    config = _config(name, inputs, outputs, parameters, gathered=is_gathered(model.card))
    _write_entry(repository, name, config, _MODEL_CODE)
    return name


def write_self_test(repository: Path) -> str:
    inputs, outputs = TensorSpec("INPUT", "TYPE_INT16", (-1,)), TensorSpec("OUTPUT", "TYPE_INT16", (-1,))
    _write_entry(repository, SELF_TEST, _config(SELF_TEST, (inputs,), (outputs,), {}), _SELF_TEST_CODE)
    return SELF_TEST


def touch(repository: Path, name: str) -> None:
    """Makes Triton's next load a real one: it reloads only what has changed on disk.

    Of a network it is a file of ours that changes: its own may be the package's.
    """
    if owner_of(name) == name:
        os.utime(repository / name / "1" / "model.py")
        return
    for version in (repository / name).glob("[0-9]*"):
        (version / _STAMP).touch()


_STAMP = ".touched"


def _write_net(folder: Path, entry: Entry) -> None:
    (folder / "1").mkdir(parents=True, exist_ok=True)  # Triton wants one of an ensemble, too
    for place, file in entry.files.items():
        _put(file, folder / place)
    for place, text in entry.texts.items():
        _write(folder / place, text)
    _write(folder / CONFIG, entry.config)


def _put(file: Path, place: Path) -> None:
    """The same file under another name, or a copy where that cannot be: whole, or not at all."""
    if place.is_file():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_name(f".new-{os.getpid()}-{threading.get_ident()}-{place.name}")
    try:
        os.link(file, scratch)
    except OSError:  # another disk, or one without links
        shutil.copyfile(file, scratch)
    scratch.replace(place)


def _write_entry(repository: Path, name: str, config: str, code: str) -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    _write(folder / "1" / "model.py", code)
    _write(folder / CONFIG, config)


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(scratch).replace(path)


def _config(
    name: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    parameters: Mapping[str, str],
    *,
    gathered: bool = False,
) -> str:
    """config.pbtxt: one instance, one request at a time; the host knows by itself whether there is a GPU.

    `gathered`: those that wait when the instance is free come together, whatever their images' sizes; none waits
    for others to come.
    """
    ragged = ", allow_ragged_batch: true" if gathered else ""
    lines = [
        f"name: {_quoted(name)}",
        'backend: "python"',
        f"max_batch_size: {REQUESTS_MOST if gathered else 0}",
        *(["dynamic_batching { }"] if gathered else []),
        *(f"input [{_tensor(spec, ragged)}]" for spec in inputs),
        *(f"output [{_tensor(spec)}]" for spec in outputs),
        "instance_group [{ count: 1, kind: KIND_CPU }]",
        *(
            f"parameters {{ key: {_quoted(key)}, value: {{ string_value: {_quoted(value)} }} }}"
            for key, value in parameters.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _tensor(spec: TensorSpec, more: str = "") -> str:
    more += ", optional: true" if spec.optional else ""
    return f"{{ name: {_quoted(spec.name)}, data_type: {spec.data_type}, dims: {list(spec.dims)}{more} }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
