"""Coded concepts in a card: `{value: "39607008", scheme: SCT, meaning: Lung}`."""

from __future__ import annotations

from dataclasses import dataclass

from dicomnode.domain.document import Node

UNIT_MOST = 16


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class ClassSpec:
    name: str
    code: Code


def code(node: Node) -> Code:
    node.only("value", "scheme", "meaning")
    return Code(node["value"].text(most=16), node["scheme"].text(most=16), node["meaning"].text(most=64))


def code_document(found: Code) -> dict[str, str]:
    return {"value": found.value, "scheme": found.scheme, "meaning": found.meaning}


def shown(found: Code) -> str:
    """Lung (39607008, SCT)."""
    return f"{found.meaning} ({found.value}, {found.scheme})"


def classes(node: Node, least: int, most: int = 255) -> tuple[ClassSpec, ...]:
    """A list of names with codes, each name once."""
    found = tuple(_class(n) for n in node.items())
    if not least <= len(found) <= most or len({one.name for one in found}) < len(found):
        node.fail(f"{least} to {most} classes are needed, each with a name of its own")
    return found


def _class(node: Node) -> ClassSpec:
    node.only("name", "code")
    return ClassSpec(node["name"].text(most=64), code(node["code"]))


def class_document(one: ClassSpec) -> dict[str, object]:
    return {"name": one.name, "code": code_document(one.code)}


def ucum(node: Node) -> str:
    """A UCUM code (PS3.16 CID 7181): no spaces, at most 16 characters (PS3.5 6.2, SH)."""
    unit = node.text(most=UNIT_MOST)
    if not unit.isascii() or any(c.isspace() for c in unit):
        node.fail(f"{unit!r} is no UCUM code: no spaces and ASCII only, as mm, mL, %, /min, [hnsf'U]; 1: no unit")
    return unit
