"""The further forms of what was found, for destinations that show no SEG or SR, or want another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydicom import Dataset

from dicomnode.encoding.check_forms import (
    check_full,
    check_key_objects,
    check_label_map_form,
    check_one_page,
    check_presentation_state,
    check_secondary_capture,
    check_structure_set,
)
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.findings import Marks
from dicomnode.encoding.image_findings import ImageFindings
from dicomnode.encoding.image_forms import (
    check_image_label_maps,
    check_image_states,
    encode_image_label_maps,
    encode_image_states,
)
from dicomnode.encoding.key_objects import encode_key_objects
from dicomnode.encoding.one_page import encode_one_page
from dicomnode.encoding.outcome import Outcome
from dicomnode.encoding.presentation_state import encode_presentation_state
from dicomnode.encoding.refusal import kept_when_refused
from dicomnode.encoding.results import EncodedResult, encoded
from dicomnode.encoding.rtstruct import encode_structure_set
from dicomnode.encoding.secondary_capture import encode_secondary_captures
from dicomnode.encoding.seg_file import SegFile
from dicomnode.encoding.seg_label_map import encode_full, encode_label_map


@dataclass(frozen=True, slots=True)
class Form:
    """How a form is made, and the check that each of its objects has to pass.

    Of an object that is made as a file it is given the attributes and `pixel_bytes`: the pixels are made as it is
    written.
    """

    encode: Callable[[Any], Sequence[Dataset | SegFile]]
    check: Callable[..., None]


# Of a volume's Findings
FORMS: Mapping[str, Form] = {
    "SEG-LABELMAP": Form(lambda findings: [encode_label_map(findings)], check_label_map_form),
    "SEG-FULL": Form(lambda findings: [encode_full(findings)], check_full),
    "RTSTRUCT": Form(lambda findings: [encode_structure_set(findings)], check_structure_set),
    "GSPS": Form(lambda findings: [encode_presentation_state(findings)], check_presentation_state),
    "SC": Form(encode_secondary_captures, check_secondary_capture),
    "PDF": Form(lambda findings: [encode_one_page(findings)], check_one_page),
    "KO": Form(lambda findings: [encode_key_objects(findings)], check_key_objects),
}

# Of ImageFindings. What has one matrix, or one look, is an object an instance
IMAGE_FORMS: Mapping[str, Form] = {
    "SEG-LABELMAP": Form(encode_image_label_maps, check_image_label_maps),
    "GSPS": Form(encode_image_states, check_image_states),
    "SC": FORMS["SC"],
    "PDF": FORMS["PDF"],
    "KO": FORMS["KO"],
}

# Of Statements, and where nothing was found: the page says so, and there is nothing else to show
PAGE: Mapping[str, Form] = {"PDF": FORMS["PDF"]}


def encode_form(findings: Outcome, kind: str) -> list[EncodedResult]:
    """All objects of this kind, checked; raises EncodingError, NonConformant."""
    form = _forms_of(findings).get(kind)
    if form is None:
        return []
    return [_checked(kind, one, form.check, findings) for one in form.encode(findings)]


def _checked(kind: str, made: Dataset | SegFile, check: Callable[..., None], findings: Outcome) -> EncodedResult:
    if isinstance(made, SegFile):
        with kept_when_refused(kind, partial(getattr, made, "content")):
            check(made.as_written(), findings, pixel_bytes=made.pixel_bytes)
        return encoded(kind, made.header, made)
    with kept_when_refused(kind, partial(to_part10_bytes, made)):
        check(made, findings)
    return encoded(kind, made)


def _forms_of(findings: Outcome) -> Mapping[str, Form]:
    if not isinstance(findings, Marks) or not findings.found:
        return PAGE
    return IMAGE_FORMS if isinstance(findings, ImageFindings) else FORMS
