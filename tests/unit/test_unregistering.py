"""Memory goes once the server has let go of it, and not before."""

from __future__ import annotations

from dicomnode.adapters.triton.unregistering import Unregistering


class Reading:
    """A region that the server still reads for so many questions more."""

    def __init__(self, questions: int) -> None:
        self.questions, self.freed = questions, 0

    def gone(self) -> bool:
        self.questions -= 1
        return self.questions < 0

    def free(self) -> None:
        assert self.questions < 0
        self.freed += 1


def test_what_is_free_at_once_goes_at_once() -> None:
    region = Reading(0)
    Unregistering().take("a", region.gone, region.free)
    assert region.freed == 1


def test_what_is_read_for_a_moment_is_waited_for() -> None:
    region = Reading(3)
    Unregistering(wait_s=60).take("a", region.gone, region.free)
    assert region.freed == 1


def test_what_is_read_for_long_goes_with_one_that_comes_after_it() -> None:
    taking, held, later, last = Unregistering(wait_s=-1), Reading(2), Reading(0), Reading(0)
    taking.take("a", held.gone, held.free)
    assert held.freed == 0
    taking.take("b", later.gone, later.free)
    assert (held.freed, later.freed) == (0, 1)
    taking.take("c", last.gone, last.free)
    assert (held.freed, last.freed) == (1, 1)
