"""`dicomnode rules explain` and `rules test`: what rules say of a series, without routing it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from dicomnode.cli.rule_lookup import is_file, notes_on, rules_named
from dicomnode.domain.conditions import Explanation, found_words
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import AnyOf, Comparison, Not, Rule, condition_text
from dicomnode.errors import InvalidRule, NotFound
from dicomnode.imaging.series_files import Found, FoundSeries, series_in
from dicomnode.stages.asking import Answer, ask, joined, series_of_study

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    app.command("explain")(explain_rule)
    app.command("test")(try_rules)


# ------------------------------------------------------------------------------------------------- explain


def explain_rule(
    ctx: typer.Context,
    rule: Annotated[str, typer.Argument(help="A rule's name, or a YAML file with a draft.")],
    subject: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|FILE|FOLDER",
            help="Study or Series Instance UID, accession number or patient ID of what the node received; "
            "or a DICOM file, or a folder of them.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Each condition of a rule with the value found, and which of them decided. Changes nothing.

    Example: dicomnode rules explain torso-ct 20240131-007

    A draft and files need no database: dicomnode rules explain draft.yaml ./ct-folder
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rules = rules_named(context, rule)
    found = _found(context, [subject])
    answers = [answer for series in found.series for answer in ask(series, rules)]
    if context.json:
        context.print_json({"answers": [a.document() for a in answers], "left_out": found.left_out})
        return
    for answer in answers:
        _print_answer(context, answer)
    if len(answers) > 1:
        context.console.print(f"\n{_counted(answers)}", style="bold", highlight=False)
    if not is_file(rule):
        _print_notes(context, [note for r in rules for note in notes_on(context.state, r)])
    _print_left_out(context, found)


def _print_answer(context: Context, answer: Answer) -> None:
    context.console.print()
    context.console.print(_headline(answer.found))
    sentence = answer.why()
    style = "bold green" if answer.matches else "bold red" if answer.decision else "bold magenta"
    context.console.print(Text(sentence[:1].upper() + sentence[1:], style=style))
    if answer.decision:
        context.console.print(Padding(explanation_tree(answer.decision.explanation), (0, 0, 0, 2)), highlight=False)


def _headline(found: FoundSeries) -> Text:
    series, count = found.series, len(found.series.instances)
    text = Text(f"{series.modality or '?'} {found.description}".strip(), style="bold")
    text.append(f" · {count} image{'s' if count != 1 else ''}", style="not bold")
    return text.append(f"\n{series.series_instance_uid}", style="dim not bold")


def explanation_tree(explanation: Explanation) -> Tree:
    """Conditions that decided in colour, the others dimmed."""
    return _branch(explanation, frozenset(id(clause) for clause in explanation.deciding()))


def _branch(explanation: Explanation, deciding: frozenset[int]) -> Tree:
    tree = Tree(_label(explanation, id(explanation) in deciding), guide_style="dim")
    for part in explanation.parts:
        tree.children.append(_branch(part, deciding))
    return tree


def _label(explanation: Explanation, decides: bool) -> Text:
    condition, holds = explanation.condition, explanation.holds
    colour = "green" if holds else "red"
    if not isinstance(condition, Comparison):
        word = "not" if isinstance(condition, Not) else "any of" if isinstance(condition, AnyOf) else "all of"
        return Text.assemble((_truth(holds), colour), " ", word)
    style = f"bold {colour}" if decides else "dim"
    text = Text.assemble((_truth(holds), style), " ", (condition_text(condition), style))
    return text.append(f"  found: {found_words(explanation)}", style="" if decides else "dim")


def _truth(holds: bool) -> str:
    return "✓ true " if holds else "✗ false"


def _counted(answers: Sequence[Answer]) -> str:
    """A line at the end: with many series the ones that match are far up."""
    matching = [a for a in answers if a.matches]
    series = {a.found.series.series_instance_uid for a in answers}
    return (
        f"{len(matching)} of {len(answers)} match"
        if len(series) == 1
        else (f"{len({a.found.series.series_instance_uid for a in matching})} of {len(series)} series match")
    )


# ---------------------------------------------------------------------------------------------------- test


def try_rules(
    ctx: typer.Context,
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER|STUDY...",
            help="DICOM files, folders of them, or studies that the node received (as for rules explain).",
        ),
    ],
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="A YAML file with a draft, or a rule's name; may be repeated. [all enabled]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """What every enabled rule says of these files: a line a series and rule. Changes nothing.

    Example: dicomnode rules test ./ct-folder --rule draft.yaml
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rules, broken = _enabled(context) if not rule else ([r for word in rule for r in rules_named(context, word)], [])
    found = _found(context, subjects)
    answers = [answer for series in found.series for answer in ask(series, rules)]
    if context.json:
        rows = [{k: v for k, v in a.document().items() if k != "when"} for a in answers]
        context.print_json({"answers": rows, "broken_rules": broken, "left_out": found.left_out})
        return
    for _, of_one in groupby(answers, key=lambda a: a.found.series.series_instance_uid):
        _print_row(context, list(of_one))
    context.console.print(f"\n{_summary(answers)}", style="bold", highlight=False)
    _print_notes(context, broken)
    _print_left_out(context, found)


