"""The sample classifier as it is packed: its golden case, and real patients on whom it was not trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomnode.adapters.golden_cases import read_golden_cases
from dicomnode.adapters.model_store import package_digest, read_card
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.domain.acceptance import AcceptanceOutcome
from dicomnode.domain.classification import decided
from dicomnode.imaging.decode import read_frames
from dicomnode.imaging.headers import read_instances
from dicomnode.imaging.images import plan_images
from dicomnode.ports import InferenceRequest, ModelVersion
from dicomnode.stages.accept import AcceptStage
from sample_data.region_slices import ABDOMEN, CHEST, REGIONS
from sample_data.train_regions import PACKAGE
from tests.asked import scored

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessEngine]:
    with InProcessEngine(tmp_path_factory.mktemp("engine"), 1) as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> ModelVersion:
    card = read_card(PACKAGE)
    return ModelVersion(1, card.name, card.version, package_digest(PACKAGE), PACKAGE, card, True)


def test_its_golden_case_passes_and_its_classes_are_those_it_was_trained_for(
    engine: InProcessEngine, model: ModelVersion
) -> None:
    cases = read_golden_cases(PACKAGE, model.card)
    assert AcceptStage(engine, SystemClock(), 60).accept(model, cases).outcome is AcceptanceOutcome.PASSED
    assert model.card.classification is not None
    assert tuple(one.name for one in model.card.classification.classes) == REGIONS


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
def test_a_patient_it_was_not_trained_on(engine: InProcessEngine, model: ModelVersion) -> None:
    instances = read_instances(sorted((DATA / "ct" / "crlm-1004").glob("*.dcm")))
    (stack,) = plan_images([instance.header for instance in instances]).stacks
    with engine.open(stack.shape) as session:
        read_frames(stack, instances, session.volume)
        scores = scored(session, InferenceRequest(model, None, stack.rescale, timeout_s=60))
    spec = model.card.classification
    assert spec is not None
    found = [decided(row, spec) for row in scores.tolist()]
    # as its card says: 29 of the abdomen, six between, six of the chest; from the feet up
    assert found[:29] == [ABDOMEN] * 29
    assert found[35:] == [CHEST] * 6
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
