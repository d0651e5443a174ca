"""Infer: a series becomes a volume, with the further series that its model needs, and the volumes a label map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.halt import Halt
from dicomnode.domain.model_card import RoleSpec
from dicomnode.domain.model_parameter import MINIMUM_AREA_MM2, complaints, settled, threshold_of
from dicomnode.domain.rules import Parameter
from dicomnode.domain.study import Series
from dicomnode.errors import NotAVolume, SeriesRefused
from dicomnode.imaging.headers import text
from dicomnode.imaging.images import ImagesPlan, is_inverted, not_monochrome
from dicomnode.imaging.masks import SegmentMasks
from dicomnode.imaging.volume import VolumePlan, plan_volume
from dicomnode.ports import Clock, InferenceEngine, InstanceStore, JobWork, ModelVersion
from dicomnode.stages.answers import Labels, Question, Scores, gives_arrays
from dicomnode.stages.composed import First, Lead, led
from dicomnode.stages.pictures import OpenImages
from dicomnode.stages.volumes import KEEP_S, OpenVolumes, Volumes, key_of


@dataclass(frozen=True, slots=True)
class Inference:
    """What a model said of a volume; the arrays are valid while InferStage.run is entered."""

    plan: VolumePlan
    volume: npt.NDArray[np.int16]  # (slice, row, column) int16, stored values; real = plan.rescale of them
    answers: Mapping[str, npt.NDArray[Any]]  # as ports.InferenceSession.ask gives them; none where it was skipped
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    further: Mapping[str, VolumePlan] = field(default_factory=dict)  # role → the plan of its series
    parameters: Mapping[str, Parameter] = field(default_factory=dict)  # every one, with its value in this job
    lead: Lead = Lead()  # what the models before it said; where that was no, there are no answers
    threshold: float = 0.5  # of masks that overlap

    @property
    def masks(self) -> SegmentMasks:
        """Of a model that gives segments."""
        return SegmentMasks.of_answers(self.answers, self.threshold)


@dataclass(frozen=True, slots=True)
class Classified:
    """What a model said of the images of a series, or of the series as a whole, in few numbers."""

    plan: ImagesPlan | VolumePlan
    # (image, class or value), in the order of plan.frames; of a series one row; or BOXES of single images, (box, 7)
    scores: npt.NDArray[np.float32]
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    further: Mapping[str, VolumePlan] = field(default_factory=dict)  # as of Inference
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    lead: Lead = Lead()  # as of Inference; where that was no, there are no scores


@dataclass(frozen=True, slots=True)
class Pictured:
    """What a model said of single images: masks. Arrays are valid while InferStage.on_images is entered."""

    plan: ImagesPlan
    volumes: Sequence[npt.NDArray[np.int16]]  # of each stack, (image, row, column) int16, values of its rescale
    answers: Sequence[Mapping[str, npt.NDArray[Any]]]  # of each stack, as ports.InferenceSession.ask gives them
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    threshold: float = 0.5  # of masks that overlap
    as_volume: VolumePlan | None = None  # where the images are the slices of one, and in its order
    further: Mapping[str, VolumePlan] = field(default_factory=dict)  # none: a model of single images takes one series
    lead: Lead = Lead()  # nothing comes before such a model

    @property
    def masks(self) -> list[SegmentMasks]:
        """Of each stack."""
        return [SegmentMasks.of_answers(answers, self.threshold) for answers in self.answers]


class InferStage:
    def __init__(
        self, store: InstanceStore, engine: InferenceEngine, clock: Clock, timeout_s: float, keep_s: float = KEEP_S
    ) -> None:
        self._store, self._engine, self._clock, self._timeout_s = store, engine, clock, timeout_s
        self._volumes = Volumes(store, engine, clock, keep_s)

    @contextmanager
    def run(self, work: JobWork) -> Iterator[Inference]:
        """Raises SeriesRefused (NotAVolume, CannotDecode), InferenceError, OutOfResources."""
        begun_s = self._clock.monotonic()
        with self._opened(work) as opened:
            planned_s = self._clock.monotonic()
            lead, led_s = self._led(work, opened, work.halt)
            labels = self._labels(work, opened, lead, work.halt)
            timings_s = {"plan": planned_s - begun_s, **led_s, **labels.timings_s}
            yield self._inference(work, opened, labels, timings_s, lead)

    def ahead(self, work: JobWork) -> None:
        """Does what `run` will need, which then finds it done; raises as `run`."""
        if work.model.card.input.is_of_images:
            with self._opened_images(work) as images:
                lead, _ = self._led_images(work, None)
                if not lead.skipped:
                    self._scores_of_images(work, images, None)
            return
        with self._opened(work) as opened:
            lead, _ = self._led(work, opened, None)
            if gives_arrays(work.model):
                self._labels(work, opened, lead, None)
            elif not lead.skipped:
                opened.classes(self._question(work, lead))

    def read_ahead(self, series: Series) -> None:
        """Headers of a series whose images still come; raises CannotDecode, OSError."""
        self._volumes.read_ahead(series)

    def _question(self, work: JobWork, lead: Lead) -> Question:
        timeout_s = work.model.card.timeout_s or self._timeout_s
        return Question(work.model, work.parameters, timeout_s, lead.region)

    def _led(self, work: JobWork, opened: OpenVolumes, halt: Halt | None) -> tuple[Lead, dict[str, float]]:
        """What the models before this one said, and how long that took."""
        if not work.model.card.after:
            return Lead(), {}
        begun_s = self._clock.monotonic()
        lead = led(opened, work.model, work.before, self._timeout_s, halt)
        return lead, {"models before": self._clock.monotonic() - begun_s}

    def _labels(self, work: JobWork, opened: OpenVolumes, lead: Lead, halt: Halt | None) -> Labels:
        if lead.skipped:
            return Labels({}, {})
        return opened.labels(self._question(work, lead), halt)

    def classify(self, work: JobWork) -> Classified:
        """Of a model whose answer is few numbers (see gives_arrays); raises as `run`."""
        if work.model.card.input.is_of_images:
            return self._classify_images(work)
        begun_s = self._clock.monotonic()
        with self._opened(work) as opened:
            planned_s = self._clock.monotonic()
            lead, led_s = self._led(work, opened, work.halt)
            scores = _no_scores() if lead.skipped else opened.classes(self._question(work, lead), work.halt)
            plans, parameters = _plans(work, opened), settled(work.model.card.parameters, work.parameters)
            timings_s = {"plan": planned_s - begun_s, **led_s, **scores.timings_s}
            details = self._details(work, opened.main.plan, plans, parameters, lead)
            details |= {"inferred_before": scores.made_before}
            return Classified(opened.main.plan, scores.array, timings_s, details, plans, parameters, lead)

    def _classify_images(self, work: JobWork) -> Classified:
        begun_s = self._clock.monotonic()
        with self._opened_images(work) as opened:
            planned_s = self._clock.monotonic()
            lead, led_s = self._led_images(work, work.halt)
            scores = _no_scores() if lead.skipped else self._scores_of_images(work, opened, work.halt)
            parameters = settled(work.model.card.parameters, work.parameters)
            details = self._details(work, opened.plan, {}, parameters, lead)
            details |= {"inferred_before": scores.made_before}
            timings_s = {"plan": planned_s - begun_s, **led_s, **scores.timings_s}
            return Classified(opened.plan, scores.array, timings_s, details, {}, parameters, lead)

    @contextmanager
    def on_images(self, work: JobWork) -> Iterator[Pictured]:
        """Of a model that gives masks of single images; raises as `run`."""
        begun_s = self._clock.monotonic()
        with self._opened_images(work) as opened:
            check_pixel_sizes(work, opened.plan)
            planned_s = self._clock.monotonic()
            scores = self._scores_of_images(work, opened, work.halt)
            parameters = settled(work.model.card.parameters, work.parameters)
            details = self._details(work, opened.plan, {}, parameters, Lead())
            yield Pictured(
                opened.plan,
                opened.values(work.halt),
                scores.of_stacks,
                {"plan": planned_s - begun_s, **scores.timings_s},
                details | {"inferred_before": scores.made_before},
                parameters,
                threshold_of(work.model.card.output, parameters),
                _volume_of(opened.plan),
            )

    @contextmanager
    def _opened_images(self, work: JobWork) -> Iterator[OpenImages]:
        """The images, of which the model can make something."""
        check_modality(work.series.modality, work.model)
        check_parameters(work)
        check_roles(work)
        with self._volumes.images(work.series) as opened:
            check_colour(opened.plan, work.model)
            check_unit(opened.plan, work.model.card.input.unit, work.model, "this series")
            yield opened

    def _led_images(self, work: JobWork, halt: Halt | None) -> tuple[Lead, dict[str, float]]:
        """Models before one of single images are asked about the volume that these must make."""
        if not work.model.card.after:
            return Lead(), {}
        with self._volumes.open(work.series, {}) as opened:
            check_before(work, opened.main.plan)
            return self._led(work, opened, halt)

    def _scores_of_images(self, work: JobWork, images: OpenImages, halt: Halt | None) -> Scores:
        question = self._question(work, Lead())
        if work.model.card.after and not work.model.card.input.windowed:
            with self._volumes.open(work.series, {}) as opened:
                if _are_those_of(images.plan, opened.main.plan):  # decoded already
                    return opened.classes(question, halt)

        def make(wanted: Halt) -> Scores:
            return images.scores(question, wanted)

        return self._volumes.scores.get(key_of(question, [images.plan]), question.timeout_s, halt, make)

    def close(self) -> None:
        self._volumes.close()

    @contextmanager
    def _opened(self, work: JobWork) -> Iterator[OpenVolumes]:
        """The volumes, of which the model can make something."""
        check_modality(work.series.modality, work.model)
        check_parameters(work)
        check_roles(work)
        roles = work.model.card.roles
        for role in roles:
            check_role_modality(work.inputs[role.name].modality, role, work.model)
        with self._volumes.open(work.series, {role.name: work.inputs[role.name] for role in roles}) as opened:
            check_unit(opened.main.plan, work.model.card.input.unit, work.model, "this series")
            check_extent(opened.main.plan, work.model)
            check_before(work, opened.main.plan)
            for role, planned in zip(roles, opened.further, strict=True):
                check_same_patient(planned.plan, opened.main.plan, role)
                check_frame_of_reference(planned.plan, opened.main.plan, role, work.model)
                check_unit(planned.plan, role.unit, work.model, f"the series in the role {role.name}")
            yield opened

    def _inference(
        self, work: JobWork, opened: OpenVolumes, labels: Labels, timings_s: Mapping[str, float], lead: Lead
    ) -> Inference:
        parameters, plans = settled(work.model.card.parameters, work.parameters), _plans(work, opened)
        main = opened.main.plan
        details = self._details(work, main, plans, parameters, lead) | {"inferred_before": labels.made_before}
        threshold = threshold_of(work.model.card.output, parameters)
        return Inference(main, opened.volume, labels.arrays, timings_s, details, plans, parameters, lead, threshold)

    def _details(
        self,
        work: JobWork,
        main: ImagesPlan | VolumePlan,
        plans: Mapping[str, VolumePlan],
        parameters: Mapping[str, Parameter],
        lead: Lead,
    ) -> dict[str, Any]:
        before = [self._before(first) for first in lead.firsts]
        return {
            "engine": dict(self._engine.describe(work.model)),
            "notes": [*main.notes, *(f"{role}: {note}" for role, plan in plans.items() for note in plan.notes)],
            "parameters": parameters,
            "inputs": {role: series.series_instance_uid for role, series in work.inputs.items()},
            **({"before": before} if before else {}),
        }

    def _before(self, first: First) -> dict[str, Any]:
        """A model that came first: which, on what it ran, what it was asked and what it said."""
        engine = self._engine.describe(first.model)
        return {
            "model": f"{first.model.name} {first.model.version}",
            "digest": first.model.digest,
            "engine": engine["engine"],
            "precision": engine["precision"],
            "asked": first.step.use.words,
            "said": first.words,
        }


def _plans(work: JobWork, opened: OpenVolumes) -> dict[str, VolumePlan]:
    """Of the further series, by role."""
    roles = [role.name for role in work.model.card.roles]
    return {role: planned.plan for role, planned in zip(roles, opened.further, strict=True)}


def _are_those_of(plan: ImagesPlan, volume: VolumePlan) -> bool:
    """Whether single images are a volume's, in its order, and mean the same there."""
    images, slices = ([(frame.sop_instance_uid, frame.number) for frame in p.frames] for p in (plan, volume))
    return images == slices and not is_inverted(plan.first)


