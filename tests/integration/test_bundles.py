"""MONAI bundles run as MONAI runs them, on the same DICOM files; no line of code for any of them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import yaml

from dicomnode.adapters.model_store import ModelStore, package_digest
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.errors import InvalidModelPackage, ModelFailed
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.geometry import Placement
from dicomnode.imaging.headers import Instance, read_instances
from dicomnode.imaging.volume import VolumePlan
from dicomnode.ports import InferenceEngine, InferenceRequest, ModelVersion
from tests import model_bundles
from tests.asked import labelled
from tests.bundle_reference import dice, labels_of, write_series
from tests.made_series import classic
from tests.real_data import folder_of

SAMPLE = Path(__file__).parents[2] / "sample_data" / "models" / "torso-ct"
SHAPE = (24, 60, 52)


def body(shape: tuple[int, int, int], seed: int) -> npt.NDArray[np.int16]:
    """(slice, row, column) int16, HU + 1000: a round body of soft tissue with noise and bone, in air."""
    s, r, c = np.indices(shape)
    inside = ((r - shape[1] / 2.2) / 22) ** 2 + ((c - shape[2] / 1.9) / 20) ** 2 < 1
    random = np.random.default_rng(seed)
    values = np.where(inside, 1040 + 30 * np.sin(r / 5) + 2 * s + random.normal(0, 40, shape), 0)
    values[:, 20:26, 24:30] = 1700
    return values.astype(np.int16)


def written(folder: Path, *, downwards: bool, seed: int = 3) -> Path:
    """A series of oblique slices; Instance Number grows towards the feet or towards the head."""
    made = classic(
        SHAPE[0],
        rows=SHAPE[1],
        columns=SHAPE[2],
        orientation=(1.0, 0.0, 0.0, 0.0, 0.984807753, -0.173648178),
        spacing=(1.6, 1.6),
        step_mm=2.2,
        values=body(SHAPE, seed),
    )
    for number, instance in enumerate(reversed(made) if downwards else made, 1):
        instance.InstanceNumber = number
    return write_series(folder, made)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbered from the head down."""
    return written(tmp_path_factory.mktemp("dicom") / "series", downwards=True)


@pytest.fixture(scope="module")
def upwards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbered from the feet up, so that MONAI's reader stacks slices as the node does."""
    return written(tmp_path_factory.mktemp("dicom") / "upwards", downwards=False)


def added(store: Path, package: Path, own_card: Path | None = None) -> ModelVersion:
    card, digest, place = ModelStore(store).add(package, own_card)
    return ModelVersion(1, card.name, card.version, digest, place, card, True)


def planned(folder: Path) -> tuple[VolumePlan, Sequence[Instance]]:
    instances = tuple(read_instances(sorted(folder.glob("*.dcm"))))
    return plan_instances(instances), instances


def of_node(
    engine: InferenceEngine, model: ModelVersion, folders: Sequence[Path]
) -> tuple[npt.NDArray[np.uint8], VolumePlan]:
    """(slice, row, column) uint8 in the node's order of slices."""
    (plan, instances), *others = [planned(folder) for folder in folders]
    with engine.open(plan.geometry.shape, [p.geometry.shape for p, _ in others]) as session:
        read_volume(plan, instances, session.volume)
        for volume, (other, further) in zip(session.further, others, strict=True):
            read_volume(other, further, volume)
        placements = [Placement(other.geometry, other.rescale) for other, _ in others]
        with labelled(
            session, InferenceRequest(model, plan.geometry, plan.rescale, timeout_s=200, further=placements)
        ) as labels:
            return labels.copy(), plan


def as_numbered(labels: npt.NDArray[np.uint8], plan: VolumePlan) -> npt.NDArray[np.uint8]:
    """In the order of Instance Number, as MONAI stacks slices."""
    numbers = [int(plan.headers[frame.instance].InstanceNumber) for frame in plan.frames]
    return labels[np.argsort(numbers)]


