"""Commitments: what destinations say that they keep."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from dicomnode.domain.proof import ProofAnswer
from dicomnode.errors import InvalidArgumentValue
from dicomnode.ports import State

log = logging.getLogger(__name__)


class CommitStage:
    """Each method returns when it is in the database, and raises ReceiveError with what to answer.

    `database_errors` turns what the database's driver raises during an outage into DatabaseAway.
    """

    def __init__(
        self, state: State, database_errors: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._state, self._database_errors = state, database_errors

    def reported(self, calling_ae_title: str, transaction_uid: str, answer: ProofAnswer) -> None:
        """Who does not know a Transaction UID of ours commits to nothing."""
        said = replace(answer, words=f"{calling_ae_title} {answer.words}")
        with self._database_errors():
            known = self._state.proof_answered(transaction_uid, said)
        if not known:
            log.warning("a commitment report of a transaction that is none of ours is not believed")
            raise InvalidArgumentValue("the Transaction UID is of no request that is open here")
