"""The one place that builds adapters from settings."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode.adapters.system_clock import SystemClock
from dicomnode.bootstrap.database import database_errors as database_errors
from dicomnode.bootstrap.database import migrate
from dicomnode.bootstrap.database import migrate_database as migrate_database
from dicomnode.bootstrap.database import open_state as open_state
from dicomnode.bootstrap.database import prepare_home as prepare_home
from dicomnode.bootstrap.database import shown_database as shown_database
from dicomnode.bootstrap.packages import add_package as add_package
from dicomnode.bootstrap.packages import model_store as model_store
from dicomnode.bootstrap.packages import tried_package as tried_package
from dicomnode.config import Settings
from dicomnode.errors import NotFound
from dicomnode.ports.progress import Told, nobody

if TYPE_CHECKING:
    from dicomnode.adapters.db.repositories import SqlState
    from dicomnode.adapters.dimse.storage_scp import StorageSCP
    from dicomnode.adapters.instance_store import FolderInstanceStore
    from dicomnode.adapters.quarantine import FolderQuarantine
    from dicomnode.adapters.queue.engine import DbosJobEngine
    from dicomnode.adapters.triton.engine import TritonEngine
    from dicomnode.adapters.triton.in_process import InProcessEngine
    from dicomnode.adapters.triton.server import TritonServer
    from dicomnode.domain.acceptance import Acceptance
    from dicomnode.domain.golden import GoldenCase
    from dicomnode.domain.tuning import Tuning
    from dicomnode.ports import InstanceStore, JobView, ModelVersion, Prover, State
    from dicomnode.stages.accept import AcceptStage
    from dicomnode.stages.accepted_here import AcceptedHere
    from dicomnode.stages.admission import InTurn
    from dicomnode.stages.ahead import Ahead
    from dicomnode.stages.commit import CommitmentTeller
    from dicomnode.stages.compare import CompareStage
    from dicomnode.stages.complete import Completer, Expecting
    from dicomnode.stages.counting import SourceCounter
    from dicomnode.stages.deliver import DestinationSink
    from dicomnode.stages.evidence import FactFinder
    from dicomnode.stages.infer import InferStage
    from dicomnode.stages.prove import ProofStage
    from dicomnode.stages.receive import ReceiveStage
    from dicomnode.stages.registry import Registry
    from dicomnode.stages.sources import KnownSources
    from dicomnode.stages.work import Work

# How long a receiver that is told to stop waits for its associations: the supervisor waits twice as long for it
ASSOCIATIONS_GRACE_S = 8.0

_WINDOWS_AT_ONCE_MOST = 4  # as the engines have it: hosts.networks

# Adapters are imported where they are built: `dicomnode rules list` must not wait for torch, nor a receiver hold it.


def state(settings: Settings) -> SqlState:
    """The state in a database that is made if need be. Raises DatabaseAway, DatabaseUnusable, InvalidSetting."""
    migrate_database(settings)
    return open_state(settings)


def known_state(settings: Settings) -> SqlState:
    """As `state`, of a node that has begun already: a mistyped home makes no new one. Raises NotFound."""
    from dicomnode.adapters.db.urls import checked_url, sqlite_file

    file = sqlite_file(checked_url(settings.sqlalchemy_url)) if settings.database_url else settings.database_file
    if file is not None and not file.exists():
        missing = f"database {file}" if settings.database_url else f"node under {settings.home}"
        raise NotFound(
            f"there is no {missing}; name the right folder (--home or DICOMNODE_HOME), or begin a node: dicomnode up"
        )
    migrate(settings)
    return open_state(settings)


def instance_store(settings: Settings) -> FolderInstanceStore:
    from dicomnode.adapters.instance_store import FolderInstanceStore

    return FolderInstanceStore(settings.store_folder)


def quarantine(settings: Settings) -> FolderQuarantine:
    from dicomnode.adapters.quarantine import FolderQuarantine

    return FolderQuarantine(settings.quarantine_folder, settings.quarantine_most_bytes)


@contextmanager
def preview(
    store: InstanceStore, state: State, job: JobView, *, host: str, port: int, key: str, viewer: Path | None
) -> Iterator[int]:
    """Serves a job's images and results meanwhile, with the OHIF of a folder; the port. See PreviewServer."""
    from dicomnode.adapters.dicomweb.face.catalogue import Catalogue
    from dicomnode.adapters.dicomweb.face.server import PreviewServer, serving
    from dicomnode.adapters.dicomweb.face.service import ReadOnlyService
    from dicomnode.adapters.dicomweb.face.viewer import OhifFiles, find_ohif, no_viewer, page_of
    from dicomnode.stages.preview import shown_of

    catalogue = Catalogue(shown_of(state, store, job))
    files = OhifFiles(find_ohif(viewer)) if viewer is not None else no_viewer
    page = page_of(catalogue.studies, next((r.series_instance_uid for r in job.results if r.kind == "SEG"), ""))
    server = PreviewServer((host, port), ReadOnlyService(catalogue), key, files, page)
    with serving(server):
        yield server.port


