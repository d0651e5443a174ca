"""`dicomnode rules replay`: a rule, or a draft beside it, over what the node has received."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from dicomnode.cli.moments import moment
from dicomnode.cli.rule_files import read_rules
from dicomnode.cli.rule_history import difference_documents, difference_line
from dicomnode.cli.rule_lookup import Json, find_revision, rule_of
from dicomnode.domain.routing import Asked
from dicomnode.domain.rule_diff import Difference, rule_differences
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, RuleState, rule_document
from dicomnode.errors import InvalidRule, NotFound
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.ports import State
from dicomnode.stages.asking import Priors
from dicomnode.stages.replay import Change, Replay, Row, Tally, question, received

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

_ALL = "all"
_TOLD_EVERY = 1000  # studies
_CHANGES = {
    Change.NEW: ("newly taken", "bold green"),
    Change.GONE: ("no longer taken", "bold red"),
    Change.CHOSEN: ("chosen differently", "bold yellow"),
    Change.INPUTS: ("taken with other further series", "bold yellow"),
}
_WHY = {Change.NEW: "why not before", Change.GONE: "why no longer"}
_COUNTS = {
    **_CHANGES,
    Change.BOTH: ("taken as before", ""),
    Change.NEITHER: ("not taken, as before", ""),
}
_COUNTS_ALONE = {Change.BOTH: ("taken", "green"), Change.NEITHER: ("not taken", "")}
_NOT_ASKED = {
    Change.NOT_KNOWN: "not known: facts that decide are still being worked out (a running node does), or no model "
    "gave the classes that are asked for",
    Change.NOT_READ: "not known, their headers were never read",
    Change.RECEIVING: "still being received",
    Change.NO_IMAGE: "never asked about, they hold no image that can be read",
    Change.OWN_RESULT: "never asked about, they are this node's own results",
}
_UNKNOWN = frozenset({Change.NOT_KNOWN, Change.NOT_READ})
# Parts of a rule that say how a series is worked on, not whether
_OF_JOBS = frozenset({"model", "version", "parameters", "priority", "schedule", "destinations", "results"})


def register(app: typer.Typer) -> None:
    app.command("replay")(replay_rule)


def replay_rule(
    ctx: typer.Context,
    rule: Annotated[str, typer.Argument(help="The rule's name, or NAME@REVISION.")],
    draft: Annotated[
        Path | None, typer.Option("--draft", help="YAML file with the rule as it might become.", show_default=False)
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="WHEN", help="How far back: 12h, 30d or 8w ago, a date as in 2026-01-31, or all."
        ),
    ] = "30d",
    most: Annotated[
        int,
        typer.Option("--most", min=1, help="Show at most so many series of each kind, the newest; all are counted."),
    ] = 20,
    as_json: Json = False,
) -> None:
    """What a rule says of all that was received, and with --draft, what a change of it would have changed.

    Both are asked today, of what the database keeps of headers: no file is read, nothing is routed.
    What was decided then is in dicomnode studies why. The rule of a draft need not exist yet.

    Example: dicomnode rules replay torso-ct --draft torso-ct.yaml --since 30d
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    begin = None if since == _ALL else moment(since, "--since")
    before = _in_force(context.state, rule, needed=draft is None)
    after = _draft(draft) if draft else before
    assert after is not None
    others = _others(context.state, {rule.partition("@")[0], after.name})
    asked = Replay(question(before, others) if before else None, question(after, others))
    started_s = time.monotonic()
    tally = _run(context, asked, begin, most)
    told = _Told(rule, before, after, draft, begin, asked, tally, time.monotonic() - started_s)
    if context.json:
        context.print_json(_document(told, received(context.state)))
    else:
        _print(context, told)


@dataclass(frozen=True, slots=True)
class _Told:
    """A replay that is done. Without a draft the rule stands for both."""

    name: str
    before: Rule | None
    after: Rule
    draft: Path | None
    since: datetime | None
    asked: Replay
    tally: Tally
    seconds: float

    @property
    def differences(self) -> list[Difference]:
        if self.draft is None or self.before is None:
            return []
        return rule_differences(rule_document(self.before), rule_document(self.after))

    @property
    def shown(self) -> dict[Change, tuple[str, str]]:
        """The kinds of series that are shown one by one, with their words and style."""
        return _CHANGES if self.draft else {Change.BOTH: _COUNTS_ALONE[Change.BOTH]}

    @property
    def counted(self) -> dict[Change, tuple[str, str]]:
        return _COUNTS if self.draft else _COUNTS_ALONE


def _in_force(state: State, words: str, needed: bool) -> Rule | None:
    try:
        return rule_of(find_revision(state, words))
    except NotFound:
        if needed:
            raise
        return None


def _draft(path: Path) -> Rule:
    rules = read_rules(path, keyword_vrs())
    if len(rules) > 1:
        raise InvalidRule("a draft is one rule, and here are several", str(path))
    return rules[0]


def _others(state: State, names: set[str]) -> list[Asked]:
    """The other rules in force: one with `stop` may come before. One that cannot be read stops nothing."""
    return [
        Asked(revision.name, revision.revision, rule)
        for revision in state.enabled_rules()
        if revision.name not in names and isinstance(rule := _read(revision.document), Rule)
    ]