def _no_scores() -> Scores:
    return Scores(np.zeros((0, 0), dtype=np.float32), {})


def check_before(work: JobWork, plan: VolumePlan) -> None:
    """What comes first is given the same series, and has its own demands on it."""
    for first in work.before.values():
        check_modality(work.series.modality, first)
        check_unit(plan, first.card.input.unit, first, "this series")
        check_extent(plan, first)
        if first.card.input.windowed:
            raise SeriesRefused(
                f"the model {first.name}, which comes first, is given each image in its own window, and not a volume"
            )
        if first.card.input.is_of_images and is_inverted(plan.first):
            raise SeriesRefused(
                f"the model {first.name}, which comes first, looks at single images of a volume, and this series "
                "shows low values bright (MONOCHROME1)"
            )


def _volume_of(plan: ImagesPlan) -> VolumePlan | None:
    """The volume whose slices these images are, in their order: CT or MR that a model looks at slice by slice."""
    try:
        volume = plan_volume(plan.headers)
    except NotAVolume:
        return None
    return volume if len(plan.stacks) == 1 and _are_those_of(plan, volume) else None


def check_colour(plan: ImagesPlan, model: ModelVersion) -> None:
    """Grey is what models were trained on, unless their card says otherwise."""
    if plan.colour and model.card.input.colour == "refused":
        raise not_monochrome(len(plan.frames), plan.colour)


