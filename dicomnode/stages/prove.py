"""Asks destinations whether they keep what they were sent, beside the sending, each by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from dicomnode.domain.proof import ProofAnswer
from dicomnode.errors import DatabaseAway, DeliveryError, ProofUnsupported
from dicomnode.ports import ProofWork, Prover, State

log = logging.getLogger(__name__)

POLL_S = 1.0
AT_ONCE_MOST = 8  # destinations; one that hangs leaves room for the others


class ProofStage:
    """`provers`: by kind of destination, "dimse" and "stow"."""

    def __init__(
        self,
        state: State,
        provers: Mapping[str, Prover],
        database_errors: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._state, self._provers, self._database_errors = state, provers, database_errors
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Until told to stop; who is being asked then keeps no process from ending: it is asked again later."""
        while not stop.wait(POLL_S):
            for work in self._due():
                threading.Thread(target=self._one, args=(work,), name="prove", daemon=True).start()

    def once(self) -> int:
        """Asks what is due now, one destination after the other; how many were asked."""
        due = self._due()
        for work in due:
            self._one(work)
        return len(due)

    def _due(self) -> list[ProofWork]:
        with self._lock:
            if len(self._busy) >= AT_ONCE_MOST:
                return []
            due = self._state.proofs_due(but=sorted(self._busy))
            self._busy |= {work.destination.name for work in due}
        return due

    def _one(self, work: ProofWork) -> None:
        try:
            with self._database_errors():
                self._ask(work)
        except DatabaseAway as error:  # it is asked again: the time for that was set before
            log.warning("what %s keeps could not be recorded: %s", work.destination.name, error)
        finally:
            with self._lock:
                self._busy.discard(work.destination.name)

    def _ask(self, work: ProofWork) -> None:
        try:
            answer = self._provers[work.destination.kind].prove(work)
        except ProofUnsupported as error:
            self._state.proof_unsupported(work.transaction_uid, str(error))
        except DeliveryError as error:
            log.info("no proof from %s yet: %s", work.destination.name, error)
            self._state.proof_put_off(work.transaction_uid, f"asked whether it keeps it: {error}")
        else:
            self._told(work, answer)

    def _told(self, work: ProofWork, answer: ProofAnswer) -> None:
        if answer.proven or answer.failed:
            self._state.proof_answered(work.transaction_uid, answer)
        else:
            self._state.proof_put_off(work.transaction_uid, answer.words)
