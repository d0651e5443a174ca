"""Senders that were turned away are told of at once, again from time to time, and never in a flood."""

from __future__ import annotations

from dicomnode.stages.index import Story
from dicomnode.stages.rejections import AGAIN_AFTER_S, KINDS_MOST, Rejection, Rejections, story_of
from tests.adapters.fake_state import FakeClock


def rejection(calling: str = "EVIL", words: str = "it may not send") -> Rejection:
    return Rejection("association.rejected", calling, "192.0.2.66", words)


class Told:
    def __init__(self) -> None:
        self.clock, self.stories = FakeClock(), list[Story]()
        self.rejections = Rejections(self.stories.append, self.clock.monotonic)


def test_the_first_is_told_at_once_and_those_after_it_with_their_number() -> None:
    told = Told()
    for _ in range(5):
        told.rejections.add(rejection())
    assert [story.message for story in told.stories] == ["turned away EVIL at 192.0.2.66: it may not send"]
    told.clock.advance(AGAIN_AFTER_S)
    told.rejections.add(rejection())
    assert told.stories[1].message.endswith("it may not send (5 times since it was last told)")
    assert told.stories[1].detail == {"calling_ae_title": "EVIL", "address": "192.0.2.66", "times": 5}
    told.rejections.add(rejection())
    assert len(told.stories) == 2


def test_each_sender_and_each_reason_is_told() -> None:
    told = Told()
    for one in (rejection(), rejection("OTHER"), rejection(words="too many")):
        told.rejections.add(one)
    assert len(told.stories) == 3
    assert {story.kind for story in told.stories} == {"association.rejected"}


def test_a_program_that_tries_every_ae_title_fills_neither_the_log_nor_the_memory() -> None:
    told = Told()
    for number in range(5 * KINDS_MOST):
        told.rejections.add(rejection(f"TRY{number}"))
    assert len(told.stories) == KINDS_MOST
    told.clock.advance(AGAIN_AFTER_S)
    told.rejections.add(rejection("LATER"))
    assert told.stories[-1].message.startswith("turned away LATER at")


def test_what_a_stranger_sends_writes_no_line_of_its_own() -> None:
    assert story_of(rejection("A\nB\x1b[2J "), 1).message == "turned away A?B?[2J at 192.0.2.66: it may not send"
    assert story_of(rejection(" "), 1).message.startswith("turned away a sender without an AE title at ")
