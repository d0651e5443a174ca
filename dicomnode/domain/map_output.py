"""A number for every voxel: the `output.map` of a card, a parametric map.

output:
  map:
    name: Perfusion
    quantity: {value: "113055", scheme: DCM, meaning: Regional Cerebral Blood Flow}
    unit: ml/(100.g.min)         # UCUM
    range: [0, 200]              # optional: what the network gives outside is cut off there
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dicomnode.domain.coded import Code, code, code_document, ucum
from dicomnode.domain.document import Node


@dataclass(frozen=True, slots=True)
class MapOutput:
    name: str
    quantity: Code
    unit: str  # UCUM
    range: tuple[float, float] | None = None


def map_output(node: Node) -> MapOutput:
    node.only("name", "quantity", "unit", "range")
    return MapOutput(
        name=node["name"].text(most=64),
        quantity=code(node["quantity"]),
        unit=ucum(node["unit"]),
        range=_range(node["range"]) if "range" in node else None,
    )


def _range(node: Node) -> tuple[float, float]:
    low, high = node.numbers(2)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        node.fail(f"{low} is not below {high}")
    return low, high


def map_document(found: MapOutput) -> dict[str, Any]:
    """As map_output reads it."""
    return {
        "name": found.name,
        "quantity": code_document(found.quantity),
        "unit": found.unit,
        **({"range": list(found.range)} if found.range else {}),
    }
