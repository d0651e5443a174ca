"""The part of ports.State that receiving needs, in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from dicomnode.domain.study import ReceivedInstance, Recorded
from dicomnode.ports import Event


class Recorder:
    """`down = True` makes it raise, as a database does that is down; `own` are UIDs of the node's own results."""

    def __init__(self) -> None:
        self.rows: dict[str, ReceivedInstance] = {}
        self.events: list[Event] = []
        self.batches: list[int] = []
        self.ended: list[tuple[str, str]] = []
        self.own: set[str] = set()
        self.down = False
        self.poison: set[str] = set()
        self.tried = threading.Event()

    def record_instances(self, instances: Sequence[ReceivedInstance]) -> list[Recorded]:
        self._connect()
        if any(one.sop_instance_uid in self.poison for one in instances):
            raise ConnectionError("this row is not taken")
        self.batches.append(len(instances))
        return [self._record(one) for one in instances]

    def _record(self, one: ReceivedInstance) -> Recorded:
        if one.sop_instance_uid in self.own:
            return Recorded.OWN_RESULT
        first = self.rows.setdefault(one.sop_instance_uid, one)
        if first is one:
            return Recorded.NEW
        return Recorded.DUPLICATE if first.sha256 == one.sha256 else Recorded.CONFLICT

    def association_ended(self, association: str, how: str) -> None:
        self._connect()
        self.ended.append((association, how))

    def record_event(self, event: Event) -> None:
        self._connect()
        self.events.append(event)

    def _connect(self) -> None:
        self.tried.set()
        if self.down:
            raise ConnectionError("the database is down")

    def messages(self, kind: str) -> list[str]:
        return [event.message for event in self.events if event.kind == kind]
