"""What classifying models found in a series, as facts that rules ask for.

Class(slice-ct-region): Chest                             # some image is of that class
ClassCode(slice-ct-region): "51185008"                    # the same by the Code Value of its concept (PS3.3 8.8.1)
ClassShare(slice-ct-region/chest): {at_least: 0.2}        # of all its images, 0 to 1
ClassProbability(slice-ct-region/chest): {at_least: 0.9}  # mean over the images that are of the class

`Class(MODEL)` is there as soon as it is known what the model gave; without values its note says why there is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dicomnode.domain.model_output import Classification
from dicomnode.domain.study import Element, Header

CLASS, CODE, SHARE, PROBABILITY = "Class", "ClassCode", "ClassShare", "ClassProbability"
# Fact → the VR it compares as; the last two are of one class
CLASS_FACTS: Mapping[str, str] = {CLASS: "LO", CODE: "SH", SHARE: "DS", PROBABILITY: "DS"}
OF_ONE_CLASS = frozenset({SHARE, PROBABILITY})
MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_SUBJECT = re.compile(rf"(Class|ClassCode)\(\s*({MODEL_NAME})\s*\)")
_OF_ONE = re.compile(rf"(ClassShare|ClassProbability)\(\s*({MODEL_NAME})\s*/\s*(\S|\S.{{0,62}}\S)\s*\)")
_BEGINNING = re.compile(r"Class[A-Za-z]*(\(.*)?")
_DIGITS = 4  # as probabilities are kept


@dataclass(frozen=True, slots=True)
class ClassFact:
    """What is asked: of which model, and of which of its classes ("": of all)."""

    kind: str  # one of CLASS_FACTS
    model: str
    name: str = ""  # letter case is ignored: as str.casefold has it

    @property
    def subject(self) -> str:
        return f"{self.kind}({self.model}/{self.name})" if self.name else f"{self.kind}({self.model})"


@dataclass(frozen=True, slots=True)
class ClassNews:
    """What is known of the classes of one series, as it is now."""

    generation: int
    facts: Header = field(default_factory=dict)
    awaited: frozenset[str] = frozenset()  # models of which a job waits or runs


@lru_cache(maxsize=4096)
def class_fact(subject: str) -> ClassFact | None:
    """None of what is no such fact."""
    if found := _SUBJECT.fullmatch(subject):
        return ClassFact(*found.groups())
    if found := _OF_ONE.fullmatch(subject):
        kind, model, name = found.groups()
        return ClassFact(kind, model, name.casefold())
    return None


def looks_like_one(word: str) -> bool:
    """Whether somebody most likely meant such a fact."""
    return bool(_BEGINNING.fullmatch(word)) and (word in CLASS_FACTS or "(" in word)


def how_written(word: str) -> str:
    kind = word.partition("(")[0]
    if kind in OF_ONE_CLASS:
        return f"it is written {kind}(MODEL/CLASS), as in {kind}(slice-ct-region/Chest)"
    if kind in CLASS_FACTS:
        return f"it is written {kind}(MODEL), as in {kind}(slice-ct-region)"
    return f"facts of classes are {', '.join(CLASS_FACTS)}, as in Class(slice-ct-region)"


def class_vr(subject: str) -> str:
    """ "" of what is no such fact."""
    found = class_fact(subject)
    return CLASS_FACTS[found.kind] if found else ""


def known_by(model: str) -> str:
    """The fact that is there when it is known what the model gave."""
    return ClassFact(CLASS, model).subject


def is_of_classes(name: str) -> bool:
    return class_fact(name) is not None


# ------------------------------------------------------------------------------------------ from a job's details


def classes_given(model: str, spec: Classification, details: Mapping[str, Any]) -> dict[str, Element]:
    """The facts of a job that succeeded, from what it keeps: its `classes` and its `runs`."""
    if skipped := details.get("skipped"):  # of a composed model: see stages.composed
        return no_classes(model, f"the images were not looked at: {skipped}")
    shares = {row["class"]: float(row["share"]) for row in details.get("classes", ())}
    codes = {one.name: one.code.value for one in spec.classes}
    names = [name for name in shares if name in codes]
    if not names:
        return no_classes(model, "no class is certain enough of any image")
    found = {
        ClassFact(CLASS, model).subject: Element(CLASS_FACTS[CLASS], tuple(names)),
        ClassFact(CODE, model).subject: Element(CLASS_FACTS[CODE], tuple(codes[name] for name in names)),
    }
    means = _mean_probabilities(details.get("runs", ()))
    for name in names:
        found[_of(SHARE, model, name)] = Element(CLASS_FACTS[SHARE], (shares[name],))
        if name in means:
            found[_of(PROBABILITY, model, name)] = Element(CLASS_FACTS[PROBABILITY], (means[name],))
    return found


def no_classes(model: str, why: str) -> dict[str, Element]:
    return {known_by(model): Element(CLASS_FACTS[CLASS], (), f"no class: {why}")}


def _of(kind: str, model: str, name: str) -> str:
    return ClassFact(kind, model, name.casefold()).subject


def _mean_probabilities(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Class → mean over its images, of runs of adjacent images ("3-17") with the mean of each."""
    total: dict[str, float] = {}
    images: dict[str, int] = {}
    for run in runs:
        if run["probability"] is None:
            continue
        first, _, last = str(run["images"]).partition("-")
        number = int(last or first) - int(first) + 1
        images[run["class"]] = images.get(run["class"], 0) + number
        total[run["class"]] = total.get(run["class"], 0.0) + number * float(run["probability"])
    return {name: round(total[name] / images[name], _DIGITS) for name in total}


# ------------------------------------------------------------------------------------------------ what is asked


def found_class(subject: str, facts: Header) -> Element | None:
    """The fact, or what follows from those that are there; None while it is not known what the model gave."""
    asked = class_fact(subject)
    known = facts.get(known_by(asked.model)) if asked else None
    if asked is None or known is None:
        return None
    if subject in facts:
        return facts[subject]
    if not known.values:
        return Element(CLASS_FACTS[asked.kind], (), known.note)
    if asked.kind == SHARE:
        return Element(CLASS_FACTS[SHARE], (0.0,))
    return Element(CLASS_FACTS[asked.kind], (), "no image is of that class")


def open_subjects(subjects: frozenset[str], facts: Header) -> frozenset[str]:
    """Those of models of which nobody knows yet what they give."""
    found = {subject: class_fact(subject) for subject in subjects}
    return frozenset(subject for subject, asked in found.items() if asked and known_by(asked.model) not in facts)


def models_of(subjects: frozenset[str]) -> frozenset[str]:
    return frozenset(asked.model for subject in subjects if (asked := class_fact(subject)))
