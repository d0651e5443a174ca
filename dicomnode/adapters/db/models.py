"""The registry of models: versions, which of them are active or a shadow, and who made them so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.columns import storable
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, ModelAcceptanceRow, ModelChangeRow, ModelRow, RuleRow
from dicomnode.domain.acceptance import Acceptance, acceptance_document, decisive, parse_acceptance
from dicomnode.domain.composition import needed, newly_broken
from dicomnode.domain.job import ACTIVE_JOB_STATES
from dicomnode.domain.model_card import ModelCard, card_document, parse_model_card
from dicomnode.domain.model_change import ModelChange, ModelChangeKind, active_before
from dicomnode.errors import AlreadyExists, IllegalTransition, NotFound
from dicomnode.ports import ModelVersion

_AUTHOR_CHARACTERS = 64
_HOST_CHARACTERS = 255
_MACHINES_MOST = 50  # of one version: a container has another name each time it is made


def model_of(row: ModelRow) -> ModelVersion:
    return ModelVersion(
        id=row.id,
        name=row.name,
        version=row.version,
        digest=row.digest,
        path=Path(row.path),
        card=parse_model_card(row.card),
        active=row.active,
        shadow=row.shadow,
        acceptances=_acceptances(row),
        tuning=row.tuning,
        author=row.author,
        reason=row.reason,
        created_at=row.created_at,
    )


def _acceptances(row: ModelRow) -> tuple[Acceptance, ...]:
    return tuple(parse_acceptance(one.document) for one in row.acceptances)


# ---------------------------------------------------------------------------------------------------- reading


def models(session: Session) -> list[ModelVersion]:
    return [model_of(row) for row in session.scalars(sa.select(ModelRow).order_by(ModelRow.name, ModelRow.id))]


def models_in_use(session: Session) -> list[ModelVersion]:
    """With those that come before one of them, as the registry is now and as it was for a job that waits."""
    waiting = session.execute(sa.select(JobRow.model_id, JobRow.options).where(JobRow.state.in_(ACTIVE_JOB_STATES)))
    awaited = {number for model_id, options in waiting for number in (model_id, *before_ids(options))}
    named = sa.tuple_(ModelRow.name, ModelRow.version).in_(named_by_rules(session))
    used = sa.or_(ModelRow.active, ModelRow.shadow, ModelRow.id.in_(awaited), named)
    chosen = [model_of(row) for row in session.scalars(sa.select(ModelRow).where(used).order_by(ModelRow.id))]
    if not any(model.card.after for model in chosen):
        return chosen
    known = models(session)
    every = {first.id: first for model in chosen for first in needed(model, known).values()}
    every |= {model.id: model for model in chosen}
    return [every[number] for number in sorted(every)]


def before_ids(options: Mapping[str, Any] | None) -> list[int]:
    """Of the versions that a job was made with, to run before its own."""
    return list((options or {}).get("before", {}).values())


def models_before(session: Session, options: Mapping[str, Any]) -> dict[str, ModelVersion]:
    """As JobWork.before."""
    return {
        called: model_of(row)
        for called, number in options.get("before", {}).items()
        if (row := session.get(ModelRow, number)) is not None
    }


def named_by_rules(session: Session) -> list[tuple[str, str]]:
    """Name and version of what rules in force ask for by its version."""
    documents = session.scalars(sa.select(RuleRow.document).where(RuleRow.in_force))
    named = ((str(d.get("model", "")), str(d.get("version", ""))) for d in documents if _is_asked(d))
    return [(name, version) for name, version in named if version not in ("", "active")]


def _is_asked(document: Mapping[str, Any]) -> bool:
    return bool(document.get("enabled", True)) and document.get("state") != "disabled"


def model_version(session: Session, name: str, version: str) -> ModelVersion | None:
    row = session.scalar(sa.select(ModelRow).where(ModelRow.name == name, ModelRow.version == version))
    return None if row is None else model_of(row)


def active_model(session: Session, name: str) -> ModelVersion | None:
    row = session.scalar(sa.select(ModelRow).where(ModelRow.name == name, ModelRow.active))
    return None if row is None else model_of(row)


def shadow_of(session: Session, name: str) -> ModelVersion | None:
    row = session.scalar(sa.select(ModelRow).where(ModelRow.name == name, ModelRow.shadow))
    return None if row is None else model_of(row)


def model_changes(session: Session, name: str) -> list[ModelChange]:
    query = sa.select(ModelChangeRow).where(ModelChangeRow.name == name).order_by(ModelChangeRow.id)
    return [
        ModelChange(ModelChangeKind(row.kind), row.name, row.version, row.at, row.author, row.reason)
        for row in session.scalars(query)
    ]


# --------------------------------------------------------------------------------------------------- changing


def add_model(
    unit: Unit, card: ModelCard, digest: str, path: Path, activate: bool, author: str, reason: str
) -> ModelVersion:
    unit.alone_with(ModelRow)
    row = _row(unit, card.name, card.version)
    if row is not None and row.digest != digest:
        raise AlreadyExists(f"{card.name} {card.version} is there with other content; give the new one a new version")
    if row is None:
        row = _new(unit, card, digest, author, reason)
    row.path, row.card = str(path), dict(card_document(card))
    unit.session.flush()
    if activate:
        _activate(unit, row, ModelChangeKind.ACTIVATED, author, reason)
    return model_of(row)


def _new(unit: Unit, card: ModelCard, digest: str, author: str, reason: str) -> ModelRow:
    row = ModelRow(
        name=card.name,
        version=card.version,
        digest=digest,
        path="",
        card={},
        active=False,
        created_at=unit.now(),
        author=storable(author, _AUTHOR_CHARACTERS),
        reason=reason,
    )
    unit.session.add(row)
    unit.tell("model.added", f"Model {card.name} {card.version} is registered", detail={"digest": digest})
    return row


def activate_model(unit: Unit, name: str, version: str, author: str, reason: str) -> ModelVersion:
    row = found_row(unit, name, version)
    _activate(unit, row, ModelChangeKind.ACTIVATED, author, reason)
    return model_of(row)


def rollback_model(unit: Unit, name: str, author: str, reason: str) -> ModelVersion:
    unit.alone_with(ModelRow)
    before = active_before(model_changes(unit.session, name))
    if not before:
        raise IllegalTransition(
            f"no version of {name} was active before; `dicomnode models activate {name} VERSION` chooses one"
        )
    row = found_row(unit, name, before)
    _activate(unit, row, ModelChangeKind.ROLLED_BACK, author, reason)
    return model_of(row)


def _activate(unit: Unit, row: ModelRow, kind: ModelChangeKind, author: str, reason: str) -> None:
    if row.active:
        return
    _check_accepted(row)
    with _kept_whole(unit):
        for other in _versions(unit, row.name):
            other.active = False
        unit.session.flush()  # at most one is active, in between too
        if row.shadow:
            _unshadow(unit, row, author, reason)
        row.active = True
        record_change(unit, row, kind, author, reason)


def deactivate_model(unit: Unit, name: str, author: str, reason: str) -> ModelVersion:
    unit.alone_with(ModelRow)
    row = next((version for version in _versions(unit, name) if version.active), None)
    if row is None:
        raise IllegalTransition(f"no version of {name} is active; `dicomnode models list` shows what is")
    with _kept_whole(unit):
        row.active = False
        record_change(unit, row, ModelChangeKind.DEACTIVATED, author, reason)
    return model_of(row)


def shadow_model(unit: Unit, name: str, version: str, author: str, reason: str) -> ModelVersion:
    unit.alone_with(ModelRow)
    before = next((row for row in _versions(unit, name) if row.shadow), None)
    row = found_row(unit, name, version) if version else before
    if row is None:
        raise IllegalTransition(f"no version of {name} is a shadow; `dicomnode models list` shows what is")
    if row is before and version:
        return model_of(row)
    if before is not None:
        _unshadow(unit, before, author, reason)
    if version:
        _shadow(unit, row, author, reason)
    return model_of(row)


def _shadow(unit: Unit, row: ModelRow, author: str, reason: str) -> None:
    if row.active:
        raise IllegalTransition(f"{row.name} {row.version} is active; a shadow is another version beside it")
    _check_accepted(row)
    with _kept_whole(unit):
        row.shadow = True
        record_change(unit, row, ModelChangeKind.SHADOWED, author, reason)


def _unshadow(unit: Unit, row: ModelRow, author: str, reason: str) -> None:
    row.shadow = False
    unit.session.flush()
    record_change(unit, row, ModelChangeKind.UNSHADOWED, author, reason)


def record_acceptance(unit: Unit, name: str, version: str, acceptance: Acceptance) -> ModelVersion:
    """In the place of an earlier one of the same machine, and of one that names none."""
    row = found_row(unit, name, version)
    host = storable(acceptance.host, _HOST_CHARACTERS)
    others = [one for one in row.acceptances if one.host not in (host, "")]
    for one in row.acceptances[:]:
        if one not in others[-_MACHINES_MOST + 1 :]:
            row.acceptances.remove(one)
    unit.session.flush()
    document = acceptance_document(acceptance)
    row.acceptances.append(ModelAcceptanceRow(host=host, at=acceptance.at, document=document))
    unit.tell("model.tried", f"Model {name} {version}: {acceptance.words}")
    unit.session.flush()
    return model_of(row)


def record_tuning(unit: Unit, name: str, version: str, tuning: Mapping[str, Any]) -> ModelVersion:
    row = found_row(unit, name, version)
    row.tuning = dict(tuning)
    unit.session.flush()
    return model_of(row)


# ------------------------------------------------------------------------------------------------------ parts


def found_row(unit: Unit, name: str, version: str) -> ModelRow:
    unit.alone_with(ModelRow)
    row = _row(unit, name, version)
    if row is None:
        there = ", ".join(other.version for other in _versions(unit, name))
        known = f"; there are: {there}" if there else " or any other version of it"
        raise NotFound(f"there is no model {name} {version}{known} (dicomnode models list)")
    return row


def _row(unit: Unit, name: str, version: str) -> ModelRow | None:
    return next((row for row in _versions(unit, name) if row.version == version), None)


def _versions(unit: Unit, name: str) -> list[ModelRow]:
    return list(unit.session.scalars(sa.select(ModelRow).where(ModelRow.name == name).order_by(ModelRow.id)))


@contextmanager
def _kept_whole(unit: Unit) -> Iterator[None]:
    """Refuses a change after which a model that runs would lack one that comes before it."""
    unit.alone_with(ModelRow)
    before = models(unit.session)
    yield
    unit.session.flush()
    if words := newly_broken(before, models(unit.session)):
        raise IllegalTransition(f"{words}; nothing was changed")


def _check_accepted(row: ModelRow) -> None:
    if not row.path:
        raise IllegalTransition(
            f"the files of {row.name} {row.version} were removed; dicomnode models add its package again"
        )
    acceptance = decisive(_acceptances(row))
    if acceptance is not None and not acceptance.allows_activation:
        raise IllegalTransition(
            f"{row.name} {row.version} is {acceptance.words}; it stays registered and runs nowhere"
        )


_WORDS = {
    ModelChangeKind.ACTIVATED: "is active",
    ModelChangeKind.ROLLED_BACK: "is active again",
    ModelChangeKind.DEACTIVATED: "is not active any more",
    ModelChangeKind.SHADOWED: "is a shadow",
    ModelChangeKind.UNSHADOWED: "is no shadow any more",
    ModelChangeKind.REMOVED: "is removed",
}


def record_change(unit: Unit, row: ModelRow, kind: ModelChangeKind, author: str, reason: str) -> None:
    unit.session.add(
        ModelChangeRow(
            at=unit.now(),
            kind=str(kind),
            name=row.name,
            version=row.version,
            author=storable(author, _AUTHOR_CHARACTERS),
            reason=reason,
        )
    )
    unit.tell(f"model.{str(kind).replace(' ', '-')}", f"Model {row.name} {row.version} {_WORDS[kind]}")
    unit.session.flush()
