"""What a model is, needs and gives: the `model.yaml` of a model package.

name: torso-ct
version: 1.0.0
manufacturer: dicomnode
family: machine learning
device_identifier: ...           # optional: a UDI
intended_use: ...
limits: ...
timeout_s: 120                   # optional: longest that it may take on a series, in place of the node's setting
input:
  modality: [CT]
  orientation: RAS               # axis codes after reorientation; RAS as MONAI's Orientation names it
  spacing_mm: [3.0, 3.0, 3.0]    # along those axes
  intensity: {from: [-1000, 1000], to: [0, 1], clip: true}   # from: window, with size: each image's own window
  minimum_extent_mm: [0, 0, 0]   # optional; a smaller volume is refused
  size: [128, 128]               # of a model of single images: rows and columns; no orientation, spacing or window
  colour: luminance              # optional, with size: colour images are taken as grey; else they are refused
  pixel_spacing_mm: [0.3, 0.3]   # optional, with size and segments: rows and columns are resampled to that, and size
                                 # is that of a window; without, an image is fitted into size
inputs:                          # optional: further series, by the role that a rule gives them
  - role: pet
    modality: [PT]
    intensity: {from: [0, 20], to: [0, 1], clip: true}
    unit: g/ml                   # optional, also of input: UCUM code of the values; a series of others is refused
    frame_of_reference: same     # as the main series' (PS3.3 C.7.4.1); any: positions are taken as they are
network:
  file: models/model.onnx        # .onnx, .ts or .pt (TorchScript), .pt2 (torch.export), .xml (OpenVINO)
  format: auto                   # by the file's name; monai-bundle, nnunet and triton have to be named
  engine: auto                   # the fastest that gives the same answers; or one by name; triton: its backends
  precision: fp32                # fp32, bf16, fp16, int8
  window: [96, 96, 96]           # along the axes above
  overlap: 0.25
  blend: constant                # or gaussian
  restore: labels                # what goes back to the scanner's grid: the labels by nearest neighbour; or, slower,
                                 # scores or (after a softmax) probabilities by interpolation, and labels from them
  at_once: 1                     # optional: as many jobs of it may run at the same time; without, any number
output: ...                      # see model_output
parameters:                      # optional: what a rule may set beside overlap and minimum_volume_ml
  threshold: {type: number, default: 0.5, at_least: 0, at_most: 1, description: ...}
after: ...                       # optional: models that gate or crop it, see model_after

A monai-bundle or a nnunet model brings its own chain: window, spacing_mm and intensity may be left out.

The network's channels are the main series and then the roles, in the order of the card. When the card has
parameters, the network takes them as a second input: a vector of float32, in the order of their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dicomnode.domain.boxes_output import BoxesOutput
from dicomnode.domain.document import Node
from dicomnode.domain.map_output import MapOutput
from dicomnode.domain.measured_output import MeasuredOutput
from dicomnode.domain.model_after import Step, after_document, steps_after
from dicomnode.domain.model_output import (
    Classification,
    ClassSpec,
    Code,
    Masks,
    Output,
    Segment,
    output_document,
    parse_output,
)
from dicomnode.domain.model_parameter import ParameterSpec, built_in, parameter_specs, parameters_document
from dicomnode.errors import InvalidModelPackage

__all__ = [
    "ClassSpec",
    "Classification",
    "Code",
    "ModelCard",
    "Output",
    "Segment",
    "card_document",
    "parse_model_card",
]

PLAIN_FORMATS = ("auto", "torchscript", "torch-export", "onnx", "openvino", "triton")
CHAIN_FORMATS = ("monai-bundle", "nnunet")  # these bring what comes before and after the network
FORMATS = (*PLAIN_FORMATS, *CHAIN_FORMATS)
RESTORED = ("labels", "scores", "probabilities")
ENGINES = ("auto", "torch", "torchscript", "onnxruntime", "openvino", "tensorrt", "triton")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
NO_WINDOW = (1, 1, 1)  # of a card that says none
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,31}")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_AXES = ("LR", "PA", "IS")
ROLES_MOST = 8
FRAMES_OF_REFERENCE = ("same", "any")
HOUNSFIELD = "[hnsf'U]"
WINDOW = "window"  # of intensity.from
COLOURS = ("refused", "luminance")
_AS_IT_IS = {"from": [0, 1], "to": [0, 1], "clip": False}  # values that nothing is done to


@dataclass(frozen=True, slots=True)
class InputSpec:
    modality: tuple[str, ...]
    orientation: str
    spacing_mm: tuple[float, float, float]
    intensity_from: tuple[float, float]
    intensity_to: tuple[float, float]
    clip: bool
    minimum_extent_mm: tuple[float, float, float]
    unit: str = ""  # UCUM code of the values that `intensity` is about; "": any
    size: tuple[int, int] | None = None  # rows and columns of an image, of a model of single images; else None
    pixel_spacing_mm: tuple[float, float] | None = None  # between rows, between columns; None: as large as fits
    colour: str = "refused"  # one of COLOURS, of single images
    windowed: bool = False  # intensity_from is 0 to 1: from black to white in each image's own window

    @property
    def is_of_images(self) -> bool:
        """Whether each image goes to the network by itself: no volume is needed, and no place in the patient."""
        return self.size is not None

    @property
    def is_in_windows(self) -> bool:
        """Whether the network sees it window by window."""
        return self.size is None or self.pixel_spacing_mm is not None


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A further series that the model needs beside the main one; it is resampled onto the main one's grid."""

    name: str
    modality: tuple[str, ...]
    intensity_from: tuple[float, float]
    intensity_to: tuple[float, float]
    clip: bool
    frame_of_reference: str = "same"  # one of FRAMES_OF_REFERENCE
    unit: str = ""  # as of InputSpec

    @property
    def needs_same_frame_of_reference(self) -> bool:
        return self.frame_of_reference == "same"


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    file: str
    engine: str
    precision: str
    window: tuple[int, int, int]
    overlap: float
    blend: str
    format: str = "auto"  # one of FORMATS; auto: by the file's name
    restore: str = "labels"  # one of RESTORED
    at_once: int = 0  # jobs of the model that may run at the same time; 0: any number

    @property
    def brings_its_chain(self) -> bool:
        """Whether what comes before and after the network is in the package and not in the card."""
        return self.format in CHAIN_FORMATS


