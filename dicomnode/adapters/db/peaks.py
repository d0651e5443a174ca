"""What versions took of memory when they ran last, on each machine and engine."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import ModelPeakRow, ModelRow


def peak(session: Session, digest: str, host: str, engine: str) -> tuple[Mapping[str, float], int] | None:
    row = session.scalar(_of(digest, host, engine))
    return None if row is None else (dict(row.memory), row.voxels)


def record_peak(unit: Unit, digest: str, host: str, engine: str, memory: Mapping[str, float], voxels: int) -> None:
    """In place of an earlier one; nothing of a version that was removed meanwhile."""
    row = unit.session.scalar(_of(digest, host, engine).with_for_update())
    if row is None:
        for model_id in unit.session.scalars(sa.select(ModelRow.id).where(ModelRow.digest == digest)):
            unit.session.merge(
                ModelPeakRow(model_id=model_id, host=host, engine=engine, memory=dict(memory), voxels=voxels)
            )
        return
    row.memory, row.voxels = dict(memory), voxels


def _of(digest: str, host: str, engine: str) -> sa.Select[ModelPeakRow]:
    return (
        sa.select(ModelPeakRow)
        .join(ModelRow, ModelPeakRow.model_id == ModelRow.id)
        .where(ModelRow.digest == digest, ModelPeakRow.host == host, ModelPeakRow.engine == engine)
    )
