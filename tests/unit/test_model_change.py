"""To which version a rollback goes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dicomnode.domain.model_change import ModelChange, ModelChangeKind, active_before

KINDS = {"+": ModelChangeKind.ACTIVATED, "-": ModelChangeKind.DEACTIVATED, "<": ModelChangeKind.ROLLED_BACK}
KINDS |= {"s": ModelChangeKind.SHADOWED, "u": ModelChangeKind.UNSHADOWED}


@pytest.mark.parametrize(
    ("story", "before"),
    [
        ("", ""),
        ("+1", ""),
        ("+1 +2", "1"),
        ("+1 +2 +3 <2", "1"),
        ("+1 +2 +3 <2 <1", ""),
        ("+1 +2 <1 +3", "1"),
        ("+1 +2 +1", "2"),
        ("+1 -1", "1"),
        ("+1 +2 -2", "2"),
        ("+1 +2 -2 <2", "1"),
        ("+1 -1 +2", "1"),
        ("+1 -1 +1", ""),
        ("+1 s2 u2 +2", "1"),
    ],
)
def test_it_goes_to_what_was_active_before(story: str, before: str) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert active_before(ModelChange(KINDS[w[0]], "m", w[1:], at) for w in story.split()) == before
