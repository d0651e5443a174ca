"""MONAI bundles that give classes: the scores that MONAI gives, of the same DICOM files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.imaging.decode import read_volume
from dicomnode.ports import InferenceRequest, ModelVersion
from tests import model_bundles
from tests.asked import scored
from tests.bundle_reference import scores_of
from tests.integration.test_bundles import added, planned, written


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbered from the feet up, as MONAI's reader and the node stack slices."""
    return written(tmp_path_factory.mktemp("dicom") / "series", downwards=False)


def scores_of_node(engine: InProcessEngine, model: ModelVersion, folder: Path) -> npt.NDArray[np.float32]:
    """(image, class) in the order of Instance Number; one row of a series."""
    plan, instances = planned(folder)
    with engine.open(plan.geometry.shape) as session:
        read_volume(plan, instances, session.volume)
        scores = scored(session, InferenceRequest(model, plan.geometry, plan.rescale, timeout_s=200))
    numbers = [int(plan.headers[frame.instance].InstanceNumber) for frame in plan.frames]
    return scores[np.argsort(numbers)] if len(scores) > 1 else scores


@pytest.mark.parametrize("colours", [False, True])
def test_a_classifier_of_images_gives_the_scores_of_monai(tmp_path: Path, series: Path, colours: bool) -> None:
    bundle = model_bundles.classifier(tmp_path / "bundle", colours=colours)
    model = added(tmp_path / "store", bundle)
    assert (model.card.input.size, model.card.classification is not None) == ((40, 48), True)
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        found = scores_of_node(engine, model, series)
    files = sorted(series.glob("*.dcm"), key=lambda f: int(pydicom.dcmread(f).InstanceNumber))
    wanted = np.stack([scores_of(bundle, file, colours=colours) for file in files])
    assert len(np.unique(wanted.round(4), axis=0)) > 1
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_classifier_of_series_gives_the_scores_of_monai(tmp_path: Path, series: Path) -> None:
    bundle = model_bundles.classifier(tmp_path / "bundle", of_series=True)
    model = added(tmp_path / "store", bundle)
    assert model.card.classification is not None
    assert model.card.classification.of == "series"
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        found = scores_of_node(engine, model, series)
    np.testing.assert_allclose(found, scores_of(bundle, series)[None], atol=1e-4)
