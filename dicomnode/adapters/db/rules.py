"""Rules: their revisions, none of which ever changes, and which of them is in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import RuleRow
from dicomnode.errors import NotFound
from dicomnode.ports import RuleRevision


def rules(session: Session) -> list[RuleRevision]:
    return [_rule(row) for row in session.scalars(sa.select(RuleRow).where(RuleRow.in_force).order_by(RuleRow.name))]


def enabled_rules(session: Session) -> list[RuleRevision]:
    return [rule for rule in rules(session) if rule.document.get("enabled", True)]


def add_rule(unit: Unit, name: str, document: Mapping[str, Any], author: str = "", reason: str = "") -> RuleRevision:
    unit.alone_with(RuleRow)
    revisions = unit.session.scalars(sa.select(RuleRow).where(RuleRow.name == name).order_by(RuleRow.revision)).all()
    for row in (r for r in revisions if r.in_force):
        if row.document == document:
            return _rule(row)
        row.in_force = False
    unit.session.flush()  # the old revision goes before the new one comes: at most one is in force
    revision = revisions[-1].revision + 1 if revisions else 1
    new = RuleRow(name=name, revision=revision, document=dict(document), in_force=True, created_at=unit.now())
    unit.session.add(new)
    unit.session.flush()
    unit.tell("rule.added", f"Rule {name} revision {revision} is in force")
    return _rule(new)


def remove_rule(unit: Unit, name: str, author: str = "", reason: str = "") -> None:
    row = unit.session.scalar(sa.select(RuleRow).where(RuleRow.name == name, RuleRow.in_force).with_for_update())
    if row is None:
        raise NotFound(f"there is no rule {name}")
    row.in_force = False
    unit.tell("rule.removed", f"Rule {name} was removed")


def _rule(row: RuleRow) -> RuleRevision:
    return RuleRevision(row.id, row.name, row.revision, row.document)


def rule_history(session: Session, name: str) -> list[RuleRevision]:
    raise NotImplementedError
