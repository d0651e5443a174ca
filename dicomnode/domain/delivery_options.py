"""How one destination wants to be sent to: proof, limits, credentials; as an administrator wrote it down.

Secrets are not among it: it says where they are found when they are needed, `env:NAME` or `file:/path`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from dicomnode.domain.profile import TRANSFER_SYNTAXES, Profile, profile_of
from dicomnode.errors import InvalidDestination

ASSOCIATIONS_MOST = 64
# Below it a PDU of 128 kB takes longer than many peers wait for the next one
RATE_LEAST_BYTES_PER_S = 10_000
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/[^\0]*")
_RATE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[kKmMgG]?)B?(?:/s)?")
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}


class Wish(StrEnum):
    """Whether proof is asked for. AUTO: it is, and a destination that cannot give it is left in peace."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    profile: str = "standard"  # one of profile.PROFILES
    results: tuple[str, ...] = ()  # kinds to send in place of the profile's
    transfer_syntaxes: tuple[str, ...] = ()  # of profile.TRANSFER_SYNTAXES, the best first
    commitment: Wish = Wish.AUTO  # of a DIMSE peer: Storage Commitment after C-STORE (PS3.4 J)
    verify: Wish = Wish.AUTO  # of a DICOMweb service: QIDO-RS after STOW-RS
    bytes_per_s: int = 0  # most that one worker process sends it; 0: no limit
    associations: int = 0  # or HTTP connections, at once, of all workers; 0: no limit of its own
    user: str = ""
    password: str = ""  # a reference
    token: str = ""  # a reference to a bearer token
    certificate: str = ""  # absolute path of a PEM file: the client's certificate, its key too if `key` is empty
    key: str = ""
    ca_file: str = ""  # absolute path of the PEM file that the server's certificate is checked against

    @property
    def wanted(self) -> Profile:
        """What it is sent."""
        return profile_of(self.profile, self.results)

    @property
    def syntaxes(self) -> tuple[str, ...]:
        """UIDs of the transfer syntaxes to offer, the best first."""
        names = self.transfer_syntaxes or self.wanted.transfer_syntaxes
        return tuple(TRANSFER_SYNTAXES[name] for name in names)

    def check(self, kind: str) -> None:
        """Raises InvalidDestination for what does not fit together, or not with "dimse" or "stow"."""
        for option, value in (("--password", self.password), ("--token", self.token)):
            if value and not _REFERENCE.fullmatch(value):
                raise InvalidDestination(
                    "a secret is not given itself, but where it is found: env:NAME or file:/path", option
                )
        for name in ("certificate", "key", "ca_file"):
            if (path := getattr(self, name)) and not path.startswith("/"):
                raise InvalidDestination(f"{path!r} is no absolute path", _option(name))
        profile_of(self.profile, self.results)
        if unknown := [name for name in self.transfer_syntaxes if name not in TRANSFER_SYNTAXES]:
            words = f"{', '.join(unknown)}: there are {', '.join(TRANSFER_SYNTAXES)}"
            raise InvalidDestination(words, "--transfer-syntaxes")
        if kind == "stow" and "implicit" in self.transfer_syntaxes:
            raise InvalidDestination("implicit is none of DICOMweb's (PS3.18 8.7.3)", "--transfer-syntaxes")
        self._check_kind(kind)
        self._check_together()
        if not 0 <= self.associations <= ASSOCIATIONS_MOST:
            raise InvalidDestination(f"0 (no limit) to {ASSOCIATIONS_MOST}", "--max-associations")
        if self.bytes_per_s and self.bytes_per_s < RATE_LEAST_BYTES_PER_S:
            raise InvalidDestination("0 (no limit), or 10kB and more a second", "--max-rate")

    def _check_kind(self, kind: str) -> None:
        default = DeliveryOptions()
        foreign = _WEB_ONLY if kind == "dimse" else _DIMSE_ONLY
        for name in foreign:
            if getattr(self, name) != getattr(default, name):
                other = "--stow" if kind == "dimse" else "--dimse"
                raise InvalidDestination(f"is only for destinations with {other}", _option(name))

    def _check_together(self) -> None:
        if self.token and self.user:
            raise InvalidDestination("give one of --token and --user", "--token")
        if bool(self.user) != bool(self.password):
            raise InvalidDestination("--user and --password go together", "--user" if self.user else "--password")
        if ":" in self.user:  # RFC 7617 2
            raise InvalidDestination("a user name of basic authentication has no colon", "--user")
        if self.key and not self.certificate:
            raise InvalidDestination("goes with --client-certificate", "--client-key")


_WEB_ONLY = ("verify", "user", "password", "token", "certificate", "key", "ca_file")
_DIMSE_ONLY = ("commitment",)
_OPTIONS = {
    "certificate": "--client-certificate",
    "key": "--client-key",
    "bytes_per_s": "--max-rate",
    "associations": "--max-associations",
}


def _option(name: str) -> str:
    return _OPTIONS.get(name, f"--{name.replace('_', '-')}")


def parse_rate(text: str) -> int:
    """2MB or 500kB, a second, as bytes; 0 for none. Raises InvalidDestination."""
    match = _RATE.fullmatch(text.strip())
    if not match:
        raise InvalidDestination(f"{text!r} is no rate, as in 500kB or 2MB a second; 0: no limit", "--max-rate")
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def as_document(options: DeliveryOptions) -> dict[str, Any]:
    """JSON-able; what is as it is by default is left out."""
    default = DeliveryOptions()
    return {
        spec.name: _plain(getattr(options, spec.name))
        for spec in fields(options)
        if getattr(options, spec.name) != getattr(default, spec.name)
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def parse_options(document: Mapping[str, Any] | None) -> DeliveryOptions:
    """What `as_document` wrote; what a later version added is left out."""
    known = {spec.name for spec in fields(DeliveryOptions)}
    given = {name: value for name, value in (document or {}).items() if name in known}
    for name in ("results", "transfer_syntaxes"):
        given[name] = tuple(given.get(name, ()))
    for name in ("commitment", "verify"):
        if name in given:
            given[name] = Wish(given[name])
    return DeliveryOptions(**given)
