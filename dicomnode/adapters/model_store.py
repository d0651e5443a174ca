"""Model packages on disk: checked on entry, kept by content digest, never changed afterwards.

A package comes as a folder, a ZIP or a network's file, in any of model_formats. What is kept is what came, and
`model.yaml`, where that was not whole already.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from dicomnode.adapters.model_formats import archive, monai_bundle, network_file, nnunet, triton_directory
from dicomnode.adapters.model_formats.documents import CARD_FILE, as_yaml, laid_over, mapping, read_document
from dicomnode.domain.model_card import ModelCard, card_document, parse_model_card
from dicomnode.errors import InvalidModelPackage

__all__ = ["CARD_FILE", "ModelStore", "package_digest", "read_card"]

_FORMATS: tuple[ModuleType, ...] = (monai_bundle, nnunet, triton_directory)
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".git", ".DS_Store")


def read_card(package: Path) -> ModelCard:
    """The card of a package folder; raises InvalidModelPackage naming what is wrong and where."""
    try:
        text = (package / CARD_FILE).read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except FileNotFoundError:
        raise InvalidModelPackage(f"there is no {CARD_FILE}", str(package)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidModelPackage(str(error), str(package / CARD_FILE)) from error
    card = parse_model_card(document)
    if not (package / card.network.file).is_file():
        raise InvalidModelPackage(f"{card.network.file!r} is not in the package", "model.yaml.network.file")
    return card


def package_digest(package: Path) -> str:
    """sha256 over the names and contents of the package's files, in the order of their names."""
    whole = hashlib.sha256()
    for file in sorted(p for p in package.rglob("*") if p.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{content}  {file.relative_to(package).as_posix()}\n".encode())
    return whole.hexdigest()


def _nothing(staged: Path, card: ModelCard) -> None: ...


class ModelStore:
    """`<folder>/<name>/<first 16 of the digest>/` holds a copy of each package that was added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(
        self, package: Path, card: Path | None = None, check: Callable[[Path, ModelCard], object] = _nothing
    ) -> tuple[ModelCard, str, Path]:
        """Copies a package in; (card, digest, folder of the copy). The same content again is the same copy.

        `package`: a folder, a ZIP or a network's file; `card`: a model.yaml for it, or for what it does not say;
        `check` is given the copy before it is kept, and keeps it out by what it raises.
        Raises InvalidModelPackage naming the file and the key that is wrong.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with _staged(package, card, self._folder) as staged:
            found, digest = read_card(staged), package_digest(staged)
            check(staged, found)
            place = self._folder / found.name / digest[:16]
            if not place.is_dir():
                _move(staged, place)
        return found, digest, place

    def remove(self, place: Path) -> bool:
        """A copy that `add` made; False when it is not here, or not in this folder."""
        if not place.is_dir() or self._folder.resolve() not in place.resolve().parents:
            return False
        shutil.rmtree(place)
        return True

    @contextlib.contextmanager
    def tried(self, package: Path, card: Path | None = None) -> Iterator[tuple[ModelCard, str, Path]]:
        """What `add` would give; the copy is gone afterwards."""
        with _staged(package, card, None) as staged:
            yield read_card(staged), package_digest(staged), staged


def _move(staged: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(place)
    except OSError:  # another process was first with the same content
        if not place.is_dir():
            raise


@contextlib.contextmanager
def _staged(package: Path, card: Path | None, beside: Path | None) -> Iterator[Path]:
    """A copy of the package with a whole card in it, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=beside, prefix=".adding-") as temporary:
        # a package that names itself nowhere is called as what was given
        staged = Path(temporary) / (package.resolve().stem if package.is_file() else package.resolve().name)
        _copy(package, staged, has_card=card is not None)
        _complete(staged, card)
        yield staged


def _copy(package: Path, staged: Path, *, has_card: bool) -> None:
    if package.is_dir():
        shutil.copytree(package, staged, ignore=_LEFT_OUT)
        return
    staged.mkdir()
    if package.suffix.lower() == ".zip":
        archive.extract(package, staged)
    elif network_file.is_one(package):
        if not has_card:
            raise network_file.needs_a_card(package)
        for file in (package, *network_file.companions(package)):
            shutil.copy2(file, staged / file.name)
    else:
        raise InvalidModelPackage(
            "this is no model package: a folder, a .zip, or a network in "
            f"{', '.join(network_file.FORMATS)} with --card is needed",
            package.name,
        )


def _complete(staged: Path, card: Path | None) -> None:
    """Writes the card, where what is there is not one already."""
    own = read_document(staged, CARD_FILE) if (staged / CARD_FILE).is_file() else {}
    if card is None and "file" in mapping(own.get("network")):
        return
    given: Mapping[str, Any] = own if card is None else laid_over(read_document(card.parent, card.name), own)
    network_file.check_answered(given)
    form = next((form for form in _FORMATS if form.is_one(staged)), None)
    if form is None and not given:
        raise _no_package(staged)
    if form is None and "file" not in mapping(given.get("network")) and len(networks := _networks(staged)) == 1:
        document: Mapping[str, Any] = laid_over(
            given, {"network": {"file": networks[0].name}}
        )  # there is no other that it could mean
    elif form is None and card is not None and not own:
        shutil.copyfile(card, staged / CARD_FILE)  # as it was written, remarks and all
        return
    else:
        document = given if form is None else laid_over(given, form.card(staged, given))
    whole = card_document(parse_model_card(document))
    (staged / CARD_FILE).write_text(as_yaml(whole), encoding="utf-8")


def _no_package(staged: Path) -> InvalidModelPackage:
    if len(networks := _networks(staged)) == 1:
        return network_file.needs_a_card(networks[0])
    return InvalidModelPackage(
        f"there is no {CARD_FILE}, and it is neither {', nor '.join(form.WORDS for form in _FORMATS)}", staged.name
    )


def _networks(staged: Path) -> list[Path]:
    return [file for file in sorted(staged.iterdir()) if network_file.is_one(file)]
