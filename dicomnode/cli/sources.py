"""`dicomnode sources`: what the node knows and wants of those who send to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dicomnode.cli.context import Context
from dicomnode.domain.destination import Destination, without_password
from dicomnode.domain.source import Source, as_document, parse_source, query_address, report_address
from dicomnode.encoding.uid_names import SOP_CLASS, TRANSFER_SYNTAX, name_of, uid_of
from dicomnode.errors import AlreadyExists, DeliveryError, InvalidSource, NotFound

app = typer.Typer(
    help="Sources: settings for modalities and archives that send to the node, by their AE title.",
    no_args_is_help=True,
)


def register(program: typer.Typer) -> None:
    program.add_typer(app, name="sources")


AeTitle = Annotated[str, typer.Argument(metavar="AE_TITLE", help="The sender's AE title.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check what is given, change nothing.")]

_STUDIES_LOOKED_AT = 500
_SOP_CLASS_HELP = "by UID, keyword or name, as CTImageStorage; may be given several times."
_SYNTAX_HELP = "by UID, keyword or name, as JPEGLossless; may be given several times."


def _repeatable(metavar: str, help: str) -> Any:
    return typer.Option(metavar=metavar, help=help, show_default=False)


ReportDimse = Annotated[
    str,
    typer.Option(
        metavar="AET@HOST:PORT",
        help="Tell it there what is kept of what it sent, when it asks by Storage Commitment.",
        show_default=False,
    ),
]
Commitment = Annotated[
    bool,
    typer.Option(
        "--commitment/--no-commitment",
        help="Whether it may ask by Storage Commitment what is kept of what it sent.",
    ),
]
QuietPeriod = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Its own quiet period, when no better signal comes.", show_default=False),
]
Release = Annotated[
    bool,
    typer.Option("--release/--no-release", help="Whether the end of its association says that a series is complete."),
]


@app.command()
def add(
    ctx: typer.Context,
    ae_title: AeTitle,
    query_dimse: Annotated[
        str,
        typer.Option(
            metavar="AET@HOST:PORT", help="Ask there by C-FIND how many images there are.", show_default=False
        ),
    ] = "",
    query_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Ask there by QIDO-RS; the root of its DICOMweb service.", show_default=False
        ),
    ] = "",
    report_dimse: ReportDimse = "",
    commitment: Commitment = True,
    quiet_period: QuietPeriod = None,
    release: Release = True,
    allow_sop_class: Annotated[
        list[str] | None, _repeatable("SOP_CLASS", f"Take this SOP class, and no others; {_SOP_CLASS_HELP}")
    ] = None,
    refuse_sop_class: Annotated[
        list[str] | None, _repeatable("SOP_CLASS", f"Refuse this SOP class; {_SOP_CLASS_HELP}")
    ] = None,
    allow_transfer_syntax: Annotated[
        list[str] | None, _repeatable("SYNTAX", f"Take this transfer syntax, and no others; {_SYNTAX_HELP}")
    ] = None,
    refuse_transfer_syntax: Annotated[
        list[str] | None, _repeatable("SYNTAX", f"Refuse this transfer syntax; {_SYNTAX_HELP}")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put these settings in place of those it has.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Settings for a sender. A sender without any may send everything; what is not set is as for everybody.

    Example: dicomnode sources add CT1 --query-dimse PACS@192.0.2.1:104 --quiet-period 30

    Example: dicomnode sources add GATEWAY --refuse-sop-class SecondaryCaptureImageStorage --no-release
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    context.may_begin = not dry_run
    document = {
        "ae_title": ae_title,
        "commitment": commitment,
        "quiet_period_s": quiet_period,
        "release": release,
        "allowed_sop_classes": _uids(allow_sop_class, SOP_CLASS, "--allow-sop-class"),
        "refused_sop_classes": _uids(refuse_sop_class, SOP_CLASS, "--refuse-sop-class"),
        "allowed_transfer_syntaxes": _uids(allow_transfer_syntax, TRANSFER_SYNTAX, "--allow-transfer-syntax"),
        "refused_transfer_syntaxes": _uids(refuse_transfer_syntax, TRANSFER_SYNTAX, "--refuse-transfer-syntax"),
    }
    if (address := query_address(query_dimse, query_url)) is not None:
        document["query_dimse" if query_dimse else "query_url"] = str(address)
    if (report := report_address(report_dimse)) is not None:
        document["report_dimse"] = str(report)
    source = parse_source(document)
    known = any(one.ae_title == source.ae_title for one in context.state.sources())
    if known and not replace:
        raise AlreadyExists(f"{source.ae_title} has settings already; give --replace to put these in their place")
    if dry_run:
        context.done(f"{source.ae_title} could get these settings; nothing was changed", **_row(source))
        return
    context.state.put_source(source)
    context.done(
        f"{source.ae_title} has these settings from its next association on: {_words(source)}", **_row(source)
    )


@app.command("list")
def list_sources(ctx: typer.Context, as_json: Json = False) -> None:
    """The senders that have settings, and those without any that have sent lately.

    Example: dicomnode sources list
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    known = context.state.sources()
    titles = {source.ae_title for source in known}
    rows = [_row(source) for source in known]
    rows += [_row(Source(title), configured=False) for title in _seen(context) if title not in titles]
    context.show(rows, ["ae_title", "settings"], "Sources")


