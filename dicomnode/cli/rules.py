"""`dicomnode rules`: which model runs on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode.cli import rule_checks, rule_findings, rule_history, rule_questions, rule_replay, rule_states
from dicomnode.cli.rule_checks import in_its_file
from dicomnode.cli.rule_files import PlacedRule, placed_rules
from dicomnode.cli.rule_findings import finding_words, notes_on_state
from dicomnode.cli.rule_lookup import Author, DryRun, Json, Name, Reason, author_or_user, find_rule, print_notes
from dicomnode.domain.rule_diff import rule_differences
from dicomnode.domain.rule_lint import Finding, Severity
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, condition_text, rule_document
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.ports import RuleRevision, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Rules: which model runs on which series, and where its results go.", no_args_is_help=True)


def register(program: typer.Typer) -> None:
    program.add_typer(app, name="rules")


@app.command()
def add(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="YAML files, one rule or several (--- between them) in each.")],
    reason: Reason = "",
    author: Author = "",
    force: Annotated[
        bool, typer.Option("--force", help="Add rules that can never work as they are written, too.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add rules from YAML files, or new revisions of rules that exist. They hold from the next series on.

    All files are checked before anything is changed, and if one is wrong nothing is. What rules lint
    finds is told as notes; what can never work is refused. A model or destination that a rule names
    may come later. An unchanged rule makes no new revision.

    Example: dicomnode rules add torso-ct.yaml --reason "thin slices only"

    A rule, of which only name, when and model are needed (docs/rules.md explains the language, and editors
    take it from dicomnode rules schema):

    \b
    name: torso-ct
    when:
      all:
        - Modality: CT
        - SliceThickness: {at_most: 5}
        - not: {ImageType: {contains: LOCALIZER}}
    model: torso-ct
    destinations:
      - pacs
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    context.may_begin = not dry_run
    placed = placed_rules(files, keyword_vrs())
    findings = rule_findings.in_the_node(context.state, [one.rule for one in placed])
    if not force:
        _refuse(findings, placed)
    before = {revision.name: revision for revision in context.state.rules()}
    who = author_or_user(author)
    changes = [_added(context.state, one.rule, before, findings, who, reason, dry_run) for one in placed]
    _tell(context, changes)


def _tell(context: Context, changes: Sequence[Mapping[str, Any]]) -> None:
    if context.json:
        context.print_json(changes)
        return
    for change in changes:
        context.done(change["message"])
        for words in change["changes"]:
            context.console.print(f"  {words}", style="dim", highlight=False, markup=False, soft_wrap=True)
        print_notes(context, change["notes"], indent="  ")


def _refuse(findings: Sequence[Finding], placed: Sequence[PlacedRule]) -> None:
    """Raises InvalidRule with everything that can never work, each where it stands in its file."""
    errors = [in_its_file(finding, placed) for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        several = [InvalidRule(f"{e.problem}; {e.remedy}", f"{e.path} (rule {e.rule})") for e in errors]
        words = "nothing was added, for this can never work (--force adds it all the same):"
        raise InvalidRule("\n  ".join([words, *map(str, several)]), several=several)


def _added(
    state: State,
    rule: Rule,
    before: Mapping[str, RuleRevision],
    findings: Sequence[Finding],
    author: str,
    reason: str,
    dry_run: bool,
) -> dict[str, Any]:
    document, old = rule_document(rule), before.get(rule.name)
    differences = rule_differences(old.document, document) if old else []
    if old is not None and not differences:
        words, revision = f"rule {rule.name} is unchanged (revision {old.revision})", old.revision
    elif dry_run:
        words, revision = f"rule {rule.name} would be {'changed' if old else 'added'}; nothing was changed", None
    else:
        revision = state.add_rule(rule.name, document, author=author, reason=reason).revision
        words = f"rule {rule.name} revision {revision} is in force"
    about_it = [finding for finding in findings if finding.rule == rule.name]
    return {
        "message": words,
        "name": rule.name,
        "revision": revision,
        "dry_run": dry_run,
        "changes": [f"{d.change} {d.words()}" for d in differences],
        "notes": [*notes_on_state(rule), *map(finding_words, about_it)],
        "findings": about_it,
    }


@app.command("list")
def list_rules(ctx: typer.Context, as_json: Json = False) -> None:
    """The rules in force, one a line, in the order in which they are asked.

    Example: dicomnode rules list --json
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rows = sorted((_row(revision) for revision in context.state.rules()), key=lambda r: (r["order"], r["name"]))
    if context.json:
        context.print_json(rows)
        return
    if not rows:
        context.console.print(
            "Rules: none yet; dicomnode rules add FILE (rules add --help shows one)", highlight=False
        )
        return
    columns = ["order", "rule", "state", "when", "model", "since", "author"]
    context.show([{**row, "rule": f"{row['name']}@{row['revision']}"} for row in rows], columns, "Rules")


def _row(revision: RuleRevision) -> dict[str, Any]:
    row = {
        "name": revision.name,
        "revision": revision.revision,
        "order": 100,
        "state": "broken",
        "since": revision.created_at,
        "author": revision.author,
        "reason": revision.reason,
        "document": revision.document,
    }
    try:
        return row | _fields(parse_rule(revision.document))
    except InvalidRule as error:
        return row | {"when": str(error)}


def _fields(rule: Rule) -> dict[str, Any]:
    version = "" if rule.version == "active" else f" {rule.version}"
    return {
        "order": rule.order,
        "state": str(rule.state),
        "when": condition_text(rule.when) + _beside_when(rule),
        "model": f"{rule.model}{version}" or "stops",
        "priority": str(rule.priority),
        "destinations": list(rule.destinations) or "all",
        "description": rule.description,
        "stop": rule.stop,
        "needs_study": rule.needs_study,
    }


def _beside_when(rule: Rule) -> str:
    """What else decides, in short; `rules show` has it whole."""
    parts = [
        *(f"the study has {condition_text(c)}" for c in rule.study.has),
        *(f"the study has no {condition_text(c)}" for c in rule.study.has_not),
        *(f"{role.name} from the {role.origin}" for role in rule.roles),
        *([f"chosen by {', '.join(str(p.choice) for p in rule.choose)}"] if rule.choose else []),
        *(["stops"] if rule.stop and rule.model else []),
    ]
    return "".join(f"; {part}" for part in parts)


@app.command()
def remove(
    ctx: typer.Context,
    name: Name,
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a rule out of force. Jobs that it made go on, and its history stays.

    Example: dicomnode rules remove torso-ct --reason "the scanner was sold" --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    revision = find_rule(context.state, name)
    if dry_run:
        words = f"rule {name} (revision {revision.revision}) would be removed; nothing was changed"
    else:
        context.state.remove_rule(name, author=author_or_user(author), reason=reason)
        words = f"rule {name} (revision {revision.revision}) was removed"
    context.done(words, name=name, revision=revision.revision, dry_run=dry_run)


rule_states.register(app)
rule_history.register(app)
rule_questions.register(app)
rule_checks.register(app)
rule_replay.register(app)
