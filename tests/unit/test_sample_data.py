"""The invented studies and the sample model: repeatable, valid, and as good as the card says."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
import yaml
from pydicom.sr.codedict import codes

from dicomnode.domain.model_card import parse_model_card
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.imaging.volume import plan_volume
from sample_data.anatomy import Setting, paint_patient
from sample_data.canvas import Grid
from sample_data.contrast import with_contrast
from sample_data.dicom_files import PADDING
from sample_data.evaluate import Case, dice, measured, predict, references
from sample_data.export import PACKAGE
from sample_data.net import CLASSES, TorsoNet
from sample_data.phantom import PROTOCOLS, Scan, make_scan, write_scan
from sample_data.real import REAL_DATA, body_mask, read_series, total_segmentator_example
from sample_data.tissue import T, class_map
from sample_data.train import bone_loss, rate_at
from sample_data.training_data import Samples, scaled, shown_classes, to_ras

# The same scans on a coarse matrix: enough to see everything, a tenth of the time
SMALL = {name: replace(p, matrix=128, pixel_mm=3.125) for name, p in PROTOCOLS.items()}
COARSE = {name: replace(p, step_mm=15.0, thickness_mm=10.0) for name, p in SMALL.items()}
STEEP = COARSE["chest-abdomen"]
SLAB = replace(STEEP, matrix=100, pixel_mm=4.0, low_mm=5, high_mm=115, step_mm=5.0, thickness_mm=5.0)
SEED = 3

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@cache
def coarse_scan(protocol: str) -> Scan:
    return make_scan(COARSE[protocol], SEED, canvas_mm=5.0)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return make_scan(STEEP, 11, canvas_mm=4.0)


@pytest.fixture(scope="module")
def slab() -> Scan:
    """Lower chest and upper abdomen, four windows of the network."""
    return make_scan(SLAB, 11, canvas_mm=2.5)


@pytest.fixture(scope="module")
def labels(slab: Scan, network: torch.jit.ScriptModule) -> np.ndarray:
    return predict(slab.hu, slab.geometry, parse_model_card(card()), network)


@pytest.fixture(scope="module")
def network() -> torch.jit.ScriptModule:
    return torch.jit.load(str(PACKAGE / "models" / "model.ts")).eval()


def card() -> object:
    return yaml.safe_load((PACKAGE / "model.yaml").read_text())


def written(folder: Path, protocol: str) -> list[pydicom.Dataset]:
    write_scan(folder, coarse_scan(protocol), COARSE[protocol], SEED)
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]


def test_a_seed_gives_the_same_scan_and_another_seed_another() -> None:
    one, same, other = (make_scan(STEEP, seed, canvas_mm=5.0) for seed in (1, 1, 2))
    assert np.array_equal(one.hu, same.hu)
    assert np.array_equal(one.classes, same.classes)
    assert (one.classes != other.classes).mean() > 0.02


def test_a_patient_has_everything_in_its_place_at_its_density(scan: Scan) -> None:
    middle = {name: np.median(scan.hu[scan.classes == i]) for i, name in enumerate(("air", "lungs", "bone", "body"))}
    assert middle["air"] < -950 < middle["lungs"] < -650
    assert -150 < middle["body"] < 120
    assert middle["bone"] > 150
    litres = np.bincount(scan.classes.ravel(), minlength=7) * np.prod(scan.spacing_mm) / 1e6
    assert 1.5 < litres[1] < 8
    assert 0.6 < litres[4] < 3.5
    assert 0.05 < litres[5] < 0.7
    assert 0.1 < litres[6] < 0.7
    where = {i: np.argwhere(scan.classes == i).mean(axis=0) for i in (4, 5)}
    # columns run to the patient's left: liver on the right, spleen on the left
    assert where[4][2] < 64 < where[5][2]


def test_organs_count_as_body_for_the_network() -> None:
    codes_ = np.array([T.AIR, T.TABLE, T.LUNG, T.MARROW, T.FAT, T.LIVER, T.KIDNEY, T.GAS], np.uint8)
    assert shown_classes(class_map(codes_)).tolist() == [0, 0, 1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_every_protocol_is_valid_dicom(protocol: str, tmp_path: Path) -> None:
    validator = shutil.which("dciodvfy")
    written(tmp_path, protocol)
    if validator is None:
        pytest.skip("dciodvfy is not installed")
    for path in tmp_path.rglob("0001.dcm"):
        done = subprocess.run([validator, "-new", str(path)], capture_output=True, text=True, check=False)
        assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"with-localizer"}))
def test_headers_say_where_the_scan_lies(protocol: str, tmp_path: Path) -> None:
    images = written(tmp_path, protocol)
    plan = plan_volume(images)
    expected = coarse_scan(protocol).geometry
    assert plan.geometry.shape == expected.shape
    assert np.allclose(plan.geometry.affine, expected.affine, atol=1e-3)


def test_protocols_send_what_their_names_say(tmp_path: Path) -> None:
    decreasing = [float(d.ImagePositionPatient[2]) for d in written(tmp_path / "r", "reversed")]
    assert decreasing == sorted(decreasing, reverse=True)
    assert len(decreasing) > 3
    tilted = written(tmp_path / "t", "tilted")
    assert plan_volume(tilted).geometry.tilt_degrees == pytest.approx(14.0, abs=0.01)
    scout, *axial = written(tmp_path / "l", "with-localizer")
    assert list(scout.ImageType)[2] == "LOCALIZER"
    assert {d.SeriesInstanceUID for d in axial}.isdisjoint({scout.SeriesInstanceUID})
    assert {d.StudyInstanceUID for d in axial} == {scout.StudyInstanceUID}
    (enhanced,) = written(tmp_path / "e", "enhanced")
    assert enhanced.NumberOfFrames == len(enhanced.PerFrameFunctionalGroupsSequence) == enhanced.pixel_array.shape[0]


def test_files_hold_the_scan_and_are_the_same_each_time(tmp_path: Path) -> None:
    scan = coarse_scan("chest-abdomen")
    first = write_scan(tmp_path / "a", scan, STEEP, SEED)
    assert write_scan(tmp_path / "b", scan, STEEP, SEED) == first
    for path in sorted((tmp_path / "a").rglob("*.dcm")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    image = pydicom.dcmread(tmp_path / "a" / "2-axial" / "0003.dcm")
    stored = image.pixel_array
    assert (stored[~scan.seen] == PADDING).all()
    hu = stored * float(image.RescaleSlope) + float(image.RescaleIntercept)
    assert np.array_equal(hu[scan.seen], scan.hu[2][scan.seen])


def test_training_samples_depend_on_seed_and_index_alone(tmp_path: Path) -> None:
    run = iter(Samples(5, 0, tmp_path))
    next(run)
    image, classes = next(run)
    again, classes_again = next(iter(Samples(5, 1, tmp_path)))
    assert torch.equal(image, again)
    assert torch.equal(classes, classes_again)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    assert set(classes.unique().tolist()) <= {0, 1, 2, 3}


def test_ras_axes_grow_to_the_right_the_front_and_the_head() -> None:
    volume = np.zeros((2, 3, 4), np.uint8)
    volume[1, 0, 0] = 1  # head, front, right in LPS order of (z, y, x)
    assert to_ras(volume)[3, 2, 1] == 1
    assert scaled(np.array([-2000.0, -1000, 0, 1000, 3000], np.float32)).tolist() == [0, 0, 0.5, 1, 1]


def test_the_rate_rises_then_falls() -> None:
    rates = [rate_at(step, 100, 1.0) for step in range(100)]
    assert max(rates) == rates[10] == 1
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert min(rates) > 0


def test_contrast_is_as_bright_as_bone_in_the_cavity_and_nowhere_else() -> None:
    grid = Grid((-150.0, -190.0, -225.0), (5.0,) * 3, (48, 76, 90))
    tissues = paint_patient(grid, 3, Setting()).labels
    bright = dict.fromkeys((T.KIDNEY, T.BLOOD, T.GUT), 0)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        hu = with_contrast(rng, np.zeros(tissues.shape, np.float32), tissues)
        assert hu[np.isin(tissues, (T.AIR, T.SKIN, T.LUNG))].mean() < 5
        # what touches bone spreads into it by a voxel
        assert np.median(hu[np.isin(tissues, (T.CORTEX, T.MARROW))]) < 1
        for code in bright:
            bright[code] += int((hu[tissues == code] > 150).sum())
    assert min(bright.values()) > 500


def test_the_bone_loss_minds_false_bone_more_than_missed_bone() -> None:
    classes = torch.full((1, 1, 4, 4, 4), 3)
    classes[..., :2] = 2
    image = torch.zeros(1, 1, 4, 4, 4)

    def loss(bone: torch.Tensor) -> float:
        logits = torch.zeros(1, 4, 4, 4, 4)
        logits[:, 2], logits[:, 3] = 20.0 * bone, 20.0 * ~bone
        return float(bone_loss(logits, image, classes))

    right = classes[:, 0] == 2
    more, less = right.clone(), right.clone()
    more[..., 2], less[..., 1] = True, False
    assert loss(right) < 0.01
    assert loss(more) > loss(less) > 0.2


def test_the_card_is_read_and_its_codes_are_the_standard_s() -> None:
    segments = parse_model_card(card()).segments
    assert [s.name.split()[0].lower() for s in segments] == list(CLASSES[1:])
    for segment, concept in zip(segments, (codes.SCT.Lung, codes.SCT.Bone, codes.SCT.SoftTissue), strict=True):
        assert (segment.type.value, segment.type.scheme, segment.type.meaning) == (
            concept.value,
            concept.scheme_designator,
            concept.meaning,
        )


def test_the_rule_is_read_and_names_the_model() -> None:
    document = yaml.safe_load((PACKAGE.parents[1] / "rules" / "torso-ct.yaml").read_text())
    assert parse_rule(document).model == parse_model_card(card()).name


def test_both_model_files_give_the_same_scores(network: torch.jit.ScriptModule) -> None:
    import onnxruntime

    files = [PACKAGE / "models" / name for name in ("model.ts", "model.onnx")]
    assert max(f.stat().st_size for f in files) < 5e6
    image = torch.rand(2, 1, *parse_model_card(card()).network.window, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(image).numpy()
    assert expected.shape[:2] == (2, len(CLASSES))
    session = onnxruntime.InferenceSession(str(files[1]), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    assert np.abs(found - expected).max() < 1e-3


def test_the_network_is_small_enough_to_be_kept_in_the_repository() -> None:
    assert sum(p.numel() for p in TorsoNet().parameters()) < 1.2e6


def test_the_model_finds_lungs_bone_and_body_in_a_patient_it_never_saw(slab: Scan, labels: np.ndarray) -> None:
    figures = measured(Case("", slab.hu, slab.geometry, shown_classes(slab.classes)), labels)
    assert figures["lungs"]["dice"] > 0.93
    assert figures["bone"]["dice"] > 0.7
    assert figures["body"]["dice"] > 0.93


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_monai_runs_the_bundle_as_the_node_does(
    slab: Scan, labels: np.ndarray, network: torch.jit.ScriptModule, tmp_path: Path
) -> None:
    from monai.bundle import ConfigParser

    write_scan(tmp_path / "in", slab, SLAB, 11)
    parser = ConfigParser(json.loads((PACKAGE / "configs" / "inference.json").read_text()))
    parser["bundle_root"], parser["dataset_dir"] = str(PACKAGE), str(tmp_path / "in" / "2-axial")
    parser["device"], parser["postprocessing#transforms#2#_disabled_"] = "$torch.device('cpu')", True
    # what its evaluator does; that itself needs pytorch-ignite
    item = parser.get_parsed_content("dataset")[0]
    with torch.inference_mode():
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], network)[0]
    output = parser.get_parsed_content("postprocessing")(item)
    found = np.asarray(output["pred"][0]).astype(np.uint8)  # (column, row, slice), as the reader gives it
    seen = np.broadcast_to(slab.seen, labels.shape)
    assert (found.transpose(2, 1, 0)[seen] == labels[seen]).mean() > 0.995


def test_metadata_describes_the_network_as_the_card_does() -> None:
    metadata = json.loads((PACKAGE / "configs" / "metadata.json").read_text())
    spec = parse_model_card(card())
    image, scores = (metadata["network_data_format"][k][n] for k, n in (("inputs", "image"), ("outputs", "pred")))
    assert tuple(image["spatial_shape"]) == tuple(scores["spatial_shape"]) == spec.network.window
    assert list(scores["channel_def"].values()) == list(CLASSES)
    assert metadata["version"] == spec.version


def test_dice_and_distance_of_known_shapes(scan: Scan) -> None:
    one, other = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    one[:2], other[1:3] = True, True
    assert dice(one, other) == pytest.approx(0.5)
    figures = measured(Case("", scan.hu, scan.geometry, shown_classes(scan.classes)), shown_classes(scan.classes))
    assert {f["dice"] for f in figures.values()} == {1.0}
    assert {f["hd95_mm"] for f in figures.values()} == {0.0}


@pytest.mark.real_data
def test_the_model_works_on_a_real_scan_it_never_saw(network: torch.jit.ScriptModule) -> None:
    folder = REAL_DATA / "ct" / "lidc-0002-part"
    if not folder.is_dir():
        pytest.skip("../shared/data is absent")
    from dicomnode.imaging.geometry import VolumeGeometry

    volume = read_series(folder, "ct/lidc-0002-part")
    shape = (volume.hu.shape[0], volume.hu.shape[1], volume.hu.shape[2])
    geometry, reference = VolumeGeometry(shape, volume.affine), references(volume)
    found = predict(volume.hu.astype(np.int16), geometry, parse_model_card(card()), network)
    assert dice(found == 1, reference == 1) > 0.85
    assert dice(found == 2, reference == 2) > 0.7
    assert dice(found == 3, reference == 3) > 0.9


@pytest.mark.real_data
def test_real_labels_are_read_the_right_way_round() -> None:
    if not (REAL_DATA / "nifti").is_dir():
        pytest.skip("../shared/data is absent")
    volume = total_segmentator_example()
    assert volume.labels is not None
    columns = {i: np.argwhere(volume.labels == i)[:, 2].mean() for i in (4, 5)}
    assert columns[4] < columns[5]  # liver on the patient's right, where columns begin
    assert (volume.labels[body_mask(volume.hu)] > 0).mean() > 0.99
    assert np.median(volume.hu[volume.labels == 1]) < -600
