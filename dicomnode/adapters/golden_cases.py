"""The golden cases of a model package on disk."""

from __future__ import annotations

from pathlib import Path

import yaml

from dicomnode.domain.golden import CASES_FILE, GOLDEN_FOLDER, GoldenCase, parse_golden_cases
from dicomnode.domain.model_card import ModelCard
from dicomnode.errors import InvalidModelPackage


def read_golden_cases(package: Path, card: ModelCard) -> tuple[GoldenCase, ...]:
    """None of a package without them; raises InvalidModelPackage naming what is wrong and where."""
    file = package / GOLDEN_FOLDER / CASES_FILE
    if not (package / GOLDEN_FOLDER).exists():
        return ()
    where = f"{GOLDEN_FOLDER}/{CASES_FILE}"
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidModelPackage("it is absent; a golden folder holds the cases it describes", where) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidModelPackage(str(error), where) from error
    cases = parse_golden_cases(document, card)
    for case in cases:
        _check_files(package / GOLDEN_FOLDER, case, where)
    return cases


def _check_files(folder: Path, case: GoldenCase, where: str) -> None:
    for name in (case.input, case.expected, *case.roles.values()):
        if not (folder / name).exists():
            raise InvalidModelPackage(f"case {case.name}: {name!r} is not in {GOLDEN_FOLDER}/", where)
