"""`dicomnode models case`: a golden case made of a series and of what a version says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.bootstrap import golden
from dicomnode.cli.model_lookup import DryRun, Json, Name, OfVersion, find_model
from dicomnode.cli.progress import working
from dicomnode.errors import UsageError

if TYPE_CHECKING:
    from dicomnode.cli.context import Context


def case(
    ctx: typer.Context,
    name: Name,
    package: Annotated[
        Path, typer.Argument(help="Folder of the package that the case is for.", exists=True, file_okay=False)
    ],
    series: Annotated[
        Path, typer.Option(help="Folder with one series of DICOM files.", exists=True, file_okay=False)
    ],
    called: Annotated[str, typer.Option(help="The case's name.")] = "case",
    role: Annotated[
        list[str] | None, typer.Option(help="ROLE=FOLDER, for each further series of the card.", show_default=False)
    ] = None,
    version: OfVersion = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a golden case of a series: what a version says of it is what every later engine and machine has to say.

    Written into the package's golden folder: pixels and where they lie, without names, and the answer of the
    network's own engine in full precision. Whether that is right nobody has checked: look at it, as in a viewer,
    before you trust it. Then give the package another version, and add it.

    Example: dicomnode models case torso-ct ./torso-ct --series ./ct-12 --called trunk
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    model = find_model(context.state, name, version)
    roles = _roles(role or [])
    if dry_run:
        golden.check_case(model, package, called, series, roles)
        context.done(f"{model.name} {model.version} can be asked for the case {called}; nothing was changed")
        return
    with working(context, "reads the series") as told:
        made = golden.make_case(context.settings, model, package, called, series, roles, told)
    shape = " × ".join(map(str, made.volumes[0].shape))
    ran = f"{made.described.get('engine', '')} {made.described.get('precision', '')}".strip()
    words = (
        f"{package / 'golden'} has the case {called}: {shape}, with what {model.name} {model.version} says of it "
        f"({ran}). Make sure that this is right; then give the package another version (in model.yaml, or a "
        f"bundle's metadata.json), and: "
        f"dicomnode models add {package}"
    )
    context.done(words, case=called, package=str(package), shape=list(made.volumes[0].shape), engine=ran)


def _roles(given: list[str]) -> dict[str, Path]:
    roles = {}
    for words in given:
        name, _, folder = words.partition("=")
        if not name or not folder or not Path(folder).is_dir():
            raise UsageError(f"--role {words}: it is ROLE=FOLDER, and the folder has to be there")
        roles[name] = Path(folder)
    return roles
