"""Networks on OpenVINO, on the CPU: float32, bfloat16 where the CPU has it, and int8 by nncf.

A converted network is compared with the one it came from once, when it is converted; the conversion is kept, so
that a restart takes none of that time.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.networks import on_onnxruntime, on_torch, rows, subpixel
from dicomnode.adapters.triton.hosts.networks.loaded import (
    AGREEMENT_LEAST,
    CPU,
    Answers,
    ConversionFailed,
    LoadedNetwork,
    Source,
    agreement,
    as_arrays,
    check_inputs,
    random_inputs,
    tensors_of,
)

# Each window on a thread of its own keeps the cores busier than one window on all of them; each costs memory, too.
STREAMS_MOST = 4
_CONVERSION = 4  # counts up when conversions are made in another way
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
    """Each window on a thread of its own, as many at once as there are streams.

    A second compilation, for lone windows on all threads, would halve their time and cost as much memory again.
    """
    import openvino

    core = openvino.Core()
    streams = min(source.threads, STREAMS_MOST)
    requests = _Requests(core.compile_model(core.read_model(file), "CPU", _config(source, streams)), streams)
    info = {
        "engine": f"OpenVINO {openvino.get_version().split('-')[0]}",
        "precision": requests.precision(source.spec.precision),
        "device": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
    }
    return LoadedNetwork(requests.run, CPU, streams, info, requests.submit, requests.count)


def _config(source: Source, streams: int) -> dict[str, Any]:
    return {
        # named, since the default is bf16 on some CPUs, without a word
        "INFERENCE_PRECISION_HINT": "bf16" if source.spec.precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": source.threads,
        "NUM_STREAMS": streams,
    }


class _Requests:
    """Of a compiled network: one more than streams, so that a stream that is done has its next window already."""

    def __init__(self, compiled: Any, streams: int) -> None:
        self.count = streams + 1
        self._compiled, self._next = compiled, 0
        self._requests = [compiled.create_infer_request() for _ in range(self.count)]

    def submit(self, window: torch.Tensor, *parameters: torch.Tensor) -> Callable[[], torch.Tensor]:
        """One window: (1, channels, window) float32; of the answer, the first tensor."""
        answers = self._begun(window, *parameters)
        return lambda: answers()[0]

    def _begun(self, window: torch.Tensor, *parameters: torch.Tensor) -> Callable[[], Answers]:
        request = self._requests[self._next]
        self._next = (self._next + 1) % self.count
        inputs = as_arrays([window, *parameters])
        request.start_async(inputs, share_inputs=True)

        def answer() -> Answers:
            request.wait()
            del inputs[:]  # which the engine reads until now
            return tuple(torch.from_numpy(output.data) for output in request.output_tensors)

        return answer

    def run(self, windows: torch.Tensor, *parameters: torch.Tensor) -> Answers:
        """As many windows as there are streams at most; of several windows, the first tensor."""
        answers = [self._begun(windows[n : n + 1], *parameters) for n in range(len(windows))]
        found = [answer() for answer in answers]
        return found[0] if len(found) == 1 else (torch.cat([outputs[0] for outputs in found]),)

    def precision(self, wanted: str) -> str:
        if wanted == "int8":
            return "int8"
        return str(self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


# ----------------------------------------------------------------------------------------------- converting


def _key(source: Source, version: str) -> str:
    with source.file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    lower = "int8" if source.spec.precision == "int8" else ""
    judged = "" if source.takes.gives == "classes" else source.takes.gives
    digest.update(f"{source.takes.shapes(source.spec)} {version} {_CONVERSION} {lower}{judged}".encode())
    if source.spec.precision == "int8":
        digest.update(source.calibrated_with())
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
    else:
        subpixel.rewrite(model)
        rows.rewrite(model)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    if source.format in _ORIGINALS:
        _compare(folder / "model.xml", source)


def _read(source: Source) -> Any:
    import openvino

    shapes = source.takes.shapes(source.spec)
    if source.format == "torchscript":
        # a scripted module converts only once it is frozen
        with _log_kept():
            return openvino.convert_model(
                on_torch.scripted(source.file), example_input=tuple(map(torch.zeros, shapes)), input=shapes
            )
    if source.format == "torch-export":
        with on_torch.own_warnings_ignored(), _log_kept():
            model = openvino.convert_model(torch.export.load(source.file))
    else:
        model = openvino.Core().read_model(source.file)
    check_inputs(source, len(model.inputs))
    model.reshape(dict(zip(model.inputs, map(openvino.PartialShape, shapes), strict=True)))
    return model


@contextmanager
def _log_kept() -> Iterator[None]:
    """The converter silences the whole process below ERROR, and for good when it fails."""
    root = logging.getLogger()
    level, filters = root.level, list(root.filters)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:] = filters


def _quantised(model: Any, source: Source) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise ConversionFailed("int8 needs nncf: pip install 'dicomnode[int8]'") from error
    windows = list(source.calibration())[:_CALIBRATION_MOST] if source.calibration else []
    if not windows:
        raise ConversionFailed("int8 needs golden cases in the package to be calibrated with")
    with redirect_stdout(io.StringIO()):  # nncf draws how far it is, across what the command itself says
        return nncf.quantize(model, nncf.Dataset(windows), subset_size=len(windows))


_ORIGINALS: dict[str, Callable[[Source], Callable[..., object]]] = {
    "torchscript": lambda source: on_torch.scripted(source.file),
    "torch-export": lambda source: on_torch.exported(source.file),
    "onnx": lambda source: on_onnxruntime.load_on_cpu(source).run,
}


def _compare(file: Path, source: Source) -> None:
    """With the original in full precision; int8 on what it was calibrated with, on noise it means nothing."""
    int8 = source.spec.precision == "int8"
    in_full = replace(source, spec=replace(source.spec, precision="fp32"))
    original = _ORIGINALS[source.format](in_full)
    converted = _compiled(file, source if int8 else in_full)
    with torch.no_grad():
        worst = min(
            agreement(converted.answers(*inputs), tensors_of(original(*inputs)), source.takes.gives)
            for inputs in _shown(source, int8)
        )
    if not worst >= (_INT8_AGREEMENT_LEAST if int8 else AGREEMENT_LEAST):  # a NaN is no agreement either
        raise ConversionFailed(f"only {worst:.4f} of its answers are those of the original network")


def _shown(source: Source, int8: bool) -> list[list[torch.Tensor]]:
    if not int8 or source.calibration is None:
        return [random_inputs(source)]
    return [list(map(torch.from_numpy, window)) for window in source.calibration()][:_COMPARED]
