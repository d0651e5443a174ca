"""`dicomnode models` of models that come after others: shown, applied in order, refused in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomnode.cli.context import Context
from dicomnode.domain.model_card import card_document
from dicomnode.errors import InvalidModelPackage
from tests.composed_cards import CROP, GATE, with_after
from tests.made_results import CARD
from tests.unit.test_cli_models import context, machine, run, told

__all__ = ["context", "machine"]

FIRST: Mapping[str, Any] = {**card_document(CARD), "name": "organs"}
STEPS = [{**step, "model": "organs"} for step in (GATE, {**CROP, "margin_mm": 20})]
AFTER = with_after(*STEPS, version="1.0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Packages of organs and of nodules, which comes after it, and a file that names the later one first."""
    for name, document in (("nodules", AFTER), ("organs", FIRST)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.yaml").write_text(yaml.safe_dump(dict(document)))
        (tmp_path / name / "model.onnx").write_bytes(name.encode())
    listed = [{"package": name, "active": True} for name in ("nodules", "organs")]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": listed}))
    return tmp_path


def test_a_file_is_applied_in_the_order_that_is_possible(machine: Context, folder: Path) -> None:
    with pytest.raises(InvalidModelPackage, match=r"after\[0\].model: there is no model organs"):
        told(machine, "add", str(folder / "nodules"))
    done = told(machine, "apply", str(folder))
    assert [(step["step"], step["name"], step["ok"]) for step in done["steps"]] == [
        ("add", "organs", True),
        ("activate", "organs", True),
        ("add", "nodules", True),
        ("activate", "nodules", True),
    ]
    assert told(machine, "apply", str(folder))["steps"] == []


def test_what_lacks_its_first_model_is_left_out_and_the_rest_is_done(machine: Context, folder: Path) -> None:
    listed = [{"package": "nodules", "active": True}, {"package": "organs", "active": False}]
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": listed}))
    done = told(machine, "apply", str(folder), status=1)
    assert [(step["name"], step["ok"]) for step in done["steps"]] == [
        ("organs", True),
        ("nodules", False),
        ("nodules", False),
    ]
    assert "no version of organs is active" in done["steps"][1]["message"]
    assert machine.state.model_version("organs", "1.0.0") is not None


def test_its_card_says_what_it_comes_after(machine: Context, folder: Path) -> None:
    told(machine, "apply", str(folder))
    markdown = told(machine, "card", "nodules")["markdown"]
    assert "## Runs after" in markdown
    assert "| organs | only if it finds Lungs of at least 0.01 mL |" in markdown
    assert "| organs | only in the box around Bone, with 20 mm on every side; without it: skip |" in markdown
    assert told(machine, "show", "nodules")["card"]["after"] == AFTER_DOCUMENT
    machine.json = False
    assert run(machine, "show", "nodules").exit_code == 0
    assert "Runs after" in machine.console.file.getvalue()  # type: ignore[attr-defined]


AFTER_DOCUMENT = [
    {"model": "organs", "use": "gate", "segments": ["Lungs"], "minimum_volume_ml": 0.01},
    {
        "model": "organs",
        "use": "crop",
        "segments": ["Bone"],
        "margin_mm": 20,
        "minimum_volume_ml": 0,
        "absent": "skip",
    },
]


@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_what_lacks_its_first_model_is_not_added(machine: Context, folder: Path, dry_run: list[str]) -> None:
    refused = run(machine, "add", str(folder / "nodules"), *dry_run)
    assert isinstance(refused.exception, InvalidModelPackage)
    assert "model.yaml.after[0].model: there is no model organs: add it first" in str(refused.exception)
    told(machine, "add", str(folder / "organs"), "--no-activate")
    refused = run(machine, "add", str(folder / "nodules"), *dry_run)
    assert "no version of organs is active: dicomnode models activate organs 1.0.0" in str(refused.exception)
    assert machine.state.model_version("nodules", "1.0") is None


@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_a_version_that_takes_away_what_others_need_is_not_activated(
    machine: Context, folder: Path, dry_run: list[str]
) -> None:
    told(machine, "apply", str(folder))
    other = {**FIRST, "version": "2.0", "output": {"segments": FIRST["output"]["segments"][:1]}}
    (folder / "organs" / "model.yaml").write_text(yaml.safe_dump(other))
    refused = run(machine, "add", str(folder / "organs"), "--activate", *dry_run)
    assert refused.exit_code == 1
    assert "nodules 1.0, which is active, could not run" in str(refused.exception)
    active = machine.state.active_model("organs")
    assert active is not None
    assert active.version == "1.0.0"


def test_a_file_that_cannot_be_applied_says_so_before(machine: Context, folder: Path) -> None:
    listed = [{"package": "nodules", "active": True}, {"package": "organs", "active": False}]
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": listed}))
    tried = told(machine, "apply", str(folder), "--dry-run", status=1)
    assert [(step["step"], step["name"], step["ok"]) for step in tried["steps"]] == [
        ("add", "organs", True),
        ("add", "nodules", False),
        ("activate", "nodules", False),
    ]
    assert "cannot add nodules 1.0: model.yaml.after[0].model: no version of organs" in tried["steps"][1]["message"]
    assert not tried["ok"]
    assert machine.state.model_version("organs", "1.0.0") is None
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": [{**one, "active": True} for one in listed]}))
    assert told(machine, "apply", str(folder), "--dry-run")["ok"]


@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_what_it_needs_is_not_deactivated(machine: Context, folder: Path, dry_run: list[str]) -> None:
    told(machine, "apply", str(folder))
    refused = run(machine, "deactivate", "organs", *dry_run)
    assert refused.exit_code == 1
    assert "nodules 1.0, which is active, could not run: no version of organs is active" in str(refused.exception)
    assert machine.state.active_model("organs") is not None
