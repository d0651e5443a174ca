"""One of something is not several."""

from __future__ import annotations

import pytest

from dicomnode.domain.quantity import quantity


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 instances"), (1, "1 instance"), (2, "2 instances"), (1000, "1000 instances")]
)
def test_one_is_not_several(number: int, words: str) -> None:
    assert quantity(number, "instance") == words


def test_a_plural_of_its_own() -> None:
    assert [quantity(n, "study", "studies") for n in (1, 2)] == ["1 study", "2 studies"]
