"""What every process of the node does first: its log, and the ways it is told to stop."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import warnings
from logging.handlers import RotatingFileHandler
from types import FrameType

from dicomnode.config import Settings

# These name values of the data sets they stumble over, patients' names among them, from WARNING up.
_TALKATIVE = frozenset({"pydicom", "highdicom", "dicomweb_client"})
# These report their own set-up at INFO, a dozen lines each start.
_WORDY = ("alembic", "dbos")
_LOG_BYTES = 10 << 20
_LOG_FILES = 5
LAST_RESORT_S = 25.0


def start_log(settings: Settings, name: str) -> None:
    """Logs to `<home>/logs/<name>.log`; nothing identifying below DEBUG."""
    settings.log_folder.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(settings.log_folder / f"{name}.log", maxBytes=_LOG_BYTES, backupCount=_LOG_FILES)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # Without a handler of its own DBOS makes one for standard error, whose file nobody rotates while we run.
    engine = logging.getLogger("dbos")
    engine.handlers, engine.propagate = [handler], False
    if settings.log_level != "DEBUG":
        handler.addFilter(_names_no_values)
        for logger in _WORDY:
            logging.getLogger(logger).setLevel(logging.WARNING)
        logging.getLogger("pynetdicom").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
    faulthandler.enable()


def _names_no_values(record: logging.LogRecord) -> bool:
    """At the handler and not by levels: pydicom sets its own logger's level when it is imported, be it later."""
    return record.name.partition(".")[0] not in _TALKATIVE


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def told(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    return stop


def stop_with_parent(stop: threading.Event) -> None:
    """Also stops when standard input ends: the supervisor closed it, or died."""
    # The terminal's ^C goes to the whole group; the supervisor decides when its children stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        stop.set()
        # A child that hangs must not hold the port against the next node.
        threading.Event().wait(LAST_RESORT_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
