"""A network over a whole volume, window by window, as MONAI's sliding_window_inference runs it.

The windows, their order and what they weigh are MONAI's. Three things are done in another way. Windows are asked for
while the one before is blended, so that no core waits. What no further window touches is handed on at once: scores of
every class are kept for one window's length of the first axis and not for the whole volume. And of windows that hold
one value alone, air, the network sees the first: its answer to the others is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices

Answer = Callable[[], torch.Tensor]
Begin = Callable[[torch.Tensor], Answer]
"""(n, channels, window) float32 → what waits for (n, classes, window) float32, valid for `in_flight` calls more."""
Window = tuple[slice, ...]

_KEPT_CONSTANTS = 4  # different values, of which the answer is kept: each costs a window of every class


@dataclass(frozen=True)
class WindowedNetwork:
    """A network that takes windows: `at_once` in a call, and so many calls begun before the first is waited for.

    `in_flight` is asked before each call: it may become less for a while, and never more than at first.
    """

    begin: Begin
    at_once: int = 1
    in_flight: Callable[[], int] = lambda: 1


@dataclass(frozen=True, eq=False)
class Slab:
    """Blended scores of the planes `first` and on of the image's first axis, valid until the next slab."""

    first: int
    scores: torch.Tensor
    """(classes, planes, axis 2, axis 3) float32: sums over the windows, to be divided by `weight`."""
    weight: torch.Tensor | None
    """(planes, axis 2, axis 3) float32; None where it was not asked for: the highest class is the same without."""


def at_once(network: Callable[[torch.Tensor], torch.Tensor]) -> Begin:
    """A network that answers when it is called."""

    def begin(windows: torch.Tensor) -> Answer:
        answer = network(windows)
        return lambda: answer

    return begin


def slabs(
    image: torch.Tensor,
    network: WindowedNetwork,
    window: Sequence[int],
    overlap: float,
    blend: str,
    *,
    weighted: bool = False,
) -> Iterator[Slab]:
    """(1, channels, axes) float32 → the scores, slab by slab along the first axis, without a gap.

    An image that is smaller than the window is padded with zeros on both sides, as MONAI does.
    """
    padded, before = _padded(image, window)
    importance = None
    if blend != "constant":
        importance = compute_importance_map(tuple(window), mode=blend, device=image.device, dtype=torch.float32)
    windows = window_slices(tuple(padded.shape[2:]), window, overlap)
    blended = _blended(_answers(padded, windows, network), tuple(padded.shape[2:]), importance, weighted)
    yield from _cropped(blended, before, tuple(image.shape[2:]))


def cut(image: torch.Tensor, window: Sequence[int], overlap: float) -> Iterator[torch.Tensor]:
    """Every window of (1, channels, axes) float32, as the network would see it: (1, channels, window)."""
    padded, _ = _padded(image, window)
    for part in window_slices(tuple(padded.shape[2:]), window, overlap):
        yield padded[:, :, *part].contiguous()


def window_slices(shape: Sequence[int], window: Sequence[int], overlap: float) -> list[Window]:
    """As sliding_window_inference places them; the first axis moves slowest."""
    steps = [n if n == w else max(int(w * (1 - overlap)), 1) for n, w in zip(shape, window, strict=True)]
    return list(dense_patch_slices(shape, window, steps))


