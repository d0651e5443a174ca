"""The further forms of masks of single images: label maps, outlines, pictures, a page, key objects."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from dicomnode.encoding.findings import reference
from dicomnode.encoding.forms import encode_form
from dicomnode.encoding.image_findings import ImageFindings, proportions
from dicomnode.encoding.image_forms import check_image_label_maps, check_image_states
from dicomnode.errors import NonConformant
from tests.made_images import cine, f_plane, image
from tests.unit.test_image_results import MADE, Marked


def findings(marked: Marked) -> ImageFindings:
    segmentations = [reference(result, marked.plan) for result in marked.results if result.kind == "SEG"]
    return ImageFindings(marked.instances, marked.statistics, marked.plan, marked.card, MADE, segmentations)


def forms(marked: Marked, kind: str) -> list[Dataset]:
    return [pydicom.dcmread(BytesIO(result.content)) for result in encode_form(findings(marked), kind)]


def test_a_label_map_of_each_image(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image(1, (40, 24)), image(2, (24, 40)), image(3, (43, 29))], empty=[1])
    made = forms(marked, "SEG-LABELMAP")
    for found, shape in zip(made, [(40, 24), (43, 29)], strict=True):
        pixels = np.frombuffer(found.PixelData, np.uint8)[: shape[0] * shape[1]].reshape(shape)
        np.testing.assert_array_equal(pixels, f_plane(shape))
        assert "FrameOfReferenceUID" not in found


def test_the_label_map_of_a_cine_has_its_frames(tmp_path: Path) -> None:
    (made,) = forms(Marked(tmp_path, [cine(4)], empty=[1]), "SEG-LABELMAP")
    sources = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in made.PerFrameFunctionalGroupsSequence
    ]
    assert (sources, made.NumberOfFrames) == ([1, 3, 4], 3)


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_outlines_lie_on_their_image_which_looks_as_it_did(tmp_path: Path, photometric: str, shape: str) -> None:
    first = image(1, (40, 24), PhotometricInterpretation=photometric, WindowCenter=900, WindowWidth=500)
    marked = Marked(tmp_path, [first, image(2, (24, 40))])
    state, other = forms(marked, "GSPS")
    assert (state.PresentationLUTShape, other.PresentationLUTShape) == (shape, "IDENTITY")
    window = state.SoftcopyVOILUTSequence[0]
    assert (window.WindowCenter, window.WindowWidth) == (900, 500)
    assert state.DisplayedAreaSelectionSequence[0].DisplayedAreaBottomRightHandCorner == [24, 40]
    (area,) = state.ReferencedSeriesSequence
    assert [r.ReferencedSOPInstanceUID for r in area.ReferencedImageSequence] == [first.SOPInstanceUID]
    points = [
        np.array(graphic.GraphicData).reshape(-1, 2)
        for annotation in state.GraphicAnnotationSequence
        for graphic in annotation.GraphicObjectSequence
    ]
    rows, columns = np.nonzero(f_plane((40, 24)))
    every = np.concatenate(points)
    np.testing.assert_allclose(every.min(0), [columns.min(), rows.min()])
    np.testing.assert_allclose(every.max(0), [columns.max() + 1, rows.max() + 1])


def test_pictures_say_what_they_are_and_how_they_lie(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image(1, ImageLaterality="L", PatientOrientation=["A", "FR"]), image(2, (24, 40))])
    first, second = forms(marked, "SC")
    assert (list(first.PatientOrientation), first.ImageLaterality) == (["A", "FR"], "L")
    assert first.BurnedInAnnotation == "YES"
    assert "not for primary diagnosis" in first.ImageComments
    assert list(second.PatientOrientation) == ["L", "F"]
    assert first.SourceImageSequence[0].ReferencedSOPInstanceUID == marked.plan.frames[0].sop_instance_uid
    # 43 × 29 pixels of 0.2 × 0.1 mm
    assert first.Columns / 512 == pytest.approx(29 * 0.1 / (43 * 0.2), abs=0.01)


def test_an_inverted_image_is_drawn_as_people_see_it(tmp_path: Path) -> None:
    drawn = []
    for number, photometric in enumerate(("MONOCHROME1", "MONOCHROME2")):
        marked = Marked(tmp_path / str(number), [image(PhotometricInterpretation=photometric)])
        (picture,) = forms(marked, "SC")
        drawn.append(picture.pixel_array[picture.Rows // 2, picture.Columns - 5].astype(int))
    assert drawn[0].mean() > 200 > 50 > drawn[1].mean()  # what is low in the file is bright, or dark


def test_a_page_names_areas(tmp_path: Path) -> None:
    (page,) = forms(Marked(tmp_path, [image(EstimatedRadiographicMagnificationFactor=1), image(2)]), "PDF")
    text = page.EncapsulatedDocument.decode("latin-1")
    assert page.EncapsulatedDocument.startswith(b"%PDF-")
    assert "image 1" in text
    assert "pixels" in text


def test_key_images_and_their_segmentations(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image(1), image(2, (60, 40))])
    (made,) = forms(marked, "KO")
    references = [r for item in made.ContentSequence for r in item.get("ReferencedSOPSequence", [])]
    named = {str(one.ReferencedSOPInstanceUID) for one in references}
    segmentations = {str(one.SOPInstanceUID) for one in marked.of("SEG")}
    assert segmentations < named
    assert str(marked.plan.frames[1].sop_instance_uid) in named


def test_nothing_is_made_of_nothing_but_the_page(tmp_path: Path) -> None:
    marked = Marked(tmp_path, [image()], empty=[0])
    assert [kind for kind in ("SEG-LABELMAP", "GSPS", "SC", "PDF", "KO") if forms(marked, kind)] == ["PDF"]


@pytest.mark.parametrize(("kind", "check"), [("SEG-LABELMAP", check_image_label_maps), ("GSPS", check_image_states)])
def test_a_form_of_another_image_is_refused(tmp_path: Path, kind: str, check: Any) -> None:
    one, other = Marked(tmp_path / "a", [image(1)]), Marked(tmp_path / "b", [image(2, (24, 40))])
    (made,) = forms(one, kind)
    check(made, findings(one))
    with pytest.raises(NonConformant):
        check(made, findings(other))


@pytest.mark.parametrize(("keyword", "wrong"), [("ImageType", ["DERIVED"]), ("LossyImageCompression", "01")])
def test_a_label_map_says_what_its_pixels_are(tmp_path: Path, keyword: str, wrong: Any) -> None:
    marked = Marked(tmp_path, [image()])
    (made,) = forms(marked, "SEG-LABELMAP")
    check_image_label_maps(made, findings(marked))
    setattr(made, keyword, wrong)
    with pytest.raises(NonConformant, match=keyword):
        check_image_label_maps(made, findings(marked))


def test_proportions_of_pixels() -> None:
    assert proportions(image()) == (0.2, 0.1)
    assert proportions(image(ImagerPixelSpacing=None, PixelAspectRatio=[3, 2])) == (3, 2)
    assert proportions(image(ImagerPixelSpacing=None)) == (1, 1)


def test_a_tall_image_fits_the_page(tmp_path: Path) -> None:
    (page,) = forms(Marked(tmp_path, [image(1, (60, 20), ImagerPixelSpacing=[1, 1])]), "PDF")
    assert page.EncapsulatedDocument.startswith(b"%PDF-")
