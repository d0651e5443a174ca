"""Accept: a model version gives on this machine and its engine what its package says it must, or it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, CaseOutcome, digests_before
from dicomnode.domain.golden import GOLDEN_FOLDER, GoldenCase, expected_array
from dicomnode.domain.halt import Halt
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_parameter import threshold_of
from dicomnode.errors import InvalidModelPackage, ModelFailed, SeriesRefused
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.imaging.golden import (
    GivenVolume,
    read_dicom_images,
    read_dicom_volume,
    read_expected,
    read_npz_volumes,
)
from dicomnode.ports import Clock, InferenceEngine, InferenceRequest, InferenceSession, ModelVersion
from dicomnode.ports.progress import Told, nobody
from dicomnode.stages.answers import Answers, Labels, Question, Scores, gives_arrays
from dicomnode.stages.composed import led
from dicomnode.stages.judge import answer_of, judged, nothing_of


@dataclass(frozen=True, eq=False)
class CaseRun:
    """What a model gave for a golden case, and how long its parts took."""

    answer: npt.NDArray[Any]  # what golden cases expect of such a card, see domain.golden.EXPECTED
    timings_s: Mapping[str, float]

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """Of a model that gives segments, in the main volume's grid."""
        return self.answer


class AcceptStage:
    """`before`: the versions that come before a composed model, by what the cards call them. Its golden cases run
    through them; without them, and where no golden case is run, it runs alone. `host` and `cpu` name this machine.
    `told` is given a line about each thing that takes a while.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        clock: Clock,
        timeout_s: float,
        before: Mapping[str, ModelVersion] = MappingProxyType({}),
        *,
        host: str = "",
        cpu: str = "",
        told: Told = nobody,
    ) -> None:
        self._engine, self._clock, self._timeout_s, self._before = engine, clock, timeout_s, before
        self._host, self._cpu, self._told = host, cpu, told

    def accept(self, model: ModelVersion, cases: Sequence[GoldenCase]) -> Acceptance:
        """Raises InvalidModelPackage for a case that cannot be read, EngineUnavailable, InferenceTimeout."""
        if not cases:
            return Acceptance(AcceptanceOutcome.NONE, self._clock.now(), host=self._host)
        begun_s = self._clock.monotonic()
        described = self.loaded(model)
        on = " ".join(described.get(key, "") for key in ("engine", "precision")).strip()
        outcomes = []
        for number, case in enumerate(cases, 1):
            which = f"golden case {number} of {len(cases)} ({case.name})"
            self._told(f"runs {which} of {model.name} {model.version}{f' on {on}' if on else ''}")
            outcomes.append(self._tried(model, case))
        return Acceptance(
            AcceptanceOutcome.PASSED if all(case.passed for case in outcomes) else AcceptanceOutcome.FAILED,
            self._clock.now(),
            tuple(outcomes),
            engine=described.get("engine", ""),
            precision=described.get("precision", ""),
            device=described.get("device", ""),
            server=described.get("server", ""),
            seconds=round(self._clock.monotonic() - begun_s, 3),
            host=self._host,
            cpu=self._cpu,
            before=digests_before(first.digest for first in self._before.values()),
        )

    def run_case(self, model: ModelVersion, case: GoldenCase) -> CaseRun:
        """Through the engine as a job would be; raises as accept, and ModelFailed."""
        return self.run_volumes(model, self.volumes_of(model, case), case)

    def volumes_of(self, model: ModelVersion, case: GoldenCase) -> list[GivenVolume]:
        """Raises InvalidModelPackage."""
        return read_case(model, case)

    def run_volumes(
        self, model: ModelVersion, volumes: Sequence[GivenVolume], case: GoldenCase | None = None
    ) -> CaseRun:
        main, *further = volumes
        with self._engine.open(main.shape, [given.shape for given in further]) as session:
            for given, into in zip(volumes, (session.volume, *session.further), strict=True):
                into[...] = given.values
            session.freeze()
            if case is not None and self._before:
                return self._composed(session, model, volumes, case)
            return CaseRun(self._answer(session, model, volumes, case), dict(session.timings_s))

    def _composed(
        self, session: InferenceSession, model: ModelVersion, volumes: Sequence[GivenVolume], case: GoldenCase
    ) -> CaseRun:
        """As a job of a composed model; of what it is kept from, what says nothing (see judge.nothing_of)."""
        timeout_s, halt, card = model.card.timeout_s or self._timeout_s, Halt(), model.card
        with ExitStack() as opened:
            answers = Answers([given.placement for given in volumes], lambda: session, self._clock, opened)
            lead = led(_Given(answers, halt), model, self._before, self._timeout_s)
            if lead.skipped:
                return CaseRun(nothing_of(card, volumes[0].shape), {})
            question = Question(model, case.parameters, timeout_s, lead.region)
            found: Labels | Scores
            if gives_arrays(model):
                found = answers.labels(question, halt)
                answer = answer_of(card, found.arrays, threshold_of(card.output, case.parameters))
            else:
                found = answers.classes(question, halt)
                answer = found.array.copy()
            parts = {name.removeprefix("infer: "): s for name, s in found.timings_s.items() if ": " in name}
            return CaseRun(answer, parts)

    def medians_s(self, model: ModelVersion, volumes: Sequence[GivenVolume], runs: int) -> dict[str, float]:
        """Of the host's parts, and "whole" of their sum; the first run, which loads and warms it, does not count."""
        self._told(f"loads {model.name} {model.version}, and runs it once")
        self.run_volumes(model, volumes)
        timings = []
        for number in range(1, runs + 1):
            self._told(f"times run {number} of {runs}")
            timings.append(self.run_volumes(model, volumes).timings_s)
        parts = {part: median(taken[part] for taken in timings) for part in timings[0]}
        return {**parts, "whole": median(sum(taken.values()) for taken in timings)}

    def _answer(
        self,
        session: InferenceSession,
        model: ModelVersion,
        volumes: Sequence[GivenVolume],
        case: GoldenCase | None,
    ) -> npt.NDArray[Any]:
        place, further = volumes[0].placement, [given.placement for given in volumes[1:]]
        parameters, timeout_s = case.parameters if case else {}, model.card.timeout_s or self._timeout_s
        threshold = threshold_of(model.card.output, parameters)
        request = InferenceRequest(
            model,
            None if model.card.input.is_of_images and not model.card.output.of_images else place.geometry,
            place.rescale,
            timeout_s=timeout_s,
            further=further,
            parameters=parameters,
        )
        with session.ask(request) as arrays:
            return answer_of(model.card, arrays, threshold)

    def _tried(self, model: ModelVersion, case: GoldenCase) -> CaseOutcome:
        expected = read_answer(model, case)
        try:
            run = self.run_case(model, case)
        except (ModelFailed, SeriesRefused) as error:
            return CaseOutcome(case.name, False, (), str(error))
        return judged(model.card, case, run.answer, expected)

    def loaded(self, model: ModelVersion) -> Mapping[str, str]:
        """What it runs on; nothing of a model that could not be loaded."""
        self._told(f"loads {model.name} {model.version}")
        try:
            return self._engine.describe(model)
        except ModelFailed:
            return {}


