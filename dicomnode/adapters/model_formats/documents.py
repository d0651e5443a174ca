"""Files that describe a model, read with errors that name them; and cards laid over each other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dicomnode.domain.model_output import GIVES
from dicomnode.errors import InvalidModelPackage

Document = dict[str, Any]

CARD_FILE = "model.yaml"
NOT_STATED = "not stated by its authors"


def read_document(folder: Path, name: str) -> Document:
    """A JSON or YAML file of a package that holds a mapping; raises InvalidModelPackage naming it."""
    try:
        text = (folder / name).read_text(encoding="utf-8-sig")
        found = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except FileNotFoundError:
        raise InvalidModelPackage("it is not in the package", name) from None
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise InvalidModelPackage(" ".join(str(error).split()), name) from error
    if not isinstance(found, dict):
        raise InvalidModelPackage("it holds no mapping of names to values", name)
    return found


def laid_over(over: Mapping[str, Any], under: Mapping[str, Any]) -> Document:
    """`under` with what `over` says in its place, mapping by mapping; lists are replaced whole."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = laid_over(value, below) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    if isinstance(own := over.get("output"), Mapping) and set(own) & set(GIVES):
        merged["output"] = own  # of the five one, never two
    return merged


def as_yaml(document: Mapping[str, Any]) -> str:
    """For people: codes and lists on a line each, lines short enough for a terminal."""
    plain = json.loads(json.dumps(document))  # what is there twice is written twice, without YAML's references
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=76, default_flow_style=None)
    return text


def slug(name: str) -> str:
    """A model's name as a card may have it."""
    plain = re.sub(r"[^a-z0-9._]+", "-", name.casefold()).strip("-._")
    return plain[:48].strip("-._") or "model"


def version_of(value: object) -> str:
    plain = re.sub(r"[^A-Za-z0-9.+_-]+", "-", str(value or "")).strip("-.+_")
    return plain[:32] or "1"


def line(value: object, default: str = NOT_STATED, most: int | None = None) -> str:
    """A text on one line, or the default where there is none."""
    plain = " ".join(str(value or "").split()) or default
    return plain if most is None else plain[:most].strip()


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
