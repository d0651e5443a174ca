"""Every command says what it does with an example, every setting is an option, and a wrong call exits with 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest
from rich.text import Text
from typer.testing import CliRunner

from dicomnode.cli.context import Context
from dicomnode.cli.root import HELP, app
from dicomnode.config import Settings
from tests.command_tree import PROGRAM, children


def commands(command: object = PROGRAM, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    below = children(command)
    if not below:
        yield words, command
    for name, child in below.items():
        yield from commands(child, (*words, name))


ALL = dict(commands())


def test_the_help_of_all_commands_has_their_own_words() -> None:
    own = {name: (command.help or "").split("\n\n")[0] for name, command in children(PROGRAM).items()}
    assert list(HELP.items()) == list(own.items())


def test_paragraphs_of_the_help_flow_and_blocks_stay() -> None:
    add = ALL["rules", "add"].help.split("\n\n")  # type: ignore[attr-defined]
    (block,) = [part for part in add if part.startswith("\b")]
    assert "\n  all:\n" in block
    assert not [part for part in add if "\n" in part and part is not block]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_the_help_of_every_option_is_shown_as_it_is_written(words: tuple[str, ...]) -> None:
    """Words in brackets would be taken for rich's markup, and left out."""
    written = [help_ for option in ALL[words].params if (help_ := getattr(option, "help", ""))]  # type: ignore[attr-defined]
    assert [Text.from_markup(one).plain for one in written] == written


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example(words: tuple[str, ...]) -> None:
    text = " ".join((getattr(ALL[words], "help", "") or "").split())
    assert f"dicomnode {' '.join(words)}" in text, "the help has no example"
    assert text.index(".") < 120, "the first sentence says what it does"


def test_commands_that_the_documentation_names_are_there() -> None:
    named = ["up", "status", "doctor", "settings", "preview", "run receiver", "run worker", "run triton"]
    named += ["models add", "models list", "models show", "models card", "models history", "models apply"]
    named += ["models activate", "models deactivate", "models rollback", "models shadow", "models compare"]
    named += [
        "models bench",
        "models case",
        "models optimise",
        "rules add",
        "rules list",
        "rules show",
        "rules remove",
    ]
    named += ["check", "conformance", "rules explain", "rules test", "rules lint", "rules schema", "rules replay"]
    named += ["rules enable", "rules disable", "rules shadow", "rules history", "rules diff"]
    named += ["destinations add", "destinations list", "destinations remove", "destinations echo"]
    named += ["destinations set", "destinations show"]
    named += ["deliveries list", "deliveries show", "deliveries retry", "deliveries drop"]
    named += ["sources add", "sources list", "sources show", "sources remove", "sources echo"]
    named += ["studies list", "studies show", "studies why", "studies rerun", "studies forget"]
    named += ["jobs list", "jobs show", "jobs retry", "jobs cancel", "jobs prioritise"]
    assert {tuple(name.split()) for name in named} <= set(ALL)


def test_every_setting_is_an_option_of_up() -> None:
    options = {option for parameter in ALL["up",].params for option in parameter.opts}  # type: ignore[attr-defined]
    assert {f"--{spec.name.replace('_', '-')}" for spec in fields(Settings)} <= options


def test_changes_can_be_tried_and_tables_be_json() -> None:
    for words, command in ALL.items():
        options = {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]
        if words[-1] in _CHANGE:
            assert "--dry-run" in options, words
        if words[0] in {"studies", "jobs", "models", "deliveries"} or words[-1] in _PRINT:
            assert "--json" in options, words


_CHANGE = {"add", "remove", "rerun", "forget", "retry", "cancel", "prioritise", "drop", "set"}
_CHANGE |= {"activate", "deactivate", "rollback", "shadow", "apply", "optimise", "enable", "disable"}
_PRINT = {"add", "remove", "list", "show", "status", "doctor", "settings"}


@pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--no-such-setting", "1"], ["jobs", "show"]])
def test_a_wrong_call_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments, obj=Context()).exit_code == 2
