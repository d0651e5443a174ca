"""PS3.4 Table B.2-1 and PS3.7 Annex C, status by status."""

from __future__ import annotations

import pytest

from dicomnode.domain.store_status import Verdict, store_status


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (0x0000, Verdict.STORED),
        (0x0111, Verdict.STORED),
        (0xB000, Verdict.WARNING),
        (0xB006, Verdict.WARNING),
        (0xB007, Verdict.WARNING),
        (0xBFFF, Verdict.WARNING),
        (0x0107, Verdict.WARNING),
        (0xA700, Verdict.TRY_AGAIN),
        (0xA7FF, Verdict.TRY_AGAIN),
        (0x0110, Verdict.TRY_AGAIN),
        (0x0124, Verdict.TRY_AGAIN),
        (0xC000, Verdict.TRY_AGAIN),
        (0xCFFF, Verdict.TRY_AGAIN),
        (0xA900, Verdict.REFUSED),
        (0xA9FF, Verdict.REFUSED),
        (0x0117, Verdict.REFUSED),
        (0x0122, Verdict.REFUSED),
        (0x0212, Verdict.REFUSED),
        (0x5555, Verdict.TRY_AGAIN),
    ],
)
def test_verdict(code: int, verdict: Verdict) -> None:
    assert store_status(code).verdict is verdict


def test_words_name_the_number_the_meaning_and_what_to_do() -> None:
    assert store_status(0xA701).words == "0xA701 out of resources: free space at the peer"
    assert store_status(0).words == "0x0000 success"


def test_every_status_has_words() -> None:
    assert all(store_status(code).meaning for code in range(0x10000))
