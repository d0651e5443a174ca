"""Numbers that the network itself gives: the `output.measurements` of a card.

output:
  measurements:
    of: series                   # the volume as a whole, or image: each image by itself (needs input.size)
    values:                      # in the order of the network's (1, values)
      - name: Agatston score
        code: {value: "112058", scheme: DCM, meaning: Calcium score}
        unit: "1"                # UCUM
        finding_site: {value: "41801008", scheme: SCT, meaning: Coronary artery}    # optional
        range: [0, 10000]        # optional: a number outside is no measurement, and the SR says so
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dicomnode.domain.coded import Code, code, code_document, ucum
from dicomnode.domain.document import Node

OF = ("image", "series")
_VALUES_MOST = 255
# Other kernels give the same network's numbers to five digits or so; more would make another result of each.
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class MeasuredValue:
    name: str
    code: Code
    unit: str  # UCUM
    finding_site: Code | None = None
    low: float | None = None  # the least and the most that it may be
    high: float | None = None

    @property
    def allowed(self) -> str:
        return "any" if self.low is None or self.high is None else f"{self.low:g} to {self.high:g}"

    def is_one(self, value: float) -> bool:
        """Whether a number that the network gave is a measurement at all."""
        inside = self.low is None or self.high is None or self.low <= value <= self.high
        return math.isfinite(value) and inside


@dataclass(frozen=True, slots=True)
class MeasuredOutput:
    of: str  # one of OF
    values: tuple[MeasuredValue, ...]


def rounded(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """To the digits that every engine gives alike."""
    return [[float(f"{value:.{_DIGITS}g}") for value in row] for row in rows]


def measured_output(node: Node) -> MeasuredOutput:
    node.only("of", "values")
    values = tuple(_value(n) for n in node["values"].items())
    if not 0 < len(values) <= _VALUES_MOST or len({value.name for value in values}) < len(values):
        node["values"].fail(f"1 to {_VALUES_MOST} values are needed, each with a name of its own")
    return MeasuredOutput(node.get("of", "series").one_of(OF), values)


def _value(node: Node) -> MeasuredValue:
    node.only("name", "code", "unit", "finding_site", "range")
    low, high = _range(node["range"]) if "range" in node else (None, None)
    return MeasuredValue(
        name=node["name"].text(most=64),
        code=code(node["code"]),
        unit=ucum(node["unit"]),
        finding_site=code(node["finding_site"]) if "finding_site" in node else None,
        low=low,
        high=high,
    )


def _range(node: Node) -> tuple[float, float]:
    low, high = node.numbers(2)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        node.fail(f"{low} is not below {high}")
    return low, high


def measured_document(found: MeasuredOutput) -> dict[str, Any]:
    """As measured_output reads it."""
    return {"of": found.of, "values": [_value_document(value) for value in found.values]}


def _value_document(value: MeasuredValue) -> dict[str, Any]:
    return {
        "name": value.name,
        "code": code_document(value.code),
        "unit": value.unit,
        **({"finding_site": code_document(value.finding_site)} if value.finding_site else {}),
        **({"range": [value.low, value.high]} if value.low is not None else {}),
    }
