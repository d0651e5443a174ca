"""Settings: one table of name, default and help; read once, frozen.

The command line goes over the environment (DICOMNODE_*) over `dicomnode.toml` in the home over the default.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from dicomnode.domain.identifiers import is_ae_title
from dicomnode.errors import InvalidSetting

ENVIRONMENT_PREFIX = "DICOMNODE_"
FILE_NAME = "dicomnode.toml"
# of scheme://user:password@host/name?password=...
_PASSWORD = re.compile(r"(?<=://)([^:@/]*:)[^@]*(?=@)|([?&]password=)[^&]*")


# Kubernetes tells every pod of a service called dicomnode with variables that look like settings.
_SERVICE_LINK = re.compile(
    r"DICOMNODE_(SERVICE_(HOST|PORT)\w*=.*|PORT(_\d+_(TCP|UDP))?=(tcp|udp)://.*|PORT_\d+_\w+=.*)"
)
# What a setting may be when it is not text: a file's `workers = true` is a mistake, not 1
_TYPED: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (), Path: (type(Path()),)}


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    home: Path = _setting(Path("~/.dicomnode"), "folder that everything the node keeps lies under")
    database_url: str = _setting(
        "", "SQLAlchemy URL of the database, as in postgresql+psycopg://user@host/name; empty: SQLite in the home"
    )
    # receive
    ae_title: str = _setting("DICOMNODE", "the node's AE title")
    dicom_host: str = _setting("0.0.0.0", "address that the DICOM listener binds")
    dicom_port: int = _setting(11112, "port that the DICOM listener binds; 0: any free one")
    receivers: int = _setting(2, "receiver processes that share the port")
    check_called_ae_title: bool = _setting(False, "refuse associations that call another AE title than the node's")
    allowed_calling_ae_titles: tuple[str, ...] = _setting((), "AE titles that may send, by comma; empty: all")
    max_associations: int = _setting(64, "associations that one receiver process serves at once")
    max_pdu_bytes: int = _setting(131072, "longest PDU the node receives (PS3.8 D.1)")
    min_free_bytes: int = _setting(1 << 30, "C-STORE is answered 0xA700 when the disk has less than this left")
    # complete
    quiet_period_s: float = _setting(
        5.0, "seconds without an image after which a series counts as complete, when nothing surer says so before"
    )
    study_quiet_period_s: float = _setting(
        20.0, "seconds without an image after which a study counts as complete, for rules that look at all its series"
    )
    release_grace_s: float = _setting(
        0.5, "seconds after the end of an association before a stack without a gap counts as complete"
    )
    # infer
    workers: int = _setting(1, "worker processes on this host")
    engine: str = _setting("auto", "triton, in-process, or auto: Triton where its server exists")
    triton_threads: int = _setting(0, "CPU threads a model may use; 0: all cores")
    inference_timeout_s: float = _setting(900.0, "longest that one inference may take")
    # run
    log_level: str = _setting("INFO", "DEBUG, INFO, WARNING or ERROR; at INFO and above no patient data is logged")

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", Path(self.home).expanduser().absolute())
        _check(is_ae_title(self.ae_title), "ae_title", "1 to 16 characters, no backslash")
        _check(
            all(map(is_ae_title, self.allowed_calling_ae_titles)), "allowed_calling_ae_titles", "AE titles by comma"
        )
        _check(0 <= self.dicom_port <= 65535, "dicom_port", "0 to 65535")
        _check(1 <= self.receivers <= 64, "receivers", "1 to 64")
        _check(1 <= self.workers <= 64, "workers", "1 to 64")
        _check(self.max_associations >= 1, "max_associations", "1 or more")
        _check(self.max_pdu_bytes == 0 or self.max_pdu_bytes >= 4096, "max_pdu_bytes", "0 (no limit) or 4096 or more")
        _check(self.min_free_bytes >= 0, "min_free_bytes", "0 or more")
        _check(0 <= self.quiet_period_s < math.inf, "quiet_period_s", "0 or more")
        _check(0 <= self.study_quiet_period_s < math.inf, "study_quiet_period_s", "0 or more")
        _check(0 <= self.release_grace_s < math.inf, "release_grace_s", "0 or more")
        _check(0 < self.inference_timeout_s < math.inf, "inference_timeout_s", "above 0")
        _check(self.triton_threads >= 0, "triton_threads", "0 (all cores) or more")
        _check(self.engine in {"auto", "triton", "in-process"}, "engine", "auto, triton or in-process")
        _check(self.log_level in {"DEBUG", "INFO", "WARNING", "ERROR"}, "log_level", "DEBUG, INFO, WARNING or ERROR")

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'dicomnode.db'}"

    @property
    def store_folder(self) -> Path:
        return self.home / "store"

    @property
    def models_folder(self) -> Path:
        return self.home / "models"

    @property
    def triton_folder(self) -> Path:
        return self.home / "triton"

    @property
    def run_folder(self) -> Path:
        return self.home / "run"

    @property
    def log_folder(self) -> Path:
        return self.home / "logs"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting's value came from."""

    name: str
    value: Any
    origin: str  # "command line", "environment", "dicomnode.toml", "default"
    default: Any
    help: str

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def shown(self) -> Any:
        """The value as a screen may show it: without the database's password."""
        return (
            _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", self.value)
            if self.name == "database_url"
            else self.value
        )


