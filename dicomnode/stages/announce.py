"""Announce: what modalities and archives say about instances to come is kept, for completeness to look at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from dicomnode.domain.announcement import (
    FINAL_STATES,
    Announcement,
    AnnouncementKind,
    Document,
    read_ian,
    read_new_mpps,
    updated_mpps,
)
from dicomnode.errors import DuplicateInstance, IllegalTransition, NoLongerUpdatable, NoSuchInstance
from dicomnode.ports import State

_NO_LONGER = "the procedure step is completed or discontinued and may no longer be updated"


class AnnounceStage:
    """Each method returns when the announcement is in the database, and raises ReceiveError with what to answer.

    `database_errors` turns what the database's driver raises during an outage into DatabaseAway.
    """

    def __init__(
        self, state: State, database_errors: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._state, self._database_errors = state, database_errors

    def create_mpps(self, sop_instance_uid: str, calling_ae_title: str, document: Document) -> None:
        self._create(read_new_mpps(sop_instance_uid, calling_ae_title, document))

    def create_ian(self, sop_instance_uid: str, calling_ae_title: str, document: Document) -> None:
        self._create(read_ian(sop_instance_uid, calling_ae_title, document))

    def update_mpps(self, sop_instance_uid: str, changes: Document) -> None:
        with self._database_errors():
            before = self._state.announcement(sop_instance_uid)
        if before is None or before.kind is not AnnouncementKind.MPPS:
            raise NoSuchInstance("there is no such procedure step here")
        if before.state in FINAL_STATES:
            raise NoLongerUpdatable(_NO_LONGER)
        self._record(updated_mpps(before, changes))

    def _create(self, announcement: Announcement) -> None:
        with self._database_errors():
            known = self._state.announcement(announcement.sop_instance_uid)
        if known is not None:
            raise DuplicateInstance("its SOP Instance UID was announced already")
        self._record(announcement)

    def _record(self, announcement: Announcement) -> None:
        try:
            with self._database_errors():
                self._state.record_announcement(announcement)
        except IllegalTransition as error:  # another association was faster
            raise NoLongerUpdatable(_NO_LONGER) from error