def result_sink(settings: Settings) -> DestinationSink:
    from dicomnode.adapters.dicomweb.stow import StowRs
    from dicomnode.adapters.dimse.storage_scu import StorageScu
    from dicomnode.adapters.sending_pace import SendingPaces
    from dicomnode.stages.deliver import DestinationSink

    paces = SendingPaces()
    return DestinationSink({"dimse": StorageScu(settings.ae_title, paces=paces.of), "stow": StowRs(paces=paces.of)})


def commitment_teller(settings: Settings, state: SqlState) -> CommitmentTeller:
    from dicomnode.adapters.dimse.commitment_report import CommitmentReporter
    from dicomnode.stages.commit import CommitmentTeller

    return CommitmentTeller(state, instance_store(settings), CommitmentReporter(settings.ae_title))


def proof_stage(settings: Settings, state: SqlState) -> ProofStage:
    from dicomnode.adapters.dicomweb.qido_proof import QidoProver
    from dicomnode.adapters.dimse.commitment_scu import CommitmentScu
    from dicomnode.stages.prove import ProofStage

    provers: dict[str, Prover] = {"dimse": CommitmentScu(settings.ae_title), "stow": QidoProver()}
    return ProofStage(state, provers, database_errors)


# ---------------------------------------------------------------------------------------------- the roles


def receive_stage(settings: Settings, state: SqlState) -> ReceiveStage:
    from dicomnode.stages.receive import ReceiveStage

    return ReceiveStage(instance_store(settings), state, SystemClock(), min_free_bytes=settings.min_free_bytes)


def known_sources(state: SqlState) -> KnownSources:
    from dicomnode.stages.sources import KnownSources

    return KnownSources(state)


def storage_scp(
    settings: Settings, receiver: ReceiveStage, state: SqlState, sources: KnownSources, name: str
) -> StorageSCP:
    """Its associations' names begin with `name`, which is RECEIVER/PROCESS."""
    from dicomnode.adapters.dimse.storage_scp import StorageSCP
    from dicomnode.stages.announce import AnnounceStage
    from dicomnode.stages.commit import CommitStage

    return StorageSCP(
        receiver,
        announcements=AnnounceStage(state, database_errors),
        commitments=CommitStage(state, instance_store(settings), database_errors),
        sources=sources,
        name=name,
        host=settings.dicom_host,
        port=settings.dicom_port,
        ae_title=settings.ae_title,
        check_called_ae_title=settings.check_called_ae_title,
        allowed_calling_ae_titles=settings.allowed_calling_ae_titles,
        max_pdu_bytes=settings.max_pdu_bytes,
        max_associations=settings.max_associations,
        reuse_port=True,
        grace_s=ASSOCIATIONS_GRACE_S,
    )


def find_triton() -> Path | None:
    """The tritonserver that would be used."""
    from dicomnode.adapters.triton.installation import find_server

    installation = find_server()
    return installation.program if installation else None


def uses_triton(settings: Settings) -> bool:
    return settings.engine == "triton" or (settings.engine == "auto" and find_triton() is not None)


def triton_server(settings: Settings) -> TritonServer:
    from dicomnode.adapters.triton.server import TritonServer

    return TritonServer(settings.triton_folder, settings.triton_threads)


def _triton_engine(settings: Settings) -> TritonEngine:
    from dicomnode.adapters.triton.engine import TritonEngine

    return TritonEngine(
        settings.triton_folder,
        settings.triton_threads,
        inner=settings.triton_inner,
        cuda=settings.triton_cuda_shared_memory,
    )


def sees_gpu() -> bool:
    """Whether the driver here has a GPU; nothing is loaded onto it for the look."""
    from dicomnode.adapters.machine import Gpu

    return Gpu.found() is not None


def torch_and_gpu() -> tuple[str, bool]:
    """The release of torch, and whether it sees a GPU."""
    import torch

    return torch.__version__, torch.cuda.is_available()


