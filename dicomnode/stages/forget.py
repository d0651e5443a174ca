"""Forgetting a study: its rows first, then its files. What a crash leaves between the two, a repeat takes away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dicomnode.domain.job import ARRIVED_DELIVERY_STATES
from dicomnode.errors import NotFound
from dicomnode.ports import Forgotten, InstanceStore, JobView, Quarantine, State

# A file that got its place just now may be on its way into the database.
SETTLED_S = 60.0


@dataclass(frozen=True, slots=True)
class Removed:
    """What was taken away: out of the database, and how many files out of the store, its spool, quarantine."""

    forgotten: Forgotten
    files: int
    spooled: int


def forget(
    state: State,
    store: InstanceStore,
    key: str,
    settled_s: float = SETTLED_S,
    quarantine: Quarantine | None = None,
) -> Removed:
    """Raises NotFound, Ambiguous, and IllegalTransition while something of the study is still to be done."""
    forgotten = state.forget_study(key)
    study = forgotten.study_instance_uid
    spooled = store.discard_study(study)
    files = store.remove(forgotten.paths)
    left = [path for path in store.files_of(study, settled_s) if not _is_known(state, path)]
    aside = quarantine.forget(study) if quarantine is not None else 0
    return Removed(forgotten, files + store.remove(left) + aside, spooled)


def _is_known(state: State, path: str) -> bool:
    """Whether its series is in the database: in another study, or because its images have come again."""
    series_instance_uid = path.split("/")[2]
    try:
        study = state.study(series_instance_uid)
    except NotFound:
        return False
    return any(series.series_instance_uid == series_instance_uid for series in study.series)


def sent_of(jobs: Iterable[JobView]) -> dict[str, dict[str, int]]:
    """Destination → kind → how many results of these jobs arrived there; each once, whatever job sent it."""
    arrived = {
        (delivery.destination, delivery.kind, delivery.sop_instance_uid)
        for job in jobs
        for delivery in job.deliveries
        if delivery.state in ARRIVED_DELIVERY_STATES
    }
    found: dict[str, dict[str, int]] = {}
    for destination, kind, _ in sorted(arrived):
        kinds = found.setdefault(destination, {})
        kinds[kind] = kinds.get(kind, 0) + 1
    return found


def sent_words(sent: Mapping[str, Mapping[str, int]]) -> str:
    """What was sent to pacs (1 SEG, 1 SR) and web (1 SR)."""
    places = (f"{name} ({', '.join(f'{n} {kind}' for kind, n in kinds.items())})" for name, kinds in sent.items())
    return f"what was sent to {' and '.join(places)}"


def in_words(counts: Mapping[str, int]) -> str:
    """1 series, 12 instances, 1 job."""
    return ", ".join(f"{number} {_singular(noun) if number == 1 else noun}" for noun, number in counts.items())


def _singular(noun: str) -> str:
    return noun if noun == "series" else noun.removesuffix("s")
