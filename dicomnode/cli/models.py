"""`dicomnode models`: what can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import bootstrap
from dicomnode.domain.model_card import ModelCard, card_document
from dicomnode.errors import NotFound
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
    context.may_begin = True
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


@app.command()
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name.", show_default=False)],
    version: Annotated[str, typer.Option(help="Instead of the active one.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """What a model takes and gives: its series, the parameters that a rule may set, its segments.

    Example: dicomnode models show torso-ct
    """
    context = ctx.obj
    context.json = context.json or as_json
    model = _find(context.state.models(), name, version)
    if context.json:
        parameters = {spec.name: asdict(spec) for spec in model.card.parameters.values()}
        context.print_json({**_row(model), "parameters": parameters, "card": card_document(model.card)})
        return
    card, active = model.card, " (active)" if model.active else ""
    context.done(f"{model.name} {model.version}{active}: {card.intended_use.strip()}\nLimits: {card.limits.strip()}")
    context.show(_inputs(card), ["role", "modality", "frame_of_reference"], "Series")
    context.show(
        _parameters(card), ["parameter", "type", "default", "allowed", "description"], "Parameters of a rule"
    )
    context.show([{"number": s.number, "segment": s.name} for s in card.segments], ["number", "segment"], "Segments")


def _find(models: Sequence[ModelVersion], name: str, version: str) -> ModelVersion:
    found = [m for m in models if m.name == name and (m.version == version if version else m.active)]
    if not found:
        raise NotFound(f"there is no model {name} {version or 'that is active'}; `dicomnode models list` shows all")
    return found[0]


def _inputs(card: ModelCard) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [{"role": "(main)", "modality": card.input.modality, "frame_of_reference": ""}]
    for role in card.roles:
        rows.append({"role": role.name, "modality": role.modality, "frame_of_reference": role.frame_of_reference})
    return rows


def _parameters(card: ModelCard) -> list[dict[str, object]]:
    return [
        {
            "parameter": spec.name,
            "type": spec.type,
            "default": spec.default,
            "allowed": spec.allowed,
            "description": spec.description,
        }
        for spec in card.parameters.values()
    ]


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
