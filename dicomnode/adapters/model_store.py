"""Model packages on disk: checked on entry, kept by content digest, never changed afterwards."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import yaml

from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.errors import InvalidModelPackage

CARD_FILE = "model.yaml"


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


class ModelStore:
    """`<folder>/<name>/<first 16 of the digest>/` holds a copy of each package that was added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, package: Path) -> tuple[ModelCard, str, Path]:
        """Copies a package in; (card, digest, folder of the copy). The same content again is the same copy."""
        card, digest = read_card(package), package_digest(package)
        place = self._folder / card.name / digest[:16]
        if not place.is_dir():
            self._copy(package, place)
        return card, digest, place

    def _copy(self, package: Path, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".adding-") as temporary:
            copy = Path(temporary) / "package"
            shutil.copytree(package, copy)
            try:
                copy.rename(place)
            except OSError:  # another process was first with the same content
                if not place.is_dir():
                    raise
