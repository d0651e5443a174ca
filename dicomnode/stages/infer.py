"""Infer: a series becomes a volume, with the further series that its model needs, and the volumes a label map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.model_card import ClassSpec, RoleSpec
from dicomnode.domain.model_parameter import complaints, settled
from dicomnode.domain.rules import Parameter
from dicomnode.errors import SeriesRefused
from dicomnode.imaging.decode import read_frames
from dicomnode.imaging.headers import Instance, read_instances, text
from dicomnode.imaging.images import ImagesPlan, ImageStack, plan_images
from dicomnode.imaging.volume import VolumePlan
from dicomnode.ports import Clock, InferenceEngine, InstanceStore, JobWork, ModelVersion
from dicomnode.stages.volumes import KEEP_S, Labels, OpenVolumes, Scores, Volumes


@dataclass(frozen=True, slots=True)
class Inference:
    """What a model said of a volume; the arrays are valid while InferStage.run is entered."""

    plan: VolumePlan
    volume: npt.NDArray[np.int16]  # (slice, row, column) int16, stored values; real = plan.rescale of them
    labels: npt.NDArray[np.uint8]  # (slice, row, column) uint8 on the same grid, 0 for background
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    further: Mapping[str, VolumePlan] = field(default_factory=dict)  # role → the plan of its series
    parameters: Mapping[str, Parameter] = field(default_factory=dict)  # every one, with its value in this job


@dataclass(frozen=True, slots=True)
class Classified:
    """What a model said of the images of a series, or of the series as a whole."""

    plan: ImagesPlan | VolumePlan
    scores: npt.NDArray[np.float32]  # (image, class) probabilities, in the order of plan.frames; of a series one row
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    further: Mapping[str, VolumePlan] = field(default_factory=dict)  # as of Inference
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


# What goes to the model's host in one request: 32 MB of 512 × 512
IMAGES_AT_ONCE = 64


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
            labels = opened.labels(work.model, work.parameters, self._timeout_of(work), work.halt)
            yield self._inference(work, opened, labels, {"plan": planned_s - begun_s, **labels.timings_s})

    def ahead(self, work: JobWork) -> None:
        """Does what `run` will need, which then finds it done; raises as `run`."""
        if work.model.card.classification is not None:
            return
        with self._opened(work) as opened:
            opened.labels(work.model, work.parameters, self._timeout_of(work))

    def _timeout_of(self, work: JobWork) -> float:
        return work.model.card.timeout_s or self._timeout_s

    def classify(self, work: JobWork) -> Classified:
        """Of a model that gives classes; raises as `run`."""
        if work.model.card.input.is_of_images:
            return self._classify_images(work)
        begun_s = self._clock.monotonic()
        with self._opened(work) as opened:
            planned_s = self._clock.monotonic()
            scores = opened.classes(work.model, work.parameters, self._timeout_of(work), work.halt)
            plans, parameters = _plans(work, opened), settled(work.model.card.parameters, work.parameters)
            timings_s = {"plan": planned_s - begun_s, **scores.timings_s}
            details = self._details(work, opened.main.plan, plans, parameters)
            return Classified(opened.main.plan, scores.array, timings_s, details, plans, parameters)

    def _classify_images(self, work: JobWork) -> Classified:
        check_modality(work.series.modality, work.model)
        check_parameters(work)
        check_roles(work)
        begun_s = self._clock.monotonic()
        instances = read_instances([self._store.path(i.path) for i in work.series.instances])
        plan = plan_images([instance.header for instance in instances])
        check_unit(plan, work.model.card.input.unit, work.model, "this series")
        planned_s = self._clock.monotonic()
        scores = self._scores_of(work, plan, instances)
        parameters = settled(work.model.card.parameters, work.parameters)
        details = self._details(work, plan, {}, parameters)
        timings_s = {"plan": planned_s - begun_s, **scores.timings_s}
        return Classified(plan, scores.array, timings_s, details, {}, parameters)

    def _scores_of(self, work: JobWork, plan: ImagesPlan, instances: Sequence[Instance]) -> Scores:
        """Some images of one size at a time, all of them in memory that the model's host sees.

        While those are classified, the next ones are decoded.
        """
        shapes = [stack.shape for stack in plan.stacks]
        scores = np.zeros((len(plan.frames), len(classes_of(work.model))), dtype=np.float32)
        timings_s: dict[str, float] = {}
        begun_s = self._clock.monotonic()
        with (
            self._engine.open(shapes[0], shapes[1:]) as session,
            ThreadPoolExecutor(1, thread_name_prefix="decode") as ahead,
        ):

            def decode(which: int, part: slice) -> npt.NDArray[np.int16]:
                array = (session.volume, *session.further)[which]
                read_frames(plan.stacks[which].part(part), instances, array[part])
                return array

            parts = [(which, part) for which, stack in enumerate(plan.stacks) for part in _parts(stack)]
            decoded = [ahead.submit(decode, which, part) for which, part in parts]
            try:
                for (which, part), done in zip(parts, decoded, strict=True):
                    waits_s = self._clock.monotonic()
                    if done.result() is not (session.volume, *session.further)[which]:
                        decode(which, part)  # a server that was started anew has another region
                    work.halt.check()
                    ready_s = self._clock.monotonic()
                    stack = plan.stacks[which]
                    scores[list(stack.indices[part])] = session.classify(
                        work.model,
                        None,
                        stack.rescale,
                        which=which,
                        images=part,
                        timeout_s=self._timeout_of(work) - (ready_s - begun_s),
                        parameters=work.parameters,
                        halt=work.halt,
                    )
                    _add(timings_s, {"decode": ready_s - waits_s, "infer": self._clock.monotonic() - ready_s})
                    _add(timings_s, {f"infer: {name}": seconds for name, seconds in session.timings_s.items()})
            finally:
                ahead.shutdown(cancel_futures=True)
        return Scores(scores, timings_s)

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
            for role, planned in zip(roles, opened.further, strict=True):
                check_same_patient(planned.plan, opened.main.plan, role)
                check_frame_of_reference(planned.plan, opened.main.plan, role, work.model)
                check_unit(planned.plan, role.unit, work.model, f"the series in the role {role.name}")
            yield opened

    def _inference(
        self, work: JobWork, opened: OpenVolumes, labels: Labels, timings_s: Mapping[str, float]
    ) -> Inference:
        parameters, plans = settled(work.model.card.parameters, work.parameters), _plans(work, opened)
        main = opened.main.plan
        details = self._details(work, main, plans, parameters) | {"inferred_before": labels.made_before}
        return Inference(main, opened.volume, labels.array, timings_s, details, plans, parameters)

    def _details(
        self,
        work: JobWork,
        main: ImagesPlan | VolumePlan,
        plans: Mapping[str, VolumePlan],
        parameters: Mapping[str, Parameter],
    ) -> dict[str, Any]:
        return {
            "engine": dict(self._engine.describe(work.model)),
            "notes": [*main.notes, *(f"{role}: {note}" for role, plan in plans.items() for note in plan.notes)],
            "parameters": parameters,
            "inputs": {role: series.series_instance_uid for role, series in work.inputs.items()},
        }


def _plans(work: JobWork, opened: OpenVolumes) -> dict[str, VolumePlan]:
    """Of the further series, by role."""
    roles = [role.name for role in work.model.card.roles]
    return {role: planned.plan for role, planned in zip(roles, opened.further, strict=True)}


def _parts(stack: ImageStack) -> list[slice]:
    count = stack.shape[0]
    return [slice(first, min(first + IMAGES_AT_ONCE, count)) for first in range(0, count, IMAGES_AT_ONCE)]


def _add(timings_s: dict[str, float], more: Mapping[str, float]) -> None:
    for name, seconds in more.items():
        timings_s[name] = timings_s.get(name, 0.0) + seconds


def classes_of(model: ModelVersion) -> Sequence[ClassSpec]:
    spec = model.card.classification
    assert spec is not None  # work.Work asks for classes of no other
    return spec.classes


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
            f"this series is {modality or 'nothing'}"
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
        raise SeriesRefused(
            f"the model {model.name} takes {' or '.join(wanted)}, this series is {modality or 'nothing'}"
        )


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
