"""`dicomnode rules lint` and `rules schema`: what is wrong with rules, and their form for editors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dicomnode.cli import rule_findings
from dicomnode.cli.rule_files import PlacedRule, placed_rules
from dicomnode.domain.rule_lint import Finding, Severity
from dicomnode.domain.rule_schema import rule_schema
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    app.command("lint")(lint)
    app.command("schema")(schema)


def lint(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="YAML files with rules; none: the rules in force.", show_default=False)
    ] = None,
    files_only: Annotated[
        bool,
        typer.Option("--files-only", help="Look at the files alone: no database, so models and such are not known."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Find what can never work: contradictions, unknown models and destinations, twins. Exit status 1 if any.

    What works but takes long is told as advice, and is no failure.

    Example: dicomnode rules lint draft.yaml --files-only
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    if files_only and not files:
        raise typer.BadParameter("--files-only needs FILES")
    found_in = rule_findings.alone if files_only else partial(rule_findings.in_the_node, context.state)
    if files:
        placed, findings = _read(files)
        rules = [one.rule for one in placed]
        findings += [in_its_file(finding, placed) for finding in found_in(rules)]
    else:
        rules, findings = rule_findings.stored(context.state.rules())
        findings += found_in(rules)
    _print(context, len(rules), findings)
    if any(finding.severity is not Severity.ADVICE for finding in findings):
        raise typer.Exit(1)


def _read(files: Iterable[Path]) -> tuple[list[PlacedRule], list[Finding]]:
    """What can be read, and what is wrong with the other files."""
    placed: list[PlacedRule] = []
    findings: list[Finding] = []
    for file in files:
        try:
            placed += placed_rules([file], keyword_vrs())
        except InvalidRule as error:
            findings += [Finding("", each.path, each.message, _mend(each.path, file)) for each in error.each]
    return placed, findings


def _mend(place: str, file: Path) -> str:
    if place == str(file):
        return "name a YAML file with rules; dicomnode rules add --help shows one"
    return "mend it there; docs/rules.md explains the language"


def in_its_file(finding: Finding, placed: Sequence[PlacedRule]) -> Finding:
    """With the file, line and column before its path; of two rules of one name the last, as it would be added."""
    of_it = next((one for one in reversed(placed) if one.rule.name == finding.rule), None)
    return replace(finding, path=f"{of_it.place(finding.path)}: {finding.path}") if of_it else finding


_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.ADVICE: "bold cyan"}


def _print(context: Context, count: int, findings: Sequence[Finding]) -> None:
    if context.json:
        context.print_json({"rules": count, "findings": list(findings)})
        return
    for finding in findings:
        name = f"rule {finding.rule}" if finding.rule else ""
        where = ", ".join(part for part in (name, finding.path) if part)
        line = Text.assemble((f"{finding.severity}: ", _STYLES[finding.severity]), (where, "bold"))
        context.console.print(line.append(f": {finding.problem}"), highlight=False, soft_wrap=True)
        context.console.print(Text(f"  → {finding.remedy}", style="yellow"), highlight=False, soft_wrap=True)
    context.console.print(_total(count, findings), highlight=False)


def _total(count: int, findings: Sequence[Finding]) -> str:
    rules = "1 rule" if count == 1 else f"{count} rules"
    wrong = sum(finding.severity is not Severity.ADVICE for finding in findings)
    if not wrong:
        return f"{rules}: nothing is wrong"
    return f"{'1 thing is' if wrong == 1 else f'{wrong} things are'} wrong ({rules} read)"


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
