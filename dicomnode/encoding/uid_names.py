"""UIDs of the standard by the names that PS3.6 Annex A gives them, and the names of UIDs."""

from __future__ import annotations

import difflib
import re

from pydicom._uid_dict import UID_dictionary

from dicomnode.domain.identifiers import is_uid

SOP_CLASS = "SOP Class"
TRANSFER_SYNTAX = "Transfer Syntax"
# Which pydicom 3.0 cannot name
_NEWER = {
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
}
_Entry = tuple[str, str, str, str, str]  # name, type, information, whether it is retired, keyword


def uid_of(text: str, kind: str) -> str:
    """A UID, or the one of the kind with that name or keyword; raises ValueError with what is near to it.

    `CTImageStorage`, `CT Image Storage` and `1.2.840.10008.5.1.4.1.1.2` are the same. A UID that the standard does
    not know may be private, and passes.
    """
    text = text.strip()
    if is_uid(text):
        known = UID_dictionary.get(text)
        if known and known[1] != kind:
            raise ValueError(f"{text} is no {kind} but {known[0]} ({known[1]})")
        return text
    names = _names(kind)
    if (uid := names.get(_simple(text))) is not None:
        return uid
    near = difflib.get_close_matches(_simple(text), names, n=3, cutoff=0.6)
    hint = ", ".join(UID_dictionary[names[name]][4] for name in near) or "a UID, or a keyword of PS3.6 Annex A"
    raise ValueError(f"{text!r} is no {kind} that is known; perhaps {hint}")


def name_of(uid: str) -> str:
    """As in PS3.6, or the UID itself."""
    known: _Entry | None = UID_dictionary.get(uid)
    return (known[0] if known else _NEWER.get(uid, "")) or uid


def _names(kind: str) -> dict[str, str]:
    """Simple form of name and keyword → UID; of those with the same, the one that is not retired."""
    found: dict[str, str] = {}
    for uid, (name, what, _, retired, keyword) in sorted(UID_dictionary.items(), key=lambda item: bool(item[1][3])):
        if what == kind:
            for text in (keyword, name, name.removesuffix(" (Retired)") if retired else name):
                found.setdefault(_simple(text), uid)
    found.pop("", None)
    return found


def _simple(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())
