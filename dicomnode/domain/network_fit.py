"""Whether a network is one of its card's: what it takes and what it answers for one window, by their shapes.

A shape is (windows, channels, ...), and None stands for a length that the network leaves open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from dicomnode.domain.model_card import ModelCard
from dicomnode.errors import NetworkUnfit

Shape = Sequence[int | None]


def window_of(card: ModelCard) -> tuple[int, ...]:
    """One window, or one image: (1, channels, axes), as the node gives it."""
    return (1, 1 + len(card.roles), *(card.input.size or card.network.window))


def check_takes(card: ModelCard, declared: Sequence[Shape]) -> None:
    """`declared`: what the file says of its inputs. Raises NetworkUnfit."""
    wanted = 2 if card.own_parameters else 1
    if len(declared) != wanted:
        _fail(
            "parameters",
            f"the network takes {len(declared)} tensors, and the node would give it {wanted}: a window, and the "
            "numbers of `parameters` where the card has some",
        )
    given, takes = window_of(card), declared[0]
    if len(takes) != len(given):
        _fail(*_other_axes(card, takes))
    if takes[1] not in (None, given[1]):
        _fail("inputs", channels_words(takes[1], given[1]))
    if any(its not in (None, ours) for its, ours in zip(takes[2:], given[2:], strict=True)):
        key = "input.size" if card.input.size else "network.window"
        _fail(key, f"the network takes {_shown(takes[2:])} and nothing else; the card says {_shown(given[2:])}")


def channels_words(takes: int | None, given: int) -> str:
    return (
        f"the network takes {takes} channels and the card means {given}: the main series, and one for each of "
        "`inputs`"
    )


def _other_axes(card: ModelCard, takes: Shape) -> tuple[str, str]:
    words = f"the network takes {_shown(takes)}, and the card means {_shown(window_of(card))}"
    if card.input.size:
        return "input.size", f"{words}; a network of volumes has no size, but spacing_mm and network.window"
    return "input", f"{words}; a network of single images has a size here, no spacing_mm and no network.window"


def check_answers(card: ModelCard, found: Sequence[Shape]) -> None:
    """`found`: what the network answered for one window. Raises NetworkUnfit."""
    if card.boxes is not None:
        _check_boxes(card, found)
        return
    wanted = _answer_of(card)
    if tuple(found[0]) == wanted:
        return
    shown = f"the network answers {_shown(window_of(card))} with {_shown(found[0])}, and the card means "
    _fail(f"output.{card.gives}", f"{shown}{_shown(wanted)}: {_meaning(card)}")


def _answer_of(card: ModelCard) -> tuple[int, ...]:
    numbers = card.classification.classes if card.classification else card.measurements and card.measurements.values
    if numbers:
        return (1, len(numbers))
    channels = 1 if card.map else len(card.segments) + (not card.masks.overlap)
    return (1, channels, *window_of(card)[2:])


def _meaning(card: ModelCard) -> str:
    """What the second number of the shape counts."""
    if card.classification or card.measurements:
        return "a number for each of them"
    if card.map:
        return "one channel, of the map's values"
    background = "" if card.masks.overlap else ", and the background's before them"
    return f"a channel for each segment{background}, in the window's own axes"


def _check_boxes(card: ModelCard, found: Sequence[Shape]) -> None:
    """As imaging.detect reads them; how many boxes there are depends on what is seen."""
    sides = 2 * (len(window_of(card)) - 2)
    if len(found) not in (2, 3) or found[0][-1] != sides:
        shown = ", ".join(_shown(shape) for shape in found)
        _fail(
            "output.boxes",
            f"the network answers with {shown}: boxes of {sides} numbers, scores and classes are needed",
        )


def _shown(shape: Shape) -> str:
    return " × ".join("any" if length is None else str(length) for length in shape) or "one number"


def _fail(key: str, words: str) -> NoReturn:
    raise NetworkUnfit(words, f"model.yaml.{key}")
