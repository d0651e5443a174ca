"""In which transfer syntaxes a file is offered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.encoding.seg import encode_segmentation
from dicomnode.encoding.transfer import proposed, read_header
from dicomnode.imaging.volume import plan_volume
from tests.made_results import CARD, MADE
from tests.made_series import classic

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("noise", "size", "offered"),
    [
        (False, 640, (DeflatedExplicitVRLittleEndian, *PLAIN)),
        (True, 640, PLAIN),  # deflating would take its time and save nothing
        (False, 64, PLAIN),  # it is small
    ],
    ids=["mask", "noise", "small"],
)
def test_deflated_is_offered_where_it_saves_something(
    tmp_path: Path, noise: bool, size: int, offered: tuple[str, ...]
) -> None:
    plan = plan_volume(classic(14, rows=size, columns=size))
    labels = np.zeros(plan.geometry.shape, np.uint8)
    labels[:, size // 4 : size // 2, size // 3 :] = 1
    labels[:, size // 2 :, : size // 3] = 2
    if noise:
        labels = np.random.default_rng(0).integers(0, 3, plan.geometry.shape, dtype=np.uint8)
    file = encode_segmentation(labels, plan, CARD, MADE)
    assert file is not None
    path = tmp_path / "seg.dcm"
    path.write_bytes(file.content)
    preferred = [str(DeflatedExplicitVRLittleEndian)]
    assert proposed(read_header(path, preferred), preferred) == offered
