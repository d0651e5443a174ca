"""Column types and the database's clock, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite, which keeps no zone, gets UTC and gives UTC back."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def storable(text: str, most: int | None = None) -> str:
    """What both databases take: PostgreSQL refuses NUL and text over a column's length, both lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:most]


class Prose(sa.TypeDecorator[str]):
    """Text of any length for people to read; what no database takes is left out, as a reason must not be lost."""

    impl = sa.Text()
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


class database_now(FunctionElement[datetime]):
    """The wall clock of the database's host when the statement runs, not when its transaction began."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: Any, **keywords: Any) -> str:
    return "clock_timestamp()"


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: Any, **keywords: Any) -> str:
    # %f gives milliseconds, and SQLAlchemy reads the fraction's digits as microseconds: hence the zeros.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def words(choices: type[StrEnum], name: str) -> sa.Enum:
    """A StrEnum kept as its words, with a CHECK constraint."""
    return sa.Enum(
        choices,
        values_callable=lambda members: [str(m) for m in members],
        native_enum=False,
        create_constraint=True,
        name=name,
        length=16,
    )
