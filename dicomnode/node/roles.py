"""What each process of a node does."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from types import TracebackType
from typing import TYPE_CHECKING

from dicomnode import bootstrap
from dicomnode.config import Settings
from dicomnode.errors import DatabaseAway, DicomNodeError
from dicomnode.node.association_names import AssociationNames, association_names
from dicomnode.node.listening import listening
from dicomnode.node.model_loop import ModelLoop
from dicomnode.node.process import start_log, stop_on_signals, stop_with_parent
from dicomnode.node.supervisor import forget_ready, write_ready, write_starting, write_troubles
from dicomnode.ports import EngineState, State

if TYPE_CHECKING:
    from dicomnode.adapters.triton.engine import TritonEngine
    from dicomnode.adapters.triton.in_process import InProcessEngine
    from dicomnode.stages.evidence import FactFinder
    from dicomnode.stages.receive import ReceiveStage
    from dicomnode.stages.sources import KnownSources

log = logging.getLogger(__name__)

COMPLETE_POLL_S = 0.1
FACTS_POLL_S = 0.5
FACTS_PAUSE_S = 0.05  # between two series
GARBAGE_LEAST = 20_000  # objects more than went, until Python looks for cycles by itself
SWITCH_S = 0.0005  # until a thread that computes lets one go on that sends
FACTS_REST_S = 2.0  # after the last job: its results are on their way
FACTS_POSTPONED_MOST_S = 30.0  # on a node that is never idle
OUTAGE_POLL_S = 2.0


def run(role: str, settings: Settings, name: str, *, supervised: bool) -> None:
    """Blocks until told to stop; an error ends the process, and who supervises it starts it again."""
    bootstrap.prepare_home(settings)
    start_log(settings, name)
    stop = stop_on_signals()
    if supervised:
        stop_with_parent(stop)
    log.info("%s starts", name)
    write_starting(settings.run_folder, name, "starts")
    try:
        ROLES[role](settings, name, stop)
    except DicomNodeError as error:
        log.error("%s ends: %s", name, error)
        raise
    finally:
        forget_ready(settings.run_folder, name)
    log.info("%s ends", name)


def receiver(settings: Settings, name: str, stop: threading.Event) -> None:
    names = association_names(settings.home, name)
    with bootstrap.open_state(settings) as state:
        stage = bootstrap.receive_stage(settings, state)
        sources = bootstrap.known_sources(state)
        _keep_what_is_loaded()
        try:
            # images are taken from the first moment, and indexed once the database is there
            with (
                listening(bootstrap.storage_scp(settings, stage, state, sources, names.process), settings) as scp,
                _Loop("index", lambda: _index(settings, state, stage, sources, names, stop), stop),
            ):
                write_ready(settings.run_folder, name, dicom_port=scp.port)
                log.info("listens on %s port %d as %s", settings.dicom_host, scp.port, settings.ae_title)
                stop.wait()
        finally:
            stage.indexer.stop()


def _index(
    settings: Settings,
    state: State,
    stage: ReceiveStage,
    sources: KnownSources,
    names: AssociationNames,
    stop: threading.Event,
) -> None:
    outlast(lambda: bootstrap.migrate_database(settings), stop)
    outlast(lambda: state.associations_lost(names.receiver, but=names.process), stop)
    if not stop.is_set():
        stage.indexer.start()
    outlast(lambda: sources.run(stop), stop)


def worker(settings: Settings, name: str, stop: threading.Event) -> None:
    write_starting(settings.run_folder, name, "waits for the database")
    outlast(lambda: bootstrap.migrate_database(settings), stop)
    if stop.is_set():
        return
    write_starting(settings.run_folder, name, "loads the models")
    state = bootstrap.open_state(settings)
    proofs, teller = bootstrap.proof_stage(settings, state), bootstrap.commitment_teller(settings, state)
    leisure = _Leisure(bootstrap.fact_finder(settings, state), state)
    with bootstrap.inference_engine(settings) as engine, closing(bootstrap.infer_stage(settings, engine)) as infer:
        work, ahead = bootstrap.work(settings, state, infer), bootstrap.ahead(settings, state, infer)
        completer = bootstrap.completer(settings, state, ahead)
        here = bootstrap.accepted_here(settings, state, engine)
        models = ModelLoop(state, engine, here, lambda said: write_troubles(settings.run_folder, name, said))
        tried = threading.Event()
        with _Loop("start", lambda: _let_go(engine, stop, tried), stop):
            try:
                work.warm_up(state.models())
                models.prepare()
            finally:
                tried.set()
        if stop.is_set():
            return
        _keep_what_is_loaded()
        _put_off_garbage()
        sys.setswitchinterval(SWITCH_S)
        with (
            closing(completer),
            closing(ahead),
            bootstrap.job_engine(settings, state, work, engine, here),
            _Loop(
                "complete", lambda: outlast(lambda: completer.run(stop, COMPLETE_POLL_S), stop), stop
            ) as completing,
            _Loop("models", lambda: outlast(lambda: models.run(stop), stop), stop) as preparing,
            _Loop("leisure", lambda: outlast(lambda: leisure.run(stop), stop), stop) as resting,
            _Loop("proofs", lambda: outlast(lambda: proofs.run(stop), stop), stop) as proving,
            _Loop("commitments", lambda: outlast(lambda: teller.run(stop), stop), stop) as telling,
        ):
            write_ready(settings.run_folder, name, troubles=models.troubles)
            stop.wait()
        for loop in (completing, preparing, resting, proving, telling):
            loop.check()


def _keep_what_is_loaded() -> None:
    """Modules and tables stay for as long as the process: nobody need look through them for garbage."""
    gc.collect()
    gc.freeze()


def _put_off_garbage() -> None:
    """Until no job runs (see _Leisure): looking for it takes a tenth of a second or more."""
    gc.set_threshold(GARBAGE_LEAST, *gc.get_threshold()[1:])


def _let_go(engine: TritonEngine | InProcessEngine, stop: threading.Event, tried: threading.Event) -> None:
    """A stop while models load does not wait for them."""
    while not tried.wait(0.1):
        if stop.is_set():
            engine.close()
            return


def triton(settings: Settings, name: str, stop: threading.Event) -> None:
    if not bootstrap.uses_triton(settings):
        log.info("there is no Triton server here; models run in the workers")
        write_ready(settings.run_folder, name)
        stop.wait()
        return
    server = bootstrap.triton_server(settings)
    write_starting(settings.run_folder, name, "starts its server")
    with _Loop("ready", lambda: _announce(settings, name, server.wait_ready, stop), stop):
        server.serve_forever(stop)


def _announce(settings: Settings, name: str, wait_ready: Callable[[float], bool], stop: threading.Event) -> None:
    while not stop.is_set():
        if wait_ready(0.2):
            write_ready(settings.run_folder, name)
            return


def outlast(loop: Callable[[], None], stop: threading.Event) -> None:
    """Begins a loop again that an outage of the database ended: what it has loaded is worth keeping."""
    while not stop.is_set():
        try:
            with bootstrap.database_errors():
                loop()
                return
        except DatabaseAway as error:
            log.warning("the database is away, trying again: %s", error)
            stop.wait(OUTAGE_POLL_S)


class _Leisure:
    """While no job runs and none ended just now: collects garbage, and reads what routing left unread.

    Rules are asked about that later; jobs and their results are in a hurry now.
    """

    def __init__(self, finder: FactFinder, state: EngineState) -> None:
        self._finder, self._state = finder, state

    def run(self, stop: threading.Event) -> None:
        postponed_s, rested_s, pause_s, has_garbage = 0.0, 0.0, FACTS_POLL_S, False
        while not stop.wait(pause_s):
            jobs, _ = self._state.open_work()
            rested_s = 0.0 if jobs else rested_s + pause_s
            has_garbage = has_garbage or bool(jobs)
            if rested_s < FACTS_REST_S and postponed_s < FACTS_POSTPONED_MOST_S:
                postponed_s += pause_s
                continue
            if has_garbage:
                gc.collect()
                has_garbage = False
            pause_s = FACTS_PAUSE_S if self._finder.some(1) else FACTS_POLL_S
            postponed_s = 0.0


class _Loop(AbstractContextManager["_Loop"]):
    """A thread of a role. When it ends by an error the process must not go on without it: it sets `stop`."""

    def __init__(self, name: str, loop: Callable[[], None], stop: threading.Event) -> None:
        self._loop, self._stop = loop, stop
        self._finished = False
        self._thread = threading.Thread(target=self._run, name=name)

    def _run(self) -> None:
        try:
            self._loop()
            self._finished = True
        finally:
            if not self._finished:
                self._stop.set()

    def __enter__(self) -> _Loop:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join()

    def check(self) -> None:
        if not self._finished:
            raise RuntimeError(f"the thread {self._thread.name!r} ended by an error; the log says which")


ROLES: dict[str, Callable[[Settings, str, threading.Event], None]] = {
    "receiver": receiver,
    "worker": worker,
    "triton": triton,
}
