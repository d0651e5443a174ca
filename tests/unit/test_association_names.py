"""A receiver keeps its name from process to process, and shares it with no other."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomnode.adapters.db.tables import ArrivalRow
from dicomnode.node import association_names as module
from dicomnode.node.association_names import HOME_ID, association_names, home_id


def test_a_receiver_is_of_one_host_one_home_and_one_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, other = tmp_path / "a", tmp_path / "b"
    home.mkdir()
    other.mkdir()
    monkeypatch.setattr(module.socket, "gethostname", lambda: "node1")
    mine = association_names(home, "receiver-1")
    assert re.fullmatch(r"node1-[0-9a-f]{8}\.receiver-1", mine.receiver)
    assert re.fullmatch(re.escape(mine.receiver) + r"/\d+-\d{13}", mine.process)
    assert association_names(home, "receiver-1").receiver == mine.receiver, "as the next process says it"
    assert association_names(other, "receiver-1").receiver != mine.receiver
    assert association_names(home, "receiver-2").receiver != mine.receiver
    monkeypatch.setattr(module.socket, "gethostname", lambda: "node2")
    assert association_names(home, "receiver-1").receiver != mine.receiver


def test_processes_that_begin_at_once_agree_on_the_home(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: home_id(tmp_path), range(64)))
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == [HOME_ID]


def test_the_longest_name_fits_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.socket, "gethostname", lambda: "ü" * 64)
    monkeypatch.setattr(module.os, "getpid", lambda: 1 << 22)
    longest = association_names(tmp_path, "receiver/" + "x" * 64).process + "/9999999999"
    assert len(longest) <= ArrivalRow.__table__.c.association.type.length
    assert longest.count("/") == 2
