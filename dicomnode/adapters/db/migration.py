"""Brings a database's tables up to date with Alembic."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from dicomnode.adapters.db.session import open_engine
from dicomnode.errors import DatabaseUnusable

if TYPE_CHECKING:
    from alembic.config import Config

# In a checkout a link to the folder of this name at the top of the repository; in a wheel the folder itself.
_SCRIPTS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = threading.Lock()  # Alembic keeps what it works on in modules of the process


def migrate(url: str, revision: str = "head") -> None:
    """Makes or upgrades the tables; harmless when they are up to date, and when several do it at once.

    Raises DatabaseUnusable when a later version of the node made them.
    """
    if revision == "head" and _revision_of(url) == newest_revision():
        return  # Alembic takes a third of a second to import, and each command asks
    from alembic import command
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError

    try:
        with _ONE_AT_A_TIME:
            command.upgrade(alembic_config(url), revision)
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        words = "a later version of dicomnode made its tables; run that version, or restore a backup from before"
        raise DatabaseUnusable(words) from error


def newest_revision() -> str:
    """Scripts are named by their revisions, which are numbered."""
    return max(script.name.partition("_")[0] for script in (_SCRIPTS / "versions").glob("[0-9]*.py"))


def _revision_of(url: str) -> str | None:
    """Of the tables there are; None where there are none."""
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return found
    finally:
        engine.dispose()


def alembic_config(url: str) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["url"] = url
    return config
