"""Settings: one table of name, default and help; read once, frozen.

The command line goes over the environment (DICOMNODE_*) over `dicomnode.toml` in the home over the default.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from dicomnode.domain.identifiers import is_ae_title
from dicomnode.domain.inner import INNER
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
_ENGINES = ("auto", "triton", "in-process")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class _Allowed:
    """Which values a setting may have, and how that is said."""

    words: str
    holds: Callable[[Any], bool]


def _setting(default: Any, help: str, allowed: _Allowed | None = None) -> Any:
    return field(default=default, metadata={"help": help, "allowed": allowed})


def _whole(least: int, most: int | None = None, words: str = "") -> _Allowed:
    bounds = f"{least} or more" if most is None else f"{least} to {most}"
    end = math.inf if most is None else most
    return _Allowed(words or f"a whole number, {bounds}", lambda value: least <= value <= end)


def _one_of(*values: str) -> _Allowed:
    return _Allowed(f"{', '.join(values[:-1])} or {values[-1]}", lambda value: value in values)


_AE_TITLE = _Allowed("1 to 16 characters, no backslash", is_ae_title)
_AE_TITLES = _Allowed("AE titles by comma, each of 1 to 16 characters", lambda titles: all(map(is_ae_title, titles)))
_SECONDS = _Allowed("a number of seconds, 0 or more", lambda value: 0 <= value < math.inf)
_ABOVE_0 = _Allowed("a number of seconds above 0", lambda value: 0 < value < math.inf)
_YES_OR_NO = _Allowed("true or false (or 1 or 0, yes or no, on or off)", lambda value: isinstance(value, bool))
# its length has four bytes in the PDU (PS3.8 D.1.1)
_PDU = _Allowed(
    "a whole number of bytes, 0 (no limit) or 4096 to 4294967295", lambda value: value == 0 or 4096 <= value < 1 << 32
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    home: Path = _setting(Path("~/.dicomnode"), "folder that everything the node keeps lies under")
    database_url: str = _setting(
        "", "SQLAlchemy URL of the database, as in postgresql+psycopg://user@host/name; empty: SQLite in the home"
    )
    # receive
    ae_title: str = _setting("DICOMNODE", "the node's AE title", _AE_TITLE)
    dicom_host: str = _setting("0.0.0.0", "address that the DICOM listener binds")
    dicom_port: int = _setting(11112, "port that the DICOM listener binds; 0: any free one", _whole(0, 65535))
    receivers: int = _setting(2, "receiver processes that share the port", _whole(1, 64))
    check_called_ae_title: bool = _setting(
        False, "refuse associations that call another AE title than the node's", _YES_OR_NO
    )
    allowed_calling_ae_titles: tuple[str, ...] = _setting(
        (), "AE titles that may send, by comma; empty: all", _AE_TITLES
    )
    max_associations: int = _setting(64, "associations that one receiver process serves at once", _whole(1))
    max_pdu_bytes: int = _setting(131072, "longest PDU the node receives (PS3.8 D.1)", _PDU)
    min_free_bytes: int = _setting(
        1 << 30,
        "C-STORE is answered 0xA700 when the disk has less than this left",
        _whole(0, words="a whole number of bytes, 0 or more"),
    )
    quarantine_most_bytes: int = _setting(
        2 << 30,
        "results that did not pass their own check are kept under quarantine/ in the home up to so many bytes; the "
        "oldest go first",
        _whole(0, words="a whole number of bytes, 0 or more"),
    )
    # complete
    quiet_period_s: float = _setting(
        5.0,
        "seconds without an image after which a series counts as complete, when nothing surer says so before",
        _SECONDS,
    )
    study_quiet_period_s: float = _setting(
        20.0,
        "seconds without an image after which a study counts as complete, for rules that look at all its series",
        _SECONDS,
    )
    release_grace_s: float = _setting(
        0.5, "seconds after the end of an association before a stack without a gap counts as complete", _SECONDS
    )
    # infer
    workers: int = _setting(1, "worker processes on this host", _whole(1, 64))
    jobs_at_once: int = _setting(
        2,
        "jobs that one worker runs at the same time, when there is memory for them; one more if it is STAT",
        _whole(1, 64),
    )
    engine: str = _setting("auto", "triton, in-process, or auto: Triton where its server exists", _one_of(*_ENGINES))
    triton_threads: int = _setting(
        0, "CPU threads a model may use; 0: all cores", _whole(0, words="a whole number, 0 (all cores) or more")
    )
    triton_inner: str = _setting(
        "auto",
        "where networks run: local (in the process that prepares their input), bls (as models of Triton's own "
        "backends), or auto: bls for what only Triton runs, or what the server has a backend for that the host lacks",
        _one_of(*INNER),
    )
    triton_cuda_shared_memory: str = _setting(
        "auto",
        "whether volumes lie on the GPU for the models that read them there: auto (where Triton and this node see "
        "the same GPU and cuda-python is installed) or off (system shared memory for all)",
        _one_of("auto", "off"),
    )
    inference_timeout_s: float = _setting(900.0, "longest that one inference may take", _ABOVE_0)
    # run
    log_level: str = _setting(
        "INFO", "DEBUG, INFO, WARNING or ERROR; at INFO and above no patient data is logged", _one_of(*_LOG_LEVELS)
    )

    def __post_init__(self) -> None:
        """Raises InvalidSetting."""
        object.__setattr__(self, "home", Path(self.home).expanduser().absolute())
        for spec in fields(self):
            allowed, value = spec.metadata["allowed"], getattr(self, spec.name)
            if allowed is not None and not allowed.holds(value):
                raise InvalidSetting(_must_be(spec, value), spec.name)

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{self.database_file}"

    @property
    def database_file(self) -> Path:
        """Where the database lies when no URL says otherwise."""
        return self.home / "dicomnode.db"

    @property
    def store_folder(self) -> Path:
        return self.home / "store"

    @property
    def models_folder(self) -> Path:
        return self.home / "models"

    @property
    def viewer_folder(self) -> Path:
        """Where OHIF lies, if somebody put it there."""
        return self.home / "viewer"

    @property
    def triton_folder(self) -> Path:
        return self.home / "triton"

    @property
    def quarantine_folder(self) -> Path:
        return self.home / "quarantine"

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
    found = _from_environment(environment)
    file = _home(given, found) / FILE_NAME
    layers: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("command line", given),
        ("environment", found),
        (FILE_NAME, _from_file(file)),
    )
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for spec in fields(Settings):
        for origin, layer in layers:
            if spec.name in layer:
                values[spec.name] = _converted(spec, layer[spec.name], _place(spec.name, origin, file))
                origins[spec.name] = origin
                break
    try:
        settings = Settings(**values)
    except InvalidSetting as error:
        place = _place(error.path, origins[error.path], file)
        raise InvalidSetting(str(error).removeprefix(f"{error.path}: "), place) from None
    return settings, [_origin(spec, settings, origins.get(spec.name, "default")) for spec in fields(Settings)]


def _home(given: Mapping[str, Any], environment: Mapping[str, str]) -> Path:
    """Where the file with the other settings lies."""
    layers = {"command line": given, "environment": environment, "default": {"home": _default_of("home")}}
    origin, text = next((origin, layer["home"]) for origin, layer in layers.items() if "home" in layer)
    if not str(text).strip():
        raise InvalidSetting("is empty; give a folder, or leave it out", _place("home", origin))
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~somebody whom the system does not know
        raise InvalidSetting(f"{text}: there is no such user's home", _place("home", origin)) from None


def _place(name: str, origin: str, file: Path | None = None) -> str:
    """The setting and where its value was given, as the administrator finds it there."""
    where = {
        "command line": f"option --{name.replace('_', '-')}",
        "environment": f"variable {ENVIRONMENT_PREFIX}{name.upper()}",
        FILE_NAME: f"in {file}",
    }
    return f"{name} ({where.get(origin, origin)})"


def _origin(spec: Field[Any], settings: Settings, origin: str) -> Origin:
    return Origin(spec.name, getattr(settings, spec.name), origin, spec.default, spec.metadata["help"])


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    known = {ENVIRONMENT_PREFIX + spec.name.upper(): spec.name for spec in fields(Settings)}
    ours = {k: v for k, v in environment.items() if k.startswith(ENVIRONMENT_PREFIX)}
    found = {k: v for k, v in ours.items() if k in known or not _SERVICE_LINK.fullmatch(f"{k}={v}")}
    if unknown := sorted(set(found) - set(known)):
        raise InvalidSetting(
            f"there is no such setting{_meant(unknown[0], known)}; `dicomnode settings` shows all",
            f"variable {', '.join(unknown)}",
        )
    return {known[k]: v for k, v in found.items()}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        words = f"cannot be read: {error.strerror}; use the node's commands as the user that it runs as"
        raise InvalidSetting(words, str(path)) from error
    except UnicodeDecodeError as error:
        raise InvalidSetting("is no text in UTF-8", str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"is no TOML: {error}; as in: dicom_port = 104", str(path)) from error
    known = {spec.name for spec in fields(Settings)} - {"home"}
    if unknown := sorted(set(document) - known):
        raise InvalidSetting(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}", str(path))
    return document


def _meant(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _converted(spec: Field[Any], value: Any, place: str) -> Any:
    hint = get_type_hints(Settings)[spec.name]
    try:
        if hint is bool:
            return _boolean(value)
        if hint == tuple[str, ...]:
            return _titles(value)
        if not isinstance(value, str) and type(value) not in _TYPED[hint]:
            raise ValueError(value)
        return hint(value)
    except (TypeError, ValueError):
        raise InvalidSetting(_must_be(spec, value), place) from None


def _titles(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str | list | tuple):
        raise ValueError(value)
    items = value.split(",") if isinstance(value, str) else value
    return tuple(str(item).strip() for item in items if str(item).strip())


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


def _must_be(spec: Field[Any], value: Any) -> str:
    allowed = spec.metadata["allowed"]
    return f"must be {allowed.words if allowed else 'text'}, not '{_as_text(value)}'"


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings as variables that read back as the same settings: how a node's processes get them."""
    return {ENVIRONMENT_PREFIX + s.name.upper(): _as_text(getattr(settings, s.name)) for s in fields(Settings)}


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
