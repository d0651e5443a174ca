"""What the commands about models share: their options, and finding a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode import bootstrap
from dicomnode.errors import NotFound
from dicomnode.ports import ModelVersion, State
from dicomnode.stages.foreseen import Foreseen
from dicomnode.stages.registry import not_there

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Name = Annotated[str, typer.Argument(help="The model's name, as in `dicomnode models list`.", show_default=False)]
Version = Annotated[str, typer.Argument(help="One of its versions.", show_default=False)]
OfVersion = Annotated[str, typer.Option("--version", help="Another than the active one.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", help="Why, for `dicomnode models history`.")]
Author = Annotated[
    str, typer.Option("--author", help="Who changes it; left out: the user who is logged in.", show_default=False)
]


def find_model(state: State, name: str, version: str = "") -> ModelVersion:
    """A version, or the active one; raises NotFound, saying what there is."""
    found = state.model_version(name, version) if version else state.active_model(name)
    if found is None:
        raise NotFound(not_there(state, name, version))
    return found


def foreseen(context: Context) -> Foreseen:
    """The registry, for --dry-run; a node that has not begun yet has no models."""
    try:
        models = context.state.models()
    except NotFound:
        models = []
    return Foreseen(models, bootstrap.this_host())


def model_row(model: ModelVersion) -> dict[str, Any]:
    """What lists and --json say of a version."""
    acceptance, classes = model.acceptance, model.card.classification
    refusing = [one.machine for one in model.acceptances if not one.allows_activation]
    return {
        "name": model.name,
        "version": model.version,
        "state": model.state,
        "active": model.active,
        "shadow": model.shadow,
        "acceptance": str(acceptance.outcome) if acceptance else "not tried",
        "accepted_at": acceptance.at if acceptance else None,
        "accepted_on": [one.machine for one in model.acceptances if one.allows_activation],
        "not_accepted_on": refusing,
        "hangs": [one.words for one in model.acceptances if one.why],
        "engine": engine_words(model),
        "modality": list(model.card.input.modality),
        "gives": model.card.gives,
        "segments": [segment.name for segment in model.card.segments],
        "classes": [one.name for one in classes.classes] if classes else [],
        "digest": model.digest[:12],
        "package": str(model.path),
        "author": model.author,
        "reason": model.reason,
        "created_at": model.created_at,
    }


def engine_words(model: ModelVersion) -> str:
    """What runs it: what tuning chose, else what its golden cases ran on, else what the card asks for, if it does."""
    if model.chosen_engine:
        return f"{model.chosen_engine} {model.chosen_precision}".strip()
    if model.acceptance is not None and model.acceptance.engine:
        return f"{model.acceptance.engine} {model.acceptance.precision}".strip()
    if model.card.network.engine == "auto":
        return "not tried yet" if model.acceptance is None else "chosen when it is loaded"
    return f"{model.card.network.engine} {model.card.network.precision}, by its card"
