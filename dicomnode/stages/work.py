"""Joins the stages that the job engine calls: infer → encode for a job, deliver for a delivery."""

from __future__ import annotations

import logging
import resource
from collections.abc import Sequence

from dicomnode.errors import DicomNodeError, InferenceStopped, NonConformant, SeriesRefused
from dicomnode.ports import (
    DeliveryOutcome,
    DeliveryWork,
    JobFailed,
    JobFinished,
    JobOutcome,
    JobRefused,
    JobStopped,
    JobWork,
    ModelVersion,
)
from dicomnode.stages.answers import gives_arrays
from dicomnode.stages.deliver import DeliverStage
from dicomnode.stages.encode import EncodeStage
from dicomnode.stages.infer import Classified, Inference, InferStage, Pictured

log = logging.getLogger(__name__)


class Work:
    """ports.JobHandlers over the stages."""

    def __init__(self, infer: InferStage, encode: EncodeStage, deliver: DeliverStage) -> None:
        self._infer, self._encode, self._deliver = infer, encode, deliver

    def warm_up(self, models: Sequence[ModelVersion]) -> None:
        """Once, before the first job."""
        for model in models[:1]:
            self._encode.warm_up(model)

    def perform(self, work: JobWork) -> JobOutcome:
        try:
            return self._perform(work)
        except SeriesRefused as error:
            return JobRefused(getattr(error, "reason", error.code), str(error))
        except NonConformant as error:
            aside = self._encode.set_aside(work, error)
            return JobFailed(error.code, aside.words, error.retryable, (aside,))
        except InferenceStopped as error:
            return JobStopped(str(error))
        except DicomNodeError as error:
            return JobFailed(error.code, str(error), error.retryable)
        except OSError as error:
            return JobFailed("system", f"{error.strerror or error} ({error.filename or 'no file'})", True)
        except MemoryError:
            return JobFailed("out-of-memory", "the host has too little memory for this series", True)

    def _perform(self, work: JobWork) -> JobFinished:
        inference: Inference | Classified | Pictured
        if gives_arrays(work.model):
            with self._infer.run(work) as inference:
                encoded = self._encode.run(work, inference)
        elif work.model.card.output.of_images:
            with self._infer.on_images(work) as inference:
                encoded = self._encode.on_images(work, inference)
        else:
            inference = self._infer.classify(work)
            encoded = self._encode.few(work, inference)
        work.halt.check()
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return JobFinished(
            results=encoded.results,
            timings_s={**inference.timings_s, **encoded.timings_s},
            details={**inference.details, **encoded.details, "worker_peak_bytes": peak_bytes},
            note=encoded.note,
            quarantined=encoded.quarantined,
        )

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome:
        return self._deliver.deliver(work)
