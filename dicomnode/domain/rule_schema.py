"""A rule document as JSON Schema (draft 2020-12), made from the same tables as the reader, for editors and checks.

It says what a rule looks like: names, operators that the VR has, kinds of operands. What it cannot say, whether
text is a date or a pattern can run for long, the reader and `rules lint` say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dicomnode.domain.job import Priority
from dicomnode.domain.rules import FACTS, ORIENTATIONS, Operator, Vocabulary
from dicomnode.domain.values import Kind, has_contents, is_ordered, kind_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
_STEP = r"([A-Za-z][A-Za-z0-9]*|\([0-9a-fA-F]{4},[0-9a-fA-F]{2},[^()\\]{1,64}\))"
# a private attribute, or a path of two steps and more; a keyword alone has to be one that is listed
_PATH = rf"^(\([0-9a-fA-F]{{4}},[0-9a-fA-F]{{2}},[^()\\]{{1,64}}\)|{_STEP}(\.{_STEP})+)$"
_TEXT = {"type": "string", "pattern": "\\S", "maxLength": 1024}
_OPERAND = {"anyOf": [_TEXT, {"type": "number"}]}
_ORDERING = (Operator.AT_LEAST, Operator.AT_MOST, Operator.BETWEEN)

_FACT_WORDS: Mapping[str, str] = {
    "CallingAETitle": "AE title of the sender",
    "CalledAETitle": "AE title of this node that the sender called",
    "NumberOfInstances": "instances of the series, as received",
    "AgeInYears": "of the patient at the study; completed years from two on",
    "IsLocalizer": "true when every image is a localizer",
    "IsAVolume": "true when the images make one volume without gaps",
    "Orientation": "axial, coronal, sagittal or oblique, from the images' orientation",
    "MeasuredSliceSpacing": "mm from slice to slice, measured from the positions; of volumes only",
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
        "required": ["name", "when", "model"],
        "additionalProperties": False,
        "properties": {
            "name": _NAME,
            "description": {"type": ["string", "null"], "maxLength": 1000, "description": "for people"},
            "when": {"$ref": "#/$defs/condition"},
            "model": {**_NAME, "description": "a registered model; its active version runs"},
            "priority": {"enum": [str(priority) for priority in Priority], "default": str(Priority.ROUTINE)},
            "destinations": {"type": "array", "items": _NAME, "description": "none named: all"},
            "enabled": {"type": "boolean", "default": True},
        },
        "$defs": {"condition": _condition(vocabulary), "of-any-kind": _about(None), **_kinds()},
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
        "patternProperties": {_PATH: {"$ref": "#/$defs/of-any-kind"}},
    }


def _fact(fact: str) -> dict[str, Any]:
    if fact == "Orientation":
        one = {"type": "string", "pattern": f"^(?:{'|'.join(map(_any_case, ORIENTATIONS))})$"}
        return {"description": _FACT_WORDS[fact], **_about(Kind.CODE, one)}
    return {"$ref": _reference(kind_of(FACTS[fact])), "description": _FACT_WORDS[fact]}


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
