"""UIDs and AE titles: what is valid, and UIDs that are the same each time they are made."""

from __future__ import annotations

import re
import uuid

# PS3.5 9.1: components of digits, no leading zeros, 64 characters at most. Scanners do send leading zeros;
# what matters here is that a UID is unambiguous and can be a file name, so they pass.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
# PS3.5 6.2, VR AE: 16 characters of the default repertoire at most, no backslash, no control characters.
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_NAMESPACE = uuid.UUID("6f3c8f0e-2f0a-5c1f-9d5e-0d1c0a0d0e01")


def is_uid(value: str) -> bool:
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def is_ae_title(value: str) -> bool:
    return bool(value.strip()) and _AE_TITLE.fullmatch(value) is not None


def deterministic_uid(*parts: str) -> str:
    """The UID of what these parts describe: equal parts give an equal UID, on every machine.

    A name-based UUID as a UID under 2.25 (PS3.5 B.2, RFC 4122 4.3).
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(31).join(parts)).int}"
