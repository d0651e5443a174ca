"""The options by which a destination is told how it is sent to: of `destinations add` and `destinations set`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

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


@dataclass(frozen=True, slots=True)
class Given:
    """What a command was told of them; of what is None nothing was said. Declared here, once, for all commands."""

    profile: ProfileName = None
    results: Results = None
    transfer_syntaxes: TransferSyntaxes = None
    commitment: Commitment = None
    verify: Verify = None
    max_rate: MaxRate = None
    max_associations: MaxAssociations = None
    user: User = None
    password: Password = None
    token: Token = None
    client_certificate: ClientCertificate = None
    client_key: ClientKey = None
    ca_file: CaFile = None


def takes_delivery_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that typer gives each option of Given, where `command` has the parameter `given`."""
    hints = get_type_hints(Given, include_extras=True)
    options = [
        Parameter(spec.name, Parameter.POSITIONAL_OR_KEYWORD, default=spec.default, annotation=hints[spec.name])
        for spec in fields(Given)
    ]

    @wraps(command)
    def with_options(**values: Any) -> None:
        command(given=Given(**{spec.name: values.pop(spec.name) for spec in fields(Given)}), **values)

    parameters: list[Parameter] = []
    for own in signature(command, eval_str=True).parameters.values():
        parameters += options if own.name == "given" else [own]
    # what typer looks at
    with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


def chosen(before: DeliveryOptions, given: Given) -> DeliveryOptions:
    """What was given in place of what was there; an empty text takes it away. Raises InvalidDestination."""
    texts = {
        "profile": given.profile,
        "user": given.user,
        "password": given.password,
        "token": given.token,
        "certificate": given.client_certificate,
        "key": given.client_key,
        "ca_file": given.ca_file,
    }
    changes: dict[str, Any] = {name: text.strip() for name, text in texts.items() if text is not None}
    if given.commitment is not None:
        changes["commitment"] = given.commitment
    if given.verify is not None:
        changes["verify"] = given.verify
    if given.max_rate is not None:
        changes["bytes_per_s"] = parse_rate(given.max_rate)
    if given.max_associations is not None:
        changes["associations"] = given.max_associations
    if given.results is not None:
        changes["results"] = _names(given.results.upper())
    if given.transfer_syntaxes is not None:
        changes["transfer_syntaxes"] = _names(given.transfer_syntaxes.lower())
    return replace(before, **changes)


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
