"""`dicomnode models optimise`: which engine runs a model fastest here with the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode import bootstrap
from dicomnode.cli.model_lookup import DryRun, Json, Name, OfVersion, find_model
from dicomnode.cli.progress import working
from dicomnode.domain.tuning import Tried, Tuning, tuning_document

if TYPE_CHECKING:
    from dicomnode.cli.context import Context


def optimise(
    ctx: typer.Context,
    name: Name,
    version: OfVersion = "",
    series: Annotated[
        list[Path] | None,
        typer.Option(
            "--series",
            help="Folder of a series to try it on, not golden cases; may be repeated.",
            exists=True,
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="How often each candidate is timed; the median counts.")] = 3,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Try a model on every engine and precision that this machine has, and keep the fastest that is right.

    Each candidate answers the golden cases, or the series that --series names; one that differs from the model's own
    engine in full precision (Dice below 0.999 for any segment, a probability off by more than 0.01), or that fails a
    golden case, is not taken, however fast. The table is kept with the version, and jobs change over by themselves.

    It takes seconds to minutes for each candidate: run it while the node has nothing else to do.

    Example: dicomnode models optimise torso-ct --runs 5

    Example: dicomnode models optimise torso-ct --series ./ct-12 --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    model = find_model(context.state, name, version)
    with working(context, "reads what it is tried on") as told:
        tuning = bootstrap.optimise(context.settings, model, series or [], runs, told)
    document = tuning_document(tuning)
    if not dry_run:
        context.state.record_tuning(model.name, model.version, document)
    if context.json:
        context.print_json({"name": model.name, "version": model.version, "dry_run": dry_run, **document})
        return
    figure, _ = tuning.chosen.figure
    rows = [_row(one, figure) for one in tuning.candidates]
    context.show(rows, list(rows[0]), f"{model.name} {model.version}")
    context.done("\n".join([*_remarks(tuning), _words(tuning, dry_run)]))


def _row(tried: Tried, figure: str) -> dict[str, Any]:
    """`figure` names what all of the table were judged by."""
    return {
        "engine": tried.engine,
        "precision": tried.precision,
        "ran as": tried.ran,
        "seconds": f"{tried.seconds:.3f}" if tried.seconds else "",
        "network": f"{tried.network_s:.3f}" if tried.seconds else "",
        figure: tried.figure[1],
        "right": "yes" if tried.right else "no",
    }


def _remarks(tuning: Tuning) -> list[str]:
    """What a table has no room for: why one was not taken."""
    return [f"{one.engine} {one.precision}: {one.words}" for one in tuning.candidates if not one.right]


def _words(tuning: Tuning, dry_run: bool) -> str:
    chosen = tuning.chosen
    words = f"{chosen.engine} {chosen.precision} is the fastest that is right ({tuning.machine})"
    return f"{words}; nothing was changed" if dry_run else f"{words}; jobs run on it from now on"
