"""Bundles' own transforms on a device that is strict; tests/unit/test_strict_device.py runs this file.

The tests of a real GPU are among them, so that the first machine with one finds no mistake in the tests.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms.intensity.dictionary import ScaleIntensityRanged
from monai.transforms.spatial.dictionary import Spacingd
from monai.transforms.transform import MapTransform
from torch.utils._pytree import tree_flatten, tree_map_only

from dicomnode.adapters.triton.hosts.bundle import Bundle
from dicomnode.adapters.triton.hosts.model import Host
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.imaging.inference import CPU
from dicomnode.ports import ModelVersion
from tests import model_bundles
from tests.adapters.strict_device import DEVICE, Strict, There
from tests.bundle_answers import VOXELS, Answered, Change, changed, of_cpu, on, transforms
from tests.integration import test_gpu
from tests.integration.test_bundles import SHAPE, added, body
from tests.integration.test_gpu import (  # noqa: F401
    test_a_bundles_own_transforms_run_there,
    test_a_chain_for_which_there_is_no_room_is_done_by_the_cpu,
    test_what_a_bundle_does_with_numpy_is_done_on_the_host,
)

AS_NUMPY = {"_target_": "Lambdad", "keys": "pred", "func": "$lambda p: torch.from_numpy(p.numpy().copy())"}
NEEDS_SKIMAGE = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed"
)


class OnDevice:
    """A network that takes tensors on the device alone, and answers there."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def __call__(self, *inputs: Any, **named: Any) -> torch.Tensor:
        given = [one for one in tree_flatten((inputs, named))[0] if isinstance(one, torch.Tensor)]
        assert all(isinstance(one, There) for one in given), "the network was given a tensor of the CPU"
        plain, beside = tree_map_only(There, lambda one: one.held, (inputs, named))
        return There(self._module(*plain, **beside).clone())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Strict]:
    """Bundles are loaded onto the device; their networks take tensors there, and give some."""
    real = Bundle.network

    def loaded(bundle: Bundle) -> Any:
        if bundle.device.type == "cpu":
            return real(bundle)
        return OnDevice(real(Bundle(bundle.folder, CPU)))

    monkeypatch.setattr(Bundle, "network", loaded)
    monkeypatch.setattr(InProcessEngine, "_execute", InProcessEngine._tensors)  # a mode is of one thread
    with on(DEVICE), Strict() as mode:
        yield mode


def compared(tmp_path: Path, model: ModelVersion, strict: Strict, runs: int = 1) -> Answered:
    """The answer on the device, which is that of the CPU; what was sent and brought is of the last run."""
    wanted = of_cpu(tmp_path / "here", model)
    found = Answered(tmp_path / "there", model, strict, runs)
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, atol=1e-6)
        assert len(np.unique(array)) > 1
    return found


def test_the_stored_values_go_there_once_and_the_labels_alone_come_back(strict: Strict, tmp_path: Path) -> None:
    found = compared(tmp_path, changed(tmp_path, lambda chain: None), strict)
    assert strict.large == ([2 * VOXELS], [VOXELS])
    assert "by the CPU" not in found.chain


@pytest.mark.parametrize("make", [model_bundles.scripted, model_bundles.two_phases, model_bundles.asked_for_labels])
def test_bundles_of_every_kind_run_there(make: model_bundles.Maker, strict: Strict, tmp_path: Path) -> None:
    """Code of the bundle's own, and several series of which the bundle makes one image."""
    model = added(tmp_path / "store", make(tmp_path / "bundle"))
    compared(tmp_path, model, strict)
    assert strict.large == ([2 * VOXELS] * (1 + len(model.card.roles)), [VOXELS])


def test_channels_of_several_series_are_put_together_there(strict: Strict, tmp_path: Path) -> None:
    compared(tmp_path, added(tmp_path / "store", model_bundles.merged(tmp_path / "bundle")), strict)
    assert strict.large == ([2 * VOXELS] * 2, [VOXELS])


