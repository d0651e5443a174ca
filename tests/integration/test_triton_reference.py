"""Real scans: the label map is that of MONAI's stock chain around the same network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.inferers.utils import sliding_window_inference

from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.ports import InferenceRequest
from tests.asked import labelled
from tests.monai_reference import Reference
from tests.triton_models import package, random_unet

pytest.importorskip("nibabel", reason="MONAI's Orientation needs nibabel")

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = [pytest.mark.real_data, pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")]


def scan(folder: Path) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int16]], VolumeGeometry, Rescale]:
    """An axial CT series as (slice, row, column) int16 with where it lies; slices from foot to head."""
    datasets = [pydicom.dcmread(path) for path in folder.rglob("*.dcm")]
    datasets.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    volume = np.stack([d.pixel_array for d in datasets]).astype(np.int16)
    first, last = (np.array(datasets[i].ImagePositionPatient, dtype=float) for i in (0, -1))
    orientation = np.array(datasets[0].ImageOrientationPatient, dtype=float)
    down, along = map(float, datasets[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(datasets) - 1)
    affine[:3, 1], affine[:3, 2] = orientation[3:] * down, orientation[:3] * along
    affine[:3, 3] = first
    rescale = Rescale(float(datasets[0].RescaleSlope), float(datasets[0].RescaleIntercept))
    return volume, VolumeGeometry(volume.shape, affine), rescale


@pytest.mark.parametrize(
    ("series", "orientation", "spacing_mm", "blend"),
    [
        ("ct/crlm-1004", "RAS", [3.0, 2.5, 2.0], "constant"),
        ("ct/lidc-0002-part", "LPS", [2.0, 2.5, 1.5], "gaussian"),
        ("multi/sts_002/ct/image", "SAR", [2.0, 1.5, 1.5], "constant"),
    ],
)
def test_labels_of_a_real_scan_are_those_of_the_stock_chain(
    series: str, orientation: str, spacing_mm: list[float], blend: str, tmp_path: Path
) -> None:
    volume, geometry, rescale = scan(DATA / series)
    module = random_unet()
    model = package(
        tmp_path / "unet",
        module,
        "unet",
        2,
        window=[64, 64, 64],
        blend=blend,
        orientation=orientation,
        spacing_mm=spacing_mm,
    )
    with InProcessEngine(tmp_path, 2) as engine, engine.open(geometry.shape) as session:
        session.volume[...] = volume
        with labelled(session, InferenceRequest(model, geometry, rescale, timeout_s=300)) as labels:
            found = labels.copy()
    reference = Reference(model.card.input)
    values = volume * np.float32(rescale.slope) + np.float32(rescale.intercept)
    image = reference.prepare(values, geometry)[None]
    with torch.no_grad():
        scores = sliding_window_inference(image, (64, 64, 64), 1, module, overlap=0.25, mode=blend)
    assert isinstance(scores, torch.Tensor)
    expected = reference.restore(scores.argmax(1)[0])
    assert len(np.unique(expected)) == 3
    for number in (0, 1, 2):
        ours, theirs = found == number, expected == number
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) >= 0.999
    assert (found != expected).mean() < 1e-4
