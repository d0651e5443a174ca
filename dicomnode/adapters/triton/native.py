"""The network of a package as models of Triton's own, for its host to call.

A Triton directory keeps its configuration but for the names of the models, which carry the package's digest here; for
a network's file the configuration is written: KIND_AUTO, and batches from several jobs at once where the file takes
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomnode.adapters.triton.hosts.networks.loaded import NetworkInputs
from dicomnode.adapters.triton.hosts.networks.on_triton import Inner
from dicomnode.adapters.triton_config import CONFIG, TYPES, TritonModel, check_callable, is_one, read_models
from dicomnode.domain.engines import format_of
from dicomnode.domain.inner import NATIVE, backend_of
from dicomnode.domain.model_card import ModelCard
from dicomnode.errors import InvalidModelPackage

_WINDOWS_AT_ONCE = 4
_FILES = {"onnx": "model.onnx", "torchscript": "model.pt", "openvino": "model.xml"}
_KNOWN = {"tensor(float)": TYPES[0], "tensor(float16)": TYPES[1], "f32": TYPES[0], "f16": TYPES[1]} | {
    name: f"TYPE_INT{bits}" for bits in (32, 64) for name in (f"tensor(int{bits})", f"i{bits}")
}


@dataclass(frozen=True)
class Entry:
    """A folder in Triton's repository: its configuration, and its files by their places, in the package's folder."""

    name: str
    config: str
    files: Mapping[str, Path]
    texts: Mapping[str, str] = field(default_factory=dict)  # what is written beside them, by their places


@dataclass(frozen=True)
class Net:
    """`entries`: the models that it is made of, and last the one that is called."""

    entries: tuple[Entry, ...]
    inner: Inner


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    data_type: str
    dims: tuple[int, ...]  # -1 for a length that varies; with the batch axis


def net_of(package: Path, card: ModelCard, name: str, backends: Mapping[str, str]) -> Net:
    """`name`: of the model to be called; `backends`: of the server, see domain.inner.

    Raises InvalidModelPackage: the server has no such backend, or the node cannot call the model.
    """
    if card.network.precision != "fp32":
        raise InvalidModelPackage(
            "Triton runs a network as its file says: leave it out, or name another engine",
            "model.yaml.network.precision",
        )
    return _own(package, card, name, backends) if is_one(package) else _written(package, card, name, backends)


def takes_of(card: ModelCard) -> NetworkInputs:
    return NetworkInputs(1 + len(card.roles), len(card.own_parameters), card.input.size or ())


# ----------------------------------------------------------------------------- a directory with its configuration


def _own(package: Path, card: ModelCard, name: str, backends: Mapping[str, str]) -> Net:
    *steps, main = read_models(package)
    takes = takes_of(card)
    window_rank = len(takes.shapes(card.network)[0])
    check_callable(main, len(takes.shapes(card.network)), window_rank)
    for model in (*steps, main):
        if not model.is_ensemble:
            _backend(model.backend, backends)
    names = {model.name: f"{name}.{model.name}" for model in steps} | {main.name: name}
    given, found = main.config.input, main.config.output
    inner = Inner(
        model=name,
        inputs=tuple(tensor.name for tensor in given),
        outputs=tuple(tensor.name for tensor in found),
        data_types=tuple(_type_name(tensor) for tensor in given),
        batch=main.windows_at_once(window_rank),
        batches_all=main.batches,
        rank=main.rank,
        backend="ensemble" if main.is_ensemble else _backend(main.backend, backends),
        on_gpu=main.backend != "openvino",
    )
    return Net(tuple(_renamed(model, names) for model in (*steps, main)), inner)


def _renamed(model: TritonModel, names: Mapping[str, str]) -> Entry:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig()
    config.CopyFrom(model.config)
    config.name = names[model.name]
    for step in config.ensemble_scheduling.step:
        step.model_name = names[step.model_name]
    files = (path for path in sorted(model.folder.rglob("*")) if path.is_file())
    places = {path.relative_to(model.folder).as_posix(): path for path in files}
    kept = {place: path for place, path in places.items() if place.split("/")[0] not in _NOT_TRITONS}
    texts = _in_our_environment(model, config)
    return Entry(config.name, text_format.MessageToString(config), kept, texts)


_START = "dicomnode_start.py"
_START_CODE = '''\
"""Written by dicomnode: the model beside it, among the packages that the node has."""

import importlib.util
import os
import sys
from pathlib import Path

# the stub's interpreter is isolated and reads no PYTHONPATH by itself; a numpy 2 that it may find elsewhere corrupts
# tensors without a word
sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
_spec = importlib.util.spec_from_file_location("triton_model", Path(__file__).with_name(FILE))
_module = sys.modules["triton_model"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
TritonPythonModel = _module.TritonPythonModel
'''


def _in_our_environment(model: TritonModel, config: Any) -> dict[str, str]:
    """A program in Python is begun by a few lines of ours, unless it brings an environment of its own."""
    if model.backend != "python" or "EXECUTION_ENV_PATH" in config.parameters:
        return {}
    file = str(config.default_model_filename) or "model.py"
    config.default_model_filename = _START
    return {f"{version.name}/{_START}": _START_CODE.replace("FILE", repr(file)) for version in model.versions}


_NOT_TRITONS = (CONFIG, "model.yaml", "golden")


def _type_name(tensor: Any) -> str:
    from tritonclient.grpc import model_config_pb2

    return str(model_config_pb2.DataType.Name(tensor.data_type))


def _backend(name: str, backends: Mapping[str, str]) -> str:
    """In words; raises InvalidModelPackage where the server has none of that name."""
    if name == "python":
        return "python"
    if name not in backends:
        raise InvalidModelPackage(
            f"this Triton has no backend {name} (it has {', '.join(sorted({'python', *backends}))}); NVIDIA's "
            "container has more: see deploy/triton",
            f"{CONFIG}.backend",
        )
    return name if backends[name] == NATIVE else f"{name} (stand-in)"


# -------------------------------------------------------------------------------------------- a network's file


def _written(package: Path, card: ModelCard, name: str, backends: Mapping[str, str]) -> Net:
    backend = backend_of(card.network)
    if not backend:
        raise InvalidModelPackage(
            f"Triton has no backend for {format_of(card.network)}: leave it out", "model.yaml.network.engine"
        )
    words = _backend(backend, backends)
    file = package / card.network.file
    if not file.is_file():
        raise InvalidModelPackage(f"{card.network.file} is not in the package", "model.yaml.network.file")
    shapes = takes_of(card).shapes(card.network)
    given, found = _tensors(file, card, shapes)
    if len(given) != len(shapes):
        raise InvalidModelPackage(
            f"{file.name} takes {len(given)} inputs and the card means {len(shapes)}", "model.yaml.parameters"
        )
    first = given[0].dims[0]
    # the openvino backend refuses fewer windows than the most; parameters have no batch axis
    batched = all(tensor.dims[:1] == (-1,) for tensor in (*given, *found)) and backend != "openvino"
    inner = Inner(
        model=name,
        inputs=tuple(tensor.name for tensor in given),
        outputs=tuple(tensor.name for tensor in found),
        data_types=tuple(tensor.data_type for tensor in given),
        batch=_WINDOWS_AT_ONCE if first == -1 else max(first, 1),
        batches_all=batched,
        rank=len(given[0].dims),
        backend=words,
        on_gpu=backend != "openvino",
    )
    config = _config(name, backend, given, found, _WINDOWS_AT_ONCE if batched else 0)
    return Net((Entry(name, config, _files(file, _FILES[format_of(card.network)])),), inner)


def _files(file: Path, called: str) -> Mapping[str, Path]:
    """Where Triton looks for them: the network, and what lies beside it for OpenVINO and large ONNX files."""
    if called == "model.xml":
        return {f"1/{called}": file, "1/model.bin": file.with_suffix(".bin")}
    names = (f"{file.name}.data", f"{file.name}_data", f"{file.stem}.data")  # ONNX names its external data itself
    beside = {f"1/{name}": file.with_name(name) for name in names if file.with_name(name).is_file()}
    return {f"1/{called}": file, **beside}


def _config(name: str, backend: str, given: list[_Tensor], found: list[_Tensor], most: int) -> str:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig(name=name, backend=backend, max_batch_size=most)
    for tensors, into in ((given, config.input), (found, config.output)):
        for tensor in tensors:
            into.add(
                name=tensor.name,
                data_type=model_config_pb2.DataType.Value(tensor.data_type),
                dims=tensor.dims[1:] if most else tensor.dims,
            )
    # the openvino backend knows KIND_CPU only, and KIND_AUTO means the GPU where there is one
    group = model_config_pb2.ModelInstanceGroup
    config.instance_group.add(count=1, kind=group.KIND_CPU if backend == "openvino" else group.KIND_AUTO)
    if most:
        config.dynamic_batching.SetInParent()
    if backend == "onnxruntime":  # what is called f32 is f32: on a GPU its convolutions are rounded to TF32 otherwise
        accelerators = config.optimization.execution_accelerators
        accelerators.gpu_execution_accelerator.add(name="cuda", parameters={"use_tf32": "0"})
    return str(text_format.MessageToString(config))


def _tensors(file: Path, card: ModelCard, shapes: list[list[int]]) -> tuple[list[_Tensor], list[_Tensor]]:
    """What goes in and what comes out, as the file names it."""
    read = {"onnx": _of_onnx, "openvino": _of_openvino}.get(format_of(card.network))
    return read(file) if read else _of_torchscript(card, shapes)


def _of_torchscript(card: ModelCard, shapes: list[list[int]]) -> tuple[list[_Tensor], list[_Tensor]]:
    """TorchScript names nothing: its tensors have numbers, as the pytorch backend takes them.

    How many it gives does not show in the file: boxes, which come in several tensors, stay with the other engines.
    """
    if card.gives == "boxes":
        raise InvalidModelPackage(
            "what TorchScript gives as boxes cannot be named to Triton: export it to ONNX", "model.yaml.network.file"
        )
    window = [-1, *shapes[0][1:]]
    given = [_Tensor(f"INPUT__{n}", TYPES[0], tuple(shape)) for n, shape in enumerate([window, *shapes[1:]])]
    axes = () if card.gives in ("classification", "measurements") else tuple(shapes[0][2:])
    return given, [_Tensor("OUTPUT__0", TYPES[0], (-1, -1, *axes))]


def _of_onnx(file: Path) -> tuple[list[_Tensor], list[_Tensor]]:
    from onnxruntime.capi import onnxruntime_pybind11_state as faults

    from dicomnode.adapters.triton.hosts.networks import on_onnxruntime

    try:
        opened = on_onnxruntime.session(file, 1)
    except (faults.Fail, faults.InvalidProtobuf, faults.InvalidGraph, faults.NotImplemented) as error:
        raise InvalidModelPackage(f"onnxruntime does not read it: {error}", "model.yaml.network.file") from error
    tensors = [
        [_Tensor(t.name, _known(t.type, file), tuple(n if isinstance(n, int) else -1 for n in t.shape)) for t in side]
        for side in (opened.get_inputs(), opened.get_outputs())
    ]
    return tensors[0], tensors[1]


def _of_openvino(file: Path) -> tuple[list[_Tensor], list[_Tensor]]:
    import openvino

    try:
        model = openvino.Core().read_model(file)
    except RuntimeError as error:
        raise InvalidModelPackage(f"OpenVINO does not read it: {error}", "model.yaml.network.file") from error
    tensors = [
        [
            _Tensor(
                port.get_any_name(),
                _known(port.get_element_type().get_type_name(), file),
                tuple(n.get_length() if n.is_static else -1 for n in port.get_partial_shape()),
            )
            for port in side
        ]
        for side in (model.inputs, model.outputs)
    ]
    return tensors[0], tensors[1]


def _known(named: str, file: Path) -> str:
    if named not in _KNOWN:
        raise InvalidModelPackage(f"a tensor of {file.name} is {named}; numbers are needed", "model.yaml.network")
    return _KNOWN[named]
