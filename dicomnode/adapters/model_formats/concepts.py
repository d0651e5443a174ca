"""Coded concepts for the names that people give to labels, and colours, where a package has neither.

Names are looked up among the segmentation property types of PS3.16 (CID 7151, as pydicom has it). "Left kidney" is
coded as kidney, with its side in the segment's name. What is not found there gets a code of the node's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydicom.sr.codedict import codes

PRIVATE_SCHEME = "99DICOMNODE"
_ANATOMY = {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"}
_ALTERED = {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically Altered Structure"}
_SIDES = {"left", "right", "l", "r", "lt", "rt"}
_ALIASES = {
    "ivc": "InferiorVenaCava",
    "svc": "SuperiorVenaCava",
    "oesophagus": "Esophagus",
    "adrenal": "AdrenalGland",
    "kideny": "Kidney",  # so in the Model Zoo's swin_unetr_btcv_segmentation
    "urinary bladder": "Bladder",
    "gall bladder": "Gallbladder",
    "bowel": "Intestine",
    "thyroid gland": "Thyroid",
    "tumour": "Neoplasm",
    "tumor": "Neoplasm",
    "cancer": "Neoplasm",
    "oedema": "Edema",
    "vertebrae": "Vertebra",
    "bones": "Bone",
    "skeleton": "Bone",
}
_ALTERED_WORDS = {"tumor", "tumour", "lesion", "nodule", "cancer", "mass", "cyst", "metastasis", "edema", "oedema"}
_PALETTE = (
    (221, 130, 101),
    (157, 108, 162),
    (111, 184, 210),
    (144, 238, 144),
    (249, 180, 111),
    (216, 101, 79),
    (241, 214, 145),
    (0, 151, 206),
    (183, 214, 211),
    (185, 102, 83),
    (178, 212, 242),
    (128, 174, 128),
    (255, 250, 160),
    (205, 205, 100),
    (182, 228, 255),
    (230, 158, 140),
    (192, 104, 88),
    (88, 106, 215),
    (244, 214, 49),
    (200, 200, 235),
)

Document = dict[str, Any]


def segment(number: int, name: str) -> Document:
    """As a card has it; `name` as the package calls the label."""
    words = _words(name)
    concept = coded(name)
    altered = bool(_ALTERED_WORDS & set(words)) or concept["value"] in _altered_values()
    return {
        "number": number,
        "name": readable(name),
        "category": dict(_ALTERED if altered else _ANATOMY),
        "type": concept,
        "colour": list(_PALETTE[(number - 1) % len(_PALETTE)]),
    }


def coded(name: str) -> Document:
    """A SNOMED CT concept by the name of an organ, or a private one that is always the same for a name."""
    words = [word for word in _words(name) if word not in _SIDES]
    found = _known().get(_ALIASES.get(" ".join(words), "").casefold() or "".join(words))
    found = found or _known().get("".join(words).removesuffix("s"))
    return dict(found) if found else private(name)


def private(name: str) -> Document:
    """At most 16 characters (PS3.5 6.2, SH), upper case, with six of a digest where the name is longer."""
    short = "-".join(_words(name)).upper() or "X"
    if len(short) > 16:
        short = f"{short[:9]}-{hashlib.sha256(' '.join(_words(name)).encode()).hexdigest()[:6].upper()}"
    return {"value": short, "scheme": PRIVATE_SCHEME, "meaning": readable(name)}


def readable(name: str) -> str:
    """`kidney_left` → Kidney left; at most 64 characters (LO)."""
    plain = " ".join(name.replace("_", " ").split())
    return (plain[:1].upper() + plain[1:])[:64].strip() or "Unnamed"


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.casefold())


@cache
def _known() -> Mapping[str, Document]:
    """Keyword in lower case → concept, of the segmentation property types."""
    group = codes.cid7151
    return {keyword.casefold(): _document(getattr(group, keyword)) for keyword in group.dir()}


@cache
def _altered_values() -> frozenset[str]:
    group = codes.cid7159  # lesion segmentation types
    return frozenset(getattr(group, keyword).value for keyword in group.dir())


def _document(code: Any) -> Document:
    return {"value": code.value, "scheme": code.scheme_designator, "meaning": code.meaning}
