"""The node's home and its database: made, upgraded, opened, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicomnode.config import Settings
from dicomnode.errors import DatabaseAway, DatabaseUnusable, InvalidSetting

if TYPE_CHECKING:
    from dicomnode.adapters.db.repositories import SqlState


def prepare_home(settings: Settings) -> None:
    """Raises InvalidSetting when the home cannot be made."""
    try:
        for folder in (settings.home, settings.run_folder, settings.log_folder, settings.models_folder):
            folder.mkdir(parents=True, exist_ok=True)
        settings.home.chmod(0o700)  # patients' images lie under it
    except OSError as error:
        words = f"{error.filename}: {error.strerror}; give a folder that can be made and written"
        raise InvalidSetting(words, "home (--home or DICOMNODE_HOME)") from error


def migrate_database(settings: Settings) -> None:
    """Makes or upgrades the tables. Raises DatabaseAway, DatabaseUnusable, InvalidSetting."""
    prepare_home(settings)
    migrate(settings)


def migrate(settings: Settings) -> None:
    from dicomnode.adapters.db.migration import migrate
    from dicomnode.adapters.queue import migrate as migrate_queue

    url, shown = settings.sqlalchemy_url, shown_database(settings)
    try:
        with database_errors():
            migrate(url)
            migrate_queue(url)
    except DatabaseAway as error:
        raise DatabaseAway(f"the database {shown} cannot be used: {error}") from error
    except DatabaseUnusable as error:
        raise DatabaseUnusable(f"the database {shown} cannot be used: {error}") from error


def open_state(settings: Settings) -> SqlState:
    """The state, before its database is asked anything: it may be away now, or have no tables yet.

    Raises InvalidSetting.
    """
    from dicomnode.adapters.db.repositories import open_state
    from dicomnode.adapters.db.urls import checked_url
    from dicomnode.adapters.queue import DbosQueue

    url = settings.sqlalchemy_url
    checked_url(url)
    return open_state(url, DbosQueue(url))


@contextmanager
def database_errors() -> Iterator[None]:
    """Raises DatabaseAway for what the driver raises during an outage, DatabaseUnusable for what no waiting mends."""
    from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, ProgrammingError

    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise DatabaseAway(_said(error.orig)) from error
    except DatabaseError as error:  # no database or a damaged one; ProgrammingError: of one who may not make tables
        if type(error) not in (DatabaseError, ProgrammingError):
            raise
        raise DatabaseUnusable(_said(error.orig)) from error


def _said(error: BaseException | None) -> str:
    return " ".join(str(error).split())


def shown_database(settings: Settings) -> str:
    """The URL without its password. Raises InvalidSetting."""
    from dicomnode.adapters.db.urls import checked_url

    return checked_url(settings.sqlalchemy_url).render_as_string(hide_password=True)
