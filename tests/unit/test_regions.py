"""Tensors in the memory of whoever asks: found there, written there, and never taken for another's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dicomnode.adapters.triton.hosts.regions import CannotMap, places_in, read_from, written
from dicomnode.adapters.triton.shared_memory import Region, region
from dicomnode.adapters.triton.tensors import NOT_MAPPED, regions_input


@pytest.fixture
def made() -> Iterator[Region]:
    with region("dicomnode-test-regions", 1 << 16) as shared:
        shared.unlink()
        yield shared


def test_a_host_reads_what_lies_there_and_what_it_writes_stays_with_it(made: Region) -> None:
    array = made.array((2, 3, 4), np.int16)
    array[...] = np.arange(24).reshape(2, 3, 4)
    place = made.place(array[0].nbytes, (1, 3, 4))
    said = places_in(regions_input({"VOLUME": place}).tobytes())
    assert said == {"VOLUME": place}
    found = read_from(said["VOLUME"], np.int16)
    np.testing.assert_array_equal(found.numpy(), array[1:])
    found += 100
    assert array.max() == 23


def test_answers_with_a_place_are_put_there_and_the_others_are_left(made: Region) -> None:
    labels, scores = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4), torch.zeros(2)
    left = written({"LABELMAP": labels, "SCORES": scores}, {"LABELMAP": made.place(0, (2, 3, 4))})
    np.testing.assert_array_equal(made.array((2, 3, 4), np.uint8), labels.numpy())
    assert left.keys() == {"SCORES"}


def test_an_answer_of_another_shape_is_not_spread_over_its_place(made: Region) -> None:
    with pytest.raises(ValueError, match=r"LABELMAP is \(1, 3, 4\), \(2, 3, 4\) was asked for"):
        written({"LABELMAP": torch.zeros((1, 3, 4), dtype=torch.uint8)}, {"LABELMAP": made.place(0, (2, 3, 4))})


def test_another_file_at_the_same_path_is_not_read(made: Region) -> None:
    other = dataclasses.replace(made.place(0, (2, 3, 4)), inode=1)
    with pytest.raises(CannotMap, match=f"{NOT_MAPPED}: .* is another file here"):
        read_from(other, np.int16)


def test_a_region_that_was_closed_is_found_no_more() -> None:
    with region("dicomnode-test-regions", 4096) as shared:
        place = shared.place(0, (4,))
    with pytest.raises(CannotMap, match=NOT_MAPPED):
        read_from(place, np.int16)
