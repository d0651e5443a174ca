"""`dicomnode models card`, `compare` and `bench`: what a version is, how two differ, and how fast one is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode import bootstrap
from dicomnode.cli.model_lookup import Json, Name, OfVersion, engine_words, find_model, model_row
from dicomnode.cli.progress import working
from dicomnode.cli.tables import print_markdown
from dicomnode.domain.engines import Candidate, candidates, own_way
from dicomnode.domain.model_card_text import card_markdown
from dicomnode.domain.tuning import chosen_document
from dicomnode.errors import NotFound, UsageError
from dicomnode.ports import ModelVersion

if TYPE_CHECKING:
    from dicomnode.cli.context import Context
    from dicomnode.stages.compare import SeriesComparison

# Stages that compute are imported where they do: `dicomnode models list` must not wait for highdicom.


def register(app: typer.Typer) -> None:
    app.command("card")(card)
    app.command("compare")(compare)
    app.command("bench")(bench)


def card(
    ctx: typer.Context,
    name: Name,
    version: OfVersion = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a file or a page.")] = False,
    as_json: Json = False,
) -> None:
    """The model card, readable: what it is for and what not, what it takes and gives, how it was accepted here.

    Example: dicomnode models card torso-ct --markdown
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    model = find_model(context.state, name, version)
    text = card_markdown(model.card, model.acceptances, model.tuning, list(_registered(model)))
    if context.json:
        context.print_json({**model_row(model), "markdown": text})
    elif markdown:
        typer.echo(text)
    else:
        print_markdown(context.console, text)


def _registered(model: ModelVersion) -> Iterator[tuple[str, str]]:
    yield "state", model.state
    yield "digest", model.digest
    yield "runs on", engine_words(model)
    if model.created_at is not None:
        yield "added", f"{model.created_at:%Y-%m-%d %H:%M} UTC{f' by {model.author}' if model.author else ''}"
    if model.reason:
        yield "why", model.reason


# ---------------------------------------------------------------------------------------------------- compare


def compare(
    ctx: typer.Context,
    name: Name,
    first: Annotated[str, typer.Argument(help="VERSION, or VERSION@ENGINE:PRECISION.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Another one, or the same on another engine.", show_default=False)],
    study: Annotated[
        str, typer.Option(help="Run both on this study now, and send nothing.", show_default=False)
    ] = "",
    most: Annotated[int, typer.Option(min=1, help="At most so many series, the newest first.")] = 100,
    as_json: Json = False,
) -> None:
    """How two versions, or two engines of one, differ: Dice and volumes, or classes and images; times.

    Versions are compared on the series that both have run on: a shadow gives the second version its series. Engines
    are compared on a study, now; a precision that is left out is fp32. --study takes a Study Instance UID, an
    accession number or a patient ID, and runs both on that study's series now.

    Example: dicomnode models compare torso-ct 1.0.0 1.1.0

    Example: dicomnode models compare torso-ct 1.0.0 1.1.0 --study 1.2.840.113619.2.55.3

    Example: dicomnode models compare torso-ct 1.0.0@torchscript 1.0.0@openvino:bf16 --study 20240131-007
    """
    context: Context = ctx.obj
    from dicomnode.stages.compare import common_segments, gives_classes, summary

    context.json = context.json or as_json
    pair = (_on_engine(context, name, first), _on_engine(context, name, second))
    if first == second:
        raise UsageError(
            "two versions are needed, or two engines of one, as in 1.0.0@torchscript 1.0.0@openvino:bf16"
        )
    if ("@" in first or "@" in second) and not study:
        raise UsageError("what is kept of jobs is told apart by version: engines are compared with --study STUDY")
    if not common_segments(pair) and not gives_classes(pair):
        raise UsageError(f"{name} {first} and {second} give nothing of the same name: there is nothing to compare")
    found = _compared(context, pair, study, most)
    if context.json:
        context.print_json({"series": [_document(one) for one in found], "summary": asdict(summary(found))})
        return
    columns = ["series", "segment", "dice", f"{first}_ml", f"{second}_ml", "difference_ml", "note"]
    if gives_classes(pair):
        columns = ["series", "images", "same_class", "differing", "largest_difference", "note"]
    context.show(list(_rows(found, first, second)), columns, f"{name} {first} and {second}")
    context.done(_summary_words(found, first, second))


def _compared(
    context: Context, pair: tuple[ModelVersion, ModelVersion], study: str, most: int
) -> list[SeriesComparison]:
    stage = bootstrap.compare_stage(context.settings, context.state)
    if study:
        uid = context.state.only_study(study).study_instance_uid
        with (
            working(context, "looks for the series of the study") as told,
            bootstrap.engine_at_hand(context.settings) as engine,
        ):
            return stage.now(pair, uid, bootstrap.infer_stage(context.settings, engine), told)
    with working(context, "reads the results that are kept"):
        found = stage.stored(pair, most)
    if not found:
        raise NotFound(
            f"there is no series that {pair[0].name} {pair[0].version} and {pair[1].version} both have run on; "
            f"`dicomnode models shadow {pair[1].name} VERSION` makes some, and --study STUDY runs both now"
        )
    return found


