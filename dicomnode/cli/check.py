"""`dicomnode check`: what is wrong with results, the node's own and other makers'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

import typer
from pydicom import Dataset
from rich.text import Text

from dicomnode.cli.context import Context
from dicomnode.domain.quantity import quantity
from dicomnode.encoding.examine_file import Checked, Lookup, Verdict, check_files, images_in
from dicomnode.encoding.examine_source import Reference, Sources
from dicomnode.errors import CannotDecode, DatabaseAway, DatabaseUnusable, NotFound, UsageError
from dicomnode.imaging.headers import read_instances, text

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE…", help="DICOM files, or folders with all in them.", show_default=False)
]
Source = Annotated[
    list[Path] | None,
    typer.Option(
        "--source", metavar="FOLDER", help="Where the source images are; may be repeated.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_STYLES = {Verdict.OK: "green", Verdict.WRONG: "bold red", Verdict.SKIPPED: "dim"}


def register(program: typer.Typer) -> None:
    program.command()(check)


def check(ctx: typer.Context, files: Files, source: Source = None, as_json: Json = False) -> None:
    """Say of SEG, SR and other result objects, from any maker, everything that is wrong with them.

    By itself an object is checked for the attributes that it has to have, UIDs, codes, pixels, frames, content and
    references inside; beside its source images, also for whose it is, what it references and where it lies. Images
    come from --source, or from the node's own store where they are there.

    Exit status 0: nothing is wrong; 1: something is; 2: there is no result among the files.

    Example: dicomnode check result.dcm --source /data/ct
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    lookup, whose = _lookup(context, source or [])
    found = [_shown(context, one) for one in check_files(files, lookup, whose)]
    if context.json:
        context.print_json(found)
    if any(one.verdict is Verdict.WRONG for one in found):
        raise typer.Exit(1)
    if all(one.verdict is Verdict.SKIPPED for one in found):
        raise UsageError("there is no result among these files: no SEG, SR or other object that this checks")


def _shown(context: Context, one: Checked) -> Checked:
    """Told at once: of many files the first are of interest while the last are read."""
    if not context.json:
        for line in _lines(one):
            context.console.print(line, soft_wrap=True, highlight=False)
    return one


def _lines(one: Checked) -> Iterator[Text]:
    if one.verdict is Verdict.SKIPPED:
        yield Text(f"{one.file}: {one.kind}", style=_STYLES[one.verdict])
        return
    words = "ok" if one.verdict is Verdict.OK else f"{quantity(len(one.wrong), 'fault')}"
    line = Text(f"{one.file}: ").append(words, style=_STYLES[one.verdict])
    yield line.append(f", {one.kind}" if one.kind else "")
    for what in one.wrong:
        yield Text(f"  ✗ {what}")
    for note in one.notes:
        yield Text(f"  • {note}", style="dim")


def _lookup(context: Context, folders: Sequence[Path]) -> tuple[Lookup | None, str]:
    """Where images are looked for, and its name in words."""
    if folders:
        images = images_in(folders)
        return (lambda references: images), f"in {', '.join(map(str, folders))}"
    try:
        context.state.counts()
    except (NotFound, DatabaseAway, DatabaseUnusable):
        return None, ""  # there is no node here: objects are checked by themselves
    series = cache(lambda uid: _of_store(context, uid))

    def of_store(references: Iterable[Reference]) -> Sources:
        uids = dict.fromkeys(reference.series for reference in references if reference.series)
        return Sources({text(h, "SOPInstanceUID"): h for uid in uids for h in series(uid)})

    return of_store, "in the node's store (--source names a folder)"


def _of_store(context: Context, series_instance_uid: str) -> tuple[Dataset, ...]:
    """Headers of a series that was received; none of one that was not, or whose files cannot be read."""
    try:
        instances = context.state.series(series_instance_uid).instances
        return tuple(one.header for one in read_instances([context.store.path(i.path) for i in instances]))
    except (NotFound, CannotDecode):
        return ()
