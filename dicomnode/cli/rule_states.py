"""`dicomnode rules enable`, `disable` and `shadow`: each is a revision like any other change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from dicomnode.cli.rule_findings import notes_on
from dicomnode.cli.rule_lookup import (
    Author,
    DryRun,
    Json,
    Name,
    Reason,
    author_or_user,
    find_rule,
    print_notes,
    state_of,
)
from dicomnode.domain.rule_diff import normal_document
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import RuleState
from dicomnode.errors import InvalidRule
from dicomnode.ports import RuleRevision, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

_MEANS = {
    RuleState.ENABLED: "it is asked from the next series on",
    RuleState.DISABLED: "it is not asked any more; jobs that it made go on",
    RuleState.SHADOW: "it is asked, and what it says recorded, but nothing runs",
}


_HELP = {
    RuleState.ENABLED: """Ask a rule again that was disabled or a shadow, from the next series on.

    Example: dicomnode rules enable torso-ct --reason "a week as a shadow, as expected"
    """,
    RuleState.DISABLED: """Keep a rule but ask it nothing. Jobs that it made go on.

    Example: dicomnode rules disable torso-ct --reason "model under review"
    """,
    RuleState.SHADOW: """Let a rule decide without running anything: what it says is recorded, as in studies why.

    Example: dicomnode rules shadow torso-ct --reason "to be watched for a week"
    """,
}
_VERBS = {RuleState.ENABLED: "enable", RuleState.DISABLED: "disable", RuleState.SHADOW: "shadow"}


def register(app: typer.Typer) -> None:
    for state, verb in _VERBS.items():
        app.command(verb, help=_HELP[state])(_command(state))


def _command(state: RuleState) -> Callable[..., None]:
    """The three differ in the state alone."""

    def change(
        ctx: typer.Context,
        name: Name,
        reason: Reason = "",
        author: Author = "",
        dry_run: DryRun = False,
        as_json: Json = False,
    ) -> None:
        _change(ctx.obj, state, name, reason, author, dry_run, as_json)

    return change


def _change(
    context: Context, state: RuleState, name: str, reason: str, author: str, dry_run: bool, as_json: bool
) -> None:
    context.json = context.json or as_json
    before = find_rule(context.state, name)
    revision, changes = before.revision, state_of(before.document) != state
    if not changes:
        words = f"rule {name} is {state} already (revision {revision}); nothing was changed"
    elif dry_run:
        words = f"rule {name} would be {state}: {_MEANS[state]}; nothing was changed"
    else:
        document = _with_state(before.document, state)
        revision = context.state.add_rule(name, document, author=author_or_user(author), reason=reason).revision
        words = f"rule {name} revision {revision} is {state}: {_MEANS[state]}"
    context.done(words, name=name, revision=revision, state=str(state), changed=changes and not dry_run)
    if not context.json and state is RuleState.ENABLED:
        print_notes(context, _notes(context.state, before), indent="  ")


def _with_state(document: Mapping[str, Any], state: RuleState) -> dict[str, Any]:
    """One that cannot be read any more can still be disabled."""
    kept = {key: value for key, value in normal_document(document).items() if key not in ("state", "enabled")}
    return kept | {"state": str(state)}


def _notes(state: State, revision: RuleRevision) -> list[str]:
    try:
        return notes_on(state, parse_rule(_with_state(revision.document, RuleState.ENABLED)))
    except InvalidRule as error:
        return [f"the rule cannot be read and makes no job: {error}"]
