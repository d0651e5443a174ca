"""Bundles' own transforms on a device that is strict; tests/unit/test_strict_device.py runs this file."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from monai.transforms.intensity.dictionary import ScaleIntensityRanged

from dicomnode.adapters.triton.hosts import bundle_classify, bundle_host
from dicomnode.adapters.triton.hosts.bundle import Bundle
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.errors import InvalidModelPackage
from dicomnode.imaging.geometry import Placement, Rescale
from dicomnode.imaging.inference import CPU
from dicomnode.ports import InferenceRequest, ModelVersion
from tests import model_bundles
from tests.adapters.strict_device import DEVICE, Strict, There, network
from tests.integration.test_bundles import SHAPE, added, body
from tests.triton_models import axial

PLACE = Placement(axial(SHAPE, (2.2, 1.6, 1.6)), Rescale(1.0, -1000.0))
VOXELS = int(np.prod(SHAPE))
SMALL = 1024  # bytes of an affine, of numbers along an axis
LOWEST = {"_target_": "Lambdad", "keys": "pred", "func": "$lambda p: torch.from_numpy(p.numpy().copy())"}
NEEDS_SKIMAGE = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed"
)
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Strict]:
    """Bundles are loaded onto the device; their networks take tensors there, and give some."""
    real = Bundle.network

    def loaded(bundle: Bundle) -> Any:
        if bundle.device.type == "cpu":
            return real(bundle)
        module = real(Bundle(bundle.folder, CPU))
        run = network(lambda *windows: (module(*windows),))
        return lambda *windows: run(*windows)[0]

    monkeypatch.setattr(Bundle, "network", loaded)
    for module in (bundle_host, bundle_classify):
        monkeypatch.setattr(module, "device_here", lambda: DEVICE)
    monkeypatch.setattr(InProcessEngine, "_execute", InProcessEngine._tensors)  # a mode is of one thread
    with Strict() as mode:
        yield mode


class Answered:
    """What an engine answered, and what it says of itself."""

    def __init__(self, folder: Path, model: ModelVersion, runs: int = 1) -> None:
        series = 1 + len(model.card.roles)
        request = InferenceRequest(
            model, PLACE.geometry, PLACE.rescale, timeout_s=120, further=[PLACE] * (series - 1)
        )
        with InProcessEngine(folder, 1) as engine:
            with engine.open(SHAPE, [SHAPE] * (series - 1)) as session:
                for number, volume in enumerate([session.volume, *session.further]):
                    volume[...] = body(SHAPE, 3 + number)
                for _ in range(runs):
                    with session.ask(request) as found:
                        self.arrays = {name: array.copy() for name, array in found.items()}
            self.chain = engine.describe(model)["chain"]

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """(slice, row, column)."""
        return self.arrays["LABELMAP"]


def on_cpu(folder: Path, model: ModelVersion) -> Answered:
    """As on a machine without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (bundle_host, bundle_classify):
            patch.setattr(module, "device_here", lambda: CPU)
        return Answered(folder, model)


def changed(tmp_path: Path, change: Change, make: model_bundles.Maker = model_bundles.normalised) -> ModelVersion:
    """A bundle with another inference.json; transforms at 0 and 1 of `before` load it and put channels first."""
    bundle = make(tmp_path / "bundle")
    file = bundle / "configs" / "inference.json"
    chain = json.loads(file.read_text())
    change(chain)
    file.write_text(json.dumps(chain))
    return added(tmp_path / "store", bundle)


def compared(tmp_path: Path, model: ModelVersion, strict: Strict, runs: int = 1) -> Answered:
    """The answer on the device, which is that of the CPU; what was sent and brought is of the last run."""
    wanted = on_cpu(tmp_path / "here", model)
    strict.sent.clear(), strict.brought.clear()
    found = Answered(tmp_path / "there", model, runs)
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, atol=1e-6)
        assert len(np.unique(array)) > 1
    return found


def large(nbytes: list[int]) -> list[int]:
    return [n for n in nbytes if n > SMALL]


