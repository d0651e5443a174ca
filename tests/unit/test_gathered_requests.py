"""Requests that Triton hands over together: their images share batches, and none suffers for another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomnode.adapters.triton import in_process
from dicomnode.adapters.triton.hosts.choice import open_host
from dicomnode.adapters.triton.hosts.classify import ClassifyHost, filled
from dicomnode.adapters.triton.hosts.model import Host, HostSettings
from dicomnode.adapters.triton.in_process import _Request, _Tensor
from dicomnode.adapters.triton.tensors import small_inputs
from dicomnode.domain.halt import Halt
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from tests.class_models import classifier


class Delicate(torch.nn.Module):
    """By the mean; gives what is no number for an image that is as bright as can be."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        mean = torch.where(x.flatten(1).amax(1, keepdim=True) > 0.99, mean / 0.0, mean)
        return torch.cat([0.3 - mean, 0.0 * mean, mean - 0.6], 1)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    model = classifier(tmp_path / "model", Delicate(), "delicate", scores="logits")
    return open_host(
        in_process._BACKEND, HostSettings(Path(model.path), tmp_path / "cache", 1, "torchscript", "fp32")
    )


def request(images: int, value: int, halt: Halt | None = None) -> Any:
    volume = np.full((1, images, 20, 20), value, dtype=np.int16)
    nowhere = Placement(VolumeGeometry((images, 20, 20), np.eye(4)), Rescale(1.0, 0.0))
    arrays = {"VOLUME": volume, **{name: array[None] for name, array in small_inputs([nowhere], {}).items()}}
    tensors = {name: _Tensor(name, torch.from_numpy(array)) for name, array in arrays.items()}
    return _Request(tensors, time.monotonic() + 60, halt or Halt())


def scores(response: Any) -> torch.Tensor:
    assert response.error is None
    tensors = {tensor.name: tensor.value for tensor in response.outputs}
    assert tensors["SCORES"].shape[0] == tensors["TIMINGS"].shape[0] == 1
    found: torch.Tensor = tensors["SCORES"][0]
    return found


def test_each_gets_what_it_would_have_got_alone(host: Host) -> None:
    assert isinstance(host, ClassifyHost)
    asked = [(1, 100), (40, 500), (3, 900), (30, 200)]
    together = host.execute([request(*one) for one in asked])
    for one, response in zip(asked, together, strict=True):
        (alone,) = host.execute([request(*one)])
        assert scores(response).shape == (one[0], 3)
        assert float((scores(response) - scores(alone)).abs().max()) <= 1e-5


def test_one_that_the_network_fails_on_breaks_no_other(host: Host) -> None:
    first, broken, last = host.execute([request(2, 100), request(2, 1000), request(2, 900)])
    assert "ValueError: the network gives scores that are no numbers" in broken.error
    assert [int(scores(one)[0].argmax()) for one in (first, last)] == [0, 1]


def test_one_that_is_cancelled_is_left_out(host: Host) -> None:
    halt = Halt()
    halt.say("cancelled")
    first, cancelled = host.execute([request(2, 100), request(2, 100, halt)])
    assert cancelled.error == "cancelled by the client"
    assert scores(first).shape == (2, 3)


@pytest.mark.parametrize("sizes", [[1, 1, 1], [7], [3, 5, 1, 9], [4, 4]])
def test_pieces_fill_batches(sizes: list[int]) -> None:
    pieces = torch.split(torch.arange(sum(sizes)), sizes)
    batches = list(filled(pieces, 4))
    assert torch.equal(torch.cat(batches), torch.arange(sum(sizes)))
    assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)
    assert 0 < len(batches[-1]) <= 4
