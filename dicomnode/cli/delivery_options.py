"""The options by which a destination is told how it is sent to: of `destinations add` and `destinations set`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import typer

from dicomnode.domain.delivery_options import DeliveryOptions, Wish, parse_rate
from dicomnode.domain.profile import FORMS, OWN_KINDS, PROFILES, TRANSFER_SYNTAXES


def _option(name: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


_FOUND = "Where it is found when it is needed: env:NAME or file:/path."
ProfileName = Annotated[
    str | None, _option("--profile", f"What it is sent: {', '.join(PROFILES)}. Default: standard.", "NAME")
]
Results = Annotated[
    str | None,
    _option("--results", f"Kinds in place of the profile's, by comma: {', '.join((*OWN_KINDS, *FORMS))}.", "KINDS"),
]
TransferSyntaxes = Annotated[
    str | None,
    _option(
        "--transfer-syntaxes",
        f"How objects are encoded if it takes that, the best first: {', '.join(TRANSFER_SYNTAXES)}. "
        "Default: the profile's.",
        "NAMES",
    ),
]
Commitment = Annotated[
    Wish | None,
    _option(
        "--commitment", "Ask a DIMSE peer by Storage Commitment whether it keeps what it was sent. Default: auto."
    ),
]
Verify = Annotated[
    Wish | None, _option("--verify", "Ask a DICOMweb service by QIDO-RS whether it is there. Default: auto.")
]
MaxRate = Annotated[str | None, _option("--max-rate", "Most bytes a second, a worker; 0: no limit.", "500kB")]
MaxAssociations = Annotated[
    int | None, _option("--max-associations", "Most associations at once, of all workers; 0: as the node does.", "N")
]
User = Annotated[str | None, _option("--user", "For HTTP basic authentication, with --password.", "NAME")]
Password = Annotated[str | None, _option("--password", _FOUND, "REFERENCE")]
Token = Annotated[str | None, _option("--token", f"A bearer token. {_FOUND}", "REFERENCE")]
ClientCertificate = Annotated[
    str | None, _option("--client-certificate", "PEM file that the node shows to the server.", "/PATH")
]
ClientKey = Annotated[str | None, _option("--client-key", "Its key, when it lies in a file of its own.", "/PATH")]
CaFile = Annotated[
    str | None, _option("--ca-file", "PEM file of the authorities that the server's certificate is of.", "/PATH")
]


def chosen(
    before: DeliveryOptions,
    commitment: Wish | None,
    verify: Wish | None,
    max_rate: str | None,
    max_associations: int | None,
    results: str | None = None,
    transfer_syntaxes: str | None = None,
    **texts: str | None,
) -> DeliveryOptions:
    """What was given in place of what was there; an empty text takes it away. Raises InvalidDestination."""
    given: dict[str, Any] = {name: text.strip() for name, text in texts.items() if text is not None}
    if commitment is not None:
        given["commitment"] = commitment
    if verify is not None:
        given["verify"] = verify
    if max_rate is not None:
        given["bytes_per_s"] = parse_rate(max_rate)
    if max_associations is not None:
        given["associations"] = max_associations
    if results is not None:
        given["results"] = _names(results.upper())
    if transfer_syntaxes is not None:
        given["transfer_syntaxes"] = _names(transfer_syntaxes.lower())
    return replace(before, **given)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def option_words(kind: str, options: DeliveryOptions) -> Iterator[tuple[str, str]]:
    """A label and words each; secrets are named by where they lie."""
    yield "profile", options.profile
    yield "results", ", ".join(options.wanted.kinds)
    syntaxes = options.transfer_syntaxes or options.wanted.transfer_syntaxes
    yield "transfer syntaxes", ", ".join(name for name in syntaxes if kind == "dimse" or name != "implicit")
    if kind == "dimse":
        yield "commitment", str(options.commitment)
    else:
        yield "verify", str(options.verify)
    yield "rate", _rate(options.bytes_per_s)
    yield "associations", f"at most {options.associations} at once" if options.associations else "as the node does"
    for label, value in (
        ("user", options.user),
        ("password", options.password),
        ("token", options.token),
        ("client certificate", options.certificate),
        ("client key", options.key),
        ("CA file", options.ca_file),
    ):
        if value:
            yield label, value


def _rate(bytes_per_s: int) -> str:
    if not bytes_per_s:
        return "no limit"
    return (
        f"at most {bytes_per_s / 1e6:g} MB/s a worker"
        if bytes_per_s >= 1e6
        else f"at most {bytes_per_s / 1e3:g} kB/s a worker"
    )