def transforms(chain: dict[str, Any], when: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chain[f"{when}processing"]["transforms"]
    return found


def test_the_stored_values_go_there_once_and_the_labels_alone_come_back(strict: Strict, tmp_path: Path) -> None:
    found = compared(tmp_path, changed(tmp_path, lambda chain: None), strict)
    assert large(strict.sent) == [2 * VOXELS]
    assert large(strict.brought) == [VOXELS]
    assert "by the CPU" not in found.chain


@pytest.mark.parametrize("make", [model_bundles.scripted, model_bundles.two_phases])
def test_bundles_of_every_kind_run_there(make: model_bundles.Maker, strict: Strict, tmp_path: Path) -> None:
    """Code of the bundle's own, and several series of which the bundle makes one image."""
    model = added(tmp_path / "store", make(tmp_path / "bundle"))
    compared(tmp_path, model, strict)
    assert large(strict.sent) == [2 * VOXELS] * (1 + len(model.card.roles))
    assert large(strict.brought) == [VOXELS]


def test_channels_of_several_series_are_put_together_there(strict: Strict, tmp_path: Path) -> None:
    bundle, card = model_bundles.merged(tmp_path / "bundle"), tmp_path / "card.yaml"
    with pytest.raises(InvalidModelPackage) as error:
        added(tmp_path / "store", bundle)
    printed = yaml.safe_load(str(error.value).partition("\n\n")[2])
    printed["output"]["segments"][1]["value"] = 4
    card.write_text(yaml.safe_dump(printed))
    compared(tmp_path, added(tmp_path / "store", bundle, card), strict)
    assert large(strict.sent) == [2 * VOXELS] * 2
    assert large(strict.brought) == [VOXELS]


@pytest.mark.parametrize("of_series", [False, True])
def test_classes_are_found_there(of_series: bool, strict: Strict, tmp_path: Path) -> None:
    bundle = model_bundles.classifier(tmp_path / "bundle", of_series=of_series)
    compared(tmp_path, added(tmp_path / "store", bundle), strict)
    assert large(strict.sent) == [2 * VOXELS]
    assert large(strict.brought) == []


@NEEDS_SKIMAGE
def test_what_numpy_alone_does_gets_the_host_s_memory_and_nothing_goes_back(strict: Strict, tmp_path: Path) -> None:
    """KeepLargestConnectedComponentd comes last: its labels stay on the host."""
    found = compared(tmp_path, added(tmp_path / "store", model_bundles.own_chain(tmp_path / "bundle")), strict)
    assert large(strict.sent) == [2 * VOXELS]
    assert large(strict.brought) == [4 * VOXELS]  # MONAI's labels are float32
    assert found.chain.endswith(", by the CPU: KeepLargestConnectedComponentd")


def test_in_the_middle_of_a_chain_it_goes_back(strict: Strict, tmp_path: Path) -> None:
    def filled(chain: dict[str, Any]) -> None:
        transforms(chain, "post").insert(-1, {"_target_": "FillHolesd", "keys": "pred"})
        transforms(chain, "post").insert(-1, {"_target_": "AsDiscreted", "keys": "pred", "rounding": "torchrounding"})

    found = compared(tmp_path, changed(tmp_path, filled), strict)
    assert large(strict.sent) == [2 * VOXELS, 4 * VOXELS]
    assert large(strict.brought) == [4 * VOXELS, VOXELS]
    assert found.chain.endswith(", by the CPU: FillHolesd")


def test_code_of_the_bundle_that_fails_there_gets_the_host_s_memory(
    strict: Strict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried once."""
    model = changed(tmp_path, lambda chain: transforms(chain, "post").insert(-1, LOWEST))
    with caplog.at_level(logging.WARNING):
        found = compared(tmp_path, model, strict, runs=2)
    said = [line for line in caplog.messages if "is given the host's memory" in line]
    assert len(said) == 1
    assert said[0].startswith("Lambdad fails on strict:0")
    assert found.chain.endswith(", by the CPU: Lambdad")


def test_what_fails_on_both_is_the_bundle_s_mistake(strict: Strict, tmp_path: Path) -> None:
    wrong = {"_target_": "Lambdad", "keys": "pred", "func": "$lambda p: p + torch.zeros(7, 7, 7, 7)"}
    model = changed(tmp_path, lambda chain: transforms(chain, "post").insert(-1, wrong))
    with pytest.raises(Exception, match="must match the size of tensor"):
        Answered(tmp_path / "there", model)


def test_a_gpu_that_a_bundle_names_is_the_model_s(strict: Strict, tmp_path: Path) -> None:
    def named(chain: dict[str, Any]) -> None:
        transforms(chain, "pre")[-1]["device"] = "cuda:0"
        transforms(chain, "post").insert(0, {"_target_": "EnsureTyped", "keys": "pred", "device": "@device"})

    compared(tmp_path, changed(tmp_path, named), strict)
    assert large(strict.sent) == [2 * VOXELS]
    assert large(strict.brought) == [VOXELS]


def test_what_a_bundle_has_on_the_cpu_stays_there(strict: Strict, tmp_path: Path) -> None:
    """Scores that are put together in the host's memory: how bundles of many classes go with a small GPU."""
    found = compared(tmp_path, changed(tmp_path, lambda chain: chain["inferer"].update(device="cpu")), strict)
    assert large(strict.sent) == [2 * VOXELS]
    assert VOXELS not in strict.brought
    assert len(large(strict.brought)) > 1  # a window's scores each
    assert "by the CPU" not in found.chain


def test_without_room_the_cpu_does_the_chain_and_says_so(
    strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The network stays on the device: window by window goes there."""
    model = changed(tmp_path, lambda chain: transforms(chain, "pre").append(model_bundles.SCALED))
    real = ScaleIntensityRanged.__call__

    def called(transform: Any, data: Any) -> Any:
        if any(isinstance(value, There) for value in data.values()):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(transform, data)

    monkeypatch.setattr(ScaleIntensityRanged, "__call__", called)
    with caplog.at_level(logging.WARNING):
        found = compared(tmp_path, model, strict)
    assert found.chain.endswith(", by the CPU: the GPU had no room")
    assert any("the GPU has no room for the transforms of" in line for line in caplog.messages)
    windows = 4 * 32**3
    assert set(large(strict.sent)[1:]) <= {windows * n for n in (1, 2, 3, 4)}


def test_without_room_for_the_network_the_job_fails_and_says_why(
    strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*windows: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Bundle, "network", lambda bundle: full)
    with pytest.raises(Exception, match="CUDA out of memory"):
        Answered(tmp_path / "there", changed(tmp_path, lambda chain: None))
