"""Rules by name, by revision, by file, and what keeps one from working."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode.cli.known_names import unknown
from dicomnode.cli.rule_files import read_rules
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, RuleState
from dicomnode.errors import InvalidRule, NotFound
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.ports import RuleRevision, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

_FILE_ENDINGS = (".yaml", ".yml")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Name = Annotated[str, typer.Argument(help="The rule's name, as in `dicomnode rules list`.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for `dicomnode rules history`.")]
Author = Annotated[
    str, typer.Option("--author", help="Who changes it; left out: the user who is logged in.", show_default=False)
]


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
    raise NotFound(unknown("rule", name, list(rules), "dicomnode rules list"))


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
    """The rules of a YAML file, or the one of that name or NAME@REVISION. A file alone asks no database."""
    if is_file(word):
        return read_rules(Path(word), keyword_vrs())
    return [rule_of(find_revision(context.state, word))]


def rule_of(revision: RuleRevision) -> Rule:
    """Raises InvalidRule that names the revision, where an older version of dicomnode took it and this one cannot."""
    try:
        return parse_rule(revision.document)
    except InvalidRule as error:
        remedy = f"dicomnode rules show {revision.name}@{revision.revision} prints it, to be mended and added again"
        raise InvalidRule(f"{error}; {remedy}", f"rule {revision.name}@{revision.revision}") from error


def notes_on_revision(state: State, words: str) -> list[str]:
    """Of NAME@REVISION: which one is in force instead."""
    name, at, _ = words.partition("@")
    asked = find_revision(state, words)
    if not at or asked.in_force:
        return []
    now = next((r for r in revisions_of(state, name) if r.in_force), None)
    other = f"revision {now.revision} is in force" if now else "the rule was removed"
    return [f"this is what revision {asked.revision} says; {other}"]


def print_notes(context: Context, notes: Sequence[str], indent: str = "") -> None:
    for note in notes:
        context.console.print(f"{indent}note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def state_of(document: Mapping[str, Any]) -> str:
    """enabled, shadow or disabled, of a document that may be older than the word `state`."""
    return str(document.get("state") or (RuleState.ENABLED if document.get("enabled", True) else RuleState.DISABLED))
