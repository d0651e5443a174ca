"""The golden cases of a model package on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from dicomnode.domain.golden import CASES_FILE, GOLDEN_FOLDER, GoldenCase, expected_array, parse_golden_cases
from dicomnode.domain.model_card import ModelCard
from dicomnode.errors import InvalidModelPackage, UsageError
from dicomnode.imaging.golden import GivenVolume, npz_arrays


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


# ---------------------------------------------------------------------------------------------------- making one


@dataclass(frozen=True, eq=False)
class MadeCase:
    """What a model says of volumes, as domain.golden.EXPECTED has it, and what it ran on."""

    name: str
    volumes: Sequence[GivenVolume]
    answer: npt.NDArray[Any]
    described: Mapping[str, str]


def check_place(package: Path, name: str) -> None:
    """Whether a case of that name can be put into a package; raises UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise UsageError(f"{name!r} is no name of a case: letters, digits, '.', '_' and '-', 64 at most")
    if not package.is_dir():
        raise UsageError(f"{package} is no folder: golden cases need one, with the network and its card (model.yaml)")
    for file in (_input(name), _expected(name)):
        if (package / GOLDEN_FOLDER / file).exists():
            raise UsageError(f"{GOLDEN_FOLDER}/{file} is there already: give the case another name")


def write_case(package: Path, card: ModelCard, made: MadeCase) -> None:
    """Raises UsageError when cases.yaml is written so that nothing can be put to its end."""
    folder = package / GOLDEN_FOLDER
    file = folder / CASES_FILE
    text = _with(file.read_text(encoding="utf-8") if file.exists() else "cases:\n", made.name)
    parse_golden_cases(yaml.safe_load(text), card)
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / _input(made.name), **npz_arrays(made.volumes))
    np.savez_compressed(folder / _expected(made.name), **{expected_array(card): made.answer})
    file.write_text(text, encoding="utf-8")


def _with(text: str, name: str) -> str:
    """A case more at the end; what is there stays as it is, comments too."""
    case = {"name": name, "input": _input(name), "expected": _expected(name)}
    item = re.search(r"^( *)- ", text, re.MULTILINE)
    indent = item[1] if item else "  "
    lines = yaml.safe_dump([case], sort_keys=False).splitlines()
    longer = "\n".join([text.rstrip("\n"), *(indent + line for line in lines), ""])
    try:
        before, after = (yaml.safe_load(document) for document in (text, longer))
        whole = [*(before["cases"] or []), case] == after["cases"]
    except (yaml.YAMLError, TypeError, KeyError):
        whole = False
    if not whole:
        raise UsageError(f"{GOLDEN_FOLDER}/{CASES_FILE} is no list to whose end a case can be put: {case}")
    return longer


def _input(name: str) -> str:
    return f"{name}.npz"


def _expected(name: str) -> str:
    return f"{name}-expected.npz"