def compared(
    engine: InProcessEngine, model: ModelVersion, bundle: Path, folder: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Of the node and of MONAI, slices in the order of Instance Number."""
    labels, plan = of_node(engine, model, [folder])
    return as_numbered(labels, plan), labels_of(bundle, folder)


def check(found: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8], segments: int) -> None:
    assert set(np.unique(wanted)) == set(range(segments + 1)), "the reference marks something of each"
    assert [dice(found, wanted, n) for n in range(segments + 1)] == pytest.approx([1.0] * (segments + 1), abs=1e-3)


def test_the_spleen_bundle_runs_on_the_nodes_own_chain(tmp_path: Path, series: Path) -> None:
    bundle = model_bundles.spleen(tmp_path / "spleen_ct_segmentation")
    model = added(tmp_path / "store", bundle)
    assert (model.name, model.version, model.card.network.format) == (
        "spleen-ct-segmentation",
        "0.5.9",
        "monai-bundle",
    )
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        check(*compared(engine, model, bundle, series), 1)
        assert engine.describe(model)["chain"] == "the node's"
        chosen = replace(model, tuning={"chosen": {"engine": "torchscript", "precision": "fp32"}})
        assert engine.describe(chosen)["engine"].startswith("TorchScript")
        assert (of_node(engine, chosen, [series])[0] == of_node(engine, model, [series])[0]).mean() > 0.999


def test_another_chain_is_run_as_the_bundle_says(tmp_path: Path, series: Path) -> None:
    bundle = model_bundles.normalised(tmp_path / "bundle")
    model = added(tmp_path / "store", bundle)
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        check(*compared(engine, model, bundle, series), 2)
        assert "NormalizeIntensity" in engine.describe(model)["chain"]


def test_a_bundles_own_code_runs_and_leaves_the_package_as_it_was(tmp_path: Path, upwards: Path) -> None:
    bundle = model_bundles.scripted(tmp_path / "bundle")
    model = added(tmp_path / "store", bundle)
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        check(*compared(engine, model, bundle, upwards), 1)
        assert engine.describe(model)["chain"].startswith("the bundle's: ")
        assert package_digest(Path(model.path)) == model.digest


def test_the_sample_model_is_a_bundle_as_well(tmp_path: Path, series: Path) -> None:
    """Its loader is referred to by name, its network a TorchScript file: what follows is a package of our own."""
    bundle = tmp_path / "torso-ct"
    shutil.copytree(SAMPLE, bundle, ignore=shutil.ignore_patterns("model.yaml", "*.onnx"))
    own, derived = added(tmp_path / "store", SAMPLE), added(tmp_path / "store", bundle)
    assert (derived.card.network.file, derived.card.network.format) == ("models/model.ts", "torchscript")
    assert derived.card.input == own.card.input
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        expected, _ = of_node(engine, own, [series])
        found, _ = of_node(engine, derived, [series])
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() > 0.9999


@pytest.mark.real_data
@pytest.mark.parametrize("make", [model_bundles.spleen, model_bundles.normalised])
def test_a_real_ct_gets_the_labels_of_monai(tmp_path: Path, make: model_bundles.Maker) -> None:
    folder = folder_of("multi/sts_002/ct/image")
    bundle = make(tmp_path / "bundle")
    model = added(tmp_path / "store", bundle)
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        check(*compared(engine, model, bundle, folder), len(model.card.segments))


@pytest.mark.parametrize("transforms", ["$@listed", "$@listed[:2] + @listed[2:]"])
def test_transforms_may_be_listed_elsewhere(tmp_path: Path, series: Path, transforms: str) -> None:
    bundle = model_bundles.normalised(tmp_path / "bundle")
    file = bundle / "configs" / "inference.json"
    model = added(tmp_path / "store", bundle)
    chain = json.loads(file.read_text())
    chain["loading"], *others = chain["preprocessing"]["transforms"]
    chain["listed"] = ["@loading", *others]
    chain["preprocessing"]["transforms"] = transforms
    file.write_text(json.dumps(chain))
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        expected, _ = of_node(engine, model, [series])
        found, _ = of_node(engine, added(tmp_path / "store", bundle), [series])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed")
def test_the_largest_part_of_each_organ_is_kept(tmp_path: Path, series: Path) -> None:
    bundle = model_bundles.own_chain(tmp_path / "bundle")
    model = added(tmp_path / "store", bundle)
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        check(*compared(engine, model, bundle, series), 2)


@pytest.mark.skipif(importlib.util.find_spec("skimage") is not None, reason="scikit-image is installed")
def test_a_library_that_a_bundle_needs_is_named(tmp_path: Path, series: Path) -> None:
    model = added(tmp_path / "store", model_bundles.own_chain(tmp_path / "bundle"))
    with InProcessEngine(tmp_path / "engine", 2) as engine, pytest.raises(ModelFailed, match="Skimage"):
        of_node(engine, model, [series])


def test_channels_come_from_several_series_and_masks_are_made_into_labels(tmp_path: Path, upwards: Path) -> None:
    bundle = model_bundles.merged(tmp_path / "bundle")
    model = added(tmp_path / "store", bundle)
    assert [role.name for role in model.card.roles] == ["flair"]
    assert [(one.name, one.label) for one in model.card.segments] == [
        ("Whole tumor outside Enhancing tumor", 1),
        ("Enhancing tumor", 4),
    ]
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        found, _ = of_node(engine, model, [upwards, upwards])
        of_other, _ = of_node(engine, model, [upwards, other_noise(tmp_path)])
    wanted = labels_of(bundle, [upwards, upwards])
    check(found, np.where(wanted == 4, 2, wanted), 2)
    assert (of_other != found).any()


def test_labels_that_no_words_say_need_a_card_with_their_values(tmp_path: Path, upwards: Path) -> None:
    bundle = model_bundles.merged(tmp_path / "bundle", "$lambda x: 4 * x[[0]] + 4 * x[[1]]")
    with pytest.raises(InvalidModelPackage, match=r"Lambda makes labels of Whole tumor, Enhancing tumor") as error:
        added(tmp_path / "store", bundle)
    printed = yaml.safe_load(str(error.value).partition("\n\n")[2])
    own, card = printed["output"]["segments"], tmp_path / "card.yaml"
    card.write_text(yaml.safe_dump(printed))
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        with pytest.raises(ModelFailed, match="the labels 4, 8, which are none"):
            of_node(engine, added(tmp_path / "store", bundle, card), [upwards, upwards])
        own[0]["value"], own[1]["value"] = 4, 8
        card.write_text(yaml.safe_dump(printed))
        found, _ = of_node(engine, added(tmp_path / "store", bundle, card), [upwards, upwards])
    check(found, labels_of(bundle, [upwards, upwards]) // 4, 2)


@pytest.mark.skipif(importlib.util.find_spec("einops") is None, reason="einops is not installed")
def test_arguments_that_monai_has_taken_away_since_are_left_out(tmp_path: Path, series: Path) -> None:
    model = added(tmp_path / "store", model_bundles.transformer(tmp_path / "bundle"))
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        assert of_node(engine, model, [series])[0].any()


def test_an_architecture_may_come_as_arrays_beside_the_weights(tmp_path: Path, series: Path) -> None:
    model = added(tmp_path / "store", model_bundles.searched(tmp_path / "bundle"))
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        assert of_node(engine, model, [series])[0].any()


def other_noise(tmp_path: Path) -> Path:
    return written(tmp_path / "other", downwards=False, seed=8)


def test_images_of_several_names_are_made_into_one_by_the_bundle(tmp_path: Path, upwards: Path) -> None:
    bundle = model_bundles.two_phases(tmp_path / "bundle")
    model = added(tmp_path / "store", bundle)
    assert [(role.name, role.modality) for role in model.card.roles] == [("venous", ("CT",))]
    other = other_noise(tmp_path)
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        found, _ = of_node(engine, model, [upwards, other])
    check(found, labels_of(bundle, {"arterial": upwards, "venous": other}), 2)


def test_series_of_other_grids_are_brought_into_that_of_the_first(tmp_path: Path, upwards: Path) -> None:
    """As MONAI says of them once they are in one grid; as they are, it does not put them together."""
    bundle = model_bundles.two_phases(tmp_path / "bundle")
    model = added(tmp_path / "store", bundle)
    whole, part = other_noise(tmp_path), tmp_path / "part"
    part.mkdir()
    for file in sorted(whole.glob("*.dcm"), key=lambda one: int(pydicom.dcmread(one).InstanceNumber))[2:]:
        shutil.copy(file, part)
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        found, _ = of_node(engine, model, [upwards, part])
        wanted, _ = of_node(engine, model, [upwards, whole])
    assert found.shape == wanted.shape
    assert (found[8:] == wanted[8:]).mean() > 0.99


def test_a_network_that_is_asked_for_labels_is_asked_for_everything(tmp_path: Path, series: Path) -> None:
    """As its evaluator does where nobody names a label. What it is not asked for is no segment: it is not absent."""
    bundle = model_bundles.asked_for_labels(tmp_path / "bundle")
    model = added(tmp_path / "store", bundle)
    assert [(one.number, one.label, one.name) for one in model.card.segments] == [
        (1, 1, "Liver"),
        (2, 3, "Spleen"),
        (3, 4, "Pancreas"),
    ]
    with InProcessEngine(tmp_path / "engine", 2) as engine:
        found, _ = of_node(engine, model, [series])
    assert set(np.unique(found)) == {0, 1, 2, 3}
