"""Which instances are a stack without a gap, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.completeness import Place
from dicomnode.domain.contiguity import look_at_stack

AXIAL = "0.00/0.00/1.00"


def stack(
    count: int, *, first: int = 1, step_mm: float = 2.5, plane: str = AXIAL, begins_mm: float = -80
) -> list[Place]:
    return [Place(first + k, plane, begins_mm + k * step_mm, 1, None) for k in range(count)]


def without(places: Sequence[Place], *left_out: int) -> list[Place]:
    return [place for place in places if place.instance_number not in left_out]


def words(places: Sequence[Place], modality: str = "CT") -> str:
    found = look_at_stack(places, modality)
    return f"{'+' if found.contiguous else '-'} {found.words}"


def test_a_stack_without_a_gap() -> None:
    assert words(stack(300)) == "+ 300 instances without a gap"
    assert words(list(reversed(stack(30, first=0)))) == "+ 30 instances without a gap"


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "NM"])
def test_the_first_images_are_no_stack_yet(count: int, modality: str) -> None:
    several = "s" if count > 1 else ""
    assert words(stack(count), modality) == f"- {count} image{several} of {modality} may be the first of a stack"


def test_a_missing_image_is_named() -> None:
    assert words(without(stack(30), 17)) == "- instance number 17 is missing"
    assert words(stack(30, first=45)) == "+ 30 instances without a gap", "scanners number parts of an examination on"
    assert words([]) == "- no images are here"


def test_a_missing_image_is_seen_by_its_place_when_numbers_do_not_tell() -> None:
    renumbered = [replace(p, instance_number=n) for n, p in enumerate(without(stack(30), 17), 1)]
    assert words(renumbered) == "- two images are 5.00 mm apart, most 2.50 mm"


def test_every_fourth_image_is_no_stack() -> None:
    """What one of four associations in parallel has brought."""
    assert words(stack(40)[::4]) == "- instance number 2 is missing"


def test_rounded_positions_are_equal_steps() -> None:
    places = [replace(p, position_mm=round(k * 0.6333, 1)) for k, p in enumerate(stack(40))]
    assert words(places) == "+ 40 instances without a gap"


def test_places_seen_several_times_are_seen_equally_often() -> None:
    echoes = [Place(n + 1, AXIAL, 3.0 * (n % 20), 1, None) for n in range(60)]
    assert words(echoes, "MR") == "+ 60 instances without a gap"
    assert words(echoes[:50], "MR") == "- some places were seen 2 times and some 3 times"


def test_one_place_seen_over_time() -> None:
    assert words([Place(n + 1, AXIAL, 12.0, 1, None) for n in range(40)]) == "+ 40 instances without a gap"


def test_numbers_may_repeat_in_several_planes() -> None:
    localizer = [*stack(5), *stack(5, plane="1.00/0.00/0.00"), *stack(5, plane="0.00/1.00/0.00")]
    assert words(localizer, "MR") == "+ 15 instances without a gap"
    gap = replace(localizer[7], position_mm=1000.0)
    assert words([*localizer[:7], gap, *localizer[8:]], "MR") == "- two images are 1070.00 mm apart, most 3.75 mm"


def test_images_without_a_position_between_others_do_not_count() -> None:
    assert words([*stack(30), Place(31, "", None, 1, None)]) == "+ 31 instances without a gap"


def test_images_of_a_stack_that_have_no_position() -> None:
    assert words([Place(n, "", None, 1, None) for n in (1, 2, 3)]) == "- the images have no positions"


def test_a_multi_frame_image_is_a_stack_by_itself() -> None:
    assert words([Place(1, "", None, 80, None)], "MR") == "+ 80 frames without a gap"
    assert words([Place(None, "", None, 80, None)], "MR") == "+ 80 frames without a gap"
    assert (
        words([Place(1, "", None, 80, None), Place(3, "", None, 80, None)], "MR") == "- instance number 2 is missing"
    )


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "US"])
def test_images_that_lie_in_no_plane_are_numbered(modality: str) -> None:
    assert words([Place(1, "", None, 1, None)], modality) == "+ 1 instance"
    assert words([Place(n, "", None, 1, None) for n in (1, 2, 4)], modality) == "- instance number 3 is missing"
    assert words([Place(None, "", None, 1, None)], modality) == "- images have no instance number"


def test_what_the_headers_announce() -> None:
    pet = [replace(p, images_announced=48) for p in stack(48)]
    assert words(pet, "PT") == "+ 48 instances without a gap, as many as the headers announce"
    assert words(pet[:40], "PT") == "- 40 of the 48 images that the headers announce are here"
    assert words([Place(1, "", None, 64, 64)], "NM") == "+ 64 frames without a gap, as many as the headers announce"


@given(
    st.integers(4, 60),
    st.floats(0.3, 10),
    st.floats(-2000, 2000),
    st.data(),
)
def test_whatever_is_left_out_inside_is_seen(
    count: int, step_mm: float, begins_mm: float, data: st.DataObject
) -> None:
    whole = stack(count, step_mm=step_mm, begins_mm=begins_mm)
    shuffled = data.draw(st.permutations(whole))
    assert look_at_stack(shuffled, "CT").contiguous
    left_out = data.draw(st.integers(2, count - 1))
    assert not look_at_stack(without(shuffled, left_out), "CT").contiguous
    missing_place = [replace(p, instance_number=n) for n, p in enumerate(without(whole, left_out), 1)]
    if count > 4:
        assert not look_at_stack(missing_place, "CT").contiguous


@given(
    st.lists(
        st.builds(
            Place,
            st.none() | st.integers(-(2**31), 2**31),
            st.sampled_from(["", AXIAL, "1.00/0.00/0.00"]),
            st.none() | st.floats(-1e6, 1e6),
            st.integers(1, 1000),
            st.none() | st.integers(1, 10000),
        ),
        max_size=12,
    ),
    st.sampled_from(["CT", "MR", "US", "", "??"]),
)
def test_whatever_comes_there_is_an_answer_with_words(places: list[Place], modality: str) -> None:
    assert look_at_stack(places, modality).words
