"""A rule document as JSON Schema (draft 2020-12), made from the same tables as the reader, for editors and checks.

It says what a rule looks like: names, operators that the VR has, kinds of operands. What it cannot say, whether
text is a date or a pattern can run for long, the reader and `rules lint` say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dicomnode.domain.class_facts import CLASS_FACTS, MODEL_NAME, OF_ONE_CLASS
from dicomnode.domain.job import Priority
from dicomnode.domain.rule_reading import NAME, OF_A_JOB, ORDER_MOST, PARAMETER, RESULT, VERSION
from dicomnode.domain.rules import FACTS, ORIENTATIONS, Choice, Operator, Origin, RuleState, Vocabulary
from dicomnode.domain.values import Kind, has_contents, is_ordered, kind_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAME = {"type": "string", "pattern": f"^{NAME.pattern}$"}
_STEP = r"([A-Za-z][A-Za-z0-9]*|\([0-9a-fA-F]{4},[0-9a-fA-F]{2},[^()\\]{1,64}\))"
# a private attribute, or a path of two steps and more; a keyword alone has to be one that is listed
_PATH = rf"^(\([0-9a-fA-F]{{4}},[0-9a-fA-F]{{2}},[^()\\]{{1,64}}\)|{_STEP}(\.{_STEP})+)$"
_TEXT = {"type": "string", "pattern": "\\S", "maxLength": 1024}
_OPERAND: dict[str, Any] = {"anyOf": [_TEXT, {"type": "number"}]}
_ORDERING = (Operator.AT_LEAST, Operator.AT_MOST, Operator.BETWEEN)

_FACT_WORDS: Mapping[str, str] = {
    "CallingAETitle": "AE title of the sender",
    "CalledAETitle": "AE title of this node that the sender called",
    "NumberOfInstances": "instances of the series, as received",
    "ReceivedTimeOfDay": "the node's clock when the last image of the series came, as 22:15",
    "AgeInYears": "of the patient at the study; completed years from two on",
    "IsLocalizer": "true when every image is a localizer",
    "IsAVolume": "true when the images make one volume without gaps",
    "Orientation": "axial, coronal, sagittal or oblique, from the images' orientation",
    "MeasuredSliceSpacing": "mm from slice to slice, measured from the positions; of volumes only",
}
_CLASS_WORDS: Mapping[str, str] = {
    "Class": "names of the classes that this model gave images of the series",
    "ClassCode": "codes of the classes that this model gave images of the series",
    "ClassShare": "how many of the images are of that class, 0 to 1",
    "ClassProbability": "mean probability of the images that are of that class, 0 to 1",
}
_OPERATOR_WORDS: Mapping[Operator, str] = {
    Operator.EQUALS: "a value is this",
    Operator.ONE_OF: "a value is one of these",
    Operator.CONTAINS: "this is a part of a value; of a code: is one of the values",
    Operator.MATCHES: "this regular expression is found in a value",
    Operator.AT_LEAST: "a value is this or more",
    Operator.AT_MOST: "a value is this or less",
    Operator.BETWEEN: "a value is one of these two or in between",
    Operator.EXISTS: "true: there is a value; false: it is missing or empty",
}


def rule_schema(vocabulary: Vocabulary) -> dict[str, Any]:
    """The schema of one YAML document. `vocabulary`: every keyword with its VR (PS3.6)."""
    return {
        "$schema": DIALECT,
        "title": "dicomnode rule",
        "description": "Which model runs on which series, and where its results go.",
        "type": "object",
        "required": ["name", "when"],
        "anyOf": [{"required": ["model"]}, _WITHOUT_MODEL],
        "additionalProperties": False,
        "properties": {**_of_every_rule(), **_of_a_job()},
        "$defs": {
            "condition": _condition(vocabulary),
            "conditions": _one_or_several(_CONDITION),
            "preference": _preference(),
            "of-any-kind": _about(None),
            **_kinds(),
        },
    }


def _of_every_rule() -> dict[str, Any]:
    return {
        "name": {**_NAME, "description": "of the rule; the same name again is its next revision"},
        "description": {"type": ["string", "null"], "maxLength": 1000, "description": "for people"},
        "order": {
            "type": "integer",
            "minimum": -ORDER_MOST,
            "maximum": ORDER_MOST,
            "default": 100,
            "description": "rules with a lower one are asked first, then by name; it matters to `stop` only",
        },
        "when": {**_CONDITION, "description": "what a series has to be"},
        "study": _study(),
        "stop": {
            "type": "boolean",
            "default": False,
            "description": "true: a series that this rule matches is not shown to the rules after it",
        },
        "state": {"description": "whether it is asked, and whether it runs", "default": "enabled", "anyOf": _STATES},
        "enabled": {"type": "boolean", "deprecated": True, "description": "as rules of before say it; now `state`"},
    }


def _of_a_job() -> dict[str, Any]:
    return {
        "choose": _choose(),
        "roles": _roles(),
        "model": {**_NAME, "description": "a registered model; may be left out only with `stop: true`"},
        "version": {
            "type": "string",
            "pattern": f"^{VERSION.pattern}$",
            "default": "active",
            "description": "active, or one of the registered versions in quotation marks",
        },
        "parameters": _parameters(),
        "priority": {
            "enum": [str(priority) for priority in Priority],
            "default": str(Priority.ROUTINE),
            "description": "which jobs go first when several wait",
        },
        "schedule": _schedule(),
        "destinations": {"type": "array", "items": _NAME, "description": "where results go; none named: to all"},
        "results": {
            "type": "array",
            "items": {"type": "string", "pattern": f"^{RESULT.pattern}$"},
            "description": "kinds of results to send, as SEG or SR; none named: all that the model gives",
        },
    }


_CONDITION = {"$ref": "#/$defs/condition"}
_WITHOUT_MODEL = {
    "description": "a rule that runs nothing and keeps series from those after it",
    "required": ["stop"],
    "properties": {"stop": {"enum": [True]}, **dict.fromkeys(OF_A_JOB, False)},
}
_STATES = [
    {"enum": [str(RuleState.ENABLED)], "description": "it is asked, and what it decides runs"},
    {"enum": [str(RuleState.SHADOW)], "description": "it is asked and its decisions are kept, but nothing runs"},
    {"enum": [str(RuleState.DISABLED)], "description": "it is not asked"},
]
_CHOICE_WORDS: Mapping[Choice, str] = {
    Choice.THINNEST_SLICES: "the one with the thinnest slices: MeasuredSliceSpacing, else SliceThickness",
    Choice.MOST_INSTANCES: "the one with the most instances",
    Choice.KERNEL: "by ConvolutionKernel, in this order; others last",
    Choice.LATEST: "the latest: SeriesDate and SeriesTime, else those of the acquisition",
    Choice.LOWEST_NUMBER: "the one with the lowest SeriesNumber, which also decides where all else is alike",
}
_ORIGIN_WORDS: Mapping[Origin, str] = {
    Origin.STUDY: "of the same study",
    Origin.PRIOR: "of the newest earlier study of the same patient that has one",
}


def _one_or_several(thing: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(thing), {"type": "array", "minItems": 1, "items": dict(thing)}]}


def _study() -> dict[str, Any]:
    conditions = {"$ref": "#/$defs/conditions"}
    return {
        "description": "what else is in the study; such a rule is decided when the whole study is there",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            "has": {**conditions, "description": "each of these holds for some series of the study"},
            "has_not": {**conditions, "description": "each of these holds for no series of the study"},
        },
    }


def _preference() -> dict[str, Any]:
    words = [
        {"enum": [str(choice)], "description": said}
        for choice, said in _CHOICE_WORDS.items()
        if choice != Choice.KERNEL
    ]
    kernels = {"type": "array", "minItems": 1, "items": {**_TEXT, "maxLength": 64}}
    kernel = {
        "type": "object",
        "required": [str(Choice.KERNEL)],
        "additionalProperties": False,
        "properties": {str(Choice.KERNEL): {**kernels, "description": _CHOICE_WORDS[Choice.KERNEL]}},
    }
    return {"anyOf": [*words, kernel]}


def _choose() -> dict[str, Any]:
    every = {"enum": ["all"], "description": "every series that matches"}
    return {
        "description": "which of the study's series that match; what the first leaves open the next decides",
        "default": "all",
        "anyOf": [every, *_one_or_several({"$ref": "#/$defs/preference"})["anyOf"]],
    }


def _roles() -> dict[str, Any]:
    role = {
        "type": "object",
        "required": ["when"],
        "additionalProperties": False,
        "properties": {
            "when": {**_CONDITION, "description": "what this series has to be"},
            "from": {
                "default": str(Origin.STUDY),
                "anyOf": [{"enum": [str(o)], "description": said} for o, said in _ORIGIN_WORDS.items()],
            },
            "choose": {
                "description": "which, when several match",
                **_one_or_several({"$ref": "#/$defs/preference"}),
            },
        },
    }
    return _by_name("further series that the model needs, by the names its card gives them", NAME, role)


def _parameters() -> dict[str, Any]:
    value = {"anyOf": [*_OPERAND["anyOf"], {"type": "boolean"}]}
    return _by_name("what the model takes, by the names its card gives them", PARAMETER, value)


def _by_name(description: str, name: re.Pattern[str], value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {f"^{name.pattern}$": value},
    }


def _schedule() -> dict[str, Any]:
    clock = "([01]\\d|2[0-3]):[0-5]\\d"
    hours = {
        "type": "string",
        "pattern": rf"^\s*{clock}\s*-\s*({clock}|24:00)\s*$",
        "description": "daily hours by the node's clock, as 20:00-06:00",
    }
    now = {"enum": ["now"], "description": "as soon as there is room"}
    return {
        "description": "when a job may start; one that has started runs to its end",
        "default": "now",
        "anyOf": [now, *_one_or_several(hours)["anyOf"]],
    }


def _condition(vocabulary: Vocabulary) -> dict[str, Any]:
    several = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/condition"}}
    attributes = {keyword: {"$ref": _reference(kind_of(vr))} for keyword, vr in sorted(vocabulary.items())}
    return {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            "all": {**several, "description": "true when every one of these is"},
            "any": {**several, "description": "true when one of these is"},
            "not": {"$ref": "#/$defs/condition", "description": "true when this is false"},
            **{fact: _fact(fact) for fact in FACTS},
            **attributes,
        },
        "patternProperties": {
            **{_class_pattern(fact): _class_fact(fact) for fact in CLASS_FACTS},
            _PATH: {"$ref": "#/$defs/of-any-kind"},
        },
    }


def _fact(fact: str) -> dict[str, Any]:
    if fact == "Orientation":
        one = {"type": "string", "pattern": f"^(?:{'|'.join(map(_any_case, ORIENTATIONS))})$"}
        return {"description": _FACT_WORDS[fact], **_about(Kind.CODE, one)}
    return {"$ref": _reference(kind_of(FACTS[fact])), "description": _FACT_WORDS[fact]}


def _class_pattern(fact: str) -> str:
    of = r"\s*/\s*\S(.{0,62}\S)?" if fact in OF_ONE_CLASS else ""
    return rf"^{fact}\(\s*{MODEL_NAME}{of}\s*\)$"


def _class_fact(fact: str) -> dict[str, Any]:
    return {"$ref": _reference(kind_of(CLASS_FACTS[fact])), "description": _CLASS_WORDS[fact]}


def _any_case(word: str) -> str:
    """JSON Schema's patterns have no flag for it."""
    return "".join(f"[{letter}{letter.upper()}]" for letter in word)


