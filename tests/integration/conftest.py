"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.completeness import Policy
from dicomnode.domain.destination import Address
from dicomnode.domain.source import Source
from tests.integration.receiving_node import Receiver
from tests.made_series import classic


@pytest.fixture
def receiver(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Callable[..., Receiver]]:
    """Makes a receiver of the made study with a policy, and runs it until the test ends.

    `query` is the address at which the sender CT1 is asked.
    """
    running: list[Receiver] = []

    def make(query: Address | None = None, **policy: Any) -> Receiver:
        sources = {"CT1": Source("CT1", query=query)}
        settings = Policy(**{"quiet_period_s": 60.0, "sources": sources} | policy)
        made = Receiver(tmp_path, migrated_sqlite, settings, str(classic(1)[0].StudyInstanceUID))
        running.append(made.__enter__())
        return made

    yield make
    for one in running:
        one.__exit__()
