"""Index: what lies in the spool gets its place in the store and its row in the database."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from dicomnode.domain.quantity import quantity
from dicomnode.domain.study import ReceivedInstance, Recorded
from dicomnode.encoding.part10 import Unreadable, data_set_sha256
from dicomnode.errors import ReceiveError
from dicomnode.ports import Clock, Event, InstanceStore, Spooled, State, StoredFile
from dicomnode.stages.instance_header import Header as Header
from dicomnode.stages.instance_header import header_of_file
from dicomnode.stages.instance_header import read_header as read_header

log = logging.getLogger(__name__)

BATCH_MOST = 64
GATHER_S = 0.2  # a batch waits so long to grow: one commit and one fsync then serve many instances
LEFTOVERS_EVERY_S = 30.0
BACKOFF_FIRST_S = 0.25
BACKOFF_MOST_S = 10.0


@dataclass(frozen=True, slots=True)
class Arrival:
    spooled: Spooled
    header: Header | None = None  # None: left behind by a process that died
    association: str = ""


@dataclass(frozen=True, slots=True)
class AssociationEnd:
    association: str
    calling_ae_title: str
    called_ae_title: str
    how: str  # "released" or "aborted"
    refusals: Mapping[str, int] = field(default_factory=dict)  # reason → how many instances
    turned_away: Sequence[str] = ()  # what it proposed and may not send by its sender's settings


# ------------------------------------------------------------------------------------------------- decisions


def received_instance(
    header: Header, stored: StoredFile, spooled: Spooled, association: str = ""
) -> ReceivedInstance:
    return ReceivedInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        path=stored.path,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        received_at=spooled.received_at,
        calling_ae_title=spooled.calling_ae_title,
        called_ae_title=spooled.called_ae_title,
        modality=header.modality,
        manufacturer=header.manufacturer,
        instance_number=header.instance_number,
        series_number=header.series_number,
        series_description=header.series_description,
        patient_id=header.patient_id,
        accession_number=header.accession_number,
        study_date=header.study_date,
        study_description=header.study_description,
        association=association,
        number_of_frames=header.number_of_frames,
        plane=header.plane,
        position_mm=header.position_mm,
        images_announced=header.images_announced,
    )


@dataclass(frozen=True, slots=True)
class Story:
    """An event without its time."""

    kind: str
    message: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    detail: Mapping[str, object] = field(default_factory=dict)


_WORTH_TELLING = {
    Recorded.CONFLICT: (
        "instance.conflict",
        "{n} from {ae} came under a UID that was here already, with other content: both are kept, the first is used",
    ),
    Recorded.OWN_RESULT: ("instance.own-result", "{n} from {ae} came back: a result of this node; filed, not routed"),
}


def batch_stories(batch: Iterable[tuple[ReceivedInstance, Recorded]]) -> list[Story]:
    """What of a batch an administrator wants to know, one line a series."""
    groups: dict[tuple[Recorded, str, str, str], list[str]] = defaultdict(list)
    for one, recorded in batch:
        if recorded in _WORTH_TELLING:
            key = (recorded, one.study_instance_uid, one.series_instance_uid, one.calling_ae_title)
            groups[key].append(one.sop_instance_uid)
    stories = []
    for (recorded, study, series, calling), uids in groups.items():
        kind, words = _WORTH_TELLING[recorded]
        message = words.format(n=quantity(len(uids), "instance"), ae=calling)
        stories.append(Story(kind, message, study, series, {"sop_instance_uids": uids}))
    return stories


def association_stories(end: AssociationEnd, studies: Mapping[str, Counter[Recorded]]) -> list[Story]:
    """One line for each study that the association brought; one without a study when it brought none in vain."""
    refused = sum(end.refusals.values())
    tail = f"; {quantity(refused, 'instance')} of it refused" if refused else ""
    tail += f": {next(iter(end.refusals))}" if len(end.refusals) == 1 else ""
    detail: dict[str, object] = {"association": end.association, "refused": dict(end.refusals)}
    if end.turned_away:
        tail += f"; its settings keep it from sending {_some(end.turned_away)}"
        detail["turned_away"] = list(end.turned_away)
    kind = f"association.{end.how}"
    stories = [
        Story(kind, f"association from {end.calling_ae_title} {end.how}: {_tally(tally)}{tail}", study, "", detail)
        for study, tally in studies.items()
    ]
    if not stories and (refused or end.turned_away or end.how != "released"):
        message = f"association from {end.calling_ae_title} {end.how}: nothing kept{tail}"
        stories.append(Story(kind, message, detail=detail))
    return stories


_IN_WORDS = {
    Recorded.DUPLICATE: "here already",
    Recorded.CONFLICT: "with other content than before",
    Recorded.OWN_RESULT: "this node's own",
}


def _tally(tally: Counter[Recorded]) -> str:
    others = [f"{n} {_IN_WORDS[what]}" for what, n in tally.items() if what is not Recorded.NEW]
    return quantity(tally.total(), "instance") + (f" ({', '.join(others)})" if others else "")


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return float(min(BACKOFF_FIRST_S * 2 ** min(failures - 1, 30), BACKOFF_MOST_S))


# ---------------------------------------------------------------------------------------------------- the edge


class Indexer:
    """A thread that empties the spool into the database, in the order of arrival, in batches.

    What fails stays where it is and is tried again; one instance that always fails is passed by the others.
    """

    def __init__(self, store: InstanceStore, state: State, clock: Clock) -> None:
        self._store, self._state, self._clock = store, state, clock
        self._todo: deque[Arrival | AssociationEnd] = deque()
        self._stories: deque[Story] = deque()
        self._tallies: dict[str, dict[str, Counter[Recorded]]] = defaultdict(lambda: defaultdict(Counter))
        self._set_aside: set[str] = set()
        self._most = BATCH_MOST
        self._failures = 0
        self._stopping = False
        self._waiting = 0  # callers of flush
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """First takes what an earlier process left in the spool."""
        self._leftovers(older_than_s=0.0)
        self._thread.start()

    def put(self, item: Arrival | AssociationEnd) -> None:
        with self._changed:
            self._todo.append(item)
            if len(self._todo) == 1 or self._has_enough():
                self._changed.notify_all()

    def tell(self, story: Story) -> None:
        """A line that is of no instance; recorded once the database is there."""
        with self._changed:
            self._stories.append(story)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """True once everything that was put is in the database."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(self._idle, timeout_s)
            finally:
                self._waiting -= 1

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends after the work at hand. What the database does not take now stays in the spool for the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _idle(self) -> bool:
        return not self._todo and not self._stories

    def _run(self) -> None:
        while self._wait():
            try:
                self._round()
            except Exception as error:  # noqa: BLE001 a job loop: whatever the database says, images stay in the spool
                self._postpone(error)
            with self._changed:
                self._changed.notify_all()

    def _wait(self) -> bool:
        """Until there is something to do; False when it is time to end."""
        with self._changed:
            if self._failures and not self._stopping:
                self._changed.wait_for(lambda: self._stopping, backoff_s(self._failures))
            self._changed.wait_for(lambda: self._stopping or not self._idle(), LEFTOVERS_EVERY_S)
            self._changed.wait_for(self._has_enough, GATHER_S)
            return not self._stopping or (not self._idle() and not self._failures)

    def _has_enough(self) -> bool:
        """No need to wait for more: the batch is full, or its association is over, or somebody waits."""
        full = len(self._todo) >= self._most
        return bool(full or self._stopping or self._waiting or self._stories or not self._arrivals_only())

    def _arrivals_only(self) -> bool:
        return bool(self._todo) and isinstance(self._todo[-1], Arrival)

    def _round(self) -> None:
        """One step of the work; raises when it could not be done, with nothing lost."""
        if self._stories:
            self._tell(self._stories[0])
            self._stories.popleft()
            self._failures = 0
        elif not self._todo:
            self._leftovers(LEFTOVERS_EVERY_S)
        elif isinstance(end := self._todo[0], AssociationEnd):
            self._conclude(end)
        else:
            self._index(self._next_batch())

    def _conclude(self, end: AssociationEnd) -> None:
        """Records its end and tells of it, or later when an instance of it is still to be tried again."""
        with self._changed:
            if any(isinstance(item, Arrival) and item.association == end.association for item in self._todo):
                self._todo.rotate(-1)
                return
        if end.association in self._tallies:
            self._state.association_ended(end.association, end.how)
        with self._changed:
            self._stories.extend(association_stories(end, self._tallies.pop(end.association, {})))
            self._todo.popleft()

    def _next_batch(self) -> list[Arrival]:
        with self._changed:
            items = list(islice(self._todo, self._most))
        batch: list[Arrival] = []
        for item in items:
            if isinstance(item, AssociationEnd):
                break
            batch.append(item)
        return batch

    def _index(self, batch: list[Arrival]) -> None:
        filed = [(arrival, instance) for arrival in batch if (instance := self._filed(arrival))]
        recorded = self._state.record_instances([instance for _, instance in filed]) if filed else []
        for (arrival, instance), what in zip(filed, recorded, strict=True):
            self._store.discard(arrival.spooled)
            if arrival.association:
                self._tallies[arrival.association][instance.study_instance_uid][what] += 1
        self._stories.extend(batch_stories(zip((i for _, i in filed), recorded, strict=True)))
        for _ in batch:
            self._todo.popleft()
        self._most = min(self._most * 2, BATCH_MOST)
        self._failures = 0

    def _filed(self, arrival: Arrival) -> ReceivedInstance | None:
        """None when there is nothing to index: it is done already, or the disk has spoilt it."""
        spooled = arrival.spooled
        try:
            header = arrival.header or header_of_file(spooled.path)
            stored = self._store.file(
                spooled,
                study=header.study_instance_uid,
                series=header.series_instance_uid,
                instance=header.sop_instance_uid,
                sha256=data_set_sha256(spooled.path),
            )
        except FileNotFoundError:
            log.info("%s left the spool before it was indexed again", spooled.name)
            return None
        except (Unreadable, ReceiveError) as error:
            log.error("%s stays in the spool: %s", spooled.path, error)
            self._set_aside.add(spooled.name)
            return None
        return received_instance(header, stored, spooled, arrival.association)

    def _postpone(self, error: Exception) -> None:
        """After a failure smaller bites; a single instance that failed goes behind the others."""
        self._failures += 1
        log.warning("the index waits %.1f s: %s", backoff_s(self._failures), str(error).partition("\n")[0])
        if not self._stories and self._most == 1:
            self._todo.rotate(-1)
        self._most = 1

    def _tell(self, story: Story) -> None:
        self._state.record_event(
            Event(
                at=self._clock.now(),
                kind=story.kind,
                message=story.message,
                study_instance_uid=story.study_instance_uid,
                series_instance_uid=story.series_instance_uid,
                detail=dict(story.detail),
            )
        )

    def _leftovers(self, older_than_s: float) -> None:
        """What processes that died left in the spool; not what an association has just put there."""
        until = self._clock.now() - timedelta(seconds=older_than_s)
        found = [
            Arrival(s) for s in self._store.spooled() if s.received_at <= until and s.name not in self._set_aside
        ]
        if found:
            log.info("%d instances were left in the spool; they are indexed now", len(found))
            with self._changed:
                self._todo.extend(found)
