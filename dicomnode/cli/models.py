"""`dicomnode models`: what can run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode import bootstrap
from dicomnode.ports import ModelVersion

app = typer.Typer(help="Models: packages with a model.yaml beside the network.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    ctx: typer.Context,
    package: Annotated[Path, typer.Argument(help="Folder that holds model.yaml.", exists=True, file_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the package, change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Check a package, keep a copy of it, and make it the version that rules run from now on.

    Example: dicomnode models add sample_data/models/torso-ct
    """
    context = ctx.obj
    context.json = context.json or as_json
    if dry_run:
        card = bootstrap.read_model_card(package)
        context.done(f"{card.name} {card.version} is a valid package; nothing was changed", name=card.name)
        return
    card, digest, place = bootstrap.model_store(context.settings).add(package)
    model = context.state.add_model(card, digest, place)
    context.done(f"{model.name} {model.version} is active ({digest[:12]})", **_row(model))


@app.command("list")
def list_models(ctx: typer.Context, as_json: Json = False) -> None:
    """The registered versions; of each name one is active.

    Example: dicomnode models list
    """
    context = ctx.obj
    context.json = context.json or as_json
    rows = [_row(model) for model in context.state.models()]
    context.show(rows, ["name", "version", "active", "modality", "segments", "digest"], "Models")


def _row(model: ModelVersion) -> dict[str, object]:
    return {
        "name": model.name,
        "version": model.version,
        "active": "yes" if model.active else "",
        "modality": list(model.card.input.modality),
        "segments": [segment.name for segment in model.card.segments],
        "digest": model.digest[:12],
        "package": str(model.path),
    }
