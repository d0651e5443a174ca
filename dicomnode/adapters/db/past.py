"""The received past, a page at a time: what `rules replay` asks rules about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from dicomnode.ports import PastStudy


def past(
    session: Session, keywords: Sequence[str], facts: Sequence[str], since: datetime | None, page: int
) -> Iterator[PastStudy]:
    raise NotImplementedError
