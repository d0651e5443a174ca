"""`dicomnode rules lint` and `rules schema`: what is wrong with rules, and their form for editors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dicomnode.cli.rule_files import read_rules
from dicomnode.domain.clauses import Dictionary
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.rule_fit import ACTIVE, missing
from dicomnode.domain.rule_lint import Finding, findings_in, never_asked, same_names, twins
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rule_schema import rule_schema
from dicomnode.domain.rules import Rule
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs, single_valued_keywords
from dicomnode.ports import RuleRevision, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    app.command("lint")(lint)
    app.command("schema")(schema)


def lint(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="YAML files with rules. [the rules in force]", show_default=False)
    ] = None,
    files_only: Annotated[
        bool,
        typer.Option("--files-only", help="Look at the files alone: no database, so models and such are not known."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Find what can never work: contradictions, unknown models and destinations, twins. Exit status 1 if any.

    Example: dicomnode rules lint draft.yaml --files-only
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    if files_only and not files:
        raise typer.BadParameter("--files-only needs FILES")
    rules, findings = _read_files(files) if files else _read_stored(context.state.rules())
    findings += [finding for rule in rules for finding in findings_in(rule, _dictionary())]
    findings += same_names(rules)
    findings += _among(rules, []) if files_only else _in_the_node(context.state, rules)
    _print(context, len(rules), findings)
    if findings:
        raise typer.Exit(1)


def _dictionary() -> Dictionary:
    return Dictionary(keyword_vrs(), single_valued_keywords())


def _read_files(files: Iterable[Path]) -> tuple[list[Rule], list[Finding]]:
    rules, findings = [], []
    for file in files:
        try:
            rules += read_rules(file, keyword_vrs())
        except InvalidRule as error:
            problem = str(error).removeprefix(f"{error.path}: ")
            findings.append(Finding("", error.path, problem, "mend it there; docs/rules.md explains the language"))
    return rules, findings


def _read_stored(revisions: Iterable[RuleRevision]) -> tuple[list[Rule], list[Finding]]:
    """With the dictionary: what was taken by an older version may never match."""
    rules, findings = [], []
    for revision in revisions:
        try:
            rules.append(parse_rule(revision.document, keyword_vrs()))
        except InvalidRule as error:
            problem = str(error).removeprefix(f"{error.path}: ")
            remedy = f"dicomnode rules show {revision.name} > {revision.name}.yaml, mend it and add it again"
            findings.append(Finding(revision.name, error.path, problem, remedy))
    return rules, findings


def _in_the_node(state: State, rules: Sequence[Rule]) -> Iterator[Finding]:
    cards = _cards(state)
    modalities = {name: versions[ACTIVE].input.modality for name, versions in cards.items() if ACTIVE in versions}
    destinations = [destination.name for destination in state.destinations()]
    for rule in rules:
        yield from missing(rule, modalities, destinations, _dictionary(), cards)
    names = {rule.name for rule in rules}
    others, _ = _read_stored(revision for revision in state.rules() if revision.name not in names)
    yield from _among(rules, others)


def _among(rules: Sequence[Rule], others: Sequence[Rule]) -> Iterator[Finding]:
    yield from twins(rules, others)
    yield from never_asked(rules, others, _dictionary())


def _cards(state: State) -> dict[str, dict[str, ModelCard]]:
    """Model → version → card, as domain.rule_fit takes them."""
    cards: dict[str, dict[str, ModelCard]] = {}
    for model in state.models():
        cards.setdefault(model.name, {})[model.version] = model.card
        if model.active:
            cards[model.name][ACTIVE] = model.card
    return cards


def _print(context: Context, count: int, findings: Sequence[Finding]) -> None:
    if context.json:
        context.print_json({"rules": count, "findings": list(findings)})
        return
    for finding in findings:
        name = f"rule {finding.rule}" if finding.rule else ""
        where = ", ".join(part for part in (name, finding.path) if part)
        context.console.print(Text.assemble((where, "bold red"), f": {finding.problem}"), highlight=False)
        context.console.print(Text(f"  → {finding.remedy}", style="yellow"), highlight=False)
    rules = "1 rule" if count == 1 else f"{count} rules"
    things = "1 thing is wrong" if len(findings) == 1 else f"{len(findings)} things are wrong"
    context.console.print(f"{things} ({rules} read)" if findings else f"{rules}: nothing is wrong", highlight=False)


def schema(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="It is JSON in any case.")] = False,
) -> None:
    """Print the JSON Schema of a rule (draft 2020-12), so that editors complete and check rule files.

    Example: dicomnode rules schema > rule.schema.json

    Then, as the first line of a rule file: # yaml-language-server: $schema=rule.schema.json
    """
    context: Context = ctx.obj
    context.print_json(rule_schema(keyword_vrs()))
