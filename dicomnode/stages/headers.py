"""Headers of a series, read while its images still come: when it is complete there are few left to read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.domain.study import Series
from dicomnode.errors import SeriesRefused
from dicomnode.imaging.decode import plan_instances
from dicomnode.imaging.headers import Instance, read_instances
from dicomnode.ports import InstanceStore

# Of which nobody asked for the volume yet. A header of a real CT takes 57 kB, so all together 90 MB at most
_SERIES_MOST = 2
_INSTANCES_MOST = 800

_File = tuple[int, int, int]  # inode, bytes, ns: a path that was forgotten may come to hold another image


@dataclass(frozen=True, slots=True)
class _Read:
    file: _File
    instance: Instance


@dataclass(eq=False)
class _OfSeries:
    by_path: dict[Path, _Read] = field(default_factory=dict)


class Headers:
    """Used by several threads at once."""

    def __init__(self, store: InstanceStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _OfSeries] = OrderedDict()  # by Series Instance UID, the oldest first

    def read_ahead(self, series: Series) -> None:
        """Of what has come so far; raises CannotDecode, OSError."""
        known = self._of(series)
        lacking = [path for path in self._paths(series)[:_INSTANCES_MOST] if path not in known.by_path]
        files = [_file(path) for path in lacking]  # before they are read
        instances = list(read_instances(lacking))
        known.by_path.update(zip(lacking, map(_Read, files, instances), strict=True))
        with suppress(SeriesRefused):  # values are converted when they are first asked for: most of a plan
            plan_instances(instances)

    def read(self, series: Series) -> list[Instance]:
        """All of a series, in its order; what was read ahead is given away. Raises CannotDecode, OSError."""
        with self._lock:
            known = self._known.pop(series.series_instance_uid, _OfSeries()).by_path
        paths = self._paths(series)
        found = {path: known[path].instance for path in paths if path in known and _is_so(path, known[path])}
        lacking = [path for path in paths if path not in found]
        found.update(zip(lacking, read_instances(lacking), strict=True))
        return [found[path] for path in paths]

    def _of(self, series: Series) -> _OfSeries:
        with self._lock:
            known = self._known.setdefault(series.series_instance_uid, _OfSeries())
            self._known.move_to_end(series.series_instance_uid)
            while len(self._known) > _SERIES_MOST:
                self._known.popitem(last=False)
            return known

    def _paths(self, series: Series) -> Sequence[Path]:
        return [self._store.path(instance.path) for instance in series.instances]


def _file(path: Path) -> _File:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_so(path: Path, read: _Read) -> bool:
    try:
        return _file(path) == read.file
    except OSError:  # whoever reads it says what is wrong
        return False
