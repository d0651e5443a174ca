"""ZIP files from outside: nothing leaves the folder, nothing is a link, nothing is without bounds."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from dicomnode.adapters.model_formats.archive import extract
from dicomnode.errors import InvalidModelPackage


def zipped(path: Path, *members: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for member in members:
            opened.writestr(member, content)
    return path


def unpacked(archive: Path, **bounds: int) -> list[str]:
    folder = archive.parent / "unpacked"
    folder.mkdir()
    extract(archive, folder, **bounds)
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "members",
    [
        ("model.yaml", "models/model.ts"),
        ("bundle/", "bundle/model.yaml", "bundle/models/model.ts"),
        ("bundle/model.yaml", "bundle/models/model.ts", "__MACOSX/bundle/._model.yaml", "bundle/.DS_Store"),
    ],
)
def test_a_package_lies_flat_or_in_one_folder(tmp_path: Path, members: tuple[str, ...]) -> None:
    assert unpacked(zipped(tmp_path / "a.zip", *members)) == ["model.yaml", "models/model.ts"]


@pytest.mark.parametrize(
    "name", ["../model.yaml", "/etc/model.yaml", "a/../../model.yaml", "a\\..\\model.yaml", "C:/model.yaml"]
)
def test_a_member_that_leaves_the_folder_is_named(tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "a.zip", "model.yaml", name)
    with pytest.raises(InvalidModelPackage, match=r"a\.zip: .*: it leaves the package"):
        unpacked(archive)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip", "unpacked"] or not (tmp_path / "model.yaml").exists()
    assert not list((tmp_path / "unpacked").iterdir())


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("secrets")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InvalidModelPackage, match=r"'secrets': it is a link"):
        unpacked(zipped(tmp_path / "a.zip", "model.yaml", link, content=b"/etc/passwd"))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelPackage, match="two members have the same name"):
        unpacked(zipped(tmp_path / "a.zip", "model.yaml", "Model.yaml"))


def test_what_grows_without_bound_is_stopped(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", "model.yaml", "zeros", content=b"\0" * 3_000_000)
    with pytest.raises(InvalidModelPackage, match=r"'zeros'.*too large"):
        unpacked(archive, bytes_most=4_000_000)


def test_too_many_files_are_refused_before_one_is_written(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", *(f"{n}.txt" for n in range(5)))
    with pytest.raises(InvalidModelPackage, match="5 files are more than 4"):
        unpacked(archive, files_most=4)
    assert not list((tmp_path / "unpacked").iterdir())


@pytest.mark.parametrize("content", [b"no zip at all", b""])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InvalidModelPackage, match=r"a\.zip: this is no ZIP"):
        unpacked(tmp_path / "a.zip")


def test_an_empty_or_broken_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelPackage, match="nothing in it"):
        unpacked(zipped(tmp_path / "a.zip"))
    archive = zipped(tmp_path / "b.zip", "model.yaml", content=bytes(range(256)) * 40)
    whole = bytearray(archive.read_bytes())
    whole[60:90] = bytes(30)
    archive.write_bytes(whole)
    (tmp_path / "other").mkdir()
    with pytest.raises(InvalidModelPackage, match=r"b\.zip: this is no ZIP"):
        extract(archive, tmp_path / "other")
