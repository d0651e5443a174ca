"""Networks on OpenVINO, on the CPU: float32, bfloat16 where the CPU has it, and int8 by nncf.

A converted network is compared with the one it came from once, when it is converted; the conversion is kept, so
that a restart takes none of that time.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.networks import on_onnxruntime, on_torch
from dicomnode.adapters.triton.hosts.networks.loaded import (
    AGREEMENT_LEAST,
    CPU,
    ConversionFailed,
    LoadedNetwork,
    Source,
    Tensors,
    agreement,
    as_arrays,
    check_inputs,
    random_inputs,
)

# Each window on a thread of its own keeps the cores busier than one window on all of them; each costs memory, too.
STREAMS_MOST = 4
_CONVERSION = 2  # counts up when conversions are made in another way
# Of the labels of the images that int8 was calibrated with; whether it is good enough, the golden cases say.
_INT8_AGREEMENT_LEAST = 0.98
_CALIBRATION_MOST, _COMPARED = 64, 4


def load(source: Source) -> LoadedNetwork:
    """Raises ConversionFailed, InvalidModelPackage, ImportError (nncf, for int8)."""
    import openvino
    from openvino.exceptions import OVError
    from openvino.frontend import GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure

    faults = (OVError, GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure, RuntimeError)
    converted = source.cache / "openvino" / _key(source, openvino.__version__)
    try:
        if not converted.is_dir():
            _write(converted, lambda folder: _convert(source, folder))
        return _compiled(converted / "model.xml", source)
    except ConversionFailed:
        raise
    except faults as error:
        raise ConversionFailed(f"OpenVINO and {source.file.name}: {error}") from error


# ----------------------------------------------------------------------------------------------- running it


def _compiled(file: Path, source: Source) -> LoadedNetwork:
    """A lone window runs on all threads; of several, as many at once as there are streams."""
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    alone = _requests(core, model, source, 1)
    streams = min(source.threads, STREAMS_MOST)
    abreast = _requests(core, model, source, streams) if streams > 1 else alone

    def run(windows: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        beside = as_arrays(parameters)
        # the answers lie in the requests' own memory; they are blended before the next windows are asked for
        answers = [_answer(window, beside, request) for window, request in _shared_out(windows, alone, abreast)]
        found = [torch.from_numpy(answer()) for answer in answers]
        return found[0] if len(found) == 1 else torch.cat(found)

    info = {
        "engine": f"OpenVINO {openvino.get_version().split('-')[0]}",
        "precision": _precision(alone[0], source.spec.precision),
        "device": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
    }
    return LoadedNetwork(run, CPU, streams, info)


def _requests(core: Any, model: Any, source: Source, streams: int) -> list[Any]:
    compiled = core.compile_model(
        model,
        "CPU",
        {
            # named, since the default is bf16 on some CPUs, without a word
            "INFERENCE_PRECISION_HINT": "bf16" if source.spec.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": source.threads,
            "NUM_STREAMS": streams,
        },
    )
    return [compiled.create_infer_request() for _ in range(streams)]


def _shared_out(windows: torch.Tensor, alone: list[Any], abreast: list[Any]) -> list[tuple[torch.Tensor, Any]]:
    requests = alone if len(windows) == 1 else abreast
    return [(windows[n : n + 1], requests[n]) for n in range(len(windows))]


def _answer(window: torch.Tensor, beside: Tensors, request: Any) -> Callable[[], Any]:
    request.start_async([*as_arrays([window]), *beside], share_inputs=True)

    def answer() -> Any:
        request.wait()
        return request.get_output_tensor(0).data

    return answer


def _precision(request: Any, wanted: str) -> str:
    if wanted == "int8":
        return "int8"
    return str(request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").get_type_name())


# ----------------------------------------------------------------------------------------------- converting


def _key(source: Source, version: str) -> str:
    with source.file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    lower = "int8" if source.spec.precision == "int8" else ""
    digest.update(f"{source.takes.shapes(source.spec)} {version} {_CONVERSION} {lower}".encode())
    return digest.hexdigest()[:32]


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    """Whole or not at all, whoever else is at it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        write(scratch)
        if not folder.is_dir():
            scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert(source: Source, folder: Path) -> None:
    """The network as OpenVINO's IR, with one window as its fixed input, compared with the original."""
    import openvino

    model = _read(source)
    if source.spec.precision == "int8":
        model = _quantised(model, source)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    if source.format in _ORIGINALS:
        _compare(folder / "model.xml", source)


def _read(source: Source) -> Any:
    import openvino

    shapes = source.takes.shapes(source.spec)
    if source.format == "torchscript":
        # a scripted module converts only once it is frozen
        return openvino.convert_model(
            on_torch.scripted(source.file), example_input=tuple(map(torch.zeros, shapes)), input=shapes
        )
    if source.format == "torch-export":
        with on_torch.own_warnings_ignored():
            model = openvino.convert_model(torch.export.load(source.file))
    else:
        model = openvino.Core().read_model(source.file)
    check_inputs(source, len(model.inputs))
    model.reshape(dict(zip(model.inputs, map(openvino.PartialShape, shapes), strict=True)))
    return model


def _quantised(model: Any, source: Source) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise ConversionFailed("int8 needs nncf: pip install 'dicomnode[int8]'") from error
    windows = list(source.calibration())[:_CALIBRATION_MOST] if source.calibration else []
    if not windows:
        raise ConversionFailed("int8 needs golden cases in the package to be calibrated with")
    return nncf.quantize(model, nncf.Dataset(windows), subset_size=len(windows))


_ORIGINALS: dict[str, Callable[[Source], Callable[..., torch.Tensor]]] = {
    "torchscript": lambda source: on_torch.scripted(source.file),
    "torch-export": lambda source: on_torch.exported(source.file),
    "onnx": lambda source: on_onnxruntime.load(source).run,
}


def _compare(file: Path, source: Source) -> None:
    """With the original in full precision; int8 on what it was calibrated with, on noise it means nothing."""
    int8 = source.spec.precision == "int8"
    in_full = replace(source, spec=replace(source.spec, precision="fp32"))
    original = _ORIGINALS[source.format](in_full)
    converted = _compiled(file, source if int8 else in_full)
    with torch.no_grad():
        worst = min(agreement(converted(*inputs), original(*inputs)) for inputs in _shown(source, int8))
    if worst < (_INT8_AGREEMENT_LEAST if int8 else AGREEMENT_LEAST):
        raise ConversionFailed(f"only {worst:.4f} of its labels are those of the original network")


def _shown(source: Source, int8: bool) -> list[list[torch.Tensor]]:
    if not int8 or source.calibration is None:
        return [random_inputs(source)]
    return [list(map(torch.from_numpy, window)) for window in source.calibration()][:_COMPARED]
