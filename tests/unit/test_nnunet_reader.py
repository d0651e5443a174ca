"""What nnU-Net's own thread does when a prediction is broken off: it ends. On its pattern, without nnU-Net."""

from __future__ import annotations

import threading
from queue import Queue

import pytest

from dicomnode.adapters.triton.hosts.nnunet import reader_let_go


class Broken(Exception):
    pass


def predict(slicers: list[int], broken_at: int, made: list[threading.Thread]) -> int:
    """As nnUNetPredictor._internal_predict_sliding_window_return_logits; how many windows were looked at."""
    queue: Queue[object] = Queue(maxsize=2)

    def producer(slh: list[int], q: Queue[object]) -> None:
        for number in slh:
            q.put(number)
        q.put("end")

    thread = threading.Thread(target=producer, args=(slicers, queue), daemon=True)
    made.append(thread)
    thread.start()
    seen = 0
    while queue.get() != "end":
        if seen == broken_at:
            raise Broken
        seen += 1
    return seen


@pytest.mark.parametrize("broken_at", [0, 1, 50])
def test_its_thread_ends(broken_at: int) -> None:
    made: list[threading.Thread] = []
    with pytest.raises(Broken), reader_let_go():
        predict(list(range(1000)), broken_at, made)
    made[0].join(60)
    assert not made[0].is_alive()


def test_so_does_that_of_a_run_that_was_tried_again() -> None:
    made: list[threading.Thread] = []
    slicers = list(range(1000))

    def once_more() -> None:
        try:
            predict(slicers, 3, made)
        except Broken:
            predict(slicers, 0, made)

    with pytest.raises(Broken), reader_let_go():
        once_more()
    for thread in made:
        thread.join(60)
    assert [thread.is_alive() for thread in made] == [False, False]


def test_what_is_not_broken_off_goes_to_its_end() -> None:
    with reader_let_go():
        assert predict(list(range(10)), 100, []) == 10
