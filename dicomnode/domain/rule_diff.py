"""What differs between two documents of a rule, place by place as `rules show` prints them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Any

from dicomnode.domain.rule_reading import parse_condition, parse_rule
from dicomnode.domain.rules import condition_text, rule_document
from dicomnode.errors import InvalidRule

# Paths under which a mapping is a condition
_IN_CONDITION = re.compile(r"(^|\.)(when|has|has_not)(\.|\[|$)")
# Lists in which each item stands for itself; any other is one value
_CONDITION_LISTS = frozenset({"all", "any", "has", "has_not"})


class Change(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """What one place came to; `path` is as in the later document, of an item that was removed as in the earlier."""

    change: Change
    path: str
    before: Any = None
    after: Any = None

    def words(self) -> str:
        """when.all[2].SliceThickness.at_most: 5 → 3."""
        if self.change is Change.CHANGED:
            return f"{self.path}: {self._value(self.before)} → {self._value(self.after)}"
        return f"{self.path}: {self._value(self.after if self.change is Change.ADDED else self.before)}"

    def _value(self, value: Any) -> str:
        return value_words(value, is_condition=bool(_IN_CONDITION.search(self.path)))


def rule_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Defaults that only one of the two writes out make no difference."""
    return list(_differences(normal_document(before), normal_document(after), ""))


def normal_document(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """With every default as it is printed today; a document that cannot be read stays as it is."""
    try:
        return rule_document(parse_rule(document))
    except InvalidRule:
        return document


def value_words(value: Any, is_condition: bool = False) -> str:
    """A part of a rule on one line: a condition in words, anything else as it would be written."""
    if isinstance(value, Mapping):
        try:
            return condition_text(parse_condition(value)) if is_condition else _canonical(value)
        except InvalidRule:
            return _canonical(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_words(part, is_condition) for part in value)}]"
    return _canonical(value) if isinstance(value, bool) or value in (None, "") else str(value)


def _differences(before: Any, after: Any, path: str) -> Iterator[Difference]:
    if _canonical(before) == _canonical(after):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _of_mappings(*_as_groups(before, after), path)
    elif isinstance(before, list) and isinstance(after, list) and path.rpartition(".")[2] in _CONDITION_LISTS:
        yield from _of_lists(before, after, path)
    else:
        yield Difference(Change.CHANGED, path, before, after)


def _as_groups(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A condition that became one of several is one of several in both."""
    if before.keys() == {"all"} and "all" not in after:
        return before, {"all": [after]}
    if after.keys() == {"all"} and "all" not in before:
        return {"all": [before]}, after
    return before, after


def _of_mappings(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[Difference]:
    for key in dict.fromkeys([*before, *after]):
        place = f"{path}.{key}" if path else str(key)
        if key not in after:
            yield Difference(Change.REMOVED, place, before=before[key])
        elif key not in before:
            yield Difference(Change.ADDED, place, after=after[key])
        else:
            yield from _differences(before[key], after[key], place)


def _of_lists(before: Sequence[Any], after: Sequence[Any], path: str) -> Iterator[Difference]:
    """Equal items find each other first, then those that are about the same attributes."""
    matcher = SequenceMatcher(None, [_canonical(v) for v in before], [_canonical(v) for v in after], autojunk=False)
    for kind, low, high, other_low, other_high in matcher.get_opcodes():
        if kind != "equal":
            yield from _of_runs(before, (low, high), after, (other_low, other_high), path)


def _of_runs(
    before: Sequence[Any], old: tuple[int, int], after: Sequence[Any], new: tuple[int, int], path: str
) -> Iterator[Difference]:
    ours_about = [_subject(item) for item in before[slice(*old)]]
    theirs_about = [_subject(item) for item in after[slice(*new)]]
    matcher = SequenceMatcher(None, ours_about, theirs_about, autojunk=False)
    for kind, low, high, other_low, other_high in matcher.get_opcodes():
        ours, theirs = range(old[0] + low, old[0] + high), range(new[0] + other_low, new[0] + other_high)
        if kind == "equal":
            for i, j in zip(ours, theirs, strict=True):
                yield from _of_items(before[i], after[j], f"{path}[{j}]")
            continue
        yield from (Difference(Change.REMOVED, f"{path}[{i}]", before=before[i]) for i in ours)
        yield from (Difference(Change.ADDED, f"{path}[{j}]", after=after[j]) for j in theirs)


def _of_items(before: Any, after: Any, path: str) -> Iterator[Difference]:
    """Two versions of one condition: what changed in it, or where that is more than values, the whole of both."""
    inner = list(_differences(before, after, path))
    is_group = isinstance(after, Mapping) and after.keys() <= {"all", "any"}
    if is_group or all(difference.change is Change.CHANGED for difference in inner):
        yield from inner
    else:
        yield Difference(Change.CHANGED, path, before, after)


def _subject(item: Any) -> str:
    """What two items must share to be two versions of one."""
    return f"{{{','.join(sorted(map(str, item)))}}}" if isinstance(item, Mapping) else _canonical(item)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
