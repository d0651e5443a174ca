"""Where results go: a DIMSE peer or a DICOMweb origin server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.domain.identifiers import is_ae_title
from dicomnode.errors import InvalidDestination

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIMSE = re.compile(r"(?P<aet>[^@]+)@(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>[0-9]{1,5})")
_PASSWORD = re.compile(r"(//[^/:@]*):[^/@]*(?:@[^/@]*)*@")


@dataclass(frozen=True, slots=True)
class DimseAddress:
    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StowAddress:
    """The DICOMweb service root; STOW-RS posts to `<url>/studies` (PS3.18 10.5)."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"StowAddress({without_password(self.url)!r})"


Address = DimseAddress | StowAddress


@dataclass(frozen=True, slots=True)
class Destination:
    name: str
    address: Address
    options: DeliveryOptions = DeliveryOptions()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidDestination(
                f"{self.name!r} is no name: letters, digits, '.', '_' and '-', at most 64", "name"
            )
        self.options.check(self.kind)
        if self.options != DeliveryOptions() and "@" in urlsplit(str(self.address)).netloc:
            self._check_credentials()

    def _check_credentials(self) -> None:
        if self.options.user or self.options.token:
            raise InvalidDestination("give credentials in the URL or by options, not both", "--stow")

    @property
    def kind(self) -> str:
        return "dimse" if isinstance(self.address, DimseAddress) else "stow"

    @property
    def shown(self) -> str:
        """The address as people and logs may see it: without a password."""
        return without_password(str(self.address))


def without_password(url: str) -> str:
    """`http://user:secret@host/path` as `http://user:***@host/path`; other text as it is."""
    return _PASSWORD.sub(r"\1:***@", url)


def parse_dimse(text: str) -> DimseAddress:
    """`AET@HOST:PORT`; raises InvalidDestination."""
    match = _DIMSE.fullmatch(text.strip())
    if not match:
        raise InvalidDestination(f"{text!r} is not AET@HOST:PORT, as in ORTHANC@127.0.0.1:4242", "--dimse")
    if not is_ae_title(match["aet"]):
        raise InvalidDestination(f"{match['aet']!r} is no AE title: 1 to 16 characters, no backslash", "--dimse")
    if not 1 <= (port := int(match["port"])) <= 65535:
        raise InvalidDestination(f"{port} is no port", "--dimse")
    return DimseAddress(match["aet"].strip(), match["host"].strip("[]"), port)


def parse_stow(text: str) -> StowAddress:
    """The URL of a DICOMweb service; raises InvalidDestination."""
    shown = without_password(text)
    try:
        parts = urlsplit(text.strip())
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, half an IPv6 address
        fine = False
    if not fine:
        raise InvalidDestination(f"{shown!r} is no http(s) URL, as in http://127.0.0.1:8042/dicom-web", "--stow")
    if parts.query or parts.fragment:
        raise InvalidDestination(f"{shown!r} is no service root: /studies has to fit behind it", "--stow")
    return StowAddress(text.strip().rstrip("/"))


def parse_address(kind: str, text: str) -> Address:
    return parse_dimse(text) if kind == "dimse" else parse_stow(text)
