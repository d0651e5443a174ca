"""A network in TorchScript that fails says what was wrong in one line; its stacks are in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from dicomnode.adapters.model_formats.opening import check_opens
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.errors import ModelFailed, NetworkUnfit
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest
from tests.asked import labelled
from tests.triton_models import axial, package

SHAPE = (4, 16, 16)
GEOMETRY = axial(SHAPE, (2.0, 1.5, 1.5))


class Raises(torch.nn.Module):
    """By a statement of its own, where it is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x > 0.9).any()):
            raise ValueError("there is too much\nlight in it")
        return torch.cat([0.5 - x, x - 0.5], 1)


class Folds(torch.nn.Module):
    """Into a shape that no window has, where it is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x > 0.9).any()):
            x = x.reshape(7, 13)
        return torch.cat([0.5 - x, x - 0.5], 1)


class Refuses(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == 9, "nine channels. No fewer"
        return x


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Raises(), "ValueError: there is too much light in it"),
        (Folds(), "RuntimeError: shape '[7, 13]' is invalid for input of size 32768"),
    ],
)
def test_in_process(module: torch.nn.Module, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dicomnode")
    model = package(tmp_path / "model", module, "dark", 1, engine="torchscript")
    with InProcessEngine(tmp_path / "engine", 1) as engine, engine.open(SHAPE) as session:
        session.volume[...] = 200
        request = InferenceRequest(model, GEOMETRY, Rescale(1.0, 0.0), timeout_s=60)
        with pytest.raises(ModelFailed) as failed, labelled(session, request):
            pass
    assert str(failed.value) == said
    assert "Traceback of TorchScript" in caplog.text


def test_before_it_is_kept(tmp_path: Path) -> None:
    model = package(tmp_path / "model", Refuses(), "nine", 1)
    with pytest.raises(NetworkUnfit, match=r"as the card means it: nine channels$"):
        check_opens(tmp_path / "model" / "model.ts", model.card)
