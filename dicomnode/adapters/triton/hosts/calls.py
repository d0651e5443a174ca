"""Which calls a model's process is at, in a file: who gave one up sees when it ends, and which process to end.

One line: the process's id, then the ids of the calls. Written whole or not at all, some 30 µs each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class CallRecord:
    """`file`: None where no other process asks."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._write([])

    @contextmanager
    def of(self, calls: Iterable[str]) -> Iterator[None]:
        self._write(calls)
        try:
            yield
        finally:
            self._write([])

    def _write(self, calls: Iterable[str]) -> None:
        if self._file is None:
            return
        scratch = self._file.with_name(f".{self._file.name}-{os.getpid()}")
        scratch.write_text(" ".join([str(os.getpid()), *filter(None, calls)]), encoding="ascii")
        scratch.replace(self._file)