def test_a_volume_that_lies_there_is_read_there_and_left_as_it_is(
    strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from CUDA shared memory, which other models read too."""
    model = changed(tmp_path, lambda chain: None)
    wanted = Answered(tmp_path / "one", model, strict)
    real, put = Host._input, There(torch.from_numpy(body(SHAPE, 3)))
    monkeypatch.setattr(Host, "_input", lambda host, request, n: put if n == "VOLUME" else real(host, request, n))
    found = Answered(tmp_path / "two", model, strict)
    np.testing.assert_array_equal(found.arrays["LABELMAP"], wanted.arrays["LABELMAP"])
    np.testing.assert_array_equal(put.held.numpy(), body(SHAPE, 3))
    assert strict.large == ([], [VOXELS])


def nested(chain: dict[str, Any]) -> None:
    first, second, *others = transforms(chain, "pre")
    chain["preprocessing"]["transforms"] = [first, second, {"_target_": "Compose", "transforms": others}]


def lazily(chain: dict[str, Any]) -> None:
    chain["preprocessing"]["lazy"] = True


@pytest.mark.parametrize("change", [nested, lazily])
def test_a_chain_in_a_chain_and_one_that_resamples_at_the_end(change: Change, strict: Strict, tmp_path: Path) -> None:
    compared(tmp_path, changed(tmp_path, change), strict)
    assert strict.large == ([2 * VOXELS], [VOXELS])


@pytest.mark.parametrize("of_series", [False, True])
def test_classes_are_found_there(of_series: bool, strict: Strict, tmp_path: Path) -> None:
    bundle = model_bundles.classifier(tmp_path / "bundle", of_series=of_series)
    compared(tmp_path, added(tmp_path / "store", bundle), strict)
    assert strict.large == ([2 * VOXELS], [])


@NEEDS_SKIMAGE
def test_what_numpy_alone_does_gets_the_host_s_memory_and_nothing_goes_back(strict: Strict, tmp_path: Path) -> None:
    """KeepLargestConnectedComponentd comes last: its labels stay on the host."""
    found = compared(tmp_path, added(tmp_path / "store", model_bundles.own_chain(tmp_path / "bundle")), strict)
    assert strict.large == ([2 * VOXELS], [4 * VOXELS])  # MONAI's labels are float32
    assert found.chain.endswith(", by the CPU: KeepLargestConnectedComponentd")


def test_in_the_middle_of_a_chain_it_goes_back(strict: Strict, tmp_path: Path) -> None:
    def filled(chain: dict[str, Any]) -> None:
        transforms(chain, "post").insert(-1, {"_target_": "FillHolesd", "keys": "pred"})
        transforms(chain, "post").insert(-1, {"_target_": "AsDiscreted", "keys": "pred", "rounding": "torchrounding"})

    found = compared(tmp_path, changed(tmp_path, filled), strict)
    assert strict.large == ([2 * VOXELS, 4 * VOXELS], [4 * VOXELS, VOXELS])
    assert found.chain.endswith(", by the CPU: FillHolesd")


def test_code_of_the_bundle_that_fails_there_gets_the_host_s_memory(
    strict: Strict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried once."""
    model = changed(tmp_path, lambda chain: transforms(chain, "post").insert(-1, AS_NUMPY))
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
        Answered(tmp_path / "there", model, strict)


def test_a_gpu_that_a_bundle_names_is_the_model_s(strict: Strict, tmp_path: Path) -> None:
    def named(chain: dict[str, Any]) -> None:
        transforms(chain, "pre")[-1]["device"] = "cuda:0"
        transforms(chain, "post").insert(0, {"_target_": "EnsureTyped", "keys": "pred", "device": "@device"})

    compared(tmp_path, changed(tmp_path, named), strict)
    assert strict.large == ([2 * VOXELS], [VOXELS])


def test_what_a_bundle_has_on_the_cpu_stays_there(strict: Strict, tmp_path: Path) -> None:
    """Scores that are put together in the host's memory: how bundles of many classes go with a small GPU."""
    found = compared(tmp_path, changed(tmp_path, lambda chain: chain["inferer"].update(device="cpu")), strict)
    assert strict.large[0] == [2 * VOXELS]
    assert VOXELS not in strict.brought
    assert len(strict.large[1]) > 1  # a window's scores each
    assert "by the CPU" not in found.chain


@pytest.fixture
def crossings(strict: Strict) -> Strict:
    """For the tests of a GPU, whose device is the strict one here."""
    return strict


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes the memory of a GPU there, small here."""

    @contextmanager
    def full() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spacingd, "__call__", without_room(Spacingd))
            yield

    monkeypatch.setattr(test_gpu, "short_of_memory", full)
    monkeypatch.setattr(test_gpu, "FINE_MM", 2.0)


def without_room(kind: type[MapTransform]) -> Any:
    """Its __call__ where the device has no memory left."""
    real = kind.__call__

    def called(transform: Any, data: Any, *more: Any, **named: Any) -> Any:
        if any(isinstance(value, There) for value in data.values()):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(transform, data, *more, **named)

    return called


def test_without_room_the_cpu_does_the_chain_and_says_so(
    strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The network stays on the device: window by window goes there."""
    model = changed(tmp_path, lambda chain: transforms(chain, "pre").append(model_bundles.SCALED))
    monkeypatch.setattr(ScaleIntensityRanged, "__call__", without_room(ScaleIntensityRanged))
    with caplog.at_level(logging.WARNING):
        found = compared(tmp_path, model, strict)
    assert found.chain.endswith(", by the CPU: the GPU had no room")
    assert any("the GPU has no room for the transforms of" in line for line in caplog.messages)
    windows = 4 * 32**3
    assert set(strict.large[0][1:]) <= {windows * n for n in (1, 2, 3, 4)}


def test_what_a_network_is_asked_goes_to_it_from_the_cpu_too(
    strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spacingd, "__call__", without_room(Spacingd))
    model = added(tmp_path / "store", model_bundles.asked_for_labels(tmp_path / "bundle"))
    assert compared(tmp_path, model, strict).chain.endswith(", by the CPU: the GPU had no room")


def test_without_room_for_the_network_the_job_fails_and_says_why(
    strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*windows: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Bundle, "network", lambda bundle: full)
    with pytest.raises(Exception, match="CUDA out of memory"):
        Answered(tmp_path / "there", changed(tmp_path, lambda chain: None), strict)
