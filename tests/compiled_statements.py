"""Statements are compiled once in a process of tests, as in a node, and not once in a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event


class Engines:
    """Makes engines as create_engine does; those made with the same options share what one of them compiled.

    SQLAlchemy keeps a compiled statement by engine and by dialect object (its documentation, "SQL Compilation
    Caching"), and compiling is most of what a short test on a new database would do.
    """

    def __init__(self) -> None:
        self._create_engine = sa.create_engine
        self._shared: dict[tuple[str, str], tuple[Any, Any]] = {}  # dialect and cache

    def create_engine(self, url: str | sa.URL, **options: Any) -> sa.Engine:
        engine = self._create_engine(url, **options)
        # serialisers and the like belong to the dialect: an engine shares with its own kind only
        kind = sa.make_url(url).drivername, repr(sorted(options.items(), key=lambda option: option[0]))
        own = (engine.dialect, engine._compiled_cache)
        if shared := self._shared.get(kind):
            engine.dialect, engine._compiled_cache = shared
        else:  # a dialect knows its database from the first connection on
            event.listen(engine, "first_connect", lambda *_: self._shared.setdefault(kind, own))
        return engine


@pytest.fixture(scope="session", autouse=True)
def statements_compiled_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sa, "create_engine", Engines().create_engine)
        yield
