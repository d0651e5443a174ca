"""`dicomnode models`: what can run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode import bootstrap
from dicomnode.cli import model_apply, model_case, model_compare, model_limit, model_optimise, model_states
from dicomnode.cli.model_lookup import Author, Json, Name, OfVersion, Reason, find_model, foreseen, model_row
from dicomnode.cli.progress import working
from dicomnode.cli.rule_lookup import author_or_user
from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, acceptance_document
from dicomnode.domain.model_card import ClassSpec, ModelCard, card_document
from dicomnode.ports import ModelVersion

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Models: bundles, networks with a card, and which version of each runs.", no_args_is_help=True)


def register(program: typer.Typer) -> None:
    program.add_typer(app, name="models")


_CARD_HELP = "A model.yaml for a network's file, or for what a package does not say of itself."
_ACTIVATE_HELP = "Make it the active version, or do not. Without either: if it is the first of its name."


@app.command()
def add(
    ctx: typer.Context,
    package: Annotated[
        Path, typer.Argument(help="Folder or ZIP of a model, or a network's file with --card.", exists=True)
    ],
    card: Annotated[Path | None, typer.Option(help=_CARD_HELP, exists=True, dir_okay=False)] = None,
    activate: Annotated[
        bool | None, typer.Option("--activate/--no-activate", help=_ACTIVATE_HELP, show_default=False)
    ] = None,
    reason: Reason = "",
    author: Author = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the package, change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Check a package, keep a copy of it, and run its golden cases on this machine.

    A package is a folder with a model.yaml, a MONAI bundle, an nnU-Net v2 model folder, a Triton model directory, or
    a ZIP of one of these. A network alone (ONNX, TorchScript, torch.export, OpenVINO IR) and a Triton directory need
    --card; without it the error prints a card to begin with. Bundles, nnU-Net models and Triton's programs are code
    that will run here: add only what you trust.

    A network is opened first: one that is none, or does not fit its card, is refused, and nothing is kept.

    The first version of a name becomes active when it is accepted. A later one is only registered: --activate, or
    `dicomnode models activate`, makes it the one that runs. One that fails its golden cases is never activated.

    Example: dicomnode models add sample_data/models/torso-ct

    Example: dicomnode models add lungs.onnx --card lungs.yaml --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    if dry_run:
        _try_to_add(context, package, card, activate)
        return
    context.may_begin = True
    who = author_or_user(author)
    with working(context, f"copies and reads {package.name}") as told:
        added = bootstrap.add_package(context.settings, package, card, told)
        registry = bootstrap.registry(context.settings, context.state, told)
        done = registry.add(*added, activate=activate, author=who, reason=reason)
    context.done(done.words, **model_row(done.model), cases=_cases(done.acceptance))
    if not done.accepted:
        raise typer.Exit(1)


def _try_to_add(context: Context, package: Path, card: Path | None, activate: bool | None) -> None:
    """Raises as adding it would, but for what its golden cases would say."""
    with working(context, f"copies and reads {package.name}") as told:
        found, digest, cases = bootstrap.tried_package(context.settings, package, card, told)
    registry = foreseen(context)
    first = not registry.models or not context.state.model_changes(found.name)
    words = registry.add(found, digest, cases=cases, activate=first if activate is None else activate)
    context.done(
        f"{found.name} {found.version} is a valid package ({digest[:12]}): {words}; nothing was changed",
        name=found.name,
        version=found.version,
        digest=digest[:12],
    )


def _cases(acceptance: Acceptance | None) -> list[dict[str, object]]:
    return acceptance_document(acceptance)["cases"] if acceptance else []


@app.command("list")
def list_models(ctx: typer.Context, as_json: Json = False) -> None:
    """The registered versions: which of a name is active, which a shadow, and which failed its golden cases.

    Each has a state (registered, active, shadow, failed, removed), what came of its golden cases, and the engine that
    ran them or that `dicomnode models optimise` chose. What hangs where it is loaded is not served there: it says so.

    Example: dicomnode models list
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rows = [model_row(model) for model in context.state.models()]
    if not context.json:
        rows = [{**row, "golden_cases": "hangs" if row["hangs"] else row["acceptance"]} for row in rows]
    columns = ["name", "version", "state", "golden_cases", "engine", "modality"]
    context.show(rows, columns, "Models")
    if not context.json:
        for row in rows:
            for words in row["hangs"]:
                context.console.print(f"{row['name']} {row['version']} is {words}", markup=False, soft_wrap=True)


