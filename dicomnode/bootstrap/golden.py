"""A golden case made of a series and of what a version says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode import bootstrap
from dicomnode.config import Settings
from dicomnode.errors import UsageError
from dicomnode.ports import ModelVersion
from dicomnode.ports.progress import Told, nobody

if TYPE_CHECKING:
    from dicomnode.adapters.golden_cases import MadeCase
    from dicomnode.imaging.golden import GivenVolume


def check_case(
    model: ModelVersion, package: Path, name: str, series: Path, roles: Mapping[str, Path]
) -> Sequence[GivenVolume]:
    """The volumes of a case that can be made; arguments, and what is raised, as of make_case."""
    from dicomnode.adapters.golden_cases import check_place
    from dicomnode.stages.accept import read_series

    if model.card.after:
        raise UsageError(f"{model.name} runs after another model, which a case made of its series would leave out")
    check_place(package, name)
    return read_series(model.card, series, roles)


def make_case(
    settings: Settings,
    model: ModelVersion,
    package: Path,
    name: str,
    series: Path,
    roles: Mapping[str, Path],
    told: Told = nobody,
) -> MadeCase:
    """Written into the golden folder of `package`; by the network's own engine in full precision, if it has one.

    `roles`: the folder of each further series of the card; `told` as of AcceptStage. Raises UsageError,
    InvalidModelPackage, SeriesRefused, InferenceError.
    """
    from dicomnode.adapters.golden_cases import MadeCase, write_case
    from dicomnode.domain.engines import candidates
    from dicomnode.domain.tuning import chosen_document

    volumes = check_case(model, package, name, series, roles)
    reference = candidates(model.card.network, False)[:1]
    asked = replace(model, tuning=chosen_document(reference[0])) if reference else model
    with bootstrap.engine_at_hand(settings) as engine:
        stage = bootstrap.accept_stage(settings, engine, told=told)
        stage.loaded(asked)
        told(f"runs {model.name} {model.version} on the series")
        answer = stage.run_volumes(asked, volumes).answer
        described = engine.describe(asked)
    made = MadeCase(name, volumes, answer, described)
    write_case(package, model.card, made)
    return made
