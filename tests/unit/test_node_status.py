"""What `dicomnode status` and `dicomnode doctor` find: a node that starts, runs, has lost a part, or is not there."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode import bootstrap
from dicomnode.config import Settings
from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, CaseOutcome
from dicomnode.errors import DatabaseAway
from dicomnode.node import doctor
from dicomnode.node.doctor import Check, Finding, Patient
from dicomnode.node.listening import cannot_listen
from dicomnode.node.status import NODE, NodeStatus, ProcessStatus, in_words, read_status, state_of
from dicomnode.node.supervisor import (
    forget_ready,
    read_ready,
    read_said,
    write_down,
    write_ready,
    write_starting,
    write_troubles,
)
from dicomnode.ports import State
from tests.adapters.fake_cuda import FakeGpus, installed
from tests.adapters.state_material import model_card

ROLES = ["triton", "receiver-1", "worker-1"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path, ae_title="NODE", dicom_host="127.0.0.1", dicom_port=11112)
    made.run_folder.mkdir()
    return made


def node(settings: Settings, *, was_ready: bool) -> None:
    write_ready(settings.run_folder, NODE, roles=ROLES, dicom_port=104, was_ready=was_ready)


def status(settings: Settings) -> NodeStatus:
    return read_status(settings)


def test_nobody_is_there(settings: Settings) -> None:
    found = status(settings)
    assert (found.state, found.running, found.processes) == ("stopped", False, ())
    assert in_words(found) == "is not running (`dicomnode up` starts it)"


def test_a_node_that_starts_says_what_is_still_to_come(settings: Settings) -> None:
    node(settings, was_ready=False)
    assert in_words(status(settings)) == "is starting; still to come: triton, receiver-1, worker-1"
    write_ready(settings.run_folder, "triton")
    write_ready(settings.run_folder, "receiver-1", dicom_port=104)
    write_starting(settings.run_folder, "worker-1", "loads the models")
    found = status(settings)
    assert (found.state, found.running) == ("starting", True)
    assert [p.state for p in found.processes] == ["up", "up", "starting"]
    words = "is starting and listens on port 104 already; still to come: worker-1 (loads the models)"
    assert in_words(found) == words


def test_what_the_node_says_of_its_processes_is_not_under_their_ids(settings: Settings) -> None:
    node(settings, was_ready=False)
    write_starting(settings.run_folder, "triton", "waits for the database")
    write_down(settings.run_folder, "worker-1", "ended with status 1, is started again")
    triton, receiver, worker = status(settings).processes
    assert (triton.state, triton.doing, triton.pid) == ("starting", "waits for the database", None)
    assert (receiver.state, receiver.doing, receiver.pid) == ("down", "", None)
    assert (worker.state, worker.doing, worker.pid) == ("down", "ended with status 1, is started again", None)
    words = "triton (waits for the database), receiver-1, worker-1 (ended with status 1, is started again)"
    assert in_words(status(settings)).endswith(words)


def test_a_node_that_was_told_to_stop_says_so(settings: Settings) -> None:
    write_ready(settings.run_folder, NODE, roles=ROLES, dicom_port=104, stopping=True)
    write_ready(settings.run_folder, "triton")
    write_starting(settings.run_folder, "worker-1", "loads the models")
    found = status(settings)
    assert (found.state, found.running) == ("stopping", False)
    assert [(p.state, p.doing) for p in found.processes] == [
        ("stopping", "ends what it is at"),
        ("stopped", ""),
        ("stopping", "ends what it is at"),
    ]
    assert in_words(found) == "is stopping and accepts no more images; still to end: triton, worker-1"
    for name in ("triton", "worker-1"):
        forget_ready(settings.run_folder, name)
    assert in_words(status(settings)).endswith("still to end: the node itself")


def test_what_a_worker_cannot_serve_is_told_once_with_its_reason(settings: Settings) -> None:
    node(settings, was_ready=True)
    for name in ROLES:
        write_ready(settings.run_folder, name)
    assert status(settings).troubles == ()
    write_troubles(settings.run_folder, "worker-1", {"liver 1.0": "it was not ready after 300 s"})
    found = status(settings)
    assert found.troubles == ("liver 1.0 is not served: it was not ready after 300 s (worker-1)",)
    assert found.state == "running"
    write_ready(settings.run_folder, "worker-2", troubles={"liver 1.0": "it was not ready after 300 s"})
    (both,) = status(settings).troubles
    assert both.endswith("(worker-1, worker-2)")
    write_troubles(settings.run_folder, "worker-1", {})
    write_troubles(settings.run_folder, "nobody", {"x": "y"})
    assert status(settings).troubles == ("liver 1.0 is not served: it was not ready after 300 s (worker-2)",)


def test_a_node_that_is_ready_listens(settings: Settings) -> None:
    node(settings, was_ready=True)
    for name in ROLES:
        write_ready(settings.run_folder, name, **({"dicom_port": 104} if name == "receiver-1" else {}))
    found = status(settings)
    assert (found.state, found.running, found.dicom_port) == ("running", True, 104)
    assert in_words(found) == "listens on port 104"


def test_a_node_that_lost_a_part_names_it(settings: Settings) -> None:
    node(settings, was_ready=True)
    write_ready(settings.run_folder, "triton")
    write_starting(settings.run_folder, "worker-1", "loads the models")
    found = status(settings)
    assert found.state == "incomplete"
    words = "accepts no images; not up: receiver-1, worker-1 (loads the models); the logs say why"
    assert in_words(found) == words


def test_roles_that_run_alone_are_shown_too(settings: Settings) -> None:
    write_ready(settings.run_folder, "worker-of-host-b")
    found = status(settings)
    assert (found.state, [p.name for p in found.processes]) == ("running", ["worker-of-host-b"])
    assert in_words(found) == "runs on this host without a receiver"


def test_what_processes_said_that_are_gone_does_not_count(settings: Settings) -> None:
    node(settings, was_ready=True)
    file = settings.run_folder / f"{NODE}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": _ended_process()}))
    assert status(settings).state == "stopped"


def _ended_process() -> int:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


@pytest.mark.parametrize(
    ("states", "was_ready", "expected"),
    [
        ([], True, "stopped"),
        (["up", "up"], False, "running"),
        (["up", "starting"], False, "starting"),
        (["up", "down"], False, "starting"),
        (["up", "starting"], True, "incomplete"),
        (["starting"], True, "starting"),
        (["down", "down"], True, "incomplete"),
    ],
)
def test_the_state_of_the_whole(states: list[str], was_ready: bool, expected: str) -> None:
    processes = [ProcessStatus(f"p-{n}", state) for n, state in enumerate(states)]  # type: ignore[arg-type]
    assert state_of(processes, was_ready=was_ready) == expected


def test_what_is_starting_is_not_ready_and_is_taken_back(tmp_path: Path) -> None:
    write_starting(tmp_path, "worker-1", "loads the models")
    assert read_ready(tmp_path, "worker-1") is None
    assert (read_said(tmp_path, "worker-1") or {})["doing"] == "loads the models"
    forget_ready(tmp_path, "worker-1")
    assert read_said(tmp_path, "worker-1") is None


# ------------------------------------------------------------------------------------------------------ doctor


def verdicts(settings: Settings) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in doctor.examine(settings)}


def test_a_home_that_is_not_there_is_told_once_and_not_made(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "mistyped", dicom_host="127.0.0.1", dicom_port=0)
    findings = doctor.examine(settings)
    (told,) = [finding for finding in findings if finding.verdict == "bad"]
    assert told.what == "home"
    assert "`dicomnode up` makes it" in told.words
    assert [f.words for f in findings if str(settings.home) in f.words] == [told.words]
    skipped = [f.what for f in findings if f.verdict == "skipped"]
    assert skipped == ["disk", "database", "models", "rules", "destinations"]
    assert not settings.home.exists()


def test_a_database_that_is_away_is_told_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Settings) -> None:
        raise DatabaseAway("connection refused")

    monkeypatch.setattr(bootstrap, "known_state", away)
    findings = doctor.examine(settings)
    assert [f.what for f in findings if "connection refused" in f.words] == ["database"]
    words = {f.what: f.words for f in findings if f.verdict == "skipped"}
    assert words == dict.fromkeys(["models", "rules", "destinations"], "not checked: it needs the database")


def test_a_home_without_a_node_is_told_at_the_database(settings: Settings) -> None:
    found = verdicts(settings)
    assert (found["home"], found["disk"], found["database"]) == ("ok", "ok", "bad")
    assert sorted(file.name for file in settings.home.iterdir()) == ["run"]


@pytest.mark.parametrize("setting", ["auto", "off"])
def test_why_volumes_do_not_lie_on_the_gpu_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    settings = replace(settings, engine="triton", triton_cuda_shared_memory=setting)
    assert [(f.verdict, f.words) for f in doctor._gpu(Patient(settings, _no_state))] == [
        ("ok", "none here: models run on the CPU")
    ]
    monkeypatch.setattr(bootstrap, "sees_gpu", lambda: True)
    monkeypatch.setattr(bootstrap, "torch_and_gpu", lambda: ("2.13.0+cpu", False))
    (blind,) = doctor._gpu(Patient(settings, _no_state))
    assert blind.verdict == "note"
    assert "torch 2.13.0+cpu does not see it" in blind.words
    monkeypatch.setattr(bootstrap, "torch_and_gpu", lambda: ("2.13.0", True))
    for gpus, words in ((None, "cuda-python is not installed"), (FakeGpus(), "Triton does not run")):
        with installed(gpus):
            (found,) = doctor._gpu(Patient(settings, _no_state))
        assert found.verdict == "note"
        assert (words if setting == "auto" else "the setting triton_cuda_shared_memory is off") in found.words
    monkeypatch.setattr(bootstrap, "why_not_on_gpu", lambda settings: "")
    (well,) = doctor._gpu(Patient(settings, _no_state))
    assert (well.verdict, well.words) == ("ok", "torch 2.13.0 sees it; volumes lie on it for models")


def test_a_check_that_breaks_stops_only_those_that_need_it() -> None:
    def breaks(_: Patient) -> Iterator[Finding]:
        raise OSError(errno.EIO, "Input/output error")
        yield

    def fine(_: Patient) -> Iterator[Finding]:
        yield Finding("b", "ok", "fine")

    wanted = [
        Check("a", breaks),
        Check("b", fine),
        Check("c", fine, "a"),
        Check("d", fine, "c"),
        Check("e", fine, "b"),
    ]
    found = list(doctor._findings(wanted, Patient(Settings(), _no_state)))
    assert [(f.verdict, f.words) for f in found] == [
        ("bad", "[Errno 5] Input/output error"),
        ("ok", "fine"),
        ("skipped", "not checked: it needs the a"),
        ("skipped", "not checked: it needs the c"),
        ("ok", "fine"),
    ]


def _no_state() -> State:
    raise AssertionError


def test_where_a_version_is_not_served_is_told_machine_by_machine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, at = CaseOutcome("trunk", False, (), "Dice of Lungs is 0.5"), datetime(2026, 3, 1, tzinfo=UTC)
    with bootstrap.state(settings) as state:
        state.add_model(model_card(), "d" * 64, settings.home, activate=True)
        state.record_acceptance("torso-ct", "1.0.0", Acceptance(AcceptanceOutcome.FAILED, at, (case,), host="b"))
        told = {}
        for host in ("a", "b"):
            monkeypatch.setattr(bootstrap, "this_host", lambda host=host: host)
            told[host] = [(f.verdict, f.words) for f in doctor._models(Patient(settings, lambda: state))][1:]
    words = "torso-ct 1.0.0 is not served at b: not accepted here, at b: case trunk: Dice of Lungs is 0.5"
    assert told["b"] == [("bad", words)]
    assert told["a"] == [
        ("note", words),
        ("note", "torso-ct 1.0.0 was not tried at a: a worker here does so before it serves it"),
    ]


# --------------------------------------------------------------------------------------------------- listening


@pytest.mark.parametrize(
    ("error", "setting", "words"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "dicom_port", "another program listens there (`ss -ltnp` shows which)"),
        (
            OSError(errno.EADDRNOTAVAIL, "no"),
            "dicom_host",
            "that is no IPv4 address of this host; give one of its own",
        ),
        (socket.gaierror(-2, "not known"), "dicom_host", "that is no IPv4 address of this host"),
        (OSError(errno.EACCES, "denied"), "dicom_port", "ports below 1024 need a right that the node has not"),
        (OSError(errno.EMFILE, "Too many open files"), "dicom_port", "Too many open files; give another port"),
    ],
)
def test_why_it_cannot_listen(error: OSError, setting: str, words: str) -> None:
    said = cannot_listen(error, "192.0.2.7", 104)
    assert said.exit_code == 2
    assert said.path.startswith(setting)
    assert f"cannot listen on 192.0.2.7:104: {words}" in str(said)