@app.command()
def show(
    ctx: typer.Context,
    name: Name,
    version: OfVersion = "",
    as_json: Json = False,
) -> None:
    """What a model takes and gives: its series, the parameters that a rule may set, and what comes out.

    Also on which machines it was accepted; what it is for, its limits and its figures are in `dicomnode models card`.

    Example: dicomnode models show torso-ct
    """
    context = ctx.obj
    context.json = context.json or as_json
    model = find_model(context.state, name, version)
    if context.json:
        parameters = {spec.name: asdict(spec) for spec in model.card.parameters.values()}
        tried = [acceptance_document(one) for one in model.acceptances]
        row = {**model_row(model), "acceptances": tried, "parameters": parameters, "card": card_document(model.card)}
        context.print_json(row)
        return
    card, active = model.card, " (active)" if model.active else ""
    context.done(f"{model.name} {model.version}{active}: {card.intended_use.strip()}\nLimits: {card.limits.strip()}")
    if rows := [_tried(one) for one in model.acceptances if one.outcome is not AcceptanceOutcome.NONE]:
        context.show(rows, ["machine", "golden_cases", "engine", "at"], "Tried at")
    context.done(_here(model))
    context.show(_inputs(card), ["role", "modality", "frame_of_reference"], "Series")
    if before := [{"model": str(step.model), "how": step.use.words} for step in card.after]:
        context.show(before, ["model", "how"], "Runs after")
    context.show(
        _parameters(card), ["parameter", "type", "default", "allowed", "description"], "Parameters of a rule"
    )
    gives, title = _gives(card)
    context.show(gives, list(gives[0]), title)


def _tried(acceptance: Acceptance) -> dict[str, object]:
    """What its golden cases came to on one machine."""
    where = acceptance.machine or "(not noted)"
    return {
        "machine": f"{where}, this one" if acceptance.host == bootstrap.this_host() else where,
        "golden_cases": "hangs" if acceptance.why else f"{acceptance.outcome}: {len(acceptance.cases)} run",
        "engine": acceptance.where,
        "at": f"{acceptance.at:%Y-%m-%d %H:%M} UTC",
    }


def _here(model: ModelVersion) -> str:
    """Whether it is served on this machine, and why not."""
    here = model.acceptance_on(bootstrap.this_host())
    if here is not None:
        served = "" if here.allows_activation else "; it is not served on this machine"
        return f"{here.words[:1].upper()}{here.words[1:]}{served}"
    return (
        "Its golden cases were not run on this machine: a worker here runs them before it serves the version, "
        f"dicomnode models activate {model.name} {model.version} runs them now"
    )


def _gives(card: ModelCard) -> tuple[list[dict[str, object]], str]:
    """Rows and title of what comes out."""
    rows: list[dict[str, object]]
    if card.classification is not None:
        of_images = card.classification.of == "image"
        rows = [_coded("class", one) for one in card.classification.classes]
        return rows, "Classes of each image" if of_images else "Classes of a series"
    if card.measurements is not None:
        measured = card.measurements.values
        rows = [{"measurement": v.name, "unit": v.unit, "range": v.allowed} for v in measured]
        return rows, "Measurements of each image" if card.measurements.of == "image" else "Measurements"
    if card.boxes is not None:
        return [_coded("boxes of", one) for one in card.boxes.classes], "Boxes"
    if card.map is not None:
        quantity = f"{card.map.quantity.value}, {card.map.quantity.scheme}"
        return [{"map": card.map.name, "quantity": quantity, "unit": card.map.unit}], "Parametric map"
    return [{"number": s.number, "segment": s.name} for s in card.segments], "Segments"


def _coded(what: str, one: ClassSpec) -> dict[str, object]:
    return {what: one.name, "code": f"{one.code.value}, {one.code.scheme}"}


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


model_limit.register(app)
model_states.register(app)
model_compare.register(app)
model_apply.register(app)
app.command()(model_optimise.optimise)
app.command()(model_case.case)
