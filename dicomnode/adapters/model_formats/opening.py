"""A network's file is opened, and asked for one window, before it is kept: in a process of its own.

A file that somebody sent may crash what reads it, keep it busy for ever, or ask for all memory: the command that was
given it has to say so, and to put away what it has begun. And what reads it (torch, above all) is loaded for the time
of that look only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.adapters.model_formats.network_file import check_scripted
from dicomnode.domain.engines import TRITON, format_of
from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.domain.network_fit import Shape, channels_words, check_answers, check_takes, window_of
from dicomnode.errors import InvalidModelPackage, NetworkUnfit

TIMEOUT_S = 300.0
_FILE = "model.yaml.network.file"
_CHANNELS_MOST = 8
# What torch and OpenVINO raise of files and inputs; onnxruntime's errors have no class in common, and end the process
_FAULTS = (RuntimeError, ValueError, TypeError, LookupError, OSError, zipfile.BadZipFile)

_RAISED = re.compile(r"(?:(?:builtins\.)?\w+(?:Error|Exception): )+(.*)")

Inputs = Sequence[npt.NDArray[np.float32]]
Ask = Callable[[Inputs], list[Shape]]
"""What a network answers, by its shapes."""


def check_network(package: Path, card: ModelCard, timeout_s: float = TIMEOUT_S) -> None:
    """Raises NetworkUnfit when the network's file is none, or does not fit its card.

    Programs, bundles and what only Triton runs are not opened: that is to run them.
    """
    if not is_opened(card):
        return
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(package)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        words = f"it gave no answer for one window in {timeout_s:.0f} s on this machine"
        raise NetworkUnfit(words, _FILE) from None
    if done.returncode:
        raise _refusal(done, package)


def is_opened(card: ModelCard) -> bool:
    return card.network.engine != TRITON and format_of(card.network) in _READERS


def _refusal(done: subprocess.CompletedProcess[str], package: Path) -> NetworkUnfit:
    if done.returncode < 0:
        words = f"it ends the process that opens it (signal {-done.returncode})"
        return NetworkUnfit(f"{words}: it is damaged, or needs more memory than there is", _FILE)
    try:
        said = json.loads((done.stdout.splitlines() or [""])[-1])
        return NetworkUnfit(str(said["words"]), str(said["path"]))
    except (ValueError, KeyError, TypeError):
        why = (done.stderr.strip().splitlines() or ["no word of why"])[-1].rpartition("_state.")[2]
        return _unread("it is not read", why.replace(f"{package}/", ""))


def _unread(words: str, why: str) -> NetworkUnfit:
    return NetworkUnfit(
        f"{words}: {why[:300]}; copy or export it again, and see that its name says what it is", _FILE
    )


# ------------------------------------------------------------------------------------- in a process of its own


def main(package: Path) -> int:
    """The exit status; of what is wrong the last line is a JSON object of `words` and `path`."""
    import yaml

    card = parse_model_card(yaml.safe_load((package / "model.yaml").read_text(encoding="utf-8")))
    try:
        check_opens(package / card.network.file, card)
    except InvalidModelPackage as error:
        print("\n" + json.dumps({"words": error.message.replace(f"{package}/", ""), "path": error.path}))
        return 1
    return 0


def check_opens(file: Path, card: ModelCard) -> None:
    """Raises InvalidModelPackage when the file is no network of its format, or the network does not fit its card."""
    form = format_of(card.network)
    if declared := _declared(file, form):
        check_takes(card, declared)
    try:
        ask = _READERS[form](file)
    except _FAULTS as error:
        raise _unread(f"this is no {_WORDS[form]} that can be read", _gist(error)) from error
    check_answers(card, _answers(ask, card))


def _answers(ask: Ask, card: ModelCard) -> list[Shape]:
    given = window_of(card)
    try:
        return ask(_zeros(card, given))
    except _FAULTS as error:
        takes = _channels_taken(ask, card)
        if takes and takes != given[1]:
            raise NetworkUnfit(channels_words(takes, given[1]), "model.yaml.inputs") from error
        shown = " × ".join(map(str, given))
        raise NetworkUnfit(
            f"the network does not take {shown}, as the card means it: {_gist(error)}", "model.yaml.network"
        ) from error


def _zeros(card: ModelCard, window: Sequence[int]) -> Inputs:
    """A window, and the numbers of the card's parameters."""
    numbers = [np.zeros(len(card.own_parameters), np.float32)] if card.own_parameters else []
    return [np.zeros(tuple(window), np.float32), *numbers]


def _channels_taken(ask: Ask, card: ModelCard) -> int:
    """How many it would have taken; 0 when it is not the channels that are wrong."""
    for channels in range(1, _CHANNELS_MOST + 1):
        try:
            ask(_zeros(card, (1, channels, *window_of(card)[2:])))
        except _FAULTS:
            continue
        return channels
    return 0


def _gist(error: BaseException) -> str:
    """TorchScript has its own stack before what was wrong, torch advice behind it, OpenVINO lines of its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [found[1] for line in lines if (found := _RAISED.match(line))]
    plain = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    said = (named[-1:] or plain or lines or [type(error).__name__])[0]
    return said.partition(". ")[0].rstrip(".")


# ----------------------------------------------------------------------------------------- what reads a file


def _declared(file: Path, form: str) -> list[Shape]:
    """What OpenVINO reads of an ONNX file or an IR; nothing of what it does not read, or of other files."""
    if form not in ("onnx", "openvino"):
        return []
    import openvino

    try:
        model = openvino.Core().read_model(file)
    except RuntimeError:
        return []
    shapes = (port.partial_shape for port in model.inputs)
    return [[d.get_length() if d.is_static else None for d in s] for s in shapes if s.rank.is_static]


def _on_onnxruntime(file: Path) -> Ask:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda inputs: [one.shape for one in session.run(None, dict(zip(names, inputs, strict=True)))]


def _on_openvino(file: Path) -> Ask:
    import openvino

    core = openvino.Core()
    request = core.compile_model(core.read_model(file), "CPU").create_infer_request()

    def ask(inputs: Inputs) -> list[Shape]:
        request.infer(list(inputs))
        return [tuple(output.shape) for output in request.output_tensors]

    return ask


def _scripted(file: Path) -> Ask:
    import torch

    check_scripted(file)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return _on_torch(torch.jit.load(file, map_location="cpu").eval())  # type: ignore[no-untyped-call]


def _exported(file: Path) -> Ask:
    import torch

    return _on_torch(torch.export.load(file).module())


def _on_torch(module: Any) -> Ask:
    import torch

    def ask(inputs: Inputs) -> list[Shape]:
        try:
            with torch.no_grad():
                answer = module(*map(torch.from_numpy, inputs))
        except torch.jit.Error as error:  # what a script raises by itself
            raise RuntimeError(str(error)) from error
        found = answer if isinstance(answer, tuple | list) else (answer,)
        if not found or not all(isinstance(one, torch.Tensor) for one in found):
            raise TypeError(f"it answers with a {type(answer).__name__}, and a tensor or several are needed")
        return [tuple(one.shape) for one in found]

    return ask


_READERS: dict[str, Callable[[Path], Ask]] = {
    "onnx": _on_onnxruntime,
    "openvino": _on_openvino,
    "torchscript": _scripted,
    "torch-export": _exported,
}
_WORDS = {
    "onnx": "ONNX file",
    "openvino": "OpenVINO IR",
    "torchscript": "TorchScript file",
    "torch-export": "file of torch.export",
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