def check_pixel_sizes(work: JobWork, plan: ImagesPlan) -> None:
    """What the model, or the rule, says in millimetres needs images that say how large their pixels are."""
    if all(stack.pixel_size is not None for stack in plan.stacks):
        return
    card, least = work.model.card, work.parameters.get(MINIMUM_AREA_MM2, 0.0)
    what = f"the model {card.name} looks at images" if card.input.pixel_spacing_mm is not None else ""
    what = what or (f"the rule {work.rule_name} leaves out areas" if least else "")
    if what:
        raise SeriesRefused(
            f"{what} by millimetres, and an image does not say how large its pixels are in the patient: it has no "
            "Pixel Spacing, and no Imager Pixel Spacing with an Estimated Radiographic Magnification Factor"
        )


def check_parameters(work: JobWork) -> None:
    """A rule may have been written for another version of the model."""
    if wrong := complaints(work.model.card.parameters, work.parameters):
        raise SeriesRefused(
            f"the rule {work.rule_name} asks the model {work.model.name} {work.model.version} for what it cannot do: "
            f"{'; '.join(wrong)}; correct the rule and rerun the study"
        )


def check_roles(work: JobWork) -> None:
    """The rule gives the model the series that it needs, and no others."""
    names = [role.name for role in work.model.card.roles]
    if absent := [name for name in names if name not in work.inputs]:
        raise SeriesRefused(
            f"the model {work.model.name} needs a series in the role {' and one in the role '.join(absent)}: "
            f"name it under roles in the rule {work.rule_name}"
        )
    if unknown := [name for name in work.inputs if name not in names]:
        raise SeriesRefused(
            f"the model {work.model.name} {work.model.version} has no role {' or '.join(unknown)}: "
            f"take it out of the rule {work.rule_name}"
        )


