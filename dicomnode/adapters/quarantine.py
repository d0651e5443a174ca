"""Results that their own check refused, in a folder of the node's: looked at by a person, never sent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dicomnode.domain.identifiers import is_uid
from dicomnode.errors import CannotUnderstand, OutOfResources
from dicomnode.ports import RefusedResult

README = """\
Results of models that did not pass the node's own check. None of them was sent to anybody, and none will be.

<Study Instance UID>/<job id>-<kind>.dcm    the object
<Study Instance UID>/<job id>-<kind>.txt    the job, and why the object was refused

The oldest go when there are more bytes than the setting quarantine_most_bytes says, and all of a study with
`dicomnode studies forget`. You may delete what you like. They hold a patient's data.
"""


class FolderQuarantine:
    """The Quarantine port; any number of processes may use the same folder."""

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root, self._most_bytes = root, most_bytes

    def keep(self, refused: RefusedResult) -> str:
        if not is_uid(refused.study_instance_uid):
            raise CannotUnderstand("the study has no UID, so the object has no place in quarantine")
        folder = self._root / refused.study_instance_uid
        place = folder / f"{refused.job_id}-{refused.kind}.dcm"
        fits = 0 < len(refused.content) <= self._most_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(self._root / "README.txt", README.encode())
            _write(place.with_suffix(".txt"), _words(refused, fits=fits).encode())
            if fits:
                _write(place, refused.content)
        except OSError as error:
            raise OutOfResources(f"{place}: {error.strerror or error}") from error
        self._make_room(but=place)
        return str(place if fits else place.with_suffix(".txt"))

    def forget(self, study: str) -> int:
        if not is_uid(study):
            return 0
        found = len(list((self._root / study).glob("*.dcm")))
        shutil.rmtree(self._root / study, ignore_errors=True)
        return found

    def _make_room(self, but: Path) -> None:
        """The oldest objects go until the rest fits, each with its reason; never the one that came just now."""
        files = sorted(_sizes(self._root), reverse=True)  # newest first
        used = sum(size for _, size, path in files if path == but)
        for _, size, path in files:
            if path == but:
                continue
            used += size
            if used > self._most_bytes:
                for file in (path, path.with_suffix(".txt")):
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    path.parent.rmdir()


def _sizes(root: Path) -> Iterator[tuple[int, int, Path]]:
    """(when it was written, ns; bytes; path) of each object; another process may take one away meanwhile."""
    for path in root.glob("*/*.dcm"):
        with suppress(FileNotFoundError):
            found = path.stat()
            yield found.st_mtime_ns, found.st_size, path


def _words(refused: RefusedResult, *, fits: bool) -> str:
    lines = [f"job {refused.job_id}, {refused.kind}: {refused.reason}"]
    if not fits:
        lines.append(
            "The object is not kept: no file could be made of it, or it has more than quarantine_most_bytes."
        )
    return "\n".join([*lines, "It was not sent.", ""])


def _write(path: Path, content: bytes | bytearray) -> None:
    """All of it under its name, or nothing."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.touch(0o640)
        part.write_bytes(content)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