def _kinds() -> dict[str, Any]:
    return {_reference(kind).rpartition("/")[2]: _about(kind) for kind in Kind}


def _reference(kind: Kind) -> str:
    """A URI fragment, in which a blank may not stand."""
    return f"#/$defs/{str(kind).replace(' ', '-')}"


def _about(kind: Kind | None, operand: Mapping[str, Any] = _OPERAND) -> dict[str, Any]:
    """What may be said of an attribute of the kind; None: of one whose VR nobody knows yet."""
    exists = {"type": "boolean", "description": _OPERATOR_WORDS[Operator.EXISTS]}
    if kind is Kind.NONE:
        return _operators({Operator.EXISTS: exists})
    if kind is Kind.FLAG:
        equals = {"type": "boolean", "description": _OPERATOR_WORDS[Operator.EQUALS]}
        return {"anyOf": [{"type": "boolean"}, _operators({Operator.EQUALS: equals, Operator.EXISTS: exists})]}
    several = {"type": "array", "minItems": 1, "items": operand}
    said = {op: {**_operands(op, operand), "description": _OPERATOR_WORDS[op]} for op in _of_kind(kind)}
    return {"anyOf": [operand, several, _operators({**said, Operator.EXISTS: exists})]}


def _of_kind(kind: Kind | None) -> list[Operator]:
    ordering = _ORDERING if kind is None or is_ordered(kind) else ()
    containing = (Operator.CONTAINS,) if kind is None or has_contents(kind) else ()
    return [Operator.EQUALS, Operator.ONE_OF, *containing, Operator.MATCHES, *ordering]


def _operands(operator: Operator, operand: Mapping[str, Any]) -> dict[str, Any]:
    if operator is Operator.MATCHES:
        return {**_TEXT, "maxLength": 200, "format": "regex"}
    if operator is Operator.ONE_OF:
        return {"type": "array", "minItems": 1, "items": operand}
    if operator is Operator.BETWEEN:
        return {"type": "array", "minItems": 2, "maxItems": 2, "items": operand}
    return dict(operand)


def _operators(properties: Mapping[Operator, Any]) -> dict[str, Any]:
    named = {str(operator): schema for operator, schema in properties.items()}
    return {"type": "object", "minProperties": 1, "additionalProperties": False, "properties": named}
