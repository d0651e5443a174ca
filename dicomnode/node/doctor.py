"""Is everything there that a node needs?"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Literal

from dicomnode import bootstrap
from dicomnode.config import Settings
from dicomnode.errors import DicomNodeError
from dicomnode.node.listening import cannot_listen
from dicomnode.node.status import jobs_in_words, read_status
from dicomnode.ports import ModelVersion, State

SHARED_MEMORY_WANTED_BYTES = 2 << 30

Verdict = Literal["ok", "note", "bad", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    verdict: Verdict  # skipped: it could not be looked at, for what another finding says
    words: str


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined; its database is opened when it is first asked for."""

    settings: Settings
    state: Callable[[], State]


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    find: Callable[[Patient], Iterator[Finding]]
    needs: str = ""  # the check without whose success this one has nothing to look at


def examine(settings: Settings) -> list[Finding]:
    """All findings; a check that fails says what to do, and stops only those that need what is missing."""
    with ExitStack() as closing:
        patient = Patient(settings, cache(lambda: closing.enter_context(bootstrap.known_state(settings))))
        return list(_findings(checks(settings), patient))


def checks(settings: Settings) -> tuple[Check, ...]:
    return (
        Check("home", _home),
        Check("disk", _disk, "home"),
        Check("shared memory", _shared_memory),
        Check("triton", _triton),
        Check("gpu", _gpu),
        Check("database", _database, "" if settings.database_url else "home"),
        Check("dicom port", _port),
        Check("jobs", _jobs),
        Check("models", _models, "database"),
        Check("rules", _rules, "database"),
        Check("destinations", _destinations, "database"),
    )


def _findings(wanted: Iterable[Check], patient: Patient) -> Iterator[Finding]:
    failed: set[str] = set()
    for check in wanted:
        if check.needs in failed:
            failed.add(check.what)
            yield Finding(check.what, "skipped", f"not checked: it needs the {check.needs}")
            continue
        for finding in _guarded(check, patient):
            if finding.verdict == "bad":
                failed.add(check.what)
            yield finding


def _guarded(check: Check, patient: Patient) -> list[Finding]:
    try:
        with bootstrap.database_errors():
            return list(check.find(patient))
    except (DicomNodeError, OSError) as error:
        return [Finding(check.what, "bad", str(error))]


def _home(patient: Patient) -> Iterator[Finding]:
    home = patient.settings.home
    if not home.is_dir():
        words = (
            f"there is no folder {home}: `dicomnode up` makes it; if it is elsewhere, give --home or DICOMNODE_HOME"
        )
        yield Finding("home", "bad", words)
    elif not os.access(home, os.W_OK | os.X_OK):
        yield Finding("home", "bad", f"{home} cannot be written by this user; run it as the user of the node")
    else:
        yield Finding("home", "ok", str(home))


def _disk(patient: Patient) -> Iterator[Finding]:
    free, least = shutil.disk_usage(patient.settings.home).free, patient.settings.min_free_bytes
    words = f"{free / 1e9:.1f} GB free; images are refused below {least / 1e9:.1f} GB"
    yield Finding("disk", "ok" if free > least else "bad", words)


def _shared_memory(patient: Patient) -> Iterator[Finding]:
    free = shutil.disk_usage("/dev/shm").free
    words = f"{free / 1e9:.1f} GB free in /dev/shm"
    if free < SHARED_MEMORY_WANTED_BYTES:
        yield Finding("shared memory", "note", f"{words}; big volumes need 2 GB (docker: --shm-size=2g)")
    else:
        yield Finding("shared memory", "ok", words)


