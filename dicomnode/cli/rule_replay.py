"""`dicomnode rules replay`: a rule, or a draft beside it, over what the node has received."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from dicomnode.cli.rule_files import read_rules
from dicomnode.cli.rule_lookup import find_rule
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.ports import StudyView
from dicomnode.stages.replay import Replayed, other_differences, received_since, replay

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_STYLES = {"+": "bold green", "-": "bold red", "=": "green", "": ""}
_WORDS = {
    "+": "only the draft takes: {}",
    "-": "only the rule in force takes: {}",
    "=": "both take: {}",
    "": "neither takes: {}",
    "?": "could not be asked about: {}",
}


def register(app: typer.Typer) -> None:
    app.command("replay")(replay_rule)


def replay_rule(
    ctx: typer.Context,
    rule: Annotated[str, typer.Argument(help="The rule's name, as in `dicomnode rules list`.")],
    draft: Annotated[
        Path | None, typer.Option("--draft", help="YAML file with the rule as it might become.", show_default=False)
    ] = None,
    since: Annotated[
        str, typer.Option("--since", help="How far back: hours, days or weeks, as in 12h, 30d, 8w.")
    ] = "30d",
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many studies, the newest.")] = 1000,
    as_json: Json = False,
) -> None:
    """What a rule says of the series received so far, and with --draft, what a change of it would change.

    Both are asked today, of the files in the store: nothing is routed, and what was decided then is in
    `dicomnode studies why`.

    Example: dicomnode rules replay torso-ct --draft torso-ct.yaml --since 30d
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    age = _age(since)
    revision = find_rule(context.state, rule)
    rules = [parse_rule(revision.document), *([_draft(draft)] if draft else [])]
    newest = context.state.studies(most=most)
    studies = received_since(newest, datetime.now(UTC) - age)
    past = _replayed(context, studies, rules)
    changes = other_differences(rules[0], rules[1]) if draft else {}
    if context.json:
        context.print_json(_document(rules, past, changes))
        return
    _print(context, rules, past, len(studies), since)
    if len(newest) == most == len(studies):
        context.console.print(f"there may be more: these are the newest {most}, see --most", style="yellow")
    for name, (before, after) in changes.items():
        context.console.print(f"{name}: {before} → {after}", style="yellow", highlight=False, markup=False)


def _age(since: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,5})([hdw])", since)
    if not match:
        raise typer.BadParameter(f"{since!r} is no time such as 12h, 30d or 8w", param_hint="--since")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _draft(path: Path) -> Rule:
    rules = read_rules(path, keyword_vrs())
    if len(rules) > 1:
        raise InvalidRule("a draft is one rule, and here are several", str(path))
    return rules[0]


def _replayed(context: Context, studies: Sequence[StudyView], rules: Sequence[Rule]) -> list[Replayed]:
    """With a line on a terminal that says how far it is."""
    total = sum(len(study.series) for study in studies)
    past = []
    with context.errors.status("reading") as status:
        for number, one in enumerate(replay(studies, rules, context.store), start=1):
            status.update(f"series {number} of {total}")
            past.append(one)
    return past


def _mark(one: Replayed) -> str:
    """The rule's answer first, then the draft's; without a draft the rule stands for both."""
    if not one.answers:
        return "?"
    before, after = one.answers[0].matches, one.answers[-1].matches
    return "=" if before and after else "-" if before else "+" if after else ""


def _print(context: Context, rules: Sequence[Rule], past: Iterable[Replayed], studies: int, since: str) -> None:
    marked = [(_mark(one), one) for one in past]
    shown = [pair for pair in marked if pair[0] in (("+", "-") if len(rules) > 1 else ("=",))]
    if shown:
        context.console.print(_table(shown), highlight=False)
    counts = Counter(mark for mark, _ in marked)
    context.console.print(
        f"{len(marked)} series of {studies} studies received in the last {since}:", style="bold", highlight=False
    )
    words = _WORDS if len(rules) > 1 else {"=": "it takes: {}", "": "it does not take: {}", "?": _WORDS["?"]}
    for mark, sentence in words.items():
        if counts[mark] or mark != "?":
            context.console.print(Text(f"  {sentence.format(counts[mark])}", style=_STYLES.get(mark, "dim")))


def _table(shown: Iterable[tuple[str, Replayed]]) -> Table:
    table = Table(header_style="bold cyan")
    table.add_column("")
    table.add_column("received", no_wrap=True)
    table.add_column("accession", overflow="fold")
    table.add_column("series", overflow="fold")
    table.add_column("why", overflow="fold", ratio=1)
    for mark, one in shown:
        decision = one.answers[-1].decision
        table.add_row(
            Text("✓" if mark == "=" else mark, style=_STYLES[mark]),
            one.study.received_at.astimezone().strftime("%m-%d %H:%M"),
            Text(one.study.accession_number),
            Text(
                f"{one.series.modality or '?'} {one.series.description or '…' + one.series.series_instance_uid[-12:]}"
            ),
            Text(decision.explanation.words() if decision else one.answers[-1].never),
        )
    return table


def _document(rules: Sequence[Rule], past: Sequence[Replayed], changes: dict[str, Any]) -> dict[str, Any]:
    """Every series with an answer a rule, the rule in force first."""
    series = [
        {
            "study_instance_uid": one.study.study_instance_uid,
            "series_instance_uid": one.series.series_instance_uid,
            "accession_number": one.study.accession_number,
            "received_at": one.study.received_at,
            "in_force": one.answers[0].matches if one.answers else None,
            "draft": one.answers[1].matches if len(one.answers) > 1 else None,
            "why": one.answers[-1].why() if one.answers else one.left_out,
        }
        for one in past
    ]
    return {"rule": rules[0].name, "with_draft": len(rules) > 1, "series": series, "other_changes": changes}