def _enabled(context: Context) -> tuple[list[Rule], list[str]]:
    """The rules that would be asked, and words on those that cannot be read; raises NotFound without any."""
    rules, broken = [], []
    for revision in context.state.enabled_rules():
        try:
            rules.append(parse_rule(revision.document))
        except InvalidRule as error:
            broken.append(f"rule {revision.name} cannot be read: {error}")
    if not rules and not broken:
        raise NotFound("no rule is enabled; add one with dicomnode rules add FILE, or try a draft with --rule FILE")
    return rules, broken


def _print_row(context: Context, answers: Sequence[Answer]) -> None:
    context.console.print()
    context.console.print(_headline(answers[0].found))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", max_width=24)
    grid.add_column(overflow="fold")
    never = answers[0].never
    if never:
        grid.add_row(Text("never", style="magenta"), "", Text(f"no rule is asked: {never}"))
    for answer in answers:
        if answer.decision:
            mark = Text("✓ match", style="bold green") if answer.matches else Text("✗ no", style="red")
            grid.add_row(mark, Text(answer.rule.name), Text(answer.decision.explanation.words()))
    context.console.print(Padding(grid, (0, 0, 0, 2)), highlight=False)


def _summary(answers: Sequence[Answer]) -> str:
    """1 of 3 series matches a rule; no rule matches 2."""
    series = {a.found.series.series_instance_uid for a in answers}
    taken = {a.found.series.series_instance_uid for a in answers if a.matches}
    rules = len({a.rule.name for a in answers})
    return f"{len(taken)} of {len(series)} series matched by {'the rule' if rules == 1 else f'one of {rules} rules'}"


# -------------------------------------------------------------------------------------------- what is asked


def _found(context: Context, subjects: Sequence[str]) -> Found:
    """The series of files, folders and received studies; raises NotFound when there is none."""
    files = [Path(word) for word in subjects if Path(word).exists()]
    studies = [word for word in subjects if not Path(word).exists()]
    found = joined([series_in(files), *(_received(context, key) for key in studies)])
    if not found.series:
        left_out = f" ({'; '.join(found.left_out)})" if found.left_out else ""
        raise NotFound(f"no DICOM instance in {', '.join(subjects)}{left_out}")
    return found


def _received(context: Context, key: str) -> Found:
    try:
        study = context.state.study(key)
    except NotFound as error:
        raise NotFound(f"{error}, and there is no file or folder {key}; see dicomnode studies list") from error
    return series_of_study(study, key, context.store)


def _print_notes(context: Context, notes: Sequence[str]) -> None:
    for note in notes:
        context.console.print(f"note: {note}", style="yellow", highlight=False, markup=False)


def _print_left_out(context: Context, found: Found) -> None:
    for words in found.left_out:
        context.console.print(words, style="dim", highlight=False, markup=False)
