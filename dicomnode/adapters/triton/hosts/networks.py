"""A network from its file, on the engine that runs it fastest here with the same answers.

`auto`: TorchScript on a GPU when torch sees one; else OpenVINO on the CPU; else what the file was made for.
An OpenVINO network is compared with the TorchScript it came from once, when it is converted; the conversion is
kept, so that a restart takes none of that time.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.domain.model_card import NetworkSpec
from dicomnode.errors import InvalidModelPackage

log = logging.getLogger(__name__)

# Share of the labels of one random window that the converted network must give like the original.
_AGREEMENT_LEAST = 0.999
_CPU, _CUDA = torch.device("cpu"), torch.device("cuda")


@dataclass
class LoadedNetwork:
    """A network ready to run: call it with (n, channels, window) float32 on `device`; n is `batch` at most.

    A network whose card has parameters takes them too: (parameters,) float32.
    """

    run: Any
    device: torch.device
    batch: int
    info: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, windows: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.run(windows, *parameters)
        return scores


@dataclass(frozen=True)
class NetworkInputs:
    """What a network takes: channels of a window, and numbers beside it, if any."""

    channels: int = 1
    parameters: int = 0

    def shapes(self, spec: NetworkSpec) -> list[list[int]]:
        """Of one window, and of the parameters where there are any."""
        window = [1, self.channels, *spec.window]
        return [window, [self.parameters]] if self.parameters else [window]


_ONE_CHANNEL = NetworkInputs()


def load_network(
    package: Path, spec: NetworkSpec, cache: Path, threads: int, takes: NetworkInputs = _ONE_CHANNEL
) -> LoadedNetwork:
    """Loads by the card's engine; raises InvalidModelPackage when file and engine do not go together."""
    file = package / spec.file
    if not file.is_file():
        raise InvalidModelPackage(f"{spec.file} is not in the package", "model.yaml.network.file")
    onnx = file.suffix.lower() == ".onnx"
    if spec.engine == "auto":
        return _fastest(file, spec, cache, threads, takes)
    if spec.engine == "openvino":
        return _openvino(file, spec, cache, threads, takes)
    if onnx != (spec.engine == "onnxruntime"):
        raise InvalidModelPackage(f"{spec.engine} does not read {file.name}", "model.yaml.network.engine")
    return _onnxruntime(file, spec, threads, takes) if onnx else _torchscript(file, spec)


def _fastest(file: Path, spec: NetworkSpec, cache: Path, threads: int, takes: NetworkInputs) -> LoadedNetwork:
    onnx = file.suffix.lower() == ".onnx"
    if torch.cuda.is_available() and not onnx:
        return _torchscript(file, spec)
    try:
        return _openvino(file, spec, cache, threads, takes)
    except (ConversionFailed, ImportError) as error:
        log.warning("OpenVINO does not run %s, the slower engine does: %s", file.name, error)
        return _onnxruntime(file, spec, threads, takes) if onnx else _torchscript(file, spec)


# ------------------------------------------------------------------------------------------------- openvino


class ConversionFailed(RuntimeError):
    """OpenVINO does not take the network, or gives other answers than it."""


def _openvino(file: Path, spec: NetworkSpec, cache: Path, threads: int, takes: NetworkInputs) -> LoadedNetwork:
    import openvino
    from openvino.exceptions import OVError
    from openvino.frontend import GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure

    faults = (OVError, GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure, RuntimeError)
    converted = cache / "openvino" / _key(file, spec, openvino.__version__, takes)
    try:
        if not converted.is_dir():
            _convert(file, spec, converted, threads, takes)
        return _compiled(converted / "model.xml", spec.precision, threads)
    except faults as error:
        raise ConversionFailed(f"OpenVINO and {file.name}: {error}") from error


def _compiled(file: Path, precision: str, threads: int) -> LoadedNetwork:
    import openvino

    core = openvino.Core()
    wanted = {
        # named, since the default is bf16 on some CPUs, without a word
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(file), "CPU", wanted)
    request = compiled.create_infer_request()

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        # the answer lies in the request's own memory; it is blended before the next window is asked for
        answer = request.infer([i.contiguous().numpy() for i in inputs], share_inputs=True, share_outputs=True)
        return torch.from_numpy(answer[0])

    info = {
        "engine": f"OpenVINO {openvino.get_version().split('-')[0]}",
        "precision": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
        "device": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
    }
    return LoadedNetwork(run, _CPU, 1, info)


