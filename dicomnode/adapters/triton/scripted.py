"""What a network in TorchScript says when it fails, without the stacks that come before it."""

from __future__ import annotations

import re

# Two stacks, each a heading and indented lines; the last one is followed by what was raised
_STACKS = re.compile(
    r"^The following operation failed in the TorchScript interpreter\.\n"
    r".*^Traceback of TorchScript[^\n]*\n(?:(?: [^\n]*)?\n)*(?:builtins\.)?",
    re.DOTALL | re.MULTILINE,
)


def without_stacks(message: str) -> str:
    """In one line; what is not TorchScript's stays as it is."""
    found = _STACKS.match(message)
    return " ".join(message[found.end() :].split()) if found else message
