"""An nnU-Net v2 model folder runs as nnU-Net runs it; without nnU-Net an error says what to install."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest

from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.errors import InferenceTimeout, ModelFailed
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest
from tests import nnunet_folder
from tests.asked import labelled
from tests.bundle_reference import dice
from tests.integration.test_bundles import added, of_node, written
from tests.triton_models import axial, document, registered

INSTALLED = importlib.util.find_spec("nnunetv2") is not None
needs_nnunet = pytest.mark.skipif(not INSTALLED, reason="nnunetv2 is not installed")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("dicom") / "series", downwards=True)


@needs_nnunet
@pytest.mark.filterwarnings("ignore")
def test_labels_are_those_of_nnunet(tmp_path: Path, series: Path) -> None:
    folder = nnunet_folder.write(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    model = added(tmp_path / "store", folder)
    assert (model.name, model.card.input.orientation) == ("dataset042_halves", "LPS")
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        found, _ = of_node(engine, model, [series])
        assert engine.describe(model)["chain"] == "nnU-Net's, 2 folds"
    wanted = nnunet_folder.labels_of(folder, [series], tmp_path)
    assert set(np.unique(wanted)) == {0, 1, 2}
    assert [dice(found, wanted, n) for n in range(3)] == pytest.approx([1.0] * 3, abs=1e-3)


@needs_nnunet
@pytest.mark.filterwarnings("ignore")
def test_several_channels_and_another_orientation(tmp_path: Path, series: Path) -> None:
    folder = nnunet_folder.write(tmp_path / "two", ("CT", "PET"), folds=1, seed=12)
    card = tmp_path / "card.yaml"
    card.write_text("input: {orientation: RAS}\ninputs: [{role: pet, modality: [CT]}]\n")
    model = added(tmp_path / "store", folder, card)
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        turned, _ = of_node(engine, model, [series, series])
        card.write_text("inputs: [{role: pet, modality: [CT]}]\n")
        as_it_lies, _ = of_node(engine, added(tmp_path / "store", folder, card), [series, series])
    wanted = nnunet_folder.labels_of(folder, [series, series], tmp_path)
    assert len(np.unique(wanted)) > 1
    assert (as_it_lies == wanted).mean() > 0.9995
    assert 0.5 < (turned == wanted).mean() < 0.999  # the network sees it the other way round; masks stay in place


@needs_nnunet
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_nobody_waits_for_is_stopped(tmp_path: Path) -> None:
    model = added(tmp_path / "store", nnunet_folder.write(tmp_path / "model"))
    geometry = axial((60, 200, 200), (3.0, 2.0, 2.0))
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        engine.describe(model)
        before = set(threading.enumerate())
        with (
            engine.open(geometry.shape) as session,
            pytest.raises(InferenceTimeout),
            labelled(session, InferenceRequest(model, geometry, Rescale(1, 0), timeout_s=1.0)),
        ):
            pass
        for thread in set(threading.enumerate()) - before:
            thread.join(60)
            assert not thread.is_alive(), "nnU-Net's own thread, with the image that it cuts windows from"


@pytest.mark.skipif(INSTALLED, reason="nnunetv2 is installed")
def test_without_nnunet_an_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")
    card = document("spleen", 1, file="fold_0/checkpoint_final.pth", format="nnunet")
    model = registered(tmp_path, card)
    with InProcessEngine(tmp_path / "engine", 2) as engine, pytest.raises(ModelFailed, match=r"dicomnode\[nnunet\]"):
        engine.describe(model)
