"""Sources: what the node's processes know of their senders' settings, also while the database is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from dicomnode.domain.source import Source
from dicomnode.errors import InvalidSource
from dicomnode.ports import State

log = logging.getLogger(__name__)

REFRESH_S = 2.0


class KnownSources:
    """The settings as they were last read. Before that nobody has any: an image must not be lost for a rule."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: Mapping[str, Source] = {}

    def of(self, ae_title: str) -> Source:
        """Its settings, or those of everybody."""
        title = ae_title.strip()
        return self._known.get(title) or Source(title)

    def refresh(self) -> None:
        """Raises what the database raises; what was known stays."""
        known = {source.ae_title: source for source in self._state.sources()}
        if known != self._known:
            log.info("settings of senders: %s", ", ".join(known) or "none")
        self._known = known

    def run(self, stop: threading.Event) -> None:
        """Follows the database until told to stop."""
        while not stop.is_set():
            try:
                self.refresh()
            except InvalidSource as error:  # a later version of the node may have written more than this one knows
                log.error("the settings of senders stay as they were: %s", error)
            stop.wait(REFRESH_S)
