"""An F on real radiographs, mammograms and ultrasound: read back pixel for pixel, and clean under dciodvfy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pydicom.pixels
import pytest
from pydicom import Dataset

from dicomnode.encoding.examine_file import check_files, images_in
from dicomnode.encoding.forms import encode_form
from tests.made_images import cine, f_plane, image
from tests.unit.test_image_forms import findings
from tests.unit.test_image_results import Marked, raw_frames

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = {
    "mammogram": "planar/mg/GH133.dcm",
    "chest": "planar/cr-chest/RG1_J2KI.dcm",
    "hand": "compressed/rg3-j2k/RG3_J2KI.dcm",
    "dog": "seg_sr/highdicom/dx_image.dcm",
    "echo": "us/stressecho-multiframe/I_000007.dcm",
    "colour cine": "us/cine-30frames/examples_ybr_color.dcm",
}
MADE: dict[str, list[Dataset]] = {
    "views": [image(1, (43, 29)), image(2, (29, 43), PhotometricInterpretation="MONOCHROME1")],
    "tall pixels": [image(modality="CR", PixelSpacing=[0.3, 0.1], PixelSpacingCalibrationType="GEOMETRY")],
    "ultrasound": [image(modality="US", ImagerPixelSpacing=None, PatientOrientation=None)],
    "cine": [cine(5)],
}  # fmt: skip
DCIODVFY = shutil.which("dciodvfy")
FORMS = ("SC", "PDF", "KO")


def forms_of(source: list[Dataset]) -> tuple[str, ...]:
    """A Grayscale Softcopy Presentation State is of grey images."""
    return FORMS if source[0].SamplesPerPixel > 1 else ("GSPS", *FORMS)


@pytest.fixture(params=[*REAL, *MADE])
def source(request: pytest.FixtureRequest) -> list[Dataset]:
    if request.param in MADE:
        return MADE[request.param]
    file = DATA / REAL[request.param]
    if not file.is_file():
        pytest.skip("../shared/data is absent")
    return [pydicom.dcmread(file)]


def errors(file: Path) -> list[str]:
    assert DCIODVFY is not None
    said = subprocess.run([DCIODVFY, "-new", str(file)], capture_output=True, text=True, check=False)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]


def test_an_f_is_read_back_pixel_for_pixel(source: list[Dataset], tmp_path: Path) -> None:
    marked = Marked(tmp_path / "in", source, kind="both")
    for made in marked.of("SEG"):
        plane = f_plane((int(made.Rows), int(made.Columns)))
        by_segment = raw_frames(made).reshape(2, -1, *plane.shape)
        assert (by_segment[0] == (plane == 1)).all()
        assert (by_segment[1] == (plane == 2)).all()
        read = hd.seg.Segmentation.from_dataset(made)
        uid = str(made.SourceImageSequence[0].ReferencedSOPInstanceUID)
        (header,) = [one for one in source if one.SOPInstanceUID == uid]
        frames = list(range(1, int(header.get("NumberOfFrames", 1)) + 1))
        found = (
            read.get_pixels_by_source_frame(uid, frames, combine_segments=True)
            if len(frames) > 1
            else read.get_pixels_by_source_instance([uid], combine_segments=True)
        )
        np.testing.assert_array_equal(found, [plane] * len(frames))
    assert len(marked.of("SEG")) == len(source)


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_every_object_is_clean(source: list[Dataset], tmp_path: Path) -> None:
    marked = Marked(tmp_path / "in", source, kind="both")
    labelled = findings(marked)
    every = [*marked.results, *(one for form in forms_of(source) for one in encode_form(labelled, form))]
    assert {one.kind for one in every} == {"SEG", "SEG-PROB", "SR", *forms_of(source)}
    for number, result in enumerate(every):
        file = tmp_path / f"{number}-{result.kind}.dcm"
        file.write_bytes(result.content)
        assert not errors(file), result.kind


def test_check_finds_nothing_wrong(source: list[Dataset], tmp_path: Path) -> None:
    """What `dicomnode check` says of each object beside its images."""
    marked = Marked(tmp_path / "in", source, kind="both")
    labelled = findings(marked)
    results = tmp_path / "results"
    results.mkdir()
    every = [
        *marked.results,
        *(one for form in ("SEG-LABELMAP", *forms_of(source)) for one in encode_form(labelled, form)),
    ]
    for number, result in enumerate(every):
        (results / f"{number}-{result.kind}.dcm").write_bytes(result.content)
    images = images_in([tmp_path / "in"])
    found = list(check_files([results], lambda references: images, "there"))
    assert len(found) == len(every)
    assert [(one.file, one.wrong, one.notes) for one in found] == [(one.file, (), ()) for one in found]


def test_check_says_when_a_mask_is_of_another_size_than_its_image(tmp_path: Path) -> None:
    marked = Marked(tmp_path / "in", [image(1, (43, 29))])
    (made,) = marked.of("SEG")
    made.Rows, made.Columns = 29, 43
    made.save_as(tmp_path / "turned.dcm")
    images = images_in([tmp_path / "in"])
    (found,) = check_files([tmp_path / "turned.dcm"], lambda references: images, "there")
    assert any("the image that it comes from has 43 × 29" in words for words in found.wrong)


@pytest.mark.parametrize("name", ["echo", "colour cine"])
def test_the_luminance_of_real_ultrasound_is_that_of_its_colours(name: str, tmp_path: Path) -> None:
    if not (DATA / REAL[name]).is_file():
        pytest.skip("../shared/data is absent")
    marked = Marked(tmp_path, [pydicom.dcmread(DATA / REAL[name])])
    (instance,) = marked.instances
    rgb = pydicom.pixels.pixel_array(DATA / REAL[name])  # of JPEG in YBR this is RGB
    luminance = rgb.astype(float) @ [0.299, 0.587, 0.114]
    assert instance.values.shape == luminance.shape
    whole = ((rgb > 0) & (rgb < 255)).all(-1)  # what is out of RGB's range was cut off in it
    assert whole.mean() > 0.01
    assert np.abs(instance.values - luminance)[whole].max() <= 1.5
