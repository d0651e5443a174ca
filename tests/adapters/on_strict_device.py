"""Every kind of model, its network on a device that is strict; tests/unit/test_strict_device.py runs this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dicomnode.adapters.triton.hosts import classify, model
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork, load_network
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.domain.model_card import NetworkSpec
from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.ports import InferenceRequest, ModelVersion
from tests.adapters.strict_device import DEVICE, Strict, There, network
from tests.class_models import AboveHalf, classifier
from tests.contract.test_outputs import OBLIQUE, RESCALE, SHAPE, stored
from tests.output_cards import OUTPUTS, output_package
from tests.triton_models import Thresholds, axial, package, random_unet

STRAIGHT = axial(SHAPE, (3.0, 1.1, 1.1))
HU = Rescale(1.0, -400.0)


def scripted(package: Path, spec: NetworkSpec, *others: Any) -> LoadedNetwork:
    """By the same engine here and there."""
    return load_network(package, dataclasses.replace(spec, engine="torchscript"), *others)


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Strict]:
    """Networks are loaded onto the device, and take four windows at once."""

    def loaded(*given: Any) -> LoadedNetwork:
        found = scripted(*given)
        return dataclasses.replace(found, run=network(found.answers), device=DEVICE, batch=max(found.batch, 4))

    for module in (model, classify):
        monkeypatch.setattr(module, "load_network", loaded)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # in which no tensor can be of a class of its own
    # a mode is of one thread
    monkeypatch.setattr(InProcessEngine, "_execute", InProcessEngine._tensors)
    with Strict() as mode:
        yield mode


def answers(
    folder: Path, version: ModelVersion, geometry: VolumeGeometry | None, rescale: Rescale
) -> dict[str, npt.NDArray[Any]]:
    request = InferenceRequest(version, geometry, rescale, timeout_s=120)
    with InProcessEngine(folder, 1) as engine, engine.open(SHAPE) as session:
        session.volume[...] = stored()
        with session.ask(request) as found:
            return {name: array.copy() for name, array in found.items()}


def compared(version: ModelVersion, geometry: VolumeGeometry | None, rescale: Rescale, tmp_path: Path) -> None:
    found = answers(tmp_path / "there", version, geometry, rescale)
    with pytest.MonkeyPatch.context() as patch:
        for module in (model, classify):
            patch.setattr(module, "load_network", scripted)
        wanted = answers(tmp_path / "here", version, geometry, rescale)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        if array.dtype == np.uint8:
            assert np.mean(found[name] != array) < 1e-3  # a tie after a softmax may fall the other way
        else:
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)
        assert len(np.unique(array)) > 1


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.usefixtures("strict")
def test_whatever_a_model_gives_it_gives_from_a_device(name: str, tmp_path: Path) -> None:
    version = output_package(tmp_path, name)
    compared(version, None if version.card.input.is_of_images else OBLIQUE, RESCALE, tmp_path)


@pytest.mark.parametrize("restore", ["labels", "scores", "probabilities"])
@pytest.mark.parametrize("blend", ["constant", "gaussian"])
def test_the_stored_values_go_there_once_and_the_labels_alone_come_back(
    restore: str, blend: str, strict: Strict, tmp_path: Path
) -> None:
    version = package(tmp_path / "unet", random_unet(), "unet", 2, engine="torchscript", restore=restore, blend=blend)
    compared(version, STRAIGHT, HU, tmp_path)
    voxels = int(np.prod(SHAPE))
    assert strict.sent.count(2 * voxels) == 1
    assert [nbytes for nbytes in strict.brought if nbytes > 16] == [voxels]
    indices = [nbytes for nbytes in strict.sent if nbytes != 2 * voxels]
    assert max(indices) <= 8 * max(*STRAIGHT.shape, 1024)  # positions along an axis, and one window's weights


@pytest.mark.usefixtures("strict")
def test_images_and_series_are_classified_from_a_device(tmp_path: Path) -> None:
    for of in ("series", "image"):
        version = classifier(tmp_path / of, AboveHalf(), of, of=of, low=-57, high=164)
        compared(version, STRAIGHT, HU, tmp_path / f"of-{of}")


def test_a_volume_that_lies_there_is_read_there(
    strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from CUDA shared memory: nothing is sent but positions, and it is left as it is."""
    version = package(tmp_path / "thresholds", Thresholds(), "thresholds", 1, engine="torchscript")
    expected = answers(tmp_path / "one", version, STRAIGHT, HU)
    real, put = model.Host._input, There(torch.from_numpy(stored()))

    def given(host: model.Host, request: Any, name: str) -> torch.Tensor:
        return put if name == "VOLUME" else real(host, request, name)

    monkeypatch.setattr(model.Host, "_input", given)
    strict.sent.clear()
    found = answers(tmp_path / "two", version, STRAIGHT, HU)
    np.testing.assert_array_equal(found["LABELMAP"], expected["LABELMAP"])
    np.testing.assert_array_equal(put.held.numpy(), stored())
    assert max(strict.sent) < put.nbytes // 4


def test_the_device_is_as_strict_as_a_gpu() -> None:
    with Strict():
        there = torch.ones(3).to(DEVICE)
        assert (there * 2).cpu().tolist() == [2.0, 2.0, 2.0]
        assert (there + torch.tensor(1.0)).device == DEVICE
        with pytest.raises(RuntimeError, match="on the CPU"):
            there + torch.ones(3)
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
        part = there[1:]
        part += 1
        assert there.cpu().tolist() == [1.0, 2.0, 2.0]