def _read(document: Any) -> Rule | None:
    try:
        return parse_rule(document)
    except InvalidRule:
        return None


def _run(context: Context, asked: Replay, since: datetime | None, most: int) -> Tally:
    """With a line on a terminal that says how far it is."""
    needs = asked.needs
    past = context.state.past(needs.keywords, needs.facts, since)
    tally = Tally(most)
    with context.errors.status("reading the past") as status:
        for tally in asked.tally(past, received(context.state), most):
            if tally.studies % _TOLD_EVERY == 0:
                status.update(f"{tally.studies} studies, {tally.series} series")
    return tally


# ---------------------------------------------------------------------------------------------- the screen


def _print(context: Context, told: _Told) -> None:
    priors = received(context.state)
    for line in _heading(told):
        context.console.print(line, highlight=False, soft_wrap=True)
    for change, (words, _) in told.shown.items():
        if rows := told.tally.newest(change):
            context.console.print(
                _table(told, change, f"{words}: {_number(told.tally.counts[change])}", rows, priors)
            )
    for line in _totals(told):
        context.console.print(line, highlight=False, soft_wrap=True)


def _heading(told: _Told) -> Iterator[Text]:
    if told.draft:
        name = told.name if told.before else f"no rule {told.name}"
        yield Text.assemble((name, "bold"), " → ", (str(told.draft), "bold"))
    for difference in told.differences:
        yield Text("  ").append_text(difference_line(difference))
    state = told.before.state if told.before else RuleState.ENABLED
    if state is not RuleState.ENABLED:
        yield Text(f"  rule {told.name} is {state}: this is what it would take if it were enabled", style="yellow")
    if told.after.stop:
        yield Text(
            "  it says stop: what it takes is not shown to the rules after it, which are not replayed", "yellow"
        )


def _table(told: _Told, change: Change, title: str, rows: Sequence[Row], priors: Priors) -> Table:
    more = told.tally.counts[change] - len(rows)
    caption = f"and {_number(more)} more, received before these; --most shows more" if more else None
    table = Table(
        title=title, title_justify="left", title_style=told.shown[change][1], caption=caption, caption_justify="left"
    )
    table.add_column("received", no_wrap=True)
    table.add_column("accession", overflow="fold")
    table.add_column("series", overflow="fold")
    table.add_column(_WHY.get(change, "why") if told.before else "why", overflow="fold", ratio=1)
    for row in rows:
        table.add_row(
            f"{row.study.received_at.astimezone():%Y-%m-%d %H:%M}",
            Text(row.study.accession_number),
            Text(_series_words(row)),
            Text(told.asked.reason(row, priors)),
        )
    return table


def _series_words(row: Row) -> str:
    return f"{row.series.modality or '?'} {row.series.description or '…' + row.series.series_instance_uid[-12:]}"


def _totals(told: _Told) -> Iterator[Text]:
    tally, counts = told.tally, told.tally.counts
    since = f" since {told.since.astimezone():%Y-%m-%d %H:%M}" if told.since else ""
    yield Text.assemble(
        (f"{_number(tally.series)} series of {_number(tally.studies)} studies received{since}:", "bold"),
        (f" ({told.seconds:.1f} s)", "dim"),
    )
    for change, (words, style) in told.counted.items():
        yield Text(f"  {words}: {_number(counts[change])}", style=style if counts[change] else "dim")
        if change is Change.BOTH and told.draft and counts[change]:
            yield from _run_otherwise(told)
    for change, words in _NOT_ASKED.items():
        if counts[change]:
            yield Text(f"  {words}: {_number(counts[change])}", style="yellow" if change in _UNKNOWN else "dim")


def _run_otherwise(told: _Told) -> Iterator[Text]:
    """What the draft changes of the jobs of series that both take."""
    changes = [d.words() for d in told.differences if d.path.partition(".")[0].partition("[")[0] in _OF_JOBS]
    if changes:
        yield Text(f"    but worked on otherwise: {'; '.join(changes)}", style="yellow")


def _number(count: int) -> str:
    return f"{count:,}"


# ------------------------------------------------------------------------------------------------- as JSON


def _document(told: _Told, priors: Priors) -> dict[str, Any]:
    tally = told.tally
    return {
        "rule": told.name,
        "in_force": told.before is not None,
        "draft": str(told.draft) if told.draft else None,
        "since": told.since,
        "studies": tally.studies,
        "series": tally.series,
        "counts": {str(change): tally.counts[change] for change in Change},
        "shown": {
            str(change): [_row_document(told, row, priors) for row in tally.newest(change)] for change in told.shown
        },
        "differences": difference_documents(told.differences),
        "seconds": round(told.seconds, 3),
    }


def _row_document(told: _Told, row: Row, priors: Priors) -> dict[str, Any]:
    return {
        "study_instance_uid": row.study.study_instance_uid,
        "series_instance_uid": row.series.series_instance_uid,
        "accession_number": row.study.accession_number,
        "received_at": row.study.received_at,
        "modality": row.series.modality,
        "description": row.series.description,
        "why": told.asked.reason(row, priors),
    }
