"""Optimise: every engine that reads a network is tried on the same volumes; the fastest that is right stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy.typing as npt

from dicomnode.domain.engines import TRITON, Candidate, candidates, own_way
from dicomnode.domain.golden import GoldenCase
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.tuning import Tried, Tuning, chosen_document
from dicomnode.errors import ModelFailed, UsageError
from dicomnode.imaging.golden import GivenVolume
from dicomnode.ports import Clock, InferenceEngine, ModelVersion
from dicomnode.ports.progress import Told, nobody
from dicomnode.stages.accept import AcceptStage, read_answer, read_case, read_series
from dicomnode.stages.judge import judged, likeness


@dataclass(frozen=True, eq=False)
class Trial:
    """Volumes to run: the main one, those of the roles, and the parameters where a golden case has some.

    `expected`: what the case says must come out; none of a composed model, which runs alone here.
    """

    volumes: Sequence[GivenVolume]
    case: GoldenCase | None = None
    expected: npt.NDArray[Any] | None = None


def trials_of(model: ModelVersion, folders: Sequence[Path], cases: Sequence[GoldenCase]) -> list[Trial]:
    """Of series in folders, else of golden cases; raises InvalidModelPackage.

    Raises UsageError when there are neither, or nothing that the model could be tried with.
    """
    _candidates(model)(False)
    if folders and model.card.roles:
        raise UsageError(
            f"{model.name} needs several series at once: only golden cases can say which belong together"
        )
    trials = [Trial(read_series(model.card, folder, {})) for folder in folders]
    trials = trials or [Trial(read_case(model, case), case, _expected(model, case)) for case in cases]
    if not trials:
        raise UsageError(
            f"{model.name} {model.version} has no golden cases to be tried on; name a series with --series FOLDER"
        )
    return trials


def _expected(model: ModelVersion, case: GoldenCase) -> npt.NDArray[Any] | None:
    return None if model.card.after else read_answer(model, case)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A candidate, and which of all of them it is, as in "2 of 5"."""

    candidate: Candidate
    place: str

    @property
    def words(self) -> str:
        return f"tries {self.candidate.engine} {self.candidate.precision} ({self.place})"


@dataclass(frozen=True, eq=False)
class _Measured:
    labels: tuple[npt.NDArray[Any], ...]  # of each trial, what golden cases would expect
    seconds: float
    network_s: float
    described: Mapping[str, str]

    @property
    def ran(self) -> str:
        return " ".join(self.described.get(key, "") for key in ("engine", "precision")).strip()


class OptimiseStage:
    """`told` is given a line about each candidate and each of its runs, since they take seconds to minutes.

    `triton`: a Triton that has a backend for the network, which is a candidate too then.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        clock: Clock,
        timeout_s: float,
        *,
        has_gpu: bool,
        machine: str,
        told: Told = nobody,
        triton: InferenceEngine | None = None,
    ) -> None:
        self._engine, self._triton, self._clock, self._timeout_s = engine, triton, clock, timeout_s
        self._has_gpu, self._machine, self._told = has_gpu, machine, told

    def optimise(self, model: ModelVersion, trials: Sequence[Trial], runs: int) -> Tuning:
        """Raises UsageError for a model that brings its own way of running; ModelFailed when its own engine fails."""
        asked = _candidates(model)(self._has_gpu)
        asked += [Candidate(TRITON, "fp32")] if self._triton is not None else []
        reference, *others = (_Turn(one, f"{n} of {len(asked)}") for n, one in enumerate(asked, 1))
        original = self._measure(model, reference, trials, runs)
        same = _Judged(difference=0.0) if model.card.classification is not None else _Judged(dice=1.0)
        tried = [_tried(reference.candidate, original, same, "what the others are compared with")]
        tried += [self._try(model, turn, trials, runs, original) for turn in others]
        return Tuning(tuple(tried), self._machine, self._clock.now(), runs)

    def _try(
        self, model: ModelVersion, turn: _Turn, trials: Sequence[Trial], runs: int, original: _Measured
    ) -> Tried:
        candidate = turn.candidate
        try:
            measured = self._measure(model, turn, trials, runs)
        except ModelFailed as error:
            return Tried(candidate.engine, candidate.precision, right=False, words=str(error))
        far = _judged(model.card, measured.labels, original.labels)
        if not far.wrong:  # a worker serves what passes its golden cases alone
            far = replace(far, wrong=_unlike_expected(model.card, trials, measured.labels))
        return _tried(candidate, measured, far, f"{original.seconds / measured.seconds:.2f} times as fast")

    def _measure(self, model: ModelVersion, turn: _Turn, trials: Sequence[Trial], runs: int) -> _Measured:
        """A first run that is not counted chooses kernels and maps memory."""
        self._told(f"{turn.words}: loads it, and runs it once")
        version = replace(model, tuning=chosen_document(turn.candidate))
        engine = self._triton if turn.candidate.engine == TRITON and self._triton is not None else self._engine
        run = AcceptStage(engine, self._clock, self._timeout_s)
        labels = tuple(run.run_volumes(version, t.volumes, t.case).answer for t in trials)
        whole, network = [], []
        for number in range(1, runs + 1):
            self._told(f"{turn.words}: times run {number} of {runs}")
            begun_s = self._clock.monotonic()
            timings = [run.run_volumes(version, t.volumes, t.case).timings_s for t in trials]
            whole.append(self._clock.monotonic() - begun_s)
            network.append(sum(t.get("network", 0.0) for t in timings))
        return _Measured(labels, median(whole), median(network), engine.describe(version))


def _candidates(model: ModelVersion) -> Callable[[bool], list[Candidate]]:
    def of(has_gpu: bool) -> list[Candidate]:
        if found := candidates(model.card.network, has_gpu):
            return found
        raise UsageError(
            f"{model.name} {model.version} {own_way(model.card.network)}: there is nothing to choose from"
        )

    return of


@dataclass(frozen=True, slots=True)
class _Judged:
    """How far the answers, whatever they are, are from the reference's, and what is wrong with that, if anything."""

    wrong: str = ""
    dice: float | None = None
    difference: float | None = None


def _judged(card: ModelCard, found: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]]) -> _Judged:
    figure, wrong = likeness(card, found, expected)
    if card.gives == "segments":
        return _Judged(wrong, dice=round(figure, 6))
    return _Judged(wrong, difference=round(figure, 6))


def _unlike_expected(card: ModelCard, trials: Sequence[Trial], found: Sequence[npt.NDArray[Any]]) -> str:
    """Which golden case it fails, and how; "" when it fails none."""
    for trial, answer in zip(trials, found, strict=True):
        if trial.case is not None and trial.expected is not None:
            outcome = judged(card, trial.case, answer, trial.expected)
            if not outcome.passed:
                return f"golden case {outcome.name}: {outcome.words}"
    return ""


def _tried(candidate: Candidate, measured: _Measured, far: _Judged, words: str) -> Tried:
    return Tried(
        candidate.engine,
        candidate.precision,
        right=not far.wrong,
        words=far.wrong or words,
        ran=measured.ran,
        seconds=round(measured.seconds, 4),
        network_s=round(measured.network_s, 4),
        dice=far.dice,
        difference=far.difference,
    )
