"""Rules by name, by file, and what keeps one from working."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode.cli.rule_files import read_rules
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule
from dicomnode.errors import NotFound
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.ports import RuleRevision, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

_FILE_ENDINGS = (".yaml", ".yml")


def find_rule(state: State, name: str) -> RuleRevision:
    """The rule in force of that name; raises NotFound with the nearest one."""
    rules = {rule.name: rule for rule in state.rules()}
    if name in rules:
        return rules[name]
    near = difflib.get_close_matches(name, rules, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(rules) or 'none'}"
    raise NotFound(f"there is no rule {name}; {hint}")


def is_file(word: str) -> bool:
    """Whether a word stands for a draft in a file; a rule's name has no slash and seldom ends so."""
    return word.endswith(_FILE_ENDINGS) or os.sep in word


def rules_named(context: Context, word: str) -> list[Rule]:
    """The rules of a YAML file, or the one in force of that name. A file alone asks no database."""
    if is_file(word):
        return read_rules(Path(word), keyword_vrs())
    return [parse_rule(find_rule(context.state, word).document)]


def notes_on(state: State, rule: Rule) -> Iterator[str]:
    """What is right in itself but will not work yet."""
    if not rule.enabled:
        yield "the rule is disabled (enabled: false)"
    if state.active_model(rule.model) is None:
        yield f"no model {rule.model} is registered; dicomnode models add FOLDER"
    known = {destination.name for destination in state.destinations()}
    for name in rule.destinations:
        if name not in known:
            yield f"destination {name} does not exist; dicomnode destinations add {name} ..."
    if not rule.destinations and not known:
        yield "there is no destination yet, so results stay here; dicomnode destinations add NAME ..."
