"""Which engine runs a network.

`auto`: on a GPU that torch sees, what the file was made for; else OpenVINO on the CPU, where it gives the same
answers; else what the file was made for.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePath

import torch

from dicomnode.adapters.triton.hosts.networks import on_onnxruntime, on_openvino, on_tensorrt, on_torch
from dicomnode.adapters.triton.hosts.networks.loaded import (
    Calibration,
    ConversionFailed,
    LoadedNetwork,
    NetworkInputs,
    Source,
)
from dicomnode.domain.engines import engines_of, format_of
from dicomnode.domain.model_card import NetworkSpec
from dicomnode.errors import InvalidModelPackage

log = logging.getLogger(__name__)

_LOADERS = {
    "openvino": on_openvino.load,
    "torchscript": on_torch.load_scripted,
    "torch": on_torch.load_exported,
    "onnxruntime": on_onnxruntime.load,
    "tensorrt": on_tensorrt.load,
}
_ONE_CHANNEL = NetworkInputs()


def load_network(
    package: Path,
    spec: NetworkSpec,
    cache: Path,
    threads: int,
    takes: NetworkInputs = _ONE_CHANNEL,
    calibration: Calibration | None = None,
) -> LoadedNetwork:
    """Loads by the card's engine; raises InvalidModelPackage when file and engine do not go together.

    Raises ConversionFailed when the engine that the card names does not take the network, or gives other answers.
    """
    file = package / spec.file
    if not file.is_file():
        raise InvalidModelPackage(f"{spec.file} is not in the package", "model.yaml.network.file")
    source = Source(file, format_of(spec), spec, takes, cache, threads, calibration, package)
    if spec.engine == "triton" or source.format == "triton":
        raise InvalidModelPackage(
            "only Triton itself runs this, and there is none here: the engine is in this process",
            "model.yaml.network.engine",
        )
    if spec.engine == "auto":
        return _fastest(source)
    if spec.engine not in engines_of(source.format):
        raise InvalidModelPackage(
            f"{spec.engine} does not read {PurePath(spec.file).name}; {' or '.join(engines_of(source.format))} does",
            "model.yaml.network.engine",
        )
    return _LOADERS[spec.engine](source)


def _fastest(source: Source) -> LoadedNetwork:
    own = engines_of(source.format)[-1]
    on_gpu = on_onnxruntime.has_gpu() if own == "onnxruntime" else torch.cuda.is_available()
    if own == "openvino" or on_gpu:
        return _LOADERS[own](source)
    try:
        return on_openvino.load(source)
    except (ConversionFailed, ImportError) as error:
        log.warning("OpenVINO does not run %s, the slower engine does: %s", source.file.name, error)
        return _LOADERS[own](source)
