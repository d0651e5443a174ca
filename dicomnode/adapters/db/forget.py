"""Taking a study out of the database."""

from __future__ import annotations

from dicomnode.adapters.db.session import Unit
from dicomnode.ports import Forgotten


def forget_study(unit: Unit, key: str) -> Forgotten:
    raise NotImplementedError
