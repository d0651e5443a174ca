"""The supervisor with real processes: restarts what ends, and leaves nothing behind."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomnode.node import supervisor
from dicomnode.node.supervisor import Role, Supervisor, forget_ready, read_ready, read_said, write_down, write_ready


def wait_until(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children run `python -c CODE` instead of `python -m dicomnode ARGUMENTS`."""
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", command[-1]], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(supervisor.subprocess, "Popen", start)
    monkeypatch.setattr(supervisor, "RESTART_FIRST_S", 0.05)


@pytest.mark.usefixtures("scripted")
def test_a_process_that_ends_is_started_again_and_all_end_with_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down: list[str] = []
    monkeypatch.setattr(supervisor, "write_down", lambda folder, name, why: down.append(why))
    note = tmp_path / "pids"
    code = f"import os, sys; open({str(note)!r}, 'a').write(f'{{os.getpid()}}\\n'); sys.stdin.read()"
    said: list[str] = []
    stop = threading.Event()
    whole = Supervisor([Role("one", ("run", code))], dict(os.environ), tmp_path / "logs", tmp_path, said.append)
    thread = threading.Thread(target=whole.run, args=(stop,))
    thread.start()

    def pids() -> list[int]:
        return [int(line) for line in note.read_text().split()] if note.exists() else []

    wait_until(lambda: len(pids()) == 1)
    begun = read_said(tmp_path, "one") or {}
    assert (begun["doing"], begun["pid"]) == ("starts", os.getpid())  # the process has said nothing itself
    os.kill(pids()[0], 9)
    wait_until(lambda: len(pids()) == 2)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert any("one ended with signal 9" in line for line in said)
    assert down == ["ended with signal 9, is started again"]
    for pid in pids():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_ready_is_only_what_a_living_process_said(tmp_path: Path) -> None:
    assert read_ready(tmp_path, "receiver-1") is None
    write_ready(tmp_path, "receiver-1", dicom_port=104)
    facts = read_ready(tmp_path, "receiver-1")
    assert facts is not None
    assert facts["dicom_port"] == 104
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    file = tmp_path / "receiver-1.json"
    file.write_text(file.read_text().replace(str(os.getpid()), ended.stdout.decode().strip()))
    assert read_ready(tmp_path, "receiver-1") is None


def test_what_is_down_is_not_ready(tmp_path: Path) -> None:
    write_down(tmp_path, "receiver-1", "ended with status 1")
    assert read_ready(tmp_path, "receiver-1") is None


def test_a_process_takes_back_only_what_it_said_itself(tmp_path: Path) -> None:
    write_ready(tmp_path, "receiver-1")
    forget_ready(tmp_path, "receiver-1")
    assert read_ready(tmp_path, "receiver-1") is None
    forget_ready(tmp_path, "receiver-1")  # nothing was said
    file = tmp_path / "receiver-1.json"
    successor = os.getppid()
    file.write_text(f'{{"pid": {successor}, "since": 0}}')
    forget_ready(tmp_path, "receiver-1")
    assert read_ready(tmp_path, "receiver-1") == {"pid": successor, "since": 0}


@pytest.mark.usefixtures("scripted")
def test_what_a_restarting_process_says_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_STDERR_MOST_BYTES", 100)
    stop = threading.Event()
    code = "import sys; print('x' * 60, file=sys.stderr)"
    whole = Supervisor([Role("one", ("run", code))], dict(os.environ), tmp_path, tmp_path, lambda _: None)
    thread = threading.Thread(target=whole.run, args=(stop,))
    thread.start()
    wait_until((tmp_path / "one.stderr.before").exists)
    stop.set()
    thread.join(20)
    assert (tmp_path / "one.stderr.before").stat().st_size < 200
