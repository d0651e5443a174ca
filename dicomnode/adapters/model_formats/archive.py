"""Unpacking a ZIP that somebody sent: nothing leaves the folder, nothing is a link, nothing is without bounds."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from dicomnode.errors import InvalidModelPackage

FILES_MOST = 20_000
BYTES_MOST = 32 * 2**30
_BLOCK_BYTES = 2**20
_LEFT_OUT = ("__MACOSX", "__pycache__", ".git", ".DS_Store")


def extract(archive: Path, folder: Path, *, files_most: int = FILES_MOST, bytes_most: int = BYTES_MOST) -> None:
    """Unpacks into `folder`, which is empty; one folder that holds everything else is taken off.

    Raises InvalidModelPackage naming the member that is wrong.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if not m.is_dir() and not _is_left_out(m)]
            places = _places(archive, members, files_most)
            left = bytes_most
            for member, place in zip(members, places, strict=True):
                left -= _extract_one(opened, member, folder / place, left, archive.name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InvalidModelPackage(f"this is no ZIP that can be read: {error}", archive.name) from error


def _is_left_out(member: zipfile.ZipInfo) -> bool:
    return any(part in _LEFT_OUT for part in PurePosixPath(member.filename).parts)


def _places(archive: Path, members: list[zipfile.ZipInfo], files_most: int) -> list[Path]:
    """Where each member goes, without the top folder that all have in common."""
    if not members:
        raise InvalidModelPackage("there is nothing in it", archive.name)
    if len(members) > files_most:
        raise InvalidModelPackage(f"{len(members)} files are more than {files_most}", archive.name)
    parts = [_checked(member, archive.name) for member in members]
    if len({p[0] for p in parts}) == 1 and all(len(p) > 1 for p in parts):
        parts = [p[1:] for p in parts]
    if len({"/".join(p).casefold() for p in parts}) < len(parts):
        raise InvalidModelPackage("two members have the same name", archive.name)
    return [Path(*p) for p in parts]


def _checked(member: zipfile.ZipInfo, archive: str) -> tuple[str, ...]:
    """The parts of a member's name, relative and plain."""
    name, where = member.filename, f"{archive}: {member.filename!r}"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0] or "\0" in name:
        raise InvalidModelPackage("it leaves the package", where)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise InvalidModelPackage("it is a link or a device", where)
    if member.flag_bits & 0x1:
        raise InvalidModelPackage("it is encrypted", where)
    return path.parts


def _extract_one(opened: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path, left: int, archive: str) -> int:
    """Bytes written; what the archive says of a size is not believed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(member) as source, place.open("xb") as target:
        while block := source.read(_BLOCK_BYTES):
            written += len(block)
            if written > left:
                raise InvalidModelPackage("unpacked it is too large", f"{archive}: {member.filename!r}")
            target.write(block)
    return written
