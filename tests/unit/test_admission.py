"""Which job begins when: places, urgency and memory."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode.domain.admission import (
    WITHOUT_END,
    Extent,
    Needs,
    Places,
    Room,
    Verdict,
    decide,
    in_turn,
    learned,
    needs_of,
)
from dicomnode.domain.job import Priority
from dicomnode.domain.model_after import Crop, Reference, SegmentGate, Step
from dicomnode.domain.study import Series
from dicomnode.ports import Admitted, JobFailed, JobFinished, JobWork, ModelVersion
from dicomnode.stages.admission import InTurn
from tests.adapters.fake_machine import FakeMachine
from tests.adapters.state_material import model_card

CT = Extent(300 * 512 * 512, 300 * 512 * 512 * 0.7**3)


def work(job_id: str = "a", priority: Priority = Priority.ROUTINE, digest: str = "0" * 64) -> JobWork:
    model = ModelVersion(1, "torso-ct", "1.0.0", digest, Path("/models/x"), model_card(), True)
    series = Series("1.2", "1.2.3", "CT", "A", "B", ())
    return JobWork(job_id, series, model, "torso", 1, (), 1, datetime(2026, 1, 1, tzinfo=UTC), priority=priority)


# ------------------------------------------------------------------------------------------------- what is decided


def needs(host: float) -> Needs:
    return Needs(Room(host / 2), Room(host))


def test_a_job_begins_when_what_it_likely_needs_is_free() -> None:
    assert decide(needs(3e9), Room(3e9, 1, 0), Room(8e9, 1, 0), is_alone=False).verdict is Verdict.BEGIN


def test_a_job_waits_in_words() -> None:
    decision = decide(needs(3.1e9), Room(2e9), Room(8e9), is_alone=False)
    assert (decision.verdict, decision.words) == (Verdict.WAIT, "waits for memory: needs 3.1 GB, 2.0 GB free")


def test_alone_it_is_tried_though_less_is_free() -> None:
    assert decide(needs(3.1e9), Room(2e9), Room(8e9), is_alone=True).verdict is Verdict.BEGIN


def test_what_can_never_fit_is_said_even_when_alone_and_only_if_it_is_sure() -> None:
    whole = Room(8e9)
    assert decide(Needs(Room(1e9), Room(9e9)), whole, whole, is_alone=True).verdict is Verdict.BEGIN
    decision = decide(Needs(Room(9e9), Room(9e9)), whole, whole, is_alone=True)
    assert decision.verdict is Verdict.NEVER
    assert decision.words.startswith("needs at least 9.0 GB of memory, and this machine has 8.0 GB in all: ")


@pytest.mark.parametrize(
    ("needed", "kind"),
    [(Room(0, 2e9), r"shared memory \(/dev/shm\)"), (Room(0, 0, 2e9), "GPU memory")],
)
def test_shared_and_gpu_memory_count_by_themselves(needed: Room, kind: str) -> None:
    decision = decide(Needs(likely=needed), Room(8e9, 64e6, 64e6), WITHOUT_END, is_alone=False)
    with pytest.raises(AssertionError, match=f"waits for {kind}: needs 2.0 GB, 0.1 GB free"):
        raise AssertionError(decision.words)


@pytest.mark.parametrize(
    ("places", "for_others", "for_urgent"),
    [
        (Places(2), 2, 3),
        (Places(2, urgent=0, others=2), 0, 1),
        (Places(2, urgent=1, others=0), 2, 2),
        (Places(2, urgent=2, others=0), 1, 1),
        (Places(2, urgent=1, others=2), 0, 0),
        (Places(2, urgent=3, others=0), 0, 0),
        (Places(1, urgent=0, others=2), 0, 0),  # after jobs_at_once was made smaller
    ],
)
def test_one_place_is_urgent_jobs_own(places: Places, for_others: int, for_urgent: int) -> None:
    assert (places.left(urgent=False), places.left(urgent=True)) == (for_others, for_urgent)


def test_who_has_no_place_is_told_who_has_them() -> None:
    asked = "waits for a worker with a free place: the last that was asked has"
    assert Places(1, 1, 1).words(urgent=False) == f"{asked} 1 job before it, as many as it may"
    assert Places(1, 1, 1).words(urgent=True) == f"{asked} 2 jobs before it, as many as it may"
    assert Places(2, 2, 1).words(urgent=False) == f"{asked} 2 jobs before it, as many as it may, 1 of them STAT"
    assert Places(1, 2, 0).words(urgent=True) == f"{asked} 2 jobs before it, as many as it may"


# ------------------------------------------------------------------------------------------------- what is needed


def test_needs_count_volume_labels_grid_and_activations() -> None:
    found = needs_of(model_card(), [CT], windows_at_once=1, on_gpu=False)
    regions = CT.voxels * 3
    grid = CT.volume_mm3 / 27 * 4 * 3  # 3 mm; float32: the input, and the scores of two classes
    assert found.surely.shared_bytes == regions
    assert found.surely.host_bytes == pytest.approx(regions + grid, rel=0.01)
    assert found.likely.shared_bytes == regions, "models read the volume where it lies"
    assert found.likely.host_bytes > found.surely.host_bytes


def test_scores_of_the_whole_volume_count_only_where_they_are_kept() -> None:
    """Else a job of many classes would be refused for memory that it never asks for."""
    card, large = model_card(), Extent(CT.voxels, 40 * CT.volume_mm3)
    kept = dataclasses.replace(card, network=dataclasses.replace(card.network, restore="scores"))
    by_labels, by_scores = (needs_of(c, [large], windows_at_once=1, on_gpu=False) for c in (card, kept))
    voxels = large.volume_mm3 / 27
    assert by_scores.surely.host_bytes - by_labels.surely.host_bytes == pytest.approx(2 * 4 * (voxels - 96**3))
    assert by_labels.surely.host_bytes < by_labels.likely.host_bytes < by_scores.likely.host_bytes


def test_on_a_gpu_the_grid_lies_there() -> None:
    found = needs_of(model_card(), [CT], windows_at_once=4, on_gpu=True)
    assert found.surely.host_bytes == found.surely.shared_bytes
    assert found.likely.gpu_bytes > 4 * 96**3 * 4


def test_on_a_gpu_the_volume_lies_there_too_where_it_is_resampled_there() -> None:
    card = model_card()
    own_chain = dataclasses.replace(card, network=dataclasses.replace(card.network, format="monai-bundle"))
    once, twice = (Extent(n * CT.voxels, CT.volume_mm3) for n in (1, 2))
    for each, more in ((card, 2 * CT.voxels), (own_chain, 0)):
        found = [needs_of(each, [size], windows_at_once=1, on_gpu=True) for size in (once, twice)]
        assert found[1].surely.gpu_bytes - found[0].surely.gpu_bytes == pytest.approx(more)


def test_a_further_series_needs_its_volume_too() -> None:
    alone, both = (needs_of(model_card(), s, windows_at_once=1, on_gpu=False) for s in ([CT], [CT, CT]))
    assert both.surely.shared_bytes - alone.surely.shared_bytes == 2 * CT.voxels


def test_a_chain_of_its_own_has_a_grid_that_nobody_knows() -> None:
    card = dataclasses.replace(model_card(), network=dataclasses.replace(model_card().network, format="monai-bundle"))
    found = needs_of(card, [CT], windows_at_once=1, on_gpu=False)
    assert found.surely.host_bytes == 3 * CT.voxels


def test_what_the_last_run_took_replaces_the_guess() -> None:
    guess = needs_of(model_card(), [CT], windows_at_once=4, on_gpu=False)
    found = learned(guess, {"host_bytes": 5e9})
    assert found.likely.host_bytes == pytest.approx(guess.likely.shared_bytes + 5e9)
    assert found.surely == guess.surely


# ------------------------------------------------------------------------------------------------------ the line


class Line:
    """Jobs that wait and begin, each in a thread of its own; `begun` in the order in which they did."""

    def __init__(self, turns: InTurn) -> None:
        self.turns, self.begun = turns, list[str]()
        self.said: dict[str, list[str]] = {}
        self.answers: dict[str, Admitted] = {}
        self._leave: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()

    def come(self, name: str, priority: Priority = Priority.ROUTINE, digest: str = "0" * 64) -> None:
        """Comes into the line, and is there when this returns."""
        before = self._count()
        self._leave[name], self.said[name] = threading.Event(), []
        thread = threading.Thread(target=self._run, args=(name, work(name, priority, digest)))
        self._threads.append(thread)
        thread.start()
        self.until(lambda: self._count() > before)

    def _count(self) -> int:
        return len(self.turns._line) + len(self.begun) + len(self.answers)

    def _run(self, name: str, job: JobWork) -> None:
        with self.turns.admitted(job, lambda words: self._hold(name, words)) as admitted:
            with self._changed:
                self.answers[name] = admitted
                if admitted.may_begin:
                    self.begun.append(name)
                self._changed.notify_all()
            if admitted.may_begin:
                self._leave[name].wait(30)

    def _hold(self, name: str, words: str) -> bool:
        with self._changed:
            self.said[name].append(words)
            self._changed.notify_all()
        return not self._leave[name].is_set()

    def leave(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(3000):
            if condition():
                return
            time.sleep(0.01)
        raise AssertionError("it did not come to that")

    def close(self) -> None:
        self.turns.close()
        for name, thread in zip(self._leave, self._threads, strict=True):
            self._leave[name].set()
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def line(turns: InTurn) -> Iterator[Line]:
    with ExitStack() as ended:
        made = Line(turns)
        ended.callback(made.close)
        yield made


def crowded(at_once: int = 4, free: float = 8e9, sizes: int = CT.voxels) -> InTurn:
    extent = dataclasses.replace(CT, voxels=sizes, volume_mm3=sizes * 0.7**3)
    return InTurn(at_once, FakeMachine(8e9, free), lambda job: (extent,), look_every_s=0.01)


def test_so_many_begin_at_once_and_what_comes_beside_them_is_left_to_other_workers() -> None:
    with line(InTurn(2, look_every_s=0.01)) as jobs:
        for name in "abc":
            jobs.come(name)
        jobs.until(lambda: "c" in jobs.answers)
        assert jobs.begun == ["a", "b"]
        assert jobs.answers["c"] == Admitted(False, elsewhere=Places(2, 0, 2).words(urgent=False))
        assert jobs.turns.places(urgent=False) == 0
        jobs.leave("a")
        jobs.until(lambda: jobs.turns.places(urgent=False) == 1)
        jobs.come("c again")
        jobs.until(lambda: jobs.begun == ["a", "b", "c again"])


def test_a_stat_job_has_a_place_of_its_own() -> None:
    with line(InTurn(1, look_every_s=0.01)) as jobs:
        jobs.come("a")
        jobs.come("c", Priority.HIGH)
        assert jobs.turns.places(urgent=True) == 1
        jobs.come("urgent", Priority.STAT)
        jobs.until(lambda: jobs.begun == ["a", "urgent"])
        jobs.come("urgent too", Priority.STAT)
        jobs.until(lambda: len(jobs.answers) == 4)
        assert jobs.begun == ["a", "urgent"], "one place beside the others, not one each"
        assert jobs.answers["urgent too"].elsewhere == Places(1, 1, 1).words(urgent=True)
        jobs.leave("a", "urgent")
        jobs.until(lambda: jobs.turns.places(urgent=True) == 2)
        jobs.come("urgent three", Priority.STAT)
        jobs.come("c again", Priority.HIGH)
        jobs.until(lambda: set(jobs.begun[2:]) == {"urgent three", "c again"})


def test_who_waits_for_memory_leaves_its_place_to_more_urgent_ones_and_goes_elsewhere() -> None:
    with line(crowded(at_once=1, free=1.5e9)) as jobs:
        jobs.come("urgent", Priority.STAT)
        jobs.come("b")
        jobs.until(lambda: bool(jobs.said["b"]))
        assert jobs.turns.places(urgent=False) == 0, "b has it while it waits"
        assert jobs.turns.places(urgent=True) == 1, "an urgent one would have b's"
        jobs.come("urgent too", Priority.STAT)
        jobs.until(lambda: "b" in jobs.answers)
        assert jobs.answers["b"] == Admitted(False, elsewhere=Places(1, 2, 0).words(urgent=False))
        jobs.leave("urgent")
        jobs.until(lambda: jobs.begun == ["urgent", "urgent too"])


def test_who_stands_behind_one_that_waits_says_so_and_need_not_be_first_to_leave() -> None:
    with line(crowded(free=1.5e9)) as jobs:
        for name in "abc":
            jobs.come(name)
        jobs.until(lambda: bool(jobs.said["c"]))
        assert jobs.said["c"][0] == "waits for memory: a job that goes before it waits for some too"
        jobs.leave("c")  # as when it is cancelled: hold() says False
        jobs.until(lambda: "c" in jobs.answers)
        assert jobs.answers["c"] == Admitted(False)
        assert jobs.begun == ["a"]


def test_a_stat_job_takes_none_of_the_others_places() -> None:
    with line(InTurn(1, look_every_s=0.01)) as jobs:
        jobs.come("urgent", Priority.STAT)
        jobs.come("a")
        jobs.until(lambda: set(jobs.begun) == {"urgent", "a"})
        jobs.come("b")
        jobs.until(lambda: "b" in jobs.answers)
        assert "b" not in jobs.begun


def test_a_job_waits_for_memory_until_another_has_ended() -> None:
    with line(crowded(free=1.5e9)) as jobs:
        jobs.come("a")
        jobs.come("b")
        jobs.until(lambda: bool(jobs.said["b"]))
        assert jobs.said["b"][0].startswith("waits for memory: needs ")
        assert jobs.begun == ["a"]
        jobs.leave("a")
        jobs.until(lambda: jobs.begun == ["a", "b"])


def test_what_was_promised_is_not_free_though_nobody_has_it_yet() -> None:
    """The machine goes on saying that all is free, as it does in the moment in which jobs begin."""
    needed = needs_of(model_card(), [CT], windows_at_once=1, on_gpu=False).likely.host_bytes
    with line(crowded(free=2.5 * needed)) as jobs:
        for name in "abc":
            jobs.come(name)
        jobs.until(lambda: bool(jobs.said["c"]))
        assert jobs.begun == ["a", "b"]


def test_small_jobs_do_not_overtake_a_large_one_for_ever_but_urgent_ones_do() -> None:
    turns = crowded(free=1.5e9)
    small = dataclasses.replace(CT, voxels=1000, volume_mm3=1000.0)
    turns.sizes = lambda job: (small if job.job_id in ("small", "urgent") else CT,)
    turns.windows_at_once = 0
    with line(turns) as jobs:
        jobs.come("a")
        turns.machine = FakeMachine(8e9, 0.1e9)
        jobs.come("large")
        jobs.come("small")
        jobs.until(lambda: len(jobs.said["large"]) > 2)
        assert jobs.begun == ["a"]
        jobs.come("urgent", Priority.STAT)
        jobs.until(lambda: jobs.begun == ["a", "urgent"])
        jobs.leave("a", "urgent")
        jobs.until(lambda: jobs.begun[2:3] == ["large"])


def test_what_can_never_fit_does_not_wait() -> None:
    with line(crowded(sizes=20_000_000_000)) as jobs:
        jobs.come("huge")
        jobs.until(lambda: "huge" in jobs.answers)
        outcome = jobs.answers["huge"].outcome
        assert isinstance(outcome, JobFailed)
        assert (outcome.code, outcome.retryable) == ("too-large", False)
        assert outcome.reason.startswith("needs at least ")
        jobs.come("next")
        jobs.until(lambda: "next" in jobs.answers)


def test_a_job_that_waits_no_more_leaves_the_line_to_the_next() -> None:
    with line(crowded(free=1e9)) as jobs:
        jobs.come("a")
        jobs.come("b")
        jobs.until(lambda: bool(jobs.said["b"]))
        jobs.leave("b")  # as when it is cancelled: hold() says False
        jobs.until(lambda: "b" in jobs.answers)
        assert jobs.answers["b"] == Admitted(False)
        jobs.come("c")
        jobs.leave("a")
        jobs.until(lambda: jobs.begun == ["a", "c"])


def test_nobody_begins_once_it_is_closed() -> None:
    with line(InTurn(1, look_every_s=0.01)) as jobs:
        jobs.come("a")
        jobs.turns.close()
        jobs.come("b", Priority.STAT)
        jobs.until(lambda: "b" in jobs.answers)
        assert jobs.answers["b"] == Admitted(False)
        assert jobs.begun == ["a"]


def test_what_a_model_took_is_remembered_and_grows_with_the_series() -> None:
    turns = crowded()
    turns.taken = lambda model: {"host_bytes": 1e9}
    turns.ended(work(), JobFinished(()))
    asked = turns._needs(work())
    assert asked.likely.host_bytes == pytest.approx(asked.likely.shared_bytes + 1e9)
    turns.sizes = lambda job: (dataclasses.replace(CT, voxels=2 * CT.voxels),)
    asked = turns._needs(work())
    assert asked.likely.host_bytes == pytest.approx(asked.likely.shared_bytes + 2e9)
    other = turns._needs(work(digest="1" * 64))
    assert other.likely != asked.likely, "of another version nothing is known"


def test_without_sizes_nothing_is_asked_for() -> None:
    turns = InTurn(1, FakeMachine(8e9, 0.0))
    assert turns._needs(work()) == Needs()


def test_a_composed_model_needs_what_the_neediest_of_them_does() -> None:
    small, large = model_card(), model_card()
    large = replace(large, network=replace(large.network, window=(192, 192, 192)))
    of_each = [needs_of(card, [CT], windows_at_once=1, on_gpu=False) for card in (small, large)]
    both = in_turn(of_each)
    assert both.likely == of_each[1].likely
    assert in_turn([]) == Needs()
    assert in_turn([Needs(Room(1, 5), Room(2, 5)), Needs(Room(3, 0), Room(3, 6))]) == Needs(Room(3, 5), Room(3, 6))


def test_a_cropped_model_is_never_refused_for_the_size_of_the_whole_series() -> None:
    crop = Step(Reference("first"), Crop(SegmentGate(("Lungs",))))
    job = work()
    cropped = replace(job, model=replace(job.model, card=replace(job.model.card, after=(crop,))))
    turns = InTurn(1, FakeMachine(), lambda work: (CT,))
    assert turns._needs(job).surely != Room()
    assert turns._needs(cropped).surely == Room()
    assert turns._needs(cropped).likely == turns._needs(job).likely
    beside = replace(cropped, before={"first": job.model})
    assert turns._needs(beside) == turns._needs(job)
