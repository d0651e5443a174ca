"""`dicomnode models activate`, `deactivate`, `rollback`, `shadow` and `history`: which version runs, who said so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode import bootstrap
from dicomnode.cli.model_lookup import Author, DryRun, Json, Name, Reason, Version, find_model, foreseen, model_row
from dicomnode.cli.progress import working
from dicomnode.cli.rule_lookup import author_or_user
from dicomnode.errors import NotFound, UsageError
from dicomnode.ports import ModelVersion
from dicomnode.stages.registry import not_there

if TYPE_CHECKING:
    from dicomnode.cli.context import Context


def register(app: typer.Typer) -> None:
    app.command("activate")(activate)
    app.command("deactivate")(deactivate)
    app.command("rollback")(rollback)
    app.command("shadow")(shadow)
    app.command("history")(history)
    app.command("remove")(remove)


def activate(
    ctx: typer.Context,
    name: Name,
    version: Version,
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a version the one that runs for rules with `version: active`, from the next series on.

    Jobs that wait or run keep the version they were made for, and it stays loaded for them; no request fails. What
    was never tried on this machine is tried on its golden cases first; a version that failed them cannot be
    activated.

    Example: dicomnode models activate torso-ct 1.1.0 --reason "kidneys fixed"
    """
    context = _context(ctx, as_json)
    model = find_model(context.state, name, version)
    if dry_run:
        foreseen(context).activate(name, version)
        words = f"{name} {version} is active already" if model.active else f"{name} {version} would be active"
        context.done(f"{words}; nothing was changed", **model_row(model))
        return
    who = author_or_user(author)
    with working(context, f"looks at {name} {version}") as told:
        registry = bootstrap.registry(context.settings, context.state, told)
        done = registry.activate(name, version, author=who, reason=reason)
    context.done(done.words, **model_row(done.model))


def deactivate(
    ctx: typer.Context,
    name: Name,
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let no version of a model run for rules with `version: active`. Jobs that were made go on.

    Example: dicomnode models deactivate torso-ct --reason "recalled by its manufacturer"
    """
    context = _context(ctx, as_json)
    model = find_model(context.state, name)
    if dry_run:
        foreseen(context).deactivate(name)
        context.done(f"{name} {model.version} would not be active any more; nothing was changed", **model_row(model))
        return
    model = context.state.deactivate_model(name, author=author_or_user(author), reason=reason)
    words = f"{name} {model.version} is not active any more; `dicomnode models rollback {name}` undoes it"
    context.done(words, **model_row(model))


def rollback(
    ctx: typer.Context,
    name: Name,
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make the version active again that was active before; a second time, the one before that.

    Example: dicomnode models rollback torso-ct --reason "1.1.0 marks the couch as bone"
    """
    context = _context(ctx, as_json)
    if dry_run:
        model = foreseen(context).rollback(name, context.state.model_changes(name))
        context.done(f"{name} {model.version} would be active again; nothing was changed", **model_row(model))
        return
    who = author_or_user(author)
    with working(context, f"looks at {name}") as told:
        registry = bootstrap.registry(context.settings, context.state, told)
        done = registry.rollback(name, author=who, reason=reason)
    context.done(done.words, **model_row(done.model))


def shadow(
    ctx: typer.Context,
    name: Name,
    version: Annotated[str, typer.Argument(help="The version; leave it out with --off.", show_default=False)] = "",
    off: Annotated[bool, typer.Option("--off", help="End the shadow that there is.")] = False,
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run a version beside the active one, with low priority; its results are kept for `compare` and never sent.

    Example: dicomnode models shadow torso-ct 1.1.0 --reason "to be compared for a week"

    Example: dicomnode models shadow torso-ct --off
    """
    context = _context(ctx, as_json)
    if off == bool(version):
        raise UsageError(f"give a version or --off, as in `dicomnode models shadow {name} VERSION`")
    who = author_or_user(author)
    if dry_run:
        context.done(_shadow_words(context, name, version))
    elif off:
        model = context.state.shadow_model(name, author=who, reason=reason)
        context.done(f"{name} {model.version} is no shadow any more; what it gave is kept", **model_row(model))
    else:
        with working(context, f"looks at {name} {version}") as told:
            registry = bootstrap.registry(context.settings, context.state, told)
            done = registry.shadow(name, version, author=who, reason=reason)
        context.done(done.words, **model_row(done.model))


def _shadow_words(context: Context, name: str, version: str) -> str:
    """What --dry-run says; raises as the change would."""
    if not version:
        foreseen(context).unshadow(name)
        return f"{name} would have no shadow any more; nothing was changed"
    find_model(context.state, name, version)
    foreseen(context).shadow(name, version)
    return f"{name} {version} would be a shadow; nothing was changed"


def history(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Which versions of a model were active or a shadow, since when, by whom and why.

    Example: dicomnode models history torso-ct
    """
    context = _context(ctx, as_json)
    changes = context.state.model_changes(name)
    if not changes and all(model.name != name for model in context.state.models()):
        raise NotFound(not_there(context.state, name))
    rows = [
        {"at": c.at, "version": c.version, "change": str(c.kind), "author": c.author, "reason": c.reason}
        for c in changes
    ]
    context.show(rows, ["at", "version", "change", "author", "reason"], f"History of {name}")


def remove(
    ctx: typer.Context,
    name: Name,
    version: Version,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Remove its files, and keep what jobs and the history say of it.")
    ] = False,
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a version out of the registry, and its files from the disk.

    It is refused while the version is active, a shadow, named by a rule in force or needed by jobs that wait or run.
    Of a version that jobs have run only the files can go: results name it. Who made it active stays in the history.

    Example: dicomnode models remove torso-ct 1.0.0 --dry-run
    """
    context = _context(ctx, as_json)
    find_model(context.state, name, version)
    who = author_or_user(author)
    model = context.state.remove_model(
        name, version, files_only=files_only, author=who, reason=reason, dry_run=dry_run
    )
    what = f"the files of {name} {version}" if files_only else f"{name} {version}"
    row = model_row(model) | {"files_only": files_only, "dry_run": dry_run}
    if dry_run:
        context.done(f"{what} would be removed; nothing was changed", **row)
        return
    gone = bootstrap.model_store(context.settings).remove(model.path)
    stays = f"; dicomnode models history {name} says who removed it"
    context.done(f"{what} {'are' if files_only else 'is'} removed{stays if gone else _not_here(model)}", **row)


def _not_here(model: ModelVersion) -> str:
    return f"; {model.path} is not on this host, or no copy of this node's: remove it where it is"


def _context(ctx: typer.Context, as_json: bool) -> Context:
    context: Context = ctx.obj
    context.json = context.json or as_json
    return context