def _triton(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    found = bootstrap.find_triton()
    if settings.engine == "in-process":
        yield Finding("triton", "note", "not used: the setting engine is in-process")
    elif found:
        yield Finding("triton", "ok", f"server at {found}")
    else:
        needed = settings.engine == "triton"
        words = "no server found (set TRITON_SERVER_PATH, or pip install nvidia-pytriton on x86-64 Linux)"
        yield Finding("triton", "bad" if needed else "note", words + ("" if needed else "; models run in-process"))


def _gpu(patient: Patient) -> Iterator[Finding]:
    if not bootstrap.sees_gpu():
        yield Finding("gpu", "ok", "none here: models run on the CPU")
        return
    release, seen = bootstrap.torch_and_gpu()
    if not seen:
        words = f"torch {release} does not see it, so models run on the CPU: install torch for this driver's CUDA"
        yield Finding("gpu", "note", f"{words} (docs/gpu.md)")
        return
    why_not = bootstrap.why_not_on_gpu(patient.settings)
    words = f"volumes go to it through system shared memory: {why_not}" if why_not else "volumes lie on it for models"
    yield Finding("gpu", "note" if why_not else "ok", f"torch {release} sees it; {words}")


def _jobs(patient: Patient) -> Iterator[Finding]:
    yield Finding("jobs", "ok", jobs_in_words(patient.settings))


def _database(patient: Patient) -> Iterator[Finding]:
    patient.state().counts()
    yield Finding("database", "ok", bootstrap.shown_database(patient.settings))


def _port(patient: Patient) -> Iterator[Finding]:
    settings, status = patient.settings, read_status(patient.settings)
    if status.running:
        yield Finding("dicom port", "ok", f"this node listens on {status.dicom_port}")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.dicom_host, settings.dicom_port))
        except OSError as error:
            said = cannot_listen(error, settings.dicom_host, settings.dicom_port)
            yield Finding("dicom port", "bad", str(said))
            return
    yield Finding("dicom port", "ok", f"{settings.dicom_port} is free")


def _none_active(models: Sequence[ModelVersion]) -> str:
    if not models:
        return "none; dicomnode models add FOLDER"
    return f"none is active; dicomnode models activate {models[-1].name} {models[-1].version}"


def _models(patient: Patient) -> Iterator[Finding]:
    models = patient.state().models()
    active = [f"{model.name} {model.version}" for model in models if model.active]
    yield Finding("models", "ok" if active else "note", ", ".join(active) or _none_active(models))
    for model in models:
        if model.active or model.shadow:
            yield from _accepted(model, bootstrap.this_host())


def _accepted(model: ModelVersion, host: str) -> Iterator[Finding]:
    """Machine by machine, where a version that is in use is not served."""
    for one in model.acceptances:
        if not one.allows_activation:
            words = f"{model.name} {model.version} is not served at {one.host}: {one.words}"
            yield Finding("golden cases", "bad" if one.host == host else "note", words)
    if model.acceptance_on(host) is None:
        words = f"{model.name} {model.version} was not tried at {host}: a worker here does so before it serves it"
        yield Finding("golden cases", "note", words)


def _rules(patient: Patient) -> Iterator[Finding]:
    rules, models = patient.state().enabled_rules(), patient.state().models()
    there = {(m.name, m.version) for m in models} | {(m.name, "active") for m in models if m.active}
    for rule in rules:
        wanted = (rule.document.get("model"), rule.document.get("version", "active"))
        if wanted[0] and wanted not in there:  # one that only stops the others names none
            words = f"{rule.name} wants the model {wanted[0]}, version {wanted[1]}: there is none"
            yield Finding("rules", "bad", words)
    words = ", ".join(rule.name for rule in rules) or "none, so nothing is routed; dicomnode rules add FILE"
    yield Finding("rules", "ok" if rules else "note", words)


def _destinations(patient: Patient) -> Iterator[Finding]:
    destinations, sink = patient.state().destinations(), bootstrap.result_sink(patient.settings)
    if not destinations:
        yield Finding("destinations", "note", "none; dicomnode destinations add NAME --dimse AET@HOST:PORT")
    for destination in destinations:
        try:
            yield Finding("destination", "ok", f"{destination.name}: {sink.echo(destination)}")
        except DicomNodeError as error:
            yield Finding("destination", "bad", f"{destination.name}: {error}")
