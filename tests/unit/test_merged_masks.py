"""What labels mean that are made of masks which overlap."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dicomnode.domain.merged_masks import meanings

NAMES = ["core", "whole", "enhancing"]


def table(label: Callable[[bool, bool, bool], int]) -> list[int]:
    """The label of each set of the three masks."""
    return [label(bool(one & 1), bool(one & 2), bool(one & 4)) for one in range(8)]


def test_each_label_is_said_by_the_masks_it_is_in_and_outside_of() -> None:
    brats = table(lambda core, whole, enhancing: 4 if enhancing else 1 if core else 2 if whole else 0)
    assert meanings(brats, NAMES) == {
        1: "core outside enhancing",
        2: "whole outside core, enhancing",
        4: "enhancing",
    }


def test_a_meeting_of_masks_is_said() -> None:
    assert meanings(table(lambda core, whole, enhancing: 7 * (core and enhancing)), NAMES) == {
        7: "core and enhancing"
    }


@pytest.mark.parametrize(
    "label",
    [
        lambda core, whole, enhancing: core + whole,  # 1 is either of two
        lambda core, whole, enhancing: 1 if not core else 0,  # what is in no mask is labelled
        lambda core, whole, enhancing: int(core != whole),
    ],
)
def test_a_label_that_no_plain_words_say_is_left_alone(label: Callable[[bool, bool, bool], int]) -> None:
    assert not meanings(table(label), NAMES)


def test_an_answer_that_is_not_of_all_sets_says_nothing() -> None:
    assert not meanings([], NAMES)
    assert not meanings([0, 1, 1, 1], NAMES)