@app.command()
def show(ctx: typer.Context, ae_title: AeTitle, as_json: Json = False) -> None:
    """The settings of one sender, in full.

    Example: dicomnode sources show CT1
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    source = _find(context, ae_title)
    if context.json:
        context.print_json(_row(source))
        return
    lines = [{"setting": name, "value": value} for name, value in _shown(source)]
    context.show(lines, ["setting", "value"], source.ae_title)


@app.command()
def remove(ctx: typer.Context, ae_title: AeTitle, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Take a sender's settings away: it is as everybody again, and may still send.

    Example: dicomnode sources remove CT1
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    source = _find(context, ae_title)
    if dry_run:
        context.done(f"the settings of {source.ae_title} could be removed; nothing was changed", **_row(source))
        return
    context.state.remove_source(source.ae_title)
    context.done(f"the settings of {source.ae_title} are removed", ae_title=source.ae_title)


@app.command()
def echo(ctx: typer.Context, ae_title: AeTitle, as_json: Json = False) -> None:
    """Ask whether the query address of a sender answers: C-ECHO, or a QIDO-RS request.

    Example: dicomnode sources echo CT1
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    source = _find(context, ae_title)
    if source.query is None:
        words = f"{source.ae_title} has no query address; give one: dicomnode sources add {source.ae_title} --replace"
        raise InvalidSource(f"{words} --query-dimse AET@HOST:PORT")
    try:
        answer = context.sink.echo(Destination("query", source.query))
    except DeliveryError as error:
        if not context.json:
            raise
        context.done(f"{source.ae_title}: {error}", ae_title=source.ae_title, ok=False, code=error.code)
        raise typer.Exit(error.exit_code) from None
    context.done(f"{source.ae_title}: {answer}", ae_title=source.ae_title, ok=True)


def _uids(names: Sequence[str] | None, kind: str, option: str) -> list[str]:
    try:
        return [uid_of(name, kind) for name in names or ()]
    except ValueError as error:
        raise InvalidSource(str(error), option) from error


def _find(context: Context, ae_title: str) -> Source:
    sources = context.state.sources()
    found = next((source for source in sources if source.ae_title == ae_title.strip()), None)
    if found is None:
        known = ", ".join(source.ae_title for source in sources) or "none yet"
        raise NotFound(f"there are no settings for {ae_title}; there are for: {known}")
    return found


def _seen(context: Context) -> list[str]:
    """AE titles that sent what was received last."""
    studies = context.state.studies(most=_STUDIES_LOOKED_AT)
    return sorted({series.calling_ae_title for study in studies for series in study.series} - {""})


def _row(source: Source, *, configured: bool = True) -> dict[str, Any]:
    document = as_document(source)
    if "query_url" in document:
        document["query_url"] = without_password(document["query_url"])
    return {"configured": configured, "settings": _words(source), **document}


def _words(source: Source) -> str:
    said = [f"{name} {value}" for name, value in _shown(source) if value not in _AS_EVERYBODY]
    return "; ".join(said) or "as everybody"


_AS_EVERYBODY = ("as everybody", "all", "is a signal", "nowhere", "answered on its own association")


def _shown(source: Source) -> list[tuple[str, str]]:
    """Each setting and its value in words."""
    quiet = "as everybody" if source.quiet_period_s is None else f"{source.quiet_period_s:g} s"
    return [
        ("query", without_password(str(source.query)) if source.query else "nowhere"),
        ("commitment requests", _commitment(source)),
        ("quiet period", quiet),
        ("end of an association", "is a signal" if source.release else "is no signal"),
        ("SOP classes", _restricted(source.allowed_sop_classes, source.refused_sop_classes)),
        ("transfer syntaxes", _restricted(source.allowed_transfer_syntaxes, source.refused_transfer_syntaxes)),
    ]


def _commitment(source: Source) -> str:
    if not source.commitment:
        return "refused"
    return f"answered at {source.report}" if source.report else "answered on its own association"


def _restricted(allowed: Sequence[str], refused: Sequence[str]) -> str:
    words = f"only {', '.join(map(name_of, allowed))}" if allowed else "all"
    return f"{words} but {', '.join(map(name_of, refused))}" if refused else words
