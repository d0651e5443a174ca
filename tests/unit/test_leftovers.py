"""What servers leave in the temporary folder, and who may remove it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from dicomnode.adapters.triton import leftovers
from dicomnode.adapters.triton.leftovers import (
    backend_folders,
    kept,
    remove_backend_folder,
    remove_folder,
    sweep_backend_folders,
    sweep_folders,
)

MINE, OTHER, THIRD = (f"dicomnode-7-{digit * 12}" for digit in "abc")


def folder(root: Path, name: str) -> Path:
    """As a server leaves it: links, and a socket."""
    made = root / name
    made.mkdir(mode=0o700)
    (made / "repository").symlink_to(root)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as end:
        here = Path.cwd()
        os.chdir(made)  # the path of a socket is short
        try:
            end.bind("t.sock:1")
        finally:
            os.chdir(here)
    return made


def test_a_folder_that_nobody_keeps_is_swept_and_nothing_else(tmp_path: Path) -> None:
    mine, dead, kept_one = folder(tmp_path, MINE), folder(tmp_path, OTHER), folder(tmp_path, THIRD)
    foreign = folder(tmp_path, "dicomnode-8-" + "d" * 12)
    alike = folder(tmp_path, "dicomnode-7-notes")
    with kept(kept_one, lambda: None):
        assert sweep_folders(mine) == [dead]
    assert [path.exists() for path in (mine, dead, kept_one, foreign, alike)] == [True, False, True, True, True]
    assert sweep_folders(mine) == [kept_one]


def test_what_is_no_link_and_no_socket_stays(tmp_path: Path) -> None:
    mine, dead = folder(tmp_path, MINE), folder(tmp_path, OTHER)
    (dead / "thesis.txt").write_text("precious")
    assert sweep_folders(mine) == []
    assert (dead / "thesis.txt").read_text() == "precious"
    remove_folder(mine)
    assert not mine.exists()


def test_a_folder_that_was_swept_in_the_wrong_moment_is_made_again(tmp_path: Path) -> None:
    wanted, times = tmp_path / MINE, []

    def make() -> None:
        times.append(1)
        if len(times) > 1:  # the first time it is gone before it could be locked
            folder(tmp_path, MINE)

    with kept(wanted, make):
        assert wanted.exists()
        assert sweep_folders(tmp_path / OTHER) == []
    assert len(times) == 2


@pytest.fixture
def backend_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(leftovers, "_BACKEND_FOLDERS", tmp_path)
    return tmp_path


def aged(path: Path, age_s: float) -> Path:
    path.mkdir()
    os.utime(path, (time.time() - age_s,) * 2)
    return path


class Server:
    def __init__(self, age_s: float) -> None:
        self._age_s = age_s

    def create_time(self) -> float:
        return time.time() - self._age_s


def test_tritons_folders_go_once_no_living_server_can_have_made_them(
    backend_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = aged(backend_root / "python_env_abcDEF", 500), aged(backend_root / "python_env_123456", 50)
    aged(backend_root / "python_env_of_mine", 500)
    in_use = backend_root / "python_env_abcABC"
    in_use.mkdir()
    (in_use / "bin").mkdir()
    os.utime(in_use, (0, 0))
    assert backend_folders() == {old, young}
    monkeypatch.setattr(leftovers, "_servers", lambda: iter([Server(100), Server(10)]))
    assert sweep_backend_folders() == [old]
    monkeypatch.setattr(leftovers, "_servers", lambda: iter(()))
    assert sweep_backend_folders() == [young]
    assert in_use.exists()
    assert (backend_root / "python_env_of_mine").exists()


def test_a_server_that_ended_takes_its_own_folder_along(backend_root: Path) -> None:
    mine, note = aged(backend_root / "python_env_abcDEF", 5), backend_root / "note"
    note.write_text(str(mine))
    remove_backend_folder(note)
    assert not mine.exists()
    assert not note.exists()
    remove_backend_folder(note)
    precious = backend_root / "precious"
    precious.mkdir()
    note.write_text(str(precious))
    remove_backend_folder(note)
    assert precious.exists()
