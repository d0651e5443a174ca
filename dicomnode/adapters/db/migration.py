"""Brings a database's tables up to date with Alembic."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError

from dicomnode.errors import DatabaseUnusable

# In a checkout a link to the folder of this name at the top of the repository; in a wheel the folder itself.
_SCRIPTS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = threading.Lock()  # Alembic keeps what it works on in modules of the process


def migrate(url: str, revision: str = "head") -> None:
    """Makes or upgrades the tables; harmless when they are up to date, and when several do it at once.

    Raises DatabaseUnusable when a later version of the node made them.
    """
    try:
        with _ONE_AT_A_TIME:
            command.upgrade(alembic_config(url), revision)
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        words = "a later version of dicomnode made its tables; run that version, or restore a backup from before"
        raise DatabaseUnusable(words) from error


def alembic_config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["url"] = url
    return config
