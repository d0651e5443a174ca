"""`dicomnode rules show`, `history` and `diff`: the revisions of a rule, who made them and what they changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.syntax import Syntax
from rich.text import Text

from dicomnode.cli.rule_files import read_rules, rule_yaml
from dicomnode.cli.rule_lookup import Json, find_revision, is_file, revisions_of, state_of
from dicomnode.domain.rule_diff import Change, Difference, rule_differences
from dicomnode.domain.rules import rule_document
from dicomnode.errors import InvalidRule, UsageError
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.ports import RuleRevision, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

_MARKS = {
    Change.ADDED: ("+", "green"),
    Change.REMOVED: ("-", "red"),
    Change.CHANGED: ("~", "yellow"),
}


def register(app: typer.Typer) -> None:
    app.command("show")(show)
    app.command("history")(history)
    app.command("diff")(diff)


# ---------------------------------------------------------------------------------------------------- show


def show(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME[@REVISION]", help="A rule's name, or an earlier revision of it.")
    ],
    as_json: Json = False,
) -> None:
    """A rule as YAML, with every default written out: edit it and add it again.

    Example: dicomnode rules show torso-ct > torso-ct.yaml

    An earlier revision: dicomnode rules show torso-ct@2
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    revision = find_revision(context.state, name)
    if context.json:
        context.print_json(_document(revision))
    elif context.console.is_terminal:
        context.console.print(Text(f"# {_headline(revision)}", style="dim"))
        context.console.print(
            Syntax(rule_yaml(revision.document), "yaml", background_color="default", word_wrap=True)
        )
    else:
        typer.echo(rule_yaml(revision.document), nl=False)


def _headline(revision: RuleRevision) -> str:
    """revision 2, by ada on 2026-03-01 12:00: thin slices only; in force."""
    author = f", by {revision.author}" if revision.author else ""
    reason = f": {revision.reason}" if revision.reason else ""
    force = "in force" if revision.in_force else "not in force"
    return f"revision {revision.revision}{author}{_on(revision.created_at)}{reason}; {force}"


def _on(moment: datetime | None) -> str:
    return f" on {_minute(moment)}" if moment else ""


def _minute(moment: datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else ""


def _document(revision: RuleRevision) -> dict[str, Any]:
    return {
        "name": revision.name,
        "revision": revision.revision,
        "state": state_of(revision.document),
        "in_force": revision.in_force,
        "author": revision.author,
        "reason": revision.reason,
        "created_at": revision.created_at,
        "removed_at": revision.removed_at,
        "removed_by": revision.removed_by,
        "removed_why": revision.removed_why,
        "document": revision.document,
    }


# ------------------------------------------------------------------------------------------------- history


def history(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The rule's name; a removed one's too.")],
    as_json: Json = False,
) -> None:
    """Every revision of a rule, the oldest first: who made it, when, why, and what it changed.

    Example: dicomnode rules history torso-ct
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    revisions = revisions_of(context.state, name)
    if context.json:
        rows = zip(revisions, _steps(revisions), strict=True)
        context.print_json([_document(r) | {"changes": difference_documents(step)} for r, step in rows])
        return
    for revision, step in zip(revisions, _steps(revisions), strict=True):
        for line in _told(revision, step):
            context.console.print(line, highlight=False, soft_wrap=True)


def _steps(revisions: Sequence[RuleRevision]) -> Iterator[list[Difference]]:
    """What each changed of the one before it."""
    for number, revision in enumerate(revisions):
        yield rule_differences(revisions[number - 1].document, revision.document) if number else []


def _told(revision: RuleRevision, step: Sequence[Difference]) -> Iterator[Text]:
    style = "bold green" if revision.in_force else "bold"
    line = Text.assemble(
        (f"{revision.name}@{revision.revision}", style),
        f"  {_minute(revision.created_at)}  {revision.author}".rstrip(),
    )
    if revision.in_force:
        line.append(f"  in force, {state_of(revision.document)}", style="green")
    yield line
    if revision.reason:
        yield Text(f"    {revision.reason}", style="italic")
    for difference in step:
        yield Text("    ").append_text(difference_line(difference))
    if revision.removed_at is not None:
        author = f"  {revision.removed_by}" if revision.removed_by else ""
        yield Text(f"removed  {_minute(revision.removed_at)}{author}", style="bold red")
        if revision.removed_why:
            yield Text(f"    {revision.removed_why}", style="italic")


# ---------------------------------------------------------------------------------------------------- diff


def diff(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="A [B]",
            help="Each a rule's name, NAME@REVISION or a YAML file with one rule; of one rule its name and two "
            "revisions, or its name alone: what its last revision changed.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """What differs between two rules or two revisions of one, place by place.

    Example: dicomnode rules diff torso-ct@1 torso-ct

    The same in other words: dicomnode rules diff torso-ct 1 2
    A draft against the rule in force: dicomnode rules diff torso-ct draft.yaml
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    (one, before), (other, after) = (_named(context.state, word) for word in _two(context.state, words))
    found = rule_differences(before, after)
    if context.json:
        context.print_json({"from": one, "to": other, "differences": difference_documents(found)})
        return
    context.console.print(Text.assemble((one, "bold"), " → ", (other, "bold")), highlight=False)
    for difference in found:
        context.console.print(Text("  ").append_text(difference_line(difference)), highlight=False, soft_wrap=True)
    if not found:
        context.console.print("  no difference", style="dim")


def _two(state: State, words: Sequence[str]) -> tuple[str, str]:
    """The two that are meant; raises UsageError."""
    match words:
        case [name, low, high] if low.isdigit() and high.isdigit():
            return f"{name}@{low}", f"{name}@{high}"
        case [name, number] if number.isdigit() and "@" not in name and not is_file(name):
            return f"{name}@{number}", name
        case [one, other]:
            return one, other
        case [name] if "@" not in name and not is_file(name):
            last = revisions_of(state, name)[-1].revision
            if last == 1:
                raise UsageError(f"rule {name} has one revision only: there is nothing to compare it with")
            return f"{name}@{last - 1}", f"{name}@{last}"
    raise UsageError("two rules or revisions are compared, as in dicomnode rules diff torso-ct@1 torso-ct@2")


def _named(state: State, word: str) -> tuple[str, Mapping[str, Any]]:
    """What it is called, and its document."""
    if is_file(word):
        rules = read_rules(Path(word), keyword_vrs())
        if len(rules) > 1:
            raise InvalidRule("one rule is compared, and here are several", word)
        return word, rule_document(rules[0])
    revision = find_revision(state, word)
    return f"{revision.name}@{revision.revision}", revision.document


def difference_line(difference: Difference) -> Text:
    """In colour: green what came, red what went."""
    mark, style = _MARKS[difference.change]
    return Text(f"{mark} {difference.words()}", style=style)


def difference_documents(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """JSON-able."""
    return [
        {"change": str(d.change), "path": d.path, "before": d.before, "after": d.after, "words": d.words()}
        for d in found
    ]