def check_role_modality(modality: str, role: RoleSpec, model: ModelVersion) -> None:
    if modality not in role.modality:
        raise SeriesRefused(
            f"the model {model.name} takes {' or '.join(role.modality)} in the role {role.name}, "
            f"{_of_modality(modality)}"
        )


def check_same_patient(plan: VolumePlan, main: VolumePlan, role: RoleSpec) -> None:
    """Whatever the database says, the images decide: two patients must never meet in one result (PS3.3 C.7.1.1)."""
    own, of_main = (text(p.first, "PatientID") for p in (plan, main))
    if own != of_main:
        raise SeriesRefused(
            f"the series in the role {role.name} has another Patient ID than the main series: "
            "they are taken for two patients"
        )


def check_frame_of_reference(plan: VolumePlan, main: VolumePlan, role: RoleSpec, model: ModelVersion) -> None:
    """Positions of two series compare only within one frame of reference (PS3.3 C.7.4.1.1.1)."""
    own, of_main = (text(p.first, "FrameOfReferenceUID") for p in (plan, main))
    if role.needs_same_frame_of_reference and own != of_main:
        raise SeriesRefused(
            f"the model {model.name} needs both series in one frame of reference: the series in the role {role.name} "
            f"is in {own}, the main series in {of_main}"
        )


def check_modality(modality: str, model: ModelVersion) -> None:
    """A rule may match more than its model was made for."""
    wanted = model.card.input.modality
    if modality not in wanted:
        raise SeriesRefused(f"the model {model.name} takes {' or '.join(wanted)}, {_of_modality(modality)}")


def _of_modality(modality: str) -> str:
    return f"this series is {modality}" if modality else "this series does not say its Modality"


def check_unit(plan: VolumePlan | ImagesPlan, wanted: str, model: ModelVersion, which: str) -> None:
    """Bq/ml taken for a standardised uptake value would mark everything, or nothing, in silence."""
    if wanted and plan.unit != wanted:
        raise SeriesRefused(
            f"the model {model.name} takes values in {wanted}, {which} has them in {_unit_in_words(plan)}"
        )


def _unit_in_words(plan: VolumePlan | ImagesPlan) -> str:
    return "a unit that its header does not say" if plan.unit == "1" else plan.unit


def check_extent(plan: VolumePlan, model: ModelVersion) -> None:
    """A field of view too small for the model would give masks that mean nothing."""
    extent_mm = plan.geometry.spacing_mm * np.array(plan.geometry.shape)
    needed_mm = np.array(model.card.input.minimum_extent_mm)
    # the card's are along patient axes, in the order of its orientation; the largest component decides
    along = np.abs(plan.geometry.directions).argmax(axis=0)
    axis = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    for letter, needed in zip(model.card.input.orientation, needed_mm, strict=True):
        have = extent_mm[along == axis[letter]].max(initial=0.0)
        if have < needed:
            raise SeriesRefused(
                f"the model {model.name} needs {needed:.0f} mm along {letter}, this series has {have:.0f} mm"
            )