@dataclass(frozen=True, slots=True)
class ModelCard:
    name: str
    version: str
    manufacturer: str
    family: str
    intended_use: str
    limits: str
    input: InputSpec
    network: NetworkSpec
    output: Output = Output()
    device_identifier: str = ""  # UDI or the like (PS3.3 C.12.1.1, 10.29)
    roles: tuple[RoleSpec, ...] = ()
    own_parameters: tuple[ParameterSpec, ...] = ()  # those that the card declares
    after: tuple[Step, ...] = ()  # the models that come first
    timeout_s: float | None = None  # None: the node's setting

    @property
    def parameters(self) -> Mapping[str, ParameterSpec]:
        """All that a rule may set, by name: those of every model first, then the card's own."""
        of_all = built_in(self.network.overlap, self.output, in_windows=self.input.is_in_windows)
        return {spec.name: spec for spec in (*of_all, *self.own_parameters)}

    @property
    def gives(self) -> str:
        """One of model_output.GIVES."""
        return self.output.gives

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.output.segments

    @property
    def masks(self) -> Masks:
        return self.output.masks

    @property
    def classification(self) -> Classification | None:
        return self.output.classification

    @property
    def measurements(self) -> MeasuredOutput | None:
        return self.output.measurements

    @property
    def boxes(self) -> BoxesOutput | None:
        return self.output.boxes

    @property
    def map(self) -> MapOutput | None:
        return self.output.map


_KEYS = (
    "name",
    "version",
    "manufacturer",
    "family",
    "device_identifier",
    "intended_use",
    "limits",
    "timeout_s",
    "input",
    "inputs",
    "network",
    "output",
    "parameters",
    "after",
)


def parse_model_card(document: object) -> ModelCard:
    """A card from what YAML gave; raises InvalidModelPackage with the path of what is wrong."""
    root = Node(document, "model.yaml", InvalidModelPackage)
    root.only(*_KEYS)
    return ModelCard(
        name=root["name"].matching(_NAME, "lower-case letters, digits, '.', '_', '-', at most 48"),
        version=root["version"].matching(_VERSION, "letters, digits, '.', '+', '_', '-', at most 32"),
        manufacturer=root["manufacturer"].text(most=64),
        family=root.get("family", "machine learning").text(most=64),
        intended_use=root["intended_use"].text(),
        limits=root["limits"].text(),
        input=_input(root["input"], _brings_its_chain(root)),
        network=_network(root["network"], window_needed=not _brings_its_chain(root) and "size" not in root["input"]),
        output=(output := _output(root)),
        device_identifier=root["device_identifier"].text(most=64) if "device_identifier" in root else "",
        roles=_roles(root.get("inputs", []), _brings_its_chain(root)),
        own_parameters=parameter_specs(root.get("parameters", {}), output),
        after=_after(root, output),
        timeout_s=_timeout_s(root["timeout_s"]) if "timeout_s" in root else None,
    )


def _timeout_s(node: Node) -> float:
    if (seconds := node.number()) <= 0:
        node.fail("a time is above zero, in seconds")
    return seconds


def _brings_its_chain(root: Node) -> bool:
    return root["network"].get("format", "auto").value in CHAIN_FORMATS