def why_not_on_gpu(settings: Settings) -> str:
    """Why volumes do not lie on the GPU for models there, tried out with the Triton that runs; empty when they do."""
    from dicomnode.adapters.triton.cuda_memory import NoCudaMemory, numbers_here
    from dicomnode.adapters.triton.on_gpu import OFF

    if not uses_triton(settings):
        return "models run in the worker's process"
    if settings.triton_cuda_shared_memory == OFF:
        return "the setting triton_cuda_shared_memory is off"
    try:
        numbers = numbers_here()
    except NoCudaMemory as error:
        return str(error)
    with _triton_engine(settings) as engine:
        return engine.gpu_volumes.tried(numbers) if engine.is_there() else "Triton does not run, so it was not tried"


def inference_engine(settings: Settings) -> TritonEngine | InProcessEngine:
    if uses_triton(settings):
        return _triton_engine(settings)
    from dicomnode.adapters.triton.in_process import InProcessEngine

    return InProcessEngine(settings.triton_folder, settings.triton_threads)


@contextmanager
def engine_at_hand(settings: Settings) -> Iterator[TritonEngine | InProcessEngine]:
    """For commands: the node's own Triton if it runs, else the same code in this process."""
    from dicomnode.adapters.triton.in_process import InProcessEngine

    if uses_triton(settings):
        with _triton_engine(settings) as engine:
            if engine.is_there():
                yield engine
                return
    with InProcessEngine(settings.triton_folder, settings.triton_threads) as inside:
        yield inside


def accept_stage(
    settings: Settings,
    engine: TritonEngine | InProcessEngine,
    before: Mapping[str, ModelVersion] | None = None,
    told: Told = nobody,
) -> AcceptStage:
    from dicomnode.adapters.triton.hosts import cpu_name
    from dicomnode.stages.accept import AcceptStage

    timeout_s = settings.inference_timeout_s
    return AcceptStage(engine, SystemClock(), timeout_s, before or {}, host=this_host(), cpu=cpu_name(), told=told)


def golden_cases(model: ModelVersion) -> tuple[GoldenCase, ...]:
    from dicomnode.adapters.golden_cases import read_golden_cases

    return read_golden_cases(model.path, model.card)


def accept(
    settings: Settings, model: ModelVersion, before: Mapping[str, ModelVersion], told: Told = nobody
) -> Acceptance:
    """What comes of a version's golden cases on this machine; without any nothing is loaded.

    `before` and `told` as of AcceptStage.
    """
    from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome

    if not (cases := golden_cases(model)):
        return Acceptance(AcceptanceOutcome.NONE, SystemClock().now(), host=this_host())
    with engine_at_hand(settings) as engine:
        return accept_stage(settings, engine, before, told).accept(model, cases)


def accepted_here(settings: Settings, state: SqlState, engine: TritonEngine | InProcessEngine) -> AcceptedHere:
    """What a worker of this machine serves."""
    from dicomnode.adapters.one_at_a_time import alone
    from dicomnode.stages.accepted_here import AcceptedHere

    return AcceptedHere(
        state,
        engine,
        lambda model, before: accept_stage(settings, engine, before).accept(model, golden_cases(model)),
        this_host(),
        SystemClock(),
        lambda model: alone(settings.run_folder / f"trying-{this_host()}-{model.digest[:16]}.lock"),
    )


def this_host() -> str:
    """The name by which acceptances tell machines apart."""
    return platform.node() or "this host"


def compare_stage(settings: Settings, state: State) -> CompareStage:
    from dicomnode.stages.compare import CompareStage

    return CompareStage(state, instance_store(settings), SystemClock())


def registry(settings: Settings, state: State, told: Told = nobody) -> Registry:
    """`told` is given a line about each thing that takes a while."""
    from dicomnode.stages.registry import Registry

    return Registry(
        state,
        lambda model, before: accept(settings, model, before, told),
        lambda model: warm(settings, model, told),
        host=this_host(),
    )


def warm(settings: Settings, model: ModelVersion, told: Told = nobody) -> None:
    """Loads a version into the node's Triton, if that runs here. Raises InferenceError."""
    if not uses_triton(settings):
        return
    with _triton_engine(settings) as engine:
        if engine.is_there():
            told(f"loads {model.name} {model.version} into the node's Triton")
            engine.describe(model)


