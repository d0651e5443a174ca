"""Rules: their revisions, none of which ever changes, and which of them is in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.columns import storable
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import RuleRow
from dicomnode.domain.rule_diff import rule_differences
from dicomnode.domain.rules import RuleState
from dicomnode.errors import NotFound
from dicomnode.ports import RuleRevision

_AUTHOR_CHARACTERS_MOST = 64
_ORDER = 100  # of a document that names none, as in domain.rules.Rule


def rules(session: Session) -> list[RuleRevision]:
    return [_rule(row) for row in session.scalars(sa.select(RuleRow).where(RuleRow.in_force).order_by(RuleRow.name))]


def enabled_rules(session: Session) -> list[RuleRevision]:
    return sorted((rule for rule in rules(session) if _is_asked(rule.document)), key=_place)


def _is_asked(document: Mapping[str, Any]) -> bool:
    """A document that nobody can read is asked too: routing says that it is broken."""
    return document.get("enabled", True) is not False and document.get("state") != RuleState.DISABLED


def _place(rule: RuleRevision) -> tuple[float, str]:
    order = rule.document.get("order", _ORDER)
    return order if isinstance(order, int | float) else _ORDER, rule.name


def rule_history(session: Session, name: str) -> list[RuleRevision]:
    revisions = session.scalars(sa.select(RuleRow).where(RuleRow.name == name).order_by(RuleRow.revision)).all()
    if not revisions:
        raise NotFound(f"there is no rule {name}, and there never was; see dicomnode rules list")
    return [_rule(row) for row in revisions]


def add_rule(unit: Unit, name: str, document: Mapping[str, Any], author: str = "", reason: str = "") -> RuleRevision:
    unit.alone_with(RuleRow)
    revisions = unit.session.scalars(sa.select(RuleRow).where(RuleRow.name == name).order_by(RuleRow.revision)).all()
    for row in (r for r in revisions if r.in_force):
        if not rule_differences(row.document, document):  # spelt otherwise, perhaps, but the same rule
            return _rule(row)
        row.in_force = False
    unit.session.flush()  # the old revision goes before the new one comes: at most one is in force
    new = RuleRow(
        name=name,
        revision=revisions[-1].revision + 1 if revisions else 1,
        document=dict(document),
        in_force=True,
        created_at=unit.now(),
        author=storable(author, _AUTHOR_CHARACTERS_MOST),
        reason=storable(reason),
    )
    unit.session.add(new)
    unit.session.flush()
    unit.tell("rule.added", f"Rule {name} revision {new.revision} is in force{_by(author, reason)}")
    return _rule(new)


def remove_rule(unit: Unit, name: str, author: str = "", reason: str = "") -> None:
    row = unit.session.scalar(sa.select(RuleRow).where(RuleRow.name == name, RuleRow.in_force).with_for_update())
    if row is None:
        raise NotFound(f"there is no rule {name}; see dicomnode rules list")
    row.in_force = False
    row.removed_at, row.removed_why = unit.now(), storable(reason)
    row.removed_by = storable(author, _AUTHOR_CHARACTERS_MOST)
    unit.tell("rule.removed", f"Rule {name} was removed{_by(author, reason)}")


def _by(author: str, reason: str) -> str:
    return (f", by {author}" if author else "") + (f": {reason}" if reason else "")


def _rule(row: RuleRow) -> RuleRevision:
    return RuleRevision(
        id=row.id,
        name=row.name,
        revision=row.revision,
        document=row.document,
        author=row.author,
        reason=row.reason,
        created_at=row.created_at,
        in_force=row.in_force,
        removed_at=row.removed_at,
        removed_by=row.removed_by,
        removed_why=row.removed_why,
    )