def _output(root: Node) -> Output:
    of_images = "size" in root["input"]
    found = parse_output(root["output"], of_images=of_images, wrong_size=root["input"]["size"] if of_images else None)
    form = root["network"].get("format", "auto").value
    if form in CHAIN_FORMATS and not _fits(form, found):
        root["output"].fail(f"a {form} gives segments as its own chain has them, or a classification of a bundle's")
    if found.of_images and len(list(root.get("inputs", []).items())):
        root["inputs"].fail("a model that gives segments of single images takes one series")
    if "pixel_spacing_mm" in root["input"] and not found.of_images:
        root["input"]["pixel_spacing_mm"].fail(
            "this is of models that give segments of single images: with input.size"
        )
    return found


def _fits(form: object, output: Output) -> bool:
    """Whether the host of a package with a chain of its own gives this."""
    if output.of_images and form in CHAIN_FORMATS:
        return False
    if form == "monai-bundle":
        return output.gives == "classification" or (output.gives == "segments" and output.masks.kind == "labels")
    plain = output.gives == "segments" and output.masks == Masks()
    return form != "nnunet" or plain


def _after(root: Node, output: Output) -> tuple[Step, ...]:
    steps = steps_after(root.get("after", []), root["name"].text(), of_images="size" in root["input"])
    if steps and output.of_images:
        root["after"].fail(
            "a model that gives segments of single images has no others before: those look at a volume"
        )
    return steps


def _input(node: Node, brings_its_chain: bool) -> InputSpec:
    node.only(
        "modality",
        "orientation",
        "spacing_mm",
        "intensity",
        "minimum_extent_mm",
        "unit",
        "size",
        "pixel_spacing_mm",
        "colour",
    )
    orientation = node.get("orientation", "RAS")
    letters = orientation.text()
    if sorted(next((i for i, axis in enumerate(_AXES) if c in axis), -1) for c in letters) != [0, 1, 2]:
        orientation.fail(f"{letters!r} is no orientation: one letter each of L or R, P or A, I or S")
    size = _size(node["size"]) if "size" in node else None
    if "colour" in node and size is None:
        node["colour"].fail("only a model of single images, with input.size, can be given colour ones")
    needed = size is None and not brings_its_chain
    spacing = (node["spacing_mm"] if needed else node.get("spacing_mm", [1, 1, 1])).numbers(3)
    if min(spacing) <= 0:
        node["spacing_mm"].fail("spacing is above zero")
    return InputSpec(
        modality=_modality(node),
        orientation=letters,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        minimum_extent_mm=tuple(node.get("minimum_extent_mm", [0, 0, 0]).numbers(3)),  # type: ignore[arg-type]
        unit=_unit(node),
        size=size,
        colour=node.get("colour", "refused").one_of(COLOURS),
        pixel_spacing_mm=_pixel_spacing_mm(node["pixel_spacing_mm"]) if "pixel_spacing_mm" in node else None,
        **_of_window_or_not(node.get("intensity", _AS_IT_IS) if brings_its_chain else node["intensity"], size),
    )


def _of_window_or_not(node: Node, size: tuple[int, int] | None) -> dict[str, Any]:
    """As _intensity, and whether it is about each image's own window."""
    if "from" not in node or node["from"].value != WINDOW:
        return _intensity(node)
    if size is None:
        node["from"].fail("only a model of single images, with input.size, can be given each image's own window")
    return {**_intensity(Node({**node.mapping(), "from": [0, 1]}, node.path, InvalidModelPackage)), "windowed": True}


def _size(node: Node) -> tuple[int, int]:
    rows, columns = node.numbers(2)
    if min(rows, columns) < 1 or (rows, columns) != (int(rows), int(columns)):
        node.fail("a size is two whole numbers above zero: rows and columns")
    return int(rows), int(columns)


def _pixel_spacing_mm(node: Node) -> tuple[float, float]:
    rows, columns = node.numbers(2)
    if min(rows, columns) <= 0:
        node.fail("spacing is above zero: between rows, between columns")
    return rows, columns


def _unit(node: Node) -> str:
    """A UCUM code; "HU" is short for that of Hounsfield units."""
    unit = node["unit"].text(most=16) if "unit" in node else ""
    return HOUNSFIELD if unit == "HU" else unit


def _modality(node: Node) -> tuple[str, ...]:
    return tuple(n.text(most=16) for n in node["modality"].items())


def _intensity(node: Node) -> dict[str, Any]:
    """intensity_from, intensity_to and clip of an input."""
    node.only("from", "to", "clip")
    low, high = node["from"].numbers(2)
    if low >= high:
        node["from"].fail(f"{low} is not below {high}")
    to_low, to_high = node.get("to", [0.0, 1.0]).numbers(2)
    clip = node.get("clip", True).boolean()
    return {"intensity_from": (low, high), "intensity_to": (to_low, to_high), "clip": clip}