def optimise(
    settings: Settings, model: ModelVersion, folders: Sequence[Path], runs: int, told: Told = nobody
) -> Tuning:
    """Tries a model in this process, on series in folders or else on golden cases. Raises UsageError, ModelFailed.

    Where the node's Triton runs and has a backend for the network, that is tried too.
    """
    import torch

    from dicomnode.adapters.golden_cases import read_golden_cases
    from dicomnode.adapters.triton.hosts import cores, cpu_name
    from dicomnode.adapters.triton.in_process import InProcessEngine
    from dicomnode.stages.optimise import OptimiseStage, trials_of

    has_gpu, threads = torch.cuda.is_available(), settings.triton_threads or cores()
    machine = torch.cuda.get_device_name() if has_gpu else f"{cpu_name()}, {threads} threads"
    trials = trials_of(model, folders, read_golden_cases(model.path, model.card))
    with InProcessEngine(settings.triton_folder, settings.triton_threads) as engine, engine_at_hand(settings) as node:
        triton = None if isinstance(node, InProcessEngine) or not node.reads(model) else node
        stage = OptimiseStage(
            engine,
            SystemClock(),
            settings.inference_timeout_s,
            has_gpu=has_gpu,
            machine=machine,
            told=told,
            triton=triton,
        )
        return stage.optimise(model, trials, runs)


def infer_stage(settings: Settings, engine: TritonEngine | InProcessEngine) -> InferStage:
    from dicomnode.stages.infer import InferStage

    return InferStage(instance_store(settings), engine, SystemClock(), settings.inference_timeout_s)


def ahead(settings: Settings, state: SqlState, infer: InferStage) -> Ahead:
    from dicomnode.stages.ahead import Ahead
    from dicomnode.stages.route import RouteStage

    clock = SystemClock()
    route = RouteStage(state, instance_store(settings), clock)
    return Ahead(state, route, infer, clock, lambda: bool(state.open_work()[0]))


def completer(settings: Settings, state: SqlState, expecting: Expecting | None = None) -> Completer:
    from dicomnode.domain.completeness import Policy
    from dicomnode.stages.complete import Completer
    from dicomnode.stages.route import RouteStage
    from dicomnode.stages.route_beside import ROUTED_AT_ONCE

    clock = SystemClock()
    policy = Policy(
        quiet_period_s=settings.quiet_period_s,
        study_quiet_period_s=settings.study_quiet_period_s,
        release_grace_s=settings.release_grace_s,
    )
    return Completer(
        state,
        RouteStage(state, instance_store(settings), clock),
        clock,
        policy,
        counter=source_counter(settings),
        sources=lambda: {source.ae_title: source for source in state.sources()},
        expecting=expecting,
        executor=ThreadPoolExecutor(ROUTED_AT_ONCE, thread_name_prefix="route"),
    )


def fact_finder(settings: Settings, state: SqlState) -> FactFinder:
    from dicomnode.stages.evidence import FactFinder

    return FactFinder(state, instance_store(settings))


def source_counter(settings: Settings) -> SourceCounter:
    from dicomnode.adapters.dicomweb.qido import QidoRs
    from dicomnode.adapters.dimse.query_scu import QueryScu
    from dicomnode.stages.counting import SourceCounter

    return SourceCounter({"dimse": QueryScu(settings.ae_title), "stow": QidoRs()})


def work(settings: Settings, state: SqlState, infer: InferStage) -> Work:
    from dicomnode.stages.deliver import DeliverStage
    from dicomnode.stages.encode import EncodeStage
    from dicomnode.stages.work import Work

    store, clock = instance_store(settings), SystemClock()
    return Work(
        infer,
        EncodeStage(store, clock, device_serial_number=settings.ae_title, quarantine=quarantine(settings)),
        DeliverStage(result_sink(settings), store, state),
    )


def job_engine(
    settings: Settings, state: SqlState, work: Work, engine: TritonEngine | InProcessEngine, here: AcceptedHere
) -> DbosJobEngine:
    from dicomnode.adapters.queue.engine import DbosJobEngine
    from dicomnode.stages.accepted_here import OnlyAccepted

    return DbosJobEngine(
        settings.sqlalchemy_url,
        state,
        work,
        job_concurrency=settings.jobs_at_once,
        admission=OnlyAccepted(here, admission(settings, state, engine)),
    )


def admission(settings: Settings, state: SqlState, engine: TritonEngine | InProcessEngine) -> InTurn:
    """By the memory of this host; Triton's models get what they work on through /dev/shm."""
    from dicomnode.adapters.ledger import FolderLedger
    from dicomnode.adapters.machine import LocalMachine, cores
    from dicomnode.stages.admission import InTurn
    from dicomnode.stages.peaks import KeptPeaks
    from dicomnode.stages.sizes import SeriesSizes

    machine = LocalMachine(uses_shared=uses_triton(settings))
    windows_at_once = min(settings.triton_threads or cores(), _WINDOWS_AT_ONCE_MOST)
    return InTurn(
        settings.jobs_at_once,
        machine,
        SeriesSizes(instance_store(settings)),
        windows_at_once,
        engine.taken,
        KeptPeaks(state, engine, this_host()),
        FolderLedger(settings.run_folder / f"promised-{this_host()}"),
    )
