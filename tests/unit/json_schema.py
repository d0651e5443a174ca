"""As much of JSON Schema (draft 2020-12) as the rules' schema uses; an unknown word is an error, not ignored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "null": lambda v: v is None,
}
_NO_MATTER = {"$schema", "$defs", "title", "description", "default", "deprecated", "format"}


class Schema:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def takes(self, value: Any) -> bool:
        return self._valid(self._root, value)

    def _valid(self, schema: Mapping[str, Any] | bool, value: Any) -> bool:
        if isinstance(schema, bool):
            return schema
        return all(self._word(word, schema, value) for word in schema if word not in _NO_MATTER)

    def _word(self, word: str, schema: Mapping[str, Any], value: Any) -> bool:
        said = schema[word]
        match word:
            case "$ref":
                return self._valid(self._root["$defs"][said.removeprefix("#/$defs/")], value)
            case "type":
                return any(_TYPES[name](value) for name in ([said] if isinstance(said, str) else said))
            case "enum":
                return any(value == one and type(value) is type(one) for one in said)
            case "minimum":
                return not _TYPES["number"](value) or value >= said
            case "maximum":
                return not _TYPES["number"](value) or value <= said
            case "anyOf":
                return any(self._valid(part, value) for part in said)
            case "pattern":
                return not isinstance(value, str) or re.search(said, value) is not None
            case "maxLength":
                return not isinstance(value, str) or len(value) <= said
            case "minItems" | "maxItems" | "items":
                return not isinstance(value, list) or self._array(word, said, value)
            case "required" | "minProperties" | "properties" | "patternProperties" | "additionalProperties":
                return not isinstance(value, dict) or self._object(word, schema, value)
        raise AssertionError(f"the schema uses {word}, which this does not know")

    def _array(self, word: str, said: Any, value: list[Any]) -> bool:
        if word == "items":
            return all(self._valid(said, item) for item in value)
        return len(value) >= said if word == "minItems" else len(value) <= said

    def _object(self, word: str, schema: Mapping[str, Any], value: dict[str, Any]) -> bool:
        properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        match word:
            case "required":
                return set(schema[word]) <= set(value)
            case "minProperties":
                return len(value) >= schema[word]
            case "properties":
                return all(self._valid(properties[name], value[name]) for name in value if name in properties)
            case "patternProperties":
                pairs = [(s, v) for p, s in patterns.items() for name, v in value.items() if re.search(p, name)]
                return all(self._valid(s, v) for s, v in pairs)
        assert schema[word] is False
        return all(name in properties or any(re.search(p, name) for p in patterns) for name in value)
