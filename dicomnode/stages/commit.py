"""Commitments: what destinations say that they keep, and what we say to senders that ask the same of us."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

from dicomnode.domain.commitment_wish import CommitmentResult, CommitmentWish, result_words, settle
from dicomnode.domain.proof import ProofAnswer, Reference
from dicomnode.errors import AlreadyExists, DeliveryError, DuplicateTransaction, InvalidArgumentValue
from dicomnode.ports import InstanceStore, State, StoredFile

log = logging.getLogger(__name__)

POLL_S = 1.0


class CommitStage:
    """Each method returns when it is in the database, and raises ReceiveError with what to answer.

    `database_errors` turns what the database's driver raises during an outage into DatabaseAway.
    """

    def __init__(
        self,
        state: State,
        store: InstanceStore,
        database_errors: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._state, self._store, self._database_errors = state, store, database_errors

    def reported(self, calling_ae_title: str, transaction_uid: str, answer: ProofAnswer) -> None:
        """Who does not know a Transaction UID of ours commits to nothing."""
        said = replace(answer, words=f"{calling_ae_title} {answer.words}")
        with self._database_errors():
            known = self._state.proof_answered(transaction_uid, said)
        if not known:
            log.warning("a commitment report of a transaction that is none of ours is not believed")
            raise InvalidArgumentValue("the Transaction UID is of no request that is open here")

    def asked(
        self, calling_ae_title: str, called_ae_title: str, transaction_uid: str, references: Sequence[Reference]
    ) -> None:
        """Its sender is told later, on this association or another."""
        try:
            with self._database_errors():
                self._state.record_wish(calling_ae_title, called_ae_title, transaction_uid, references)
        except AlreadyExists as error:
            raise DuplicateTransaction(str(error)) from error

    def result(self, calling_ae_title: str, transaction_uid: str) -> CommitmentResult | None:
        """What its sender can be told now; None when it is too early, or it was told. Raises DatabaseAway."""
        with self._database_errors():
            wish = self._state.open_wish(calling_ae_title, transaction_uid)
            return None if wish is None else result_of(self._state, self._store, wish)

    def told(self, calling_ae_title: str, transaction_uid: str, result: CommitmentResult) -> None:
        with self._database_errors():
            self._state.wish_told(calling_ae_title, transaction_uid, result_words(result))


def result_of(state: State, store: InstanceStore, wish: CommitmentWish) -> CommitmentResult | None:
    """Only of what is indexed, and lies on the disk as it was indexed, it is said that it is kept."""
    found = state.instances_in_use([reference.sop_instance_uid for reference in wish.references])
    there = {uid: sop_class for uid, (sop_class, file) in found.items() if _is_whole(store, file)}
    return settle(wish, there, state.age_s(wish.asked_at))


def _is_whole(store: InstanceStore, file: StoredFile) -> bool:
    try:
        return store.path(file.path).stat().st_size == file.size_bytes
    except OSError:
        return False


class Reporter(Protocol):
    """Tells a sender on an association of its own what is kept. Raises DeliveryError."""

    def report(self, wish: CommitmentWish, result: CommitmentResult) -> None: ...


class CommitmentTeller:
    """Tells senders that were not told on the association of their request."""

    def __init__(self, state: State, store: InstanceStore, reporter: Reporter) -> None:
        self._state, self._store, self._reporter = state, store, reporter

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_S):
            self.once()

    def once(self) -> int:
        """How many were told."""
        return sum(self._tell(wish) for wish in self._state.wishes_due())

    def _tell(self, wish: CommitmentWish) -> bool:
        key = (wish.calling_ae_title, wish.transaction_uid)
        result = result_of(self._state, self._store, wish)
        if result is None:
            self._state.wish_put_off(*key, "some of it is not filed yet")
            return False
        if wish.address is None:
            add = f"dicomnode sources add {wish.calling_ae_title} --report-dimse AET@HOST:PORT"
            self._state.wish_put_off(*key, f"where {wish.calling_ae_title} listens is not known; {add}")
            return False
        try:
            self._reporter.report(wish, result)
        except DeliveryError as error:
            self._state.wish_put_off(*key, str(error))
            return False
        self._state.wish_told(*key, result_words(result))
        return True