@dataclass(frozen=True, slots=True)
class _Given:
    """composed.Asked over the volumes of a golden case, which nobody else asks about."""

    answers: Answers
    never: Halt

    @property
    def geometry(self) -> VolumeGeometry:
        return self.answers.geometry

    def labels(self, question: Question, halt: Halt | None = None) -> Labels:
        return self.answers.labels(question, halt or self.never)

    def classes(self, question: Question, halt: Halt | None = None) -> Scores:
        return self.answers.classes(question, halt or self.never)


def read_series(card: ModelCard, main: Path, roles: Mapping[str, Path]) -> list[GivenVolume]:
    """Of DICOM files in folders: the main one, and one for each of the card's roles. Raises InvalidModelPackage."""
    names = [role.name for role in card.roles]
    if set(roles) != set(names):
        raise InvalidModelPackage(
            f"the card has the roles {', '.join(names) or '(none)'}; name a folder for each, and for nothing else"
        )
    if card.input.is_of_images and not card.after:  # what comes first may need the place of images
        return [read_dicom_images(main, card.input)]
    return [read_dicom_volume(main), *(read_dicom_volume(roles[name]) for name in names)]


def read_case(model: ModelVersion, case: GoldenCase) -> list[GivenVolume]:
    """The main volume and those of the card's roles, in their order; raises InvalidModelPackage."""
    path, roles = _file(model, case.input), [role.name for role in model.card.roles]
    alone = model.card.input.is_of_images and not model.card.after  # what comes first may need the place of images
    if not path.is_dir():
        needs_place = not alone or model.card.input.pixel_spacing_mm is not None  # how large the pixels are
        return read_npz_volumes(path, 1 + len(roles), needs_place=needs_place)
    try:
        return read_series(model.card, path, {role: _file(model, name) for role, name in case.roles.items()})
    except InvalidModelPackage as error:
        if error.path:
            raise
        raise InvalidModelPackage(f"case {case.name}: {error}", f"{GOLDEN_FOLDER}/cases.yaml") from None


def read_answer(model: ModelVersion, case: GoldenCase) -> npt.NDArray[Any]:
    """What a case says must come out; raises InvalidModelPackage."""
    return read_expected(_file(model, case.expected), expected_array(model.card))


def synthetic_volumes(model: ModelVersion) -> list[GivenVolume]:
    """Noise in the range of the card's values for each of its series, in a CT's usual size: for timing only."""
    spec = model.card.input
    affine = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    placement = Placement(VolumeGeometry(_SYNTHETIC_SHAPE, affine), Rescale(1.0, 0.0))
    rng = np.random.default_rng(0)
    ends = [spec.intensity_from, *(role.intensity_from for role in model.card.roles)]
    return [GivenVolume(_noise(rng, low, high), placement) for low, high in ends]


def _noise(rng: np.random.Generator, low: float, high: float) -> npt.NDArray[np.int16]:
    """(slice, row, column) int16 between the two, as far as int16 goes."""
    least, most = (int(np.clip(end, -32768, 32766)) for end in (low, high))
    return rng.integers(least, max(most, least + 1), size=_SYNTHETIC_SHAPE, dtype=np.int16)


_SYNTHETIC_SHAPE = (64, 256, 256)  # (slice, row, column)


def _file(model: ModelVersion, name: str) -> Path:
    return Path(model.path) / GOLDEN_FOLDER / name