def _on_engine(context: Context, name: str, words: str) -> ModelVersion:
    """VERSION, or VERSION@ENGINE:PRECISION; raises NotFound, and UsageError where its network has no such engine."""
    version, _, wanted = words.partition("@")
    model = find_model(context.state, name, version)
    if not wanted:
        return model
    engine, _, precision = wanted.partition(":")
    chosen = Candidate(engine, precision or "fp32")
    known = dict.fromkeys([*candidates(model.card.network, False), *candidates(model.card.network, True)])
    if chosen not in known:
        there = ", ".join(f"{one.engine}:{one.precision}" for one in known)
        words = f"there are: {there}" if there else f"it {own_way(model.card.network)}"
        raise UsageError(f"{name} {version} does not run on {wanted}; {words}")
    return replace(model, tuning=chosen_document(chosen))


def _image_numbers(images: Sequence[int]) -> str:
    """1, 3-5, in their order."""
    runs: list[list[int]] = []
    for image in images:
        if runs and image == runs[-1][-1] + 1:
            runs[-1].append(image)
        else:
            runs.append([image])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _document(one: SeriesComparison) -> dict[str, Any]:
    segments = [{**asdict(segment), "difference_ml": segment.difference_ml} for segment in one.segments]
    return {**asdict(one), "segments": segments}


def _rows(found: Sequence[SeriesComparison], first: str, second: str) -> Iterator[dict[str, Any]]:
    for one in found:
        series = f"…{one.series_instance_uid[-16:]}"
        if one.classes:
            seen = one.classes
            yield {"series": series, "images": seen.images, "same_class": seen.same, "note": one.note} | {
                "largest_difference": seen.largest_difference,
                "differing": _image_numbers(seen.differing),
            }
        elif not one.segments:
            yield {"series": series, "note": one.note}
        for segment in one.segments:
            yield {
                "series": series,
                "segment": segment.name,
                "dice": None if segment.dice is None else f"{segment.dice:.4f}",
                f"{first}_ml": segment.volumes_ml[0],
                f"{second}_ml": segment.volumes_ml[1],
                "difference_ml": segment.difference_ml,
                "note": one.note,
            }


def _summary_words(found: Sequence[SeriesComparison], first: str, second: str) -> str:
    from dicomnode.stages.compare import summary

    total = summary(found)
    dice = "; ".join(f"{name}: Dice {low:.4f} at least, {mid:.4f} median" for name, (low, mid) in total.dice.items())
    if total.images:
        dice = f"{total.same} of {total.images} images have the same class"
    seconds = f"{first} took {total.seconds[0]:g} s, {second} {total.seconds[1]:g} s (medians)"
    return f"{total.series} series. {dice or 'nothing to compare'}. {seconds}"


# ------------------------------------------------------------------------------------------------------ bench


def bench(
    ctx: typer.Context,
    name: Name,
    version: OfVersion = "",
    runs: Annotated[int, typer.Option(min=1, help="How often it is timed; medians are shown.")] = 5,
    as_json: Json = False,
) -> None:
    """How long a model takes on this machine: before, network, after; on its first golden case or a made-up volume.

    Example: dicomnode models bench torso-ct --runs 10
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    model = find_model(context.state, name, version)
    found = _benched(context, model, runs)
    if context.json:
        context.print_json(found)
        return
    rows = [{"part": part, "median_s": f"{seconds:.4f}"} for part, seconds in found["medians_s"].items()]
    chain = f", chain {found['chain']}" if "chain" in found else ""
    ran = f"{found.get('engine', '')} {found.get('precision', '')}".strip() + chain
    volume = found["volume"].replace("made up", "a made-up volume")
    title = f"{name} {model.version} on {volume} ({found['shape']}), {runs} runs, {ran}"
    context.show(rows, ["part", "median_s"], title)


def _benched(context: Context, model: ModelVersion, runs: int) -> dict[str, Any]:
    from dicomnode.stages.accept import synthetic_volumes

    cases = bootstrap.golden_cases(model)
    with (
        working(context, "reads what it is timed on") as told,
        bootstrap.engine_at_hand(context.settings) as engine,
    ):
        stage = bootstrap.accept_stage(context.settings, engine, told=told)
        volumes = stage.volumes_of(model, cases[0]) if cases else synthetic_volumes(model)
        medians_s = stage.medians_s(model, volumes, runs)
        described = dict(engine.describe(model))
    return {
        "name": model.name,
        "version": model.version,
        "volume": f"golden case {cases[0].name}" if cases else "made up",
        "shape": " × ".join(map(str, volumes[0].shape)),
        "runs": runs,
        "medians_s": {part: round(seconds, 4) for part, seconds in medians_s.items()},
        **described,
    }