def _padded(image: torch.Tensor, window: Sequence[int]) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The image, at least as large as the window, and how much was put before each axis."""
    lacking = [max(w - n, 0) for n, w in zip(image.shape[2:], window, strict=True)]
    if not any(lacking):
        return image, (0,) * len(lacking)
    both = [part for n in reversed(lacking) for part in (n // 2, n - n // 2)]
    return torch.nn.functional.pad(image, both), tuple(n // 2 for n in lacking)


def _cropped(found: Iterator[Slab], before: Sequence[int], shape: Sequence[int]) -> Iterator[Slab]:
    """Without what was padded."""
    inner = tuple(slice(b, b + n) for b, n in zip(before[1:], shape[1:], strict=True))
    for slab in found:
        first, last = slab.first - before[0], slab.first - before[0] + slab.scores.shape[1]
        low, high = max(first, 0), min(last, shape[0])
        if low < high:
            part = (slice(low - first, high - first), *inner)
            weight = None if slab.weight is None else slab.weight[part]
            yield Slab(low, slab.scores[:, *part], weight)


# ------------------------------------------------------------------------------------------------- asking


def _answers(
    image: torch.Tensor, windows: Sequence[Window], network: WindowedNetwork
) -> Iterator[tuple[Window, torch.Tensor]]:
    """Every window with its (classes, window) scores, in order; these are valid until the next is asked for."""
    begun: deque[tuple[Sequence[Window], Answer]] = deque()
    constants: dict[tuple[float, ...], Answer] = {}
    try:
        for group, values, key in _groups(image, windows, network.at_once):
            while len(begun) >= network.in_flight():
                yield from _waited_for(begun.popleft())
            if key is None:
                begun.append((group, network.begin(values)))
            elif (known := constants.get(key)) is not None:
                begun.append((group, known))
            else:
                constants[key] = _kept(network.begin(values))
                begun.append((group, constants[key]))
        while begun:
            yield from _waited_for(begun.popleft())
    finally:
        for _, answer in begun:  # who stops half way leaves nothing running
            answer()


def _groups(
    image: torch.Tensor, windows: Sequence[Window], most: int
) -> Iterator[tuple[Sequence[Window], torch.Tensor, tuple[float, ...] | None]]:
    """Windows that go to the network together, their values, and the values of each channel where they are one."""
    together: list[tuple[Window, torch.Tensor]] = []
    known: set[tuple[float, ...]] = set()
    for window in windows:
        values = image[:, :, *window]
        key = _constant(values)
        if key is not None and (key in known or len(known) < _KEPT_CONSTANTS):
            known.add(key)
            if together:
                yield _joined(together)
                together = []
            yield [window], values.contiguous(), key
            continue
        together.append((window, values))
        if len(together) == most:
            yield _joined(together)
            together = []
    if together:
        yield _joined(together)


def _joined(together: Sequence[tuple[Window, torch.Tensor]]) -> tuple[Sequence[Window], torch.Tensor, None]:
    windows, values = zip(*together, strict=True)
    return windows, values[0].contiguous() if len(values) == 1 else torch.cat(values), None


def _constant(values: torch.Tensor) -> tuple[float, ...] | None:
    """The value of each channel where that is one alone; a look at the corner spares most windows the rest."""
    corner = values[0, :, 0, 0, 0]
    a, b, c = values.shape[2:]
    middle = values[0, :, a // 2, b // 2, c // 2]
    if not torch.equal(corner, middle) or not bool((values[0] == corner[:, None, None, None]).all()):
        return None
    return tuple(corner.tolist())


def _kept(answer: Answer) -> Answer:
    """The same answer for whoever asks again."""
    found: list[torch.Tensor] = []

    def again() -> torch.Tensor:
        if not found:
            found.append(answer().clone())
        return found[0]

    return again


def _waited_for(begun: tuple[Sequence[Window], Answer]) -> Iterator[tuple[Window, torch.Tensor]]:
    windows, answer = begun
    scores = answer()
    if not isinstance(scores, torch.Tensor):
        raise TypeError(f"the network answers with a {type(scores).__name__}; one tensor is needed")
    expected = tuple(part.stop - part.start for part in windows[0])
    if scores.shape[0] != len(windows) or tuple(scores.shape[2:]) != expected:
        raise ValueError(f"the network answers {tuple(scores.shape)} to {len(windows)} windows of {expected}")
    yield from zip(windows, scores, strict=True)


# ------------------------------------------------------------------------------------------------ blending


def _blended(
    answers: Iterator[tuple[Window, torch.Tensor]],
    shape: Sequence[int],
    importance: torch.Tensor | None,
    weighted: bool,
) -> Iterator[Slab]:
    """Sums the windows; what lies before the window that comes now is done."""
    first, sums = 0, None
    for window, scores in answers:
        length = window[0].stop - window[0].start
        if sums is None:
            sums = _Sums(scores.new_zeros(len(scores) + weighted, length, *shape[1:]), importance, weighted)
        if window[0].start > first:
            yield sums.slab(first, window[0].start - first)
            sums.move(window[0].start - first)
            first = window[0].start
        sums.add(window, scores)
    if sums is not None:
        yield sums.slab(first, shape[0] - first)


class _Sums:
    """`sums`: (classes, and the weight behind them where it is wanted, planes, axis 2, axis 3) float32."""

    def __init__(self, sums: torch.Tensor, importance: torch.Tensor | None, weighted: bool) -> None:
        self._sums, self._importance, self._weighted = sums, importance, weighted

    def add(self, window: Window, scores: torch.Tensor) -> None:
        part = self._sums[:, :, *window[1:]]
        part[: len(scores)] += scores if self._importance is None else scores * self._importance
        if self._weighted:
            part[-1] += 1.0 if self._importance is None else self._importance

    def slab(self, first: int, planes: int) -> Slab:
        done = self._sums[:, :planes]
        return Slab(first, done[:-1], done[-1]) if self._weighted else Slab(first, done, None)

    def move(self, planes: int) -> None:
        kept = self._sums[:, planes:].clone()
        self._sums[:, : kept.shape[1]] = kept
        self._sums[:, kept.shape[1] :] = 0.0
