"""What the node knows and wants of a sender: by its AE title, as an administrator wrote it down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomnode.domain.destination import Address, DimseAddress, parse_dimse, parse_stow
from dicomnode.domain.document import Node
from dicomnode.domain.identifiers import is_ae_title, is_uid
from dicomnode.errors import InvalidDestination, InvalidSource

QUIET_PERIOD_MOST_S = 86_400.0
_SINGLE = ("ae_title", "query_dimse", "query_url", "report_dimse", "commitment", "quiet_period_s", "release")
_LISTS = (
    "allowed_sop_classes",
    "refused_sop_classes",
    "allowed_transfer_syntaxes",
    "refused_transfer_syntaxes",
)


@dataclass(frozen=True, slots=True)
class Source:
    """Settings for what one calling AE title sends; what is not set is as for everybody."""

    ae_title: str
    query: Address | None = None  # where to ask how many instances a series has: by C-FIND or QIDO-RS
    report: DimseAddress | None = None  # where it takes reports of Storage Commitment (PS3.4 J.3.3)
    commitment: bool = True  # whether it may ask what is kept of what it sent (PS3.4 J.3.2)
    quiet_period_s: float | None = None
    release: bool = True  # whether the end of an association says something about its series
    allowed_sop_classes: tuple[str, ...] = ()  # UIDs; none: all that may be stored
    refused_sop_classes: tuple[str, ...] = ()
    allowed_transfer_syntaxes: tuple[str, ...] = ()
    refused_transfer_syntaxes: tuple[str, ...] = ()

    def may_send(self, sop_class_uid: str) -> bool:
        return _passes(sop_class_uid, self.allowed_sop_classes, self.refused_sop_classes)

    def may_send_in(self, transfer_syntax_uid: str) -> bool:
        return _passes(transfer_syntax_uid, self.allowed_transfer_syntaxes, self.refused_transfer_syntaxes)


def _passes(uid: str, allowed: Sequence[str], refused: Sequence[str]) -> bool:
    return uid not in refused and (not allowed or uid in allowed)


def query_address(dimse: str, url: str) -> Address | None:
    """Of `AET@HOST:PORT` or the URL of a DICOMweb service; None without both. Raises InvalidSource."""
    if dimse and url:
        raise InvalidSource("give one of --query-dimse AET@HOST:PORT and --query-url URL")
    option = "--query-dimse" if dimse else "--query-url"
    try:
        return parse_dimse(dimse) if dimse else parse_stow(url) if url else None
    except InvalidDestination as error:
        raise InvalidSource(str(error).removeprefix(f"{error.path}: "), option) from error


def report_address(dimse: str) -> DimseAddress | None:
    """Of `AET@HOST:PORT`; None for an empty text. Raises InvalidSource."""
    try:
        return parse_dimse(dimse) if dimse else None
    except InvalidDestination as error:
        raise InvalidSource(str(error).removeprefix(f"{error.path}: "), "--report-dimse") from error


def parse_source(document: Mapping[str, Any]) -> Source:
    """What `as_document` wrote, or somebody else in that form; raises InvalidSource with the path."""
    node = Node(document, "", InvalidSource)
    node.only(*_SINGLE, *_LISTS)
    lists = {name: _uids(node.get(name, [])) for name in _LISTS}
    for what in ("sop_classes", "transfer_syntaxes"):
        if both := sorted({*lists[f"allowed_{what}"]} & {*lists[f"refused_{what}"]}):
            node.get(f"refused_{what}", []).fail(f"both allowed and refused: {', '.join(both)}")
    report = report_address(_text(node.get("report_dimse", "")))
    commitment = node.get("commitment", True).boolean()
    if report is not None and not commitment:
        node.get("commitment", True).fail("who may not ask is not told: no --report-dimse together with it")
    return Source(
        ae_title=_ae_title(node["ae_title"]),
        query=query_address(_text(node.get("query_dimse", "")), _text(node.get("query_url", ""))),
        report=report,
        commitment=commitment,
        quiet_period_s=_quiet_period_s(node.get("quiet_period_s", None)),
        release=node.get("release", True).boolean(),
        **lists,
    )


def as_document(source: Source) -> dict[str, Any]:
    """JSON-able; what is not set is left out."""
    document: dict[str, Any] = {"ae_title": source.ae_title}
    if source.query is not None:
        document["query_dimse" if isinstance(source.query, DimseAddress) else "query_url"] = str(source.query)
    if source.report is not None:
        document["report_dimse"] = str(source.report)
    if not source.commitment:
        document["commitment"] = False
    if source.quiet_period_s is not None:
        document["quiet_period_s"] = source.quiet_period_s
    if not source.release:
        document["release"] = False
    return document | {name: list(uids) for name in _LISTS if (uids := getattr(source, name))}


def _ae_title(node: Node) -> str:
    text = node.text()
    if not is_ae_title(text):
        node.fail(f"{text!r} is no AE title: 1 to 16 characters, no backslash")
    return text.strip()


def _text(node: Node) -> str:
    return node.text() if node.value != "" else ""


def _quiet_period_s(node: Node) -> float | None:
    if node.value is None:
        return None
    seconds = node.number()
    if not (math.isfinite(seconds) and 0 <= seconds <= QUIET_PERIOD_MOST_S):
        node.fail(f"{seconds:g} is not 0 to {QUIET_PERIOD_MOST_S:g} seconds")
    return seconds


def _uids(node: Node) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_uid(item) for item in node.items()))


def _uid(node: Node) -> str:
    text = node.text()
    if not is_uid(text):
        node.fail(f"{text!r} is no UID")
    return text
