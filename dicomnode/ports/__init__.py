"""What the stages need from the world outside, as protocols; the adapters give it.

Threads throughout: every method may be called from several threads at once unless it says otherwise.
"""

from dicomnode.imaging.geometry import Placement, Rescale
from dicomnode.ports.clock import Clock
from dicomnode.ports.delivery import Prover, ResultSink
from dicomnode.ports.engine import Admission, Admitted, EngineState, Executor, JobEngine, JobHandlers, Pulse, Running
from dicomnode.ports.inference import ALL_IMAGES, InferenceEngine, InferenceSession
from dicomnode.ports.instances import InstanceStore, Quarantine, RefusedResult, Spooled, StoredFile
from dicomnode.ports.machine import Machine
from dicomnode.ports.state import State
from dicomnode.ports.views import (
    DeliveryChange,
    DeliveryFilter,
    DeliveryView,
    DestinationView,
    Forgotten,
    JobChange,
    JobFilter,
    JobView,
    PastSeries,
    PastStudy,
    SeriesView,
    StudyFilter,
    StudyView,
)
from dicomnode.ports.work import (
    Delivered,
    DeliveryOutcome,
    DeliveryWork,
    Event,
    JobFailed,
    JobFinished,
    JobOutcome,
    JobRefused,
    JobStopped,
    JobWork,
    ModelVersion,
    NewJob,
    NotDelivered,
    NotYet,
    ProofWork,
    RuleRevision,
    SeriesRouting,
)

__all__ = [
    "ALL_IMAGES",
    "Admission",
    "Admitted",
    "Clock",
    "Delivered",
    "DeliveryChange",
    "DeliveryFilter",
    "DeliveryOutcome",
    "DeliveryView",
    "DeliveryWork",
    "DestinationView",
    "EngineState",
    "Event",
    "Executor",
    "Forgotten",
    "InferenceEngine",
    "InferenceSession",
    "InstanceStore",
    "JobChange",
    "JobEngine",
    "JobFailed",
    "JobFilter",
    "JobFinished",
    "JobHandlers",
    "JobOutcome",
    "JobRefused",
    "JobStopped",
    "JobView",
    "JobWork",
    "Machine",
    "ModelVersion",
    "NewJob",
    "NotDelivered",
    "NotYet",
    "PastSeries",
    "PastStudy",
    "Placement",
    "ProofWork",
    "Prover",
    "Pulse",
    "Quarantine",
    "RefusedResult",
    "Rescale",
    "ResultSink",
    "RuleRevision",
    "Running",
    "SeriesRouting",
    "SeriesView",
    "Spooled",
    "State",
    "StoredFile",
    "StudyFilter",
    "StudyView",
]
