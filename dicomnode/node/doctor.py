"""Is everything there that a node needs?"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dicomnode import bootstrap
from dicomnode.config import Settings
from dicomnode.errors import DicomNodeError
from dicomnode.node.status import read_status
from dicomnode.ports import ModelVersion

SHARED_MEMORY_WANTED_BYTES = 2 << 30

Verdict = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    verdict: Verdict
    words: str


def examine(settings: Settings) -> list[Finding]:
    """All findings; a check that fails says what to do and does not stop the others."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _home,
        _disk,
        _shared_memory,
        _triton,
        _database,
        _port,
        _models_and_rules,
        _destinations,
    )
    return [finding for check in checks for finding in _guarded(check, settings)]


def _guarded(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    try:
        return list(check(settings))
    except (DicomNodeError, OSError) as error:
        return [Finding(check.__name__.strip("_").replace("_", " "), "bad", str(error))]


def _home(settings: Settings) -> Iterator[Finding]:
    bootstrap.prepare_home(settings)
    writable = os.access(settings.home, os.W_OK)
    yield Finding("home", "ok" if writable else "bad", f"{settings.home} {'' if writable else 'cannot be written'}")


def _disk(settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage(settings.home).free
    words = f"{free / 1e9:.1f} GB free; images are refused below {settings.min_free_bytes / 1e9:.1f} GB"
    yield Finding("disk", "ok" if free > settings.min_free_bytes else "bad", words)


def _shared_memory(settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage("/dev/shm").free
    words = f"{free / 1e9:.1f} GB free in /dev/shm"
    if free < SHARED_MEMORY_WANTED_BYTES:
        yield Finding("shared memory", "note", f"{words}; big volumes need 2 GB (docker: --shm-size=2g)")
    else:
        yield Finding("shared memory", "ok", words)


def _triton(settings: Settings) -> Iterator[Finding]:
    found = bootstrap.find_triton()
    if settings.engine == "in-process":
        yield Finding("triton", "note", "not used: the setting engine is in-process")
    elif found:
        yield Finding("triton", "ok", f"server at {found}")
    else:
        needed = settings.engine == "triton"
        words = "no server found (set TRITON_SERVER_PATH, or pip install nvidia-pytriton on x86-64 Linux)"
        yield Finding("triton", "bad" if needed else "note", words + ("" if needed else "; models run in-process"))


def _database(settings: Settings) -> Iterator[Finding]:
    bootstrap.state(settings).counts()
    yield Finding("database", "ok", bootstrap.shown_database(settings))


def _port(settings: Settings) -> Iterator[Finding]:
    status = read_status(settings, bootstrap.state(settings))
    if status.running:
        yield Finding("dicom port", "ok", f"this node listens on {status.dicom_port}")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.dicom_host, settings.dicom_port))
        except OSError as error:
            yield Finding("dicom port", "bad", f"{settings.dicom_port}: {error.strerror}; give another --dicom-port")
            return
    yield Finding("dicom port", "ok", f"{settings.dicom_port} is free")


def _none_active(models: Sequence[ModelVersion]) -> str:
    if not models:
        return "none; dicomnode models add FOLDER"
    return f"none is active; dicomnode models activate {models[-1].name} {models[-1].version}"


def _models_and_rules(settings: Settings) -> Iterator[Finding]:
    state = bootstrap.state(settings)
    models, rules = state.models(), state.enabled_rules()
    active = [f"{m.name} {m.version}" for m in models if m.active]
    yield (Finding("models", "ok", ", ".join(active)) if active else Finding("models", "note", _none_active(models)))
    there = {(m.name, m.version) for m in models} | {(m.name, "active") for m in models if m.active}
    for rule in rules:
        wanted = (rule.document.get("model"), rule.document.get("version", "active"))
        if wanted[0] and wanted not in there:
            yield Finding(
                "rules", "bad", f"{rule.name} wants the model {wanted[0]}, version {wanted[1]}: there is none"
            )
    yield (
        Finding("rules", "ok", ", ".join(r.name for r in rules))
        if rules
        else Finding("rules", "note", "none, so nothing is routed; dicomnode rules add FILE")
    )


def _destinations(settings: Settings) -> Iterator[Finding]:
    destinations = bootstrap.state(settings).destinations()
    sink = bootstrap.result_sink(settings)
    if not destinations:
        yield Finding("destinations", "note", "none; dicomnode destinations add NAME --dimse AET@HOST:PORT")
    for destination in destinations:
        try:
            yield Finding("destination", "ok", f"{destination.name}: {sink.echo(destination)}")
        except DicomNodeError as error:
            yield Finding("destination", "bad", f"{destination.name}: {error}")
