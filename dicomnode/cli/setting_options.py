"""One command-line option a setting, made from the settings' table."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

import typer

from dicomnode.config import ENVIRONMENT_PREFIX, Settings


def takes_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a command that takes the typer context; what is given goes to `Context.given`."""
    names = [spec.name for spec in fields(Settings)]

    @functools.wraps(function)
    def wrapper(ctx: typer.Context, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in names}
        ctx.obj.given.update({name: value for name, value in given.items() if value is not None})
        function(ctx, **kwargs)

    signature = inspect.signature(function, eval_str=True)
    options = [_option(spec.name, spec.metadata["help"]) for spec in fields(Settings)]
    parameters = [*signature.parameters.values(), *options]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    del wrapper.__wrapped__
    return wrapper


def _option(name: str, help: str) -> inspect.Parameter:
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{help[0].upper()}{help[1:]}. [{ENVIRONMENT_PREFIX}{name.upper()}]",
        show_default=False,
        rich_help_panel="Settings",
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=None, annotation=Annotated[str | None, option])
