"""Which databases the node can use, by their URLs."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from dicomnode.errors import InvalidSetting

_SETTING = "database_url (--database-url or DICOMNODE_DATABASE_URL)"
_POSTGRESQL = "postgresql+psycopg://user:password@host:5432/name"
_SQLITE = "sqlite:////folder/node.db"
_DRIVERS = frozenset({"sqlite", "postgresql", "postgresql+psycopg"})


def checked_url(text: str) -> sa.URL:
    """Raises InvalidSetting, without what may be a password."""
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number, as a password's @, : or / makes one
        raise _wrong(
            f"is no URL, as in {_POSTGRESQL}; @, : and / in a password are written %40, %3A and %2F"
        ) from None
    if url.drivername not in _DRIVERS:
        raise _wrong(f"{url.drivername} is no database that the node can use: give {_POSTGRESQL} or {_SQLITE}")
    if url.port is not None and not 1 <= url.port <= 65535:
        raise _wrong(f"{url.port} is no port: 1 to 65535")
    if (file := sqlite_file(url)) is not None:
        _check_file(file)
    return url


def _check_file(file: Path) -> None:
    if not file.is_absolute() or file.is_dir():
        raise _wrong(f"an SQLite database needs the whole path of its file, as in {_SQLITE}")
    if not file.parent.is_dir():
        raise _wrong(f"{file} cannot be made: there is no folder {file.parent}")


def sqlite_file(url: sa.URL) -> Path | None:
    """Where it lies; None when it is no SQLite database."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def _wrong(words: str) -> InvalidSetting:
    return InvalidSetting(words, _SETTING)