def read_settings(
    command_line: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> tuple[Settings, list[Origin]]:
    """The settings and where each came from; raises InvalidSetting naming the setting and its origin."""
    environment = os.environ if environment is None else environment
    given = {k: v for k, v in (command_line or {}).items() if v is not None}
    home = Path(given.get("home") or environment.get(ENVIRONMENT_PREFIX + "HOME") or _default_of("home")).expanduser()
    layers: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("command line", given),
        ("environment", _from_environment(environment)),
        (FILE_NAME, _from_file(home / FILE_NAME)),
    )
    hints = get_type_hints(Settings)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for spec in fields(Settings):
        for origin, layer in layers:
            if spec.name in layer:
                values[spec.name] = _converted(spec.name, layer[spec.name], hints[spec.name], origin)
                origins[spec.name] = origin
                break
    settings = Settings(**values)
    return settings, [_origin(spec, settings, origins.get(spec.name, "default")) for spec in fields(Settings)]


def _origin(spec: Field[Any], settings: Settings, origin: str) -> Origin:
    return Origin(spec.name, getattr(settings, spec.name), origin, spec.default, spec.metadata["help"])


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    known = {ENVIRONMENT_PREFIX + spec.name.upper(): spec.name for spec in fields(Settings)}
    ours = {k: v for k, v in environment.items() if k.startswith(ENVIRONMENT_PREFIX)}
    found = {k: v for k, v in ours.items() if k in known or not _SERVICE_LINK.fullmatch(f"{k}={v}")}
    if unknown := sorted(set(found) - set(known)):
        raise InvalidSetting(
            f"no such setting; `dicomnode settings` lists them all ({', '.join(unknown)})", "environment"
        )
    return {known[k]: v for k, v in found.items()}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSetting(str(error), str(path)) from error
    known = {spec.name for spec in fields(Settings)} - {"home"}
    if unknown := sorted(set(document) - known):
        raise InvalidSetting(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}", str(path))
    return document


def _converted(name: str, value: Any, hint: Any, origin: str) -> Any:
    try:
        if hint is bool:
            return _boolean(value)
        if hint is tuple[str, ...] or hint == tuple[str, ...]:
            items = value.split(",") if isinstance(value, str) else value
            return tuple(str(item).strip() for item in items if str(item).strip())
        if not isinstance(value, str) and type(value) not in _TYPED[hint]:
            raise ValueError(value)
        return hint(value)
    except (TypeError, ValueError) as error:
        raise InvalidSetting(f"{value!r} is no {getattr(hint, '__name__', hint)}", f"{name} ({origin})") from error


def _boolean(value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


def _default_of(name: str) -> Any:
    default = next(spec.default for spec in fields(Settings) if spec.name == name)
    assert default is not MISSING
    return default


def _check(fine: bool, name: str, words: str) -> None:
    if not fine:
        raise InvalidSetting(f"must be {words}", name)


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings as variables that read back as the same settings: how a node's processes get them."""
    return {ENVIRONMENT_PREFIX + s.name.upper(): _as_text(getattr(settings, s.name)) for s in fields(Settings)}


def _as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
