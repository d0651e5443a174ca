"""A model directory of Triton's own, read: its config.pbtxt, and whether the node can call the model.

The fields are those of Triton's ModelConfig (model_config.proto in github.com/triton-inference-server/common).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.errors import InvalidModelPackage

CONFIG = "config.pbtxt"
TYPES = ("TYPE_FP32", "TYPE_FP16")
_WHOLE = ("TYPE_INT32", "TYPE_INT64")
WINDOWS_MOST = 8  # in one call, however large a batch the model takes
_SUFFIXES = {".onnx": "onnxruntime", ".pt": "pytorch", ".xml": "openvino", ".plan": "tensorrt", ".py": "python"}
_PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch", "tensorrt_plan": "tensorrt"}


@dataclass(frozen=True, slots=True)
class TritonModel:
    """A model directory: where it lies, what its configuration says (a ModelConfig), and what others call it."""

    folder: Path
    config: Any

    @property
    def name(self) -> str:
        return str(self.config.name) or self.folder.name

    @property
    def steps(self) -> list[str]:
        """The models that an ensemble runs; none of another model."""
        return [step.model_name for step in self.config.ensemble_scheduling.step]

    @property
    def is_ensemble(self) -> bool:
        return bool(self.config.platform == "ensemble" or self.config.HasField("ensemble_scheduling"))

    @property
    def versions(self) -> list[Path]:
        """Its numbered folders, the highest first."""
        folders = (path for path in self.folder.iterdir() if path.is_dir() and path.name.isdigit())
        return sorted(folders, key=lambda path: int(path.name), reverse=True)

    @property
    def backend(self) -> str:
        """Named, or found as Triton finds it: by the platform, the file's name, what lies in the version's folder."""
        if self.config.backend or self.config.platform in _PLATFORMS:
            return str(self.config.backend) or _PLATFORMS[self.config.platform]
        names = [self.config.default_model_filename] if self.config.default_model_filename else self._files
        return next((_SUFFIXES[Path(name).suffix] for name in names if Path(name).suffix in _SUFFIXES), "")

    @property
    def _files(self) -> list[str]:
        return [file.name for version in self.versions[:1] for file in sorted(version.iterdir())]

    @property
    def batches(self) -> bool:
        """Whether every tensor has a batch axis that its `dims` do not name."""
        return bool(self.config.max_batch_size > 0)

    @property
    def rank(self) -> int:
        """Axes of its first input, the batch axis included where there is one."""
        return len(self.config.input[0].dims) + self.batches

    def windows_at_once(self, window_rank: int) -> int:
        """`window_rank`: axes of the windows that the node gives, batch and channels included."""
        if self.batches:
            return min(int(self.config.max_batch_size), WINDOWS_MOST)
        first = int(self.config.input[0].dims[0])
        return max(first, 1) if self.rank == window_rank else 1


def read_model(folder: Path) -> TritonModel:
    """Raises InvalidModelPackage where config.pbtxt is none."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    file = folder / CONFIG
    try:
        config = text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidModelPackage(" ".join(str(error).split()), CONFIG) from error
    return TritonModel(folder, config)


def read_models(package: Path) -> list[TritonModel]:
    """A package is one model directory, or a folder of several: the steps of an ensemble, and last the one to call.

    Raises InvalidModelPackage when that one is not to be found, or a step is missing.
    """
    if (package / CONFIG).is_file():
        models = [read_model(package)]
    else:
        models = [read_model(file.parent) for file in sorted(package.glob(f"*/{CONFIG}"))]
    called = {step for model in models for step in model.steps}
    (*others, main) = sorted(models, key=lambda model: model.name not in called)
    if [model.name for model in others if model.name not in called]:
        free = ", ".join(sorted(model.name for model in models if model.name not in called))
        raise InvalidModelPackage(f"which of {free} is to be run? One is, with the models it is made of", CONFIG)
    if missing := called - {model.name for model in models}:
        raise InvalidModelPackage(
            f"the ensemble {main.name} runs {', '.join(sorted(missing))}, which is not here: put the directories of "
            "all its models into one folder, beside its own",
            f"{CONFIG}.ensemble_scheduling",
        )
    return [*others, main]


def is_one(package: Path) -> bool:
    return (package / CONFIG).is_file() or any(package.glob(f"*/{CONFIG}"))


def own_backend(package: Path) -> str:
    """That the package's own configuration means; "" for a package without one, or an ensemble."""
    return read_models(package)[-1].backend if is_one(package) else ""


def check_tensors(model: TritonModel, inputs: int, *, needed: bool) -> None:
    """One tensor comes in (two with parameters) and some go out; `needed`: they must be named, of numbers."""
    given, found = model.config.input, model.config.output
    if len(given) != inputs and (needed or len(given)):
        raise InvalidModelPackage(
            f"{len(given)} tensors are there, the node knows what to do with {inputs}", f"{CONFIG}.input"
        )
    if not needed:
        return
    if not found:
        raise InvalidModelPackage("no tensor is there; the node reads what is named here", f"{CONFIG}.output")
    _check_types(given, "input", TYPES)
    _check_types(found, "output", (*TYPES, *_WHOLE))


def _check_types(tensors: Sequence[Any], key: str, allowed: Sequence[str]) -> None:
    from tritonclient.grpc import model_config_pb2

    for number, tensor in enumerate(tensors):
        named = model_config_pb2.DataType.Name(tensor.data_type)
        if named not in allowed:
            raise InvalidModelPackage(
                f"{tensor.name} is {named}; the node can do with {', '.join(allowed)}",
                f"{CONFIG}.{key}[{number}].data_type",
            )


def check_callable(model: TritonModel, inputs: int, window_rank: int) -> None:
    """Raises InvalidModelPackage when the node cannot call it window by window and wait for one answer to each."""
    config = model.config
    check_tensors(model, inputs, needed=True)
    if config.HasField("sequence_batching"):
        raise InvalidModelPackage(
            "a model that remembers what it was asked before is not run here: windows come in any order",
            f"{CONFIG}.sequence_batching",
        )
    if config.model_transaction_policy.decoupled:
        raise InvalidModelPackage(
            "one answer to each request is needed", f"{CONFIG}.model_transaction_policy.decoupled"
        )
    if model.rank not in (window_rank, window_rank - 1) or (model.batches and model.rank != window_rank):
        raise InvalidModelPackage(
            f"{list(config.input[0].dims)} is no window: channels and {window_rank - 2} axes are needed, and before "
            "them the number of windows where max_batch_size is 0",
            f"{CONFIG}.input[0].dims",
        )