def _key(file: Path, spec: NetworkSpec, version: str, takes: NetworkInputs) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    more = "" if takes == _ONE_CHANNEL else f" {takes.channels} {takes.parameters}"
    digest.update(f"{spec.window} {version} 1{more}".encode())
    return digest.hexdigest()[:32]


def _convert(file: Path, spec: NetworkSpec, folder: Path, threads: int, takes: NetworkInputs) -> None:
    """Writes the network as OpenVINO's IR, with one window as its fixed input; whole, compared, or not at all."""
    import openvino

    shapes = takes.shapes(spec)
    if file.suffix.lower() == ".onnx":
        model = openvino.Core().read_model(file)
        _check_inputs(file, len(model.inputs), len(shapes))
        model.reshape(dict(zip(model.inputs, map(openvino.PartialShape, shapes), strict=True)))
    else:
        # a scripted module converts only once it is frozen
        frozen = _frozen(file, _CPU)
        model = openvino.convert_model(frozen, example_input=tuple(map(torch.zeros, shapes)), input=shapes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        openvino.save_model(model, scratch / "model.xml", compress_to_fp16=False)
        if file.suffix.lower() != ".onnx":
            _check_conversion(_compiled(scratch / "model.xml", "fp32", threads), file, shapes)
        if not folder.is_dir():
            scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_inputs(file: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise InvalidModelPackage(
            f"{file.name} takes {found} inputs and the card means {wanted}: the channels, "
            "and the parameters where the card has some",
            "model.yaml.parameters",
        )


def _check_conversion(network: LoadedNetwork, file: Path, shapes: list[list[int]]) -> None:
    random = torch.Generator().manual_seed(0)
    inputs = [torch.rand(shape, generator=random) for shape in shapes]
    with torch.no_grad():
        original = _frozen(file, _CPU)(*inputs)
    agreement = float((network(*inputs).argmax(1) == original.argmax(1)).float().mean())
    if agreement < _AGREEMENT_LEAST:
        raise ConversionFailed(f"only {agreement:.4f} of its labels are those of the original network")


# ------------------------------------------------------------------------------------- torch and onnxruntime


def _frozen(file: Path, device: torch.device) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # TorchScript is deprecated as a thing to write; what was trained in it has to run
        warnings.simplefilter("ignore", DeprecationWarning)
        module: torch.jit.ScriptModule = torch.jit.load(file, map_location=device)  # type: ignore[no-untyped-call]
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module.eval())
        return frozen


def _torchscript(file: Path, spec: NetworkSpec) -> LoadedNetwork:
    device = _CUDA if torch.cuda.is_available() else _CPU
    module = _frozen(file, device)
    half = spec.precision == "bf16"

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            scores: torch.Tensor = module(*inputs)
            return scores.float()

    info = {
        "engine": f"TorchScript {torch.__version__}",
        "precision": "bf16" if half else "f32",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
    }
    return LoadedNetwork(run, device, 4 if device.type == "cuda" else 1, info)


def _onnxruntime(file: Path, spec: NetworkSpec, threads: int, takes: NetworkInputs) -> LoadedNetwork:
    import onnxruntime

    if spec.precision != "fp32":
        raise InvalidModelPackage("onnxruntime runs fp32 only here", "model.yaml.network.precision")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    known = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in known]
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    names = [given.name for given in session.get_inputs()]
    _check_inputs(file, len(names), len(takes.shapes(spec)))

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        given = {name: tensor.contiguous().numpy() for name, tensor in zip(names, inputs, strict=True)}
        answer: npt.NDArray[np.float32] = session.run(None, given)[0]
        return torch.from_numpy(answer)

    info = {
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "precision": "f32",
        "device": session.get_providers()[0].removesuffix("ExecutionProvider"),
    }
    return LoadedNetwork(run, _CPU, 1, info)
