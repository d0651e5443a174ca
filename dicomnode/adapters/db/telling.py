"""Lines of a study's story about its jobs."""

from __future__ import annotations

from typing import Any

from dicomnode.adapters.db.receive import name_of
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, ModelRow, SeriesRow


def tell_job(unit: Unit, job: JobRow, kind: str, words: str, **detail: Any) -> None:
    """A line about a job, as in "torso-ct 1.0.0 on CT series 3: started"."""
    series = unit.session.get_one(SeriesRow, job.series_id)
    model = unit.session.get_one(ModelRow, job.model_id)
    unit.tell(
        kind,
        f"{model.name} {model.version} on {name_of(series)}: {words}",
        study_instance_uid=series.study.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        job_id=job.id,
        detail=detail,
    )
