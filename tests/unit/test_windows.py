"""A network over a volume: MONAI's sliding window, in less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.inferers.utils import sliding_window_inference

from dicomnode.imaging.windows import WindowedNetwork, at_once, cut, slabs

Windows = list[torch.Tensor]
WINDOW = (16, 12, 20)


def network(seen: Windows) -> Callable[[torch.Tensor], torch.Tensor]:
    """Three classes of one or two channels; what it gives depends on the place within the window."""
    ramp = torch.linspace(-1, 1, 16)[:, None, None]

    def run(windows: torch.Tensor) -> torch.Tensor:
        seen.extend(windows)
        first, last = windows[:, 0], windows[:, -1]
        return torch.stack([first * ramp, last - first, (first * last).cos()], 1)

    return run


def whole(image: torch.Tensor, windowed: WindowedNetwork, overlap: float, blend: str, weighted: bool) -> torch.Tensor:
    parts, at = [], 0
    for slab in slabs(image, windowed, WINDOW, overlap, blend, weighted=weighted):
        assert slab.first == at
        at += slab.scores.shape[1]
        parts.append(slab.scores.clone() if slab.weight is None else slab.scores / slab.weight)
    return torch.cat(parts, 1)[None]


@pytest.mark.parametrize("blend", ["constant", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
@pytest.mark.parametrize(
    "shape",
    [(40, 30, 50), (16, 12, 20), (17, 40, 21), (9, 30, 20), (5, 6, 7), (61, 5, 20)],
)
@pytest.mark.parametrize("most", [1, 3])
def test_scores_are_those_of_monai(shape: tuple[int, int, int], overlap: float, blend: str, most: int) -> None:
    image = torch.randn((1, 2, *shape), generator=torch.Generator().manual_seed(len(shape) + shape[0]))
    run = network([])
    wanted = sliding_window_inference(image, WINDOW, 1, run, overlap=overlap, mode=blend)
    found = whole(image, WindowedNetwork(at_once(run), most), overlap, blend, weighted=True)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=2e-6)
    unweighted = whole(image, WindowedNetwork(at_once(run), most), overlap, blend, weighted=False)
    assert (unweighted.argmax(1) != wanted.argmax(1)).float().mean() < 1e-4  # but for ties


def test_windows_of_air_are_asked_for_once() -> None:
    image = torch.full((1, 1, 64, 48, 40), 0.25)
    image[:, :, :20, :14] = torch.rand((20, 14, 40), generator=torch.Generator().manual_seed(3))
    every: Windows = []
    wanted = sliding_window_inference(image, WINDOW, 1, network(every), overlap=0.25)
    asked: Windows = []
    found = whole(image, WindowedNetwork(at_once(network(asked))), 0.25, "constant", weighted=True)
    assert torch.equal(found, wanted)
    air = [window for window in every if bool((window == 0.25).all())]
    assert len(air) > 20
    assert len(asked) == len(every) - len(air) + 1


def test_a_voxel_in_a_corner_is_no_air() -> None:
    image = torch.zeros((1, 1, 40, 12, 20))
    image[0, 0, -1, -1, -3] = 1.0
    asked: Windows = []
    whole(image, WindowedNetwork(at_once(network(asked))), 0.25, "constant", weighted=False)
    assert [bool(window.any()) for window in asked] == [False, True]


def test_of_calls_in_flight_the_oldest_is_waited_for_first_and_its_memory_is_free_again() -> None:
    """Answers lie in a ring of buffers, as an engine's requests have them; none is written while it is still read."""
    image = torch.rand((1, 1, 90, 30, 20), generator=torch.Generator().manual_seed(5))
    image[:, :, 60:] = 0.5  # air, the answers to which are kept
    run, ring, begun, waiting = network([]), [torch.empty(1, 3, *WINDOW) for _ in range(3)], [0], [0]

    def begin(windows: torch.Tensor) -> Callable[[], torch.Tensor]:
        number = begun[0] % 3
        begun[0] += 1
        waiting[0] += 1
        assert waiting[0] <= 3
        ring[number].copy_(run(windows))

        def answer() -> torch.Tensor:
            waiting[0] -= 1
            return ring[number]

        return answer

    found = whole(image, WindowedNetwork(begin, 1, lambda: 3), 0.25, "constant", weighted=True)
    assert torch.equal(found, sliding_window_inference(image, WINDOW, 1, run, overlap=0.25))
    assert waiting[0] == 0
    assert begun[0] > 10


def test_what_was_begun_is_waited_for_when_a_call_raises() -> None:
    waiting = [0]

    def begin(windows: torch.Tensor) -> Callable[[], torch.Tensor]:
        if waiting[0] == 2:
            raise RuntimeError("cancelled")
        waiting[0] += 1

        def answer() -> torch.Tensor:
            waiting[0] -= 1
            return windows

        return answer

    with pytest.raises(RuntimeError, match="cancelled"):
        list(slabs(torch.rand(1, 1, 60, 30, 40), WindowedNetwork(begin, 1, lambda: 3), WINDOW, 0.25, "constant"))
    assert waiting[0] == 0


def test_an_answer_of_another_size_is_refused() -> None:
    half = WindowedNetwork(at_once(lambda windows: windows[..., ::2]))
    with pytest.raises(ValueError, match=r"answers \(1, 1, 16, 12, 10\) to 1 windows of \(16, 12, 20\)"):
        list(slabs(torch.rand(1, 1, 20, 20, 20), half, WINDOW, 0.25, "constant"))
    several = WindowedNetwork(at_once(lambda windows: (windows, windows)))  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="tuple"):
        list(slabs(torch.rand(1, 1, 20, 20, 20), several, WINDOW, 0.25, "constant"))


def test_cut_gives_what_the_network_sees() -> None:
    image = torch.rand(1, 2, 20, 10, 33)
    seen: Windows = []
    sliding_window_inference(image, WINDOW, 1, network(seen), overlap=0.25)
    assert all(torch.equal(a[0], b) for a, b in zip(cut(image, WINDOW, 0.25), seen, strict=True))
