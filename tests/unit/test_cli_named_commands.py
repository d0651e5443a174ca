"""Every `dicomnode …` command that a message or a help text names is there, with the options it is named with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dicomnode
from tests.command_tree import PROGRAM, children

ROOT = Path(dicomnode.__file__).parent
_VALUE = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for what an f-string or format() puts in
# "dicomnode" and what follows it as in a command: not in a path, a name with a dot, or a sentence about dicomnode.
_NAMED = re.compile(r"(?<![\w./'-])dicomnode (?=[a-z])((?:[^\s;,()`'\"]+ ?)+)")
# What is said of the program, not to it.
_PROSE = {"with", "made", "took", "rule", "instance"}


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of a module as they are put together: adjoining and formatted parts in one, help texts too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):  # docstrings of modules and classes are read by nobody who types
        if isinstance(node, ast.Module | ast.ClassDef) and ast.get_docstring(node):
            node.body.pop(0)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(p.value) if isinstance(p, ast.Constant) else _VALUE for p in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, re.sub(r"\{\w+\}", _VALUE, node.value)


def sources() -> Iterator[Path]:
    """Those that have the word other than in imports: to read them all takes seconds of each process of tests."""
    for path in sorted(ROOT.rglob("*.py")):
        if re.search(r"dicomnode(?!\.)", path.read_text(encoding="utf-8")):
            yield path


def named() -> Iterator[tuple[str, list[str]]]:
    """Where, and the words after "dicomnode"."""
    for path in sources():
        for line, text in literals(path):
            for found in _NAMED.finditer(" ".join(text.split())):
                words = _to_the_stop(found[1].split())
                if words[0] not in _PROSE:
                    yield f"{path.relative_to(ROOT)}:{line}", words


def _to_the_stop(words: list[str]) -> list[str]:
    """Up to the end of the sentence."""
    last = next((n for n, word in enumerate(words) if word[-1] in ".:?!"), len(words) - 1)
    return [word.rstrip(".:?!") for word in words[: last + 1]]


NAMED = list(named())


def problems(words: list[str]) -> Iterator[str]:
    """What of it is not there."""
    command = PROGRAM
    left = list(words)
    while left and left[0] in children(command):
        command = children(command)[left.pop(0)]
    whole_program = command is PROGRAM and left and left[0].startswith(("--", "NOUN", _VALUE))
    if children(command) and not whole_program:
        yield "names no command"
        return
    known = {"--help", *(o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts))}
    yield from (f"{command.name} has no {word}" for word in left if word.startswith("--") and word not in known)


@pytest.mark.parametrize(("where", "words"), NAMED, ids=[f"{where} {' '.join(w[:3])}" for where, w in NAMED])
def test_a_command_that_is_named_exists(where: str, words: list[str]) -> None:
    assert list(problems(words)) == [], f"{where}: dicomnode {' '.join(words)}"


def test_the_commands_are_found_in_the_source() -> None:
    """Or the test above tests nothing."""
    commands = {" ".join(words[:2]) for _, words in NAMED}
    assert {"jobs retry", "jobs cancel", "jobs prioritise", "studies rerun", "studies list", "rules add"} <= commands
    assert len(NAMED) > 60


@pytest.mark.parametrize("text", ["jobs restart 1", "jobs", "studies forget 1 --force", "nonsense"])
def test_a_command_that_does_not_exist_is_seen(text: str) -> None:
    assert list(problems(text.split()))
