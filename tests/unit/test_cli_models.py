"""`dicomnode models show`, with the node's state in memory."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from dicomnode.cli.context import Context
from dicomnode.cli.models import app
from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.errors import NotFound
from tests.adapters.fake_state import FakeState
from tests.made_results import CARD

PARAMETERS = {"kernel": {"type": "text", "default": "soft", "one_of": ["sharp", "soft"], "description": "of the CT"}}
PET = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 20000]}}


@pytest.fixture
def context() -> Context:
    made = Context()
    state = FakeState()
    for version, more in (("0.9", {}), ("1.0", {"inputs": [PET], "parameters": PARAMETERS})):
        card = parse_model_card({**card_document(CARD), "version": version, **more})
        state.add_model(card, version.ljust(64, "0"), Path("/models"))
    made.__dict__.update(state=state, console=Console(file=io.StringIO(), width=200))
    return made


def run(context: Context, *arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), obj=context)


def test_it_shows_what_a_rule_may_set_and_which_series_are_needed(context: Context) -> None:
    assert run(context, "show", "torso-ct").exit_code == 0
    lines = context.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("torso-ct 1.0 (active): ")
    for row in (
        ("pet", "PT", "same"),
        ("overlap", "number", "0.25", "0 or more, below 1"),
        ("minimum_volume_ml", "number", "0", "0 or more"),
        ("kernel", "text", "soft", "sharp, soft", "of the CT"),
        ("2", "Bone"),
    ):
        assert any(all(cell in line for cell in row) for line in lines), row


def test_json_has_the_card_and_every_parameter(context: Context) -> None:
    shown = json.loads(run(context, "show", "torso-ct", "--version", "1.0", "--json").stdout)
    assert parse_model_card(shown["card"]).roles[0].name == "pet"
    assert list(shown["parameters"]) == ["overlap", "minimum_volume_ml", "kernel"]
    assert shown["parameters"]["overlap"]["high_excluded"]


@pytest.mark.parametrize("arguments", [("other",), ("torso-ct", "--version", "7")])
def test_what_is_not_there_is_named(context: Context, arguments: tuple[str, ...]) -> None:
    with pytest.raises(NotFound, match="`dicomnode models list` shows all"):
        raise run(context, "show", *arguments).exception or AssertionError("it was found")


def test_another_version_than_the_active_one_can_be_shown(context: Context) -> None:
    shown = json.loads(run(context, "show", "torso-ct", "--version", "0.9", "--json").stdout)
    assert (shown["version"], shown["active"], list(shown["parameters"])) == (
        "0.9",
        False,
        ["overlap", "minimum_volume_ml"],
    )
