"""What is done with a result that its own check refused: it is kept aside, and the job says where and why."""

from __future__ import annotations

from dicomnode.errors import NonConformant, ReceiveError
from dicomnode.ports import JobWork, Quarantine, RefusedResult


def set_aside(quarantine: Quarantine | None, work: JobWork, error: NonConformant) -> str:
    """Why it was refused and where it lies, in words for the job."""
    words = f"{error.kind or 'a result'} did not pass its own check and is not sent: {error}"
    if quarantine is None:
        return words
    kind = error.kind or "result"
    refused = RefusedResult(work.series.study_instance_uid, work.job_id, kind, str(error), error.content)
    try:
        return f"{words}; kept in quarantine: {quarantine.keep(refused)}"
    except ReceiveError as why:  # no space: what was refused is still never sent
        return f"{words}; it could not be kept in quarantine: {why}"
