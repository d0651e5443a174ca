"""What is done with a result that its own check refused: it is kept aside, and the job says where and why."""

from __future__ import annotations

from dicomnode.errors import NonConformant, ReceiveError
from dicomnode.ports import JobWork, Quarantine, Quarantined, RefusedResult


def set_aside(quarantine: Quarantine | None, work: JobWork, error: NonConformant) -> Quarantined:
    kind = error.kind or "result"
    if quarantine is None:
        return Quarantined(kind, str(error))
    refused = RefusedResult(work.series.study_instance_uid, work.job_id, kind, str(error), error.content)
    try:
        return Quarantined(kind, str(error), quarantine.keep(refused))
    except ReceiveError as why:  # no space: what was refused is still never sent
        return Quarantined(kind, str(error), problem=str(why))
