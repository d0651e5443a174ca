"""Whether a network runs in its host's own process, or as another model of the same Triton that the host calls.

Local is the default: nothing is copied between processes, and every engine and precision is there. Calling (BLS) is
for what only a backend of Triton's runs, and for backends that bring what the host lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicomnode.domain.engines import format_of
from dicomnode.domain.model_card import NetworkSpec

LOCAL, BLS = "local", "bls"
INNER = ("auto", LOCAL, BLS)
NATIVE, STAND_IN = "native", "stand-in"  # of a server's backends: Triton's own, or ours in its place
_BACKENDS = {"onnx": "onnxruntime", "torchscript": "pytorch", "openvino": "openvino"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the decision hangs on beside the network."""

    wanted: str  # one of INNER: the setting
    tuned: str  # engine that tuning chose; "" for none
    backends: Mapping[str, str]  # of the server, by name: NATIVE or STAND_IN
    own_backend: str  # that the package's own config.pbtxt names; "" for a package without one
    has_gpu: bool


def backend_of(spec: NetworkSpec) -> str:
    """Triton's backend for a file of this format; "" when it has none."""
    return _BACKENDS.get(format_of(spec), "")


def inner_of(spec: NetworkSpec, asked: Asked) -> str:
    """LOCAL or BLS.

    Nothing else runs a Triton directory without a network file, or is meant by engine: triton. A directory with its
    own configuration runs by that where its backend is a real one. An ONNX file does on a GPU, which the onnxruntime
    of a host does not use.
    """
    engine = asked.tuned or spec.engine
    if format_of(spec) == "triton" or engine == "triton":
        return BLS
    backend = asked.own_backend or backend_of(spec)
    if asked.wanted == LOCAL or not backend:
        return LOCAL
    if asked.wanted == BLS:
        return BLS
    if engine != "auto" or spec.precision != "fp32" or asked.backends.get(backend) != NATIVE:
        return LOCAL
    return BLS if asked.own_backend or (asked.has_gpu and backend == "onnxruntime") else LOCAL
