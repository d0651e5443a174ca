"""A MONAI bundle's parts, made by MONAI's own parser (MONAI Bundle Specification): what it does before, with and
after its network.

A bundle is code: its expressions are evaluated and its scripts imported, here, in the process of this one model.
Images come from the node and results go to it, so that what would load or save files is left out.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from monai.bundle.config_parser import ConfigParser

from dicomnode.domain.bundle_chain import LOADERS, SAVERS, StandardChain, resolved, standard_chain, transform_name
from dicomnode.errors import InvalidModelPackage

INFERENCE_FILES = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
WEIGHTS_FILES = ("models/model.pt", "models/model.ts")
_SECTIONS = ("preprocessing", "inferer", "postprocessing")
_DEVICES = ("device", "sw_device")
_NOT_IMAGES = ("label", "pred", "mask")
_GONE = {"SwinUNETR": ("img_size",)}  # deprecated in MONAI 1.3 as not needed, removed in 1.5
_FAULTS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, OSError)


class Bundle:
    """An unpacked bundle on `device`. Every error names the file and the key in it."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self._inference = _inference_file(folder)
        self.document = _prepared(_read(self._inference), folder, device)
        self._loader = _first(self.document, LOADERS)
        _leave_out(self.document)
        self._parser = self._parser_of(self.document)
        if "prepare_batch" in _mapping(self.document.get("evaluator")):
            raise self._fault("evaluator.prepare_batch", "a batch that the bundle prepares by itself is not run here")

    def part(self, name: str) -> Any:
        """A section of inference.json as the object that it describes; None where there is none."""
        if name not in self.document:
            return None
        try:
            with _importable(self.folder), arrays_readable(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what a bundle uses that is deprecated is not ours to mend
                return self._parser.get_parsed_content(name)
        except _FAULTS as error:
            raise self._fault(name, _why(error)) from error

    def chain(self) -> StandardChain | str:
        """The usual chain when it is one, else why it is not."""
        document = self.document
        sections = {name: resolved(document, document.get(name), self._value) for name in _SECTIONS}
        return standard_chain(sections)

    @property
    def image_keys(self) -> list[str]:
        """What the transforms call the images, in the order of the bundle's inputs."""
        keys = resolved(self.document, _mapping(self._loader).get("keys", "image"), self._value)
        keys = keys if isinstance(keys, list) else [keys]
        return [str(key) for key in keys if key not in _NOT_IMAGES]

    @property
    def channels(self) -> int:
        """Of the image that the network takes; 1 where metadata.json does not say."""
        metadata = self.folder / "configs" / "metadata.json"
        formats = _mapping(_read(metadata).get("network_data_format")) if metadata.is_file() else {}
        inputs = _mapping(formats.get("inputs"))
        image = _mapping(inputs.get("image") or next(iter(inputs.values()), None))
        return int(image.get("num_channels") or 1)

    @property
    def channel_first_on_loading(self) -> bool:
        return bool(_mapping(self._loader).get("ensure_channel_first", False))

    @property
    def loads_metadata(self) -> bool:
        """Whether its loader gives a mapping of metadata beside each image (LoadImaged's image_only, false)."""
        return _mapping(self._loader).get("image_only", True) is False

    @property
    def matches_grids(self) -> bool:
        """Whether its transforms bring several images into one grid by themselves."""
        return _first(_mapping(self.document.get("preprocessing")), ("ResampleToMatch",)) is not None

    @property
    def half_precision(self) -> bool:
        """Whether the bundle asks for mixed precision on a GPU."""
        return bool(resolved(self.document, _mapping(self.document.get("evaluator")).get("amp", False), self._value))

    @property
    def everything(self) -> list[int]:
        """Labels that a network which is asked for labels is asked for when nobody names any, as VISTA3D's is."""
        wanted = _mapping(_mapping(self.document.get("evaluator")).get("hyper_kwargs"))
        found = resolved(self.document, wanted.get("everything_labels"), self._value)
        return [int(label) for label in found] if isinstance(found, list) else []

    # ------------------------------------------------------------------------------------------------ network

    def network(self) -> torch.nn.Module:
        """The network with its weights, ready to infer."""
        scripted = self.folder / "models" / "model.ts"
        if not any(name in self.document for name in ("network", "network_def")):
            if not scripted.is_file():
                raise self._fault("network_def", "there is no network here, and no models/model.ts")
            return _scripted(scripted, self.device)
        weights = self._weights()
        if weights is None and scripted.is_file():
            return _scripted(scripted, self.device)
        network = self.part("network" if "network" in self.document else "network_def")
        if weights is not None and not isinstance(network, torch.jit.ScriptModule):
            self._load_weights(network, weights)
        evaluated: torch.nn.Module = network.to(self.device).eval()
        return evaluated

    def _weights(self) -> Path | None:
        """Where inference.json says that the weights are, else where bundles have them."""
        loader = _first(self.document, ("CheckpointLoader",))
        named = resolved(self.document, _mapping(loader).get("load_path"), self._value)
        places = [Path(str(named))] if named else []
        found = [path for path in (*places, self.folder / "models" / "model.pt") if path.is_file()]
        return found[0] if found else None

    def _load_weights(self, network: torch.nn.Module, file: Path) -> None:
        loader = _mapping(_first(self.document, ("CheckpointLoader",)))
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
            network.load_state_dict(_state(state, list(_mapping(loader.get("load_dict")))), strict=True)
        except (RuntimeError, ValueError, TypeError, AttributeError, pickle.UnpicklingError, OSError) as error:
            name = file.relative_to(self.folder) if file.is_relative_to(self.folder) else file.name
            raise InvalidModelPackage(f"these are no weights of network_def: {error}", str(name)) from error

    def _value(self, expression: str) -> object:
        """What an expression gives; itself when it fails, so that nobody takes it for a plain value."""
        # by a parser of its own, since what the bundle's has made already would be made anew
        parser = self._parser_of({**self.document, "_dicomnode_value": expression})
        try:
            with _importable(self.folder), arrays_readable():
                return parser.get_parsed_content("_dicomnode_value")
        except _FAULTS:
            return expression

    def _parser_of(self, document: dict[str, Any]) -> ConfigParser:
        parser = ConfigParser(document)
        metadata = self.folder / "configs" / "metadata.json"
        if metadata.is_file():
            parser.read_meta(str(metadata))
        return parser

    def _fault(self, key: str, message: str) -> InvalidModelPackage:
        return InvalidModelPackage(message, f"{self._inference.relative_to(self.folder).as_posix()}.{key}")


# ------------------------------------------------------------------------------------------------- documents


def _inference_file(folder: Path) -> Path:
    for name in INFERENCE_FILES:
        if (folder / name).is_file():
            return folder / name
    raise InvalidModelPackage(f"none of {', '.join(INFERENCE_FILES)} is in the bundle", str(folder))


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = ConfigParser.load_config_file(str(file))
    return document


def _prepared(document: dict[str, Any], folder: Path, device: torch.device) -> dict[str, Any]:
    """The document for this place and this machine."""
    document = {**document, "bundle_root": str(folder)}
    if "import" in document:  # as some older bundles have it
        document.setdefault("imports", document["import"])
    if "device" in document:
        document["device"] = f"$torch.device('{device}')"
    if device.type == "cpu":
        document = _mapped(document, _to_cpu)
    document = _mapped(document, lambda v: _with_device(v, device))
    if "network_def" in document:
        document["network_def"] = _mapped(document["network_def"], _network_today)
    return document


def _network_today(value: Any) -> Any:
    """A network's arguments without those that MONAI has taken away since, which said nothing any more.

    Weights that are here need no others from the network.
    """
    if not isinstance(value, Mapping):
        return value
    gone = _GONE.get(transform_name(value.get("_target_")), ())
    kept = {key: part for key, part in value.items() if key not in gone}
    return {**kept, "pretrained": False} if "pretrained" in kept else kept


def _to_cpu(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    return value.replace("torch.device('cuda')", "torch.device('cpu')")


def _with_device(value: Any, device: torch.device) -> Any:
    """Whatever GPU a transform or the inferer names is the model's; what they have on the CPU stays there."""
    if not isinstance(value, Mapping):
        return value
    named = {key for key in _DEVICES if "cuda" in str(value.get(key, ""))}
    return {**value, **dict.fromkeys(named, f"$torch.device('{device}')")} if named else value


def _mapped(value: Any, change: Any) -> Any:
    """A copy of a document with every part changed, the inner ones first."""
    if isinstance(value, Mapping):
        value = {key: _mapped(part, change) for key, part in value.items()}
    elif isinstance(value, list):
        value = [_mapped(part, change) for part in value]
    return change(value)


def _components(value: Any) -> Iterator[dict[str, Any]]:
    """Every component of a document, outermost first."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for part in value.values():
            yield from _components(part)
    elif isinstance(value, list):
        for part in value:
            yield from _components(part)


def _first(document: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any] | None:
    return next((c for c in _components(document) if transform_name(c["_target_"]) in names), None)


def _leave_out(document: dict[str, Any]) -> None:
    """Disables what loads and saves files; MONAI's parser then takes them out of the lists they are in."""
    for component in _components(document):
        if transform_name(component["_target_"]) in (*LOADERS, *SAVERS):
            component["_disabled_"] = True


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _state(state: Any, keys: list[str]) -> Any:
    """A state dict, from under its key where a checkpoint has several parts."""
    for key in (*keys, "model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            return state[key]
    return state


def _scripted(file: Path, device: torch.device) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's: what was written in it has to run
        module: torch.nn.Module = torch.jit.load(file, map_location=device)  # type: ignore[no-untyped-call]
        return module.eval()


def arrays_readable() -> contextlib.AbstractContextManager[None]:
    """Lets `torch.load` of a bundle's expressions read NumPy arrays, as the codes of a searched architecture are.

    Since torch 2.6 it reads tensors alone unless it is told more (torch.serialization.safe_globals).
    """
    kinds = {type(numpy.dtype(letter)) for letter in "?bBhHiIlLqQefd"}
    core: Any = numpy.core.multiarray
    named = [
        (function, f"numpy.{where}.multiarray.{function.__name__}")
        for function in (core._reconstruct, core.scalar)
        for where in ("core", "_core")
    ]
    return torch.serialization.safe_globals([*named, numpy.ndarray, numpy.dtype, *kinds])


def _why(error: BaseException) -> str:
    """What was wrong at the bottom of it, by a line: MONAI's own errors say only where."""
    while (cause := error.__cause__) is not None:
        error = cause
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}"


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The bundle's own modules can be imported; of two bundles in one process each finds its own.

    The package stays as it was added: no bytecode is written into it.
    """
    before, writes = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], folder):
                del sys.modules[name]


def _lies_in(module: Any, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(place and Path(place).is_relative_to(folder) for place in places)
