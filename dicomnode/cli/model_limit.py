"""`dicomnode models limit`: how many jobs of a model may run at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode.cli.model_lookup import DryRun, Json
from dicomnode.errors import NotFound, UsageError
from dicomnode.stages.registry import not_there

if TYPE_CHECKING:
    from dicomnode.cli.context import Context
    from dicomnode.ports import State

_NO_LIMIT, _AS_ITS_CARD = "none", "card"
_MOST = 64


def register(app: typer.Typer) -> None:
    app.command("limit")(limit)


def limit(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name; leave it out for all.", show_default=False)] = "",
    at_once: Annotated[
        str, typer.Argument(help="A number, `none`, or `card`: what its card says.", show_default=False)
    ] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """How many jobs of a model may run at once, all its versions and hosts together; without a number, what holds.

    Jobs beyond it wait, and keep no others waiting. Without a limit a model runs as often as there is room.

    Example: dicomnode models limit torso-ct 1
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    if not at_once:
        context.show(_rows(context.state, name), ["name", "at_once", "said_by"], "Limits of models")
        return
    wanted = _number(at_once, name)
    before = context.state.limit_model(name, wanted, dry_run=dry_run)
    verb = "would run" if dry_run else "runs"
    words = f"{name} {verb} {_words(wanted)}" + ("; nothing was changed" if dry_run else "")
    context.done(words, name=name, was=_said(before), at_once=_said(wanted), dry_run=dry_run)


def _number(text: str, name: str) -> int | None:
    """What State.limit_model takes."""
    if text == _AS_ITS_CARD:
        return None
    if text == _NO_LIMIT:
        return 0
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST:
        return int(text)
    raise UsageError(f"{text!r} is no limit: a number from 1 to {_MOST}, none or card, as in models limit {name} 1")


def _words(wanted: int | None) -> str:
    if wanted is None:
        return "as often at once as its card says"
    return f"at most {wanted} at once" if wanted else "as often at once as there is room"


def _said(at_once: int | None) -> int | str:
    return _AS_ITS_CARD if at_once is None else at_once or _NO_LIMIT


def _rows(state: State, name: str) -> list[dict[str, Any]]:
    """Every model with the limit that holds; of its versions the active one's card counts, else the newest's."""
    set_here = state.model_limits()
    cards = {model.name: model.card for model in sorted(state.models(), key=lambda model: (model.active, model.id))}
    if name and name not in cards:
        raise NotFound(not_there(state, name))
    return [
        {
            "name": each,
            "at_once": set_here.get(each, card.network.at_once) or _NO_LIMIT,
            "said_by": "models limit" if each in set_here else "its card" if card.network.at_once else "",
        }
        for each, card in sorted(cards.items())
        if name in ("", each)
    ]
