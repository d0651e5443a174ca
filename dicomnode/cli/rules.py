"""`dicomnode rules`: which model runs on what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.syntax import Syntax

from dicomnode.cli import rule_checks, rule_questions, rule_replay
from dicomnode.cli.rule_files import read_rules, rule_yaml
from dicomnode.cli.rule_lookup import find_rule, notes_on
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, condition_text, rule_document
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.ports import RuleRevision, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Rules: which model runs on which series, and where its results go.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Name = Annotated[str, typer.Argument(help="The rule's name, as in `dicomnode rules list`.")]


@app.command()
def add(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="YAML files, one rule or several (--- between them) in each.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add rules from YAML files, or new revisions of rules that exist. They hold from the next series on.

    Every file is checked before anything is changed; docs/rules.md explains the language.

    Example: dicomnode rules add sample_data/rules/torso-ct.yaml
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rules = [rule for file in files for rule in read_rules(file, keyword_vrs())]
    changes = [_added(context.state, rule, dry_run) for rule in rules]
    if context.json:
        context.print_json(changes)
        return
    for change in changes:
        context.done(change["message"])
        for note in change["notes"]:
            context.console.print(f"  note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _added(state: State, rule: Rule, dry_run: bool) -> dict[str, Any]:
    before = next((r for r in state.rules() if r.name == rule.name), None)
    document, notes = rule_document(rule), list(notes_on(state, rule))
    if before is not None and dict(before.document) == document:
        words, revision = f"rule {rule.name} is as it was (revision {before.revision})", before.revision
    elif dry_run:
        words, revision = f"rule {rule.name} would be {'changed' if before else 'added'}; nothing was changed", None
    else:
        revision = state.add_rule(rule.name, document).revision
        words = f"rule {rule.name} revision {revision} is in force"
    return {"message": words, "name": rule.name, "revision": revision, "dry_run": dry_run, "notes": notes}


@app.command("list")
def list_rules(ctx: typer.Context, as_json: Json = False) -> None:
    """The rules in force, one a line.

    Example: dicomnode rules list --json
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rows = [_row(revision) for revision in context.state.rules()]
    context.show(rows, ["name", "on", "when", "model", "priority", "destinations"], "Rules")


def _row(revision: RuleRevision) -> dict[str, Any]:
    row = {"name": revision.name, "revision": revision.revision, "document": revision.document}
    try:
        rule = parse_rule(revision.document)
    except InvalidRule as error:
        return {**row, "on": "broken", "when": str(error)}
    return {
        **row,
        "on": "on" if rule.enabled else "off",
        "when": condition_text(rule.when),
        "model": rule.model,
        "priority": str(rule.priority),
        "destinations": list(rule.destinations) or "all",
        "description": rule.description,
    }


@app.command()
def show(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """A rule as YAML, with every default written out: edit it and add it again.

    Example: dicomnode rules show torso-ct > torso-ct.yaml
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    revision = find_rule(context.state, name)
    if context.json:
        context.print_json(_row(revision))
    elif context.console.is_terminal:
        context.console.print(f"[dim]# revision {revision.revision}[/dim]", highlight=False)
        context.console.print(
            Syntax(rule_yaml(revision.document), "yaml", background_color="default", word_wrap=True)
        )
    else:
        typer.echo(rule_yaml(revision.document), nl=False)


@app.command()
def remove(ctx: typer.Context, name: Name, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Take a rule out of force. Jobs that it made go on.

    Example: dicomnode rules remove torso-ct --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    revision = find_rule(context.state, name)
    if dry_run:
        words = f"rule {name} (revision {revision.revision}) would be removed; nothing was changed"
    else:
        context.state.remove_rule(name)
        words = f"rule {name} (revision {revision.revision}) was removed"
    context.done(words, name=name, revision=revision.revision, dry_run=dry_run)


rule_questions.register(app)
rule_checks.register(app)
rule_replay.register(app)
