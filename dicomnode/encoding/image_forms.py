"""The further forms of masks of single images that have one matrix, or one look: an object an instance."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.encoding.check import check_described
from dicomnode.encoding.check_forms import check_presentation_state
from dicomnode.encoding.check_images import check_image_label_map
from dicomnode.encoding.examine_source import references_of
from dicomnode.encoding.image_findings import ImageFindings
from dicomnode.encoding.presentation_state import encode_presentation_state
from dicomnode.encoding.refusal import refuse
from dicomnode.encoding.seg_images import label_map_of
from dicomnode.errors import EncodingError
from dicomnode.imaging.headers import items, text


def encode_image_label_maps(findings: ImageFindings) -> list[Dataset]:
    """One for each instance on which something was found."""
    given = (findings.plan, findings.card, findings.made)
    made = (label_map_of(instance, "SEG-LABELMAP", *given) for instance in findings.instances)
    return [one for one in made if one is not None]


def check_image_label_maps(dataset: Dataset, findings: ImageFindings) -> None:
    """Raises NonConformant naming what is wrong with a Label Map Segmentation of an image."""
    check_image_label_map(dataset, _instance_of(dataset, findings).instances[0], findings.plan)
    check_described(items(dataset, "SegmentSequence"), findings.card)


def encode_image_states(findings: ImageFindings) -> list[Dataset]:
    """One for each instance on which something was found: windows and rescales differ."""
    if findings.plan.colour:
        raise EncodingError("a Grayscale Softcopy Presentation State is of grey images, and these are in colour")
    return [encode_presentation_state(one) for one in findings.alone()]


def check_image_states(dataset: Dataset, findings: ImageFindings) -> None:
    """Raises NonConformant naming what is wrong with a presentation state of an image."""
    check_presentation_state(dataset, _instance_of(dataset, findings))


def _instance_of(dataset: Dataset, findings: ImageFindings) -> ImageFindings:
    """The image that an object is about."""
    named = {reference.instance for reference in references_of(dataset)}
    found = [one for one in findings.alone() if text(one.plan.first, "SOPInstanceUID") in named]
    if len(found) != 1:
        refuse(f"it names {len(found)} of the images that it could be of")
    return found[0]
