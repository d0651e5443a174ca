"""Rules by name, by revision, by file, and what keeps one from working."""

from __future__ import annotations

import difflib
import getpass
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode.cli.rule_files import read_rules
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, RuleState
from dicomnode.errors import NotFound
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.ports import RuleRevision, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

_FILE_ENDINGS = (".yaml", ".yml")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Name = Annotated[str, typer.Argument(help="The rule's name, as in `dicomnode rules list`.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for `dicomnode rules history`.")]
Author = Annotated[str, typer.Option("--author", help="Who changes it. [whoever is logged in]", show_default=False)]


def author_or_user(author: str) -> str:
    """The one that was given, or else the user of this process; "unknown" where it has no name, as in containers."""
    try:
        return author or getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def find_rule(state: State, name: str) -> RuleRevision:
    """The rule in force of that name; raises NotFound with the nearest one, or when and why it was removed."""
    rules = {rule.name: rule for rule in state.rules()}
    if name in rules:
        return rules[name]
    if removed := _removed(state, name):
        raise NotFound(f"{removed}; dicomnode rules history {name} shows its revisions")
    near = difflib.get_close_matches(name, rules, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(rules) or 'none'}"
    raise NotFound(f"there is no rule {name}; {hint}")


def _removed(state: State, name: str) -> str:
    try:
        last = state.rule_history(name)[-1]
    except NotFound:
        return ""
    when = f" on {last.removed_at.astimezone():%Y-%m-%d %H:%M}" if last.removed_at else ""
    return f"rule {name} was removed{when}"


def find_revision(state: State, words: str) -> RuleRevision:
    """NAME, which is the revision in force, or NAME@REVISION; raises NotFound."""
    name, at, number = words.partition("@")
    if not at:
        return find_rule(state, name)
    history = revisions_of(state, name)
    found = next((r for r in history if str(r.revision) == number), None)
    if found is None:
        known = ", ".join(str(r.revision) for r in history)
        raise NotFound(f"rule {name} has no revision {number or 'without a number'}; there are: {known}")
    return found


def revisions_of(state: State, name: str) -> list[RuleRevision]:
    """All, the oldest first, of a removed rule too; raises NotFound with the nearest rule there is."""
    try:
        return state.rule_history(name)
    except NotFound:
        find_rule(state, name)
        raise


def is_file(word: str) -> bool:
    """Whether a word stands for a draft in a file; a rule's name has no slash and seldom ends so."""
    return word.endswith(_FILE_ENDINGS) or os.sep in word


def rules_named(context: Context, word: str) -> list[Rule]:
    """The rules of a YAML file, or the one of that name. A file alone asks no database."""
    if is_file(word):
        return read_rules(Path(word), keyword_vrs())
    return [parse_rule(find_revision(context.state, word).document)]


def state_of(document: Mapping[str, Any]) -> str:
    """enabled, shadow or disabled, of a document that may be older than the word `state`."""
    return str(document.get("state") or (RuleState.ENABLED if document.get("enabled", True) else RuleState.DISABLED))


def notes_on(state: State, rule: Rule) -> Iterator[str]:
    """What is right in itself but will not work yet."""
    if rule.state is RuleState.DISABLED:
        yield f"the rule is disabled; dicomnode rules enable {rule.name}"
    if rule.state is RuleState.SHADOW:
        yield f"the rule is a shadow: it is asked, and what it says recorded, but nothing runs ({_enable(rule)})"
    if rule.model:
        yield from _notes_on_model(state, rule)
    known = {destination.name for destination in state.destinations()}
    for name in rule.destinations:
        if name not in known:
            yield f"destination {name} does not exist; dicomnode destinations add {name} ..."
    if rule.model and not rule.destinations and not known:
        yield "there is no destination yet, so results stay here; dicomnode destinations add NAME ..."


def _enable(rule: Rule) -> str:
    return f"dicomnode rules enable {rule.name}"


def _notes_on_model(state: State, rule: Rule) -> Iterator[str]:
    versions = [model.version for model in state.models() if model.name == rule.model]
    if not versions:
        yield f"no model {rule.model} is registered; dicomnode models add FOLDER"
    elif rule.version == "active" and state.active_model(rule.model) is None:
        yield f"no version of the model {rule.model} is active; dicomnode models activate {rule.model} {versions[-1]}"
    elif rule.version not in ("active", *versions):
        yield f"model {rule.model} has no version {rule.version}; see dicomnode models list"