def _roles(node: Node, brings_its_chain: bool) -> tuple[RoleSpec, ...]:
    roles = tuple(_role(n, brings_its_chain) for n in node.items())
    if len({role.name for role in roles}) < len(roles) or len(roles) > ROLES_MOST:
        node.fail(f"each role has a name of its own, and there are {ROLES_MOST} at most")
    return roles


def _role(node: Node, brings_its_chain: bool) -> RoleSpec:
    node.only("role", "modality", "intensity", "frame_of_reference", "unit")
    return RoleSpec(
        name=node["role"].matching(_ROLE, "letters, digits, '.', '_' and '-', at most 64"),
        modality=_modality(node),
        frame_of_reference=node.get("frame_of_reference", "same").one_of(FRAMES_OF_REFERENCE),
        unit=_unit(node),
        **_intensity(node.get("intensity", _AS_IT_IS) if brings_its_chain else node["intensity"]),
    )


def _network(node: Node, *, window_needed: bool) -> NetworkSpec:
    node.only("file", "format", "engine", "precision", "window", "overlap", "blend", "restore", "at_once")
    file = node["file"].text()
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
        node["file"].fail(f"{file!r} leaves the package")
    window = (node["window"] if window_needed else node.get("window", list(NO_WINDOW))).numbers(3)
    if any(w < 1 or w != int(w) for w in window):
        node["window"].fail("a window is three whole numbers above zero")
    overlap = node.get("overlap", 0.25).number()
    if not 0 <= overlap < 1:
        node["overlap"].fail(f"{overlap} is not in [0, 1)")
    return NetworkSpec(
        file=file,
        engine=node.get("engine", "auto").one_of(ENGINES),
        precision=node.get("precision", "fp32").one_of(PRECISIONS),
        window=(int(window[0]), int(window[1]), int(window[2])),
        overlap=overlap,
        blend=node.get("blend", "constant").one_of(("constant", "gaussian")),
        format=node.get("format", "auto").one_of(FORMATS),
        restore=node.get("restore", "labels").one_of(RESTORED),
        at_once=_at_once(node),
    )


def _at_once(node: Node) -> int:
    number = node.get("at_once", 0).number()
    if "at_once" in node and (number < 1 or number != int(number)):
        node["at_once"].fail(f"{number:g} is no whole number above zero")
    return int(number)


def card_document(card: ModelCard) -> Mapping[str, Any]:
    """The card as parse_model_card reads it."""
    i, n = card.input, card.network
    return {
        "name": card.name,
        "version": card.version,
        "manufacturer": card.manufacturer,
        "family": card.family,
        **({"device_identifier": card.device_identifier} if card.device_identifier else {}),
        "intended_use": card.intended_use,
        "limits": card.limits,
        **({"timeout_s": card.timeout_s} if card.timeout_s else {}),
        "input": {
            "modality": list(i.modality),
            "orientation": i.orientation,
            "spacing_mm": list(i.spacing_mm),
            "intensity": _intensity_document(i),
            "minimum_extent_mm": list(i.minimum_extent_mm),
            **({"unit": i.unit} if i.unit else {}),
            **({"size": list(i.size)} if i.size else {}),
            **({"colour": i.colour} if i.colour != "refused" else {}),
            **({"pixel_spacing_mm": list(i.pixel_spacing_mm)} if i.pixel_spacing_mm else {}),
        },
        "network": {
            "file": n.file,
            **({"format": n.format} if n.format != "auto" else {}),
            "engine": n.engine,
            "precision": n.precision,
            "window": list(n.window),
            "overlap": n.overlap,
            "blend": n.blend,
            **({"restore": n.restore} if n.restore != "labels" else {}),
            **({"at_once": n.at_once} if n.at_once else {}),
        },
        "output": output_document(card.output),
        **({"inputs": [_role_document(role) for role in card.roles]} if card.roles else {}),
        **({"parameters": parameters_document(card.own_parameters)} if card.own_parameters else {}),
        **({"after": after_document(card.after)} if card.after else {}),
    }


def _intensity_document(spec: InputSpec | RoleSpec) -> dict[str, Any]:
    windowed = isinstance(spec, InputSpec) and spec.windowed
    ends = WINDOW if windowed else list(spec.intensity_from)
    return {"from": ends, "to": list(spec.intensity_to), "clip": spec.clip}


def _role_document(role: RoleSpec) -> dict[str, Any]:
    return {
        "role": role.name,
        "modality": list(role.modality),
        "intensity": _intensity_document(role),
        "frame_of_reference": role.frame_of_reference,
        **({"unit": role.unit} if role.unit else {}),
    }
