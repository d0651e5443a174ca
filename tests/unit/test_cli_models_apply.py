"""`models apply`: what a models.yaml changes, what it leaves, and what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.cli.context import Context
from dicomnode.errors import (
    InvalidModelList,
)
from tests.unit.test_cli_models import active, context, machine, packages, run, told

__all__ = ["context", "machine", "packages"]


def write_list(packages: Path, text: str) -> str:
    (packages / "models.yaml").write_text(text)
    return str(packages)


def test_apply_shows_and_makes_the_difference_and_then_there_is_none(machine: Context, packages: Path) -> None:
    folder = write_list(packages, "models:\n  - package: '1.1'\n    active: true\n")
    before = machine.state.models()
    tried = told(machine, "apply", folder, "--dry-run")
    assert [step["message"] for step in tried["steps"]] == [
        "add torso-ct 1.1",
        "activate torso-ct 1.1, in place of 1.0",
    ]
    assert machine.state.models() == before
    done = told(machine, "apply", folder, "--author", "anna", "--reason", "as planned")
    assert (done["ok"], active(machine)) == (True, "1.1")
    assert machine.state.model_changes("torso-ct")[-1].reason == "as planned"
    assert told(machine, "apply", folder)["steps"] == []


def test_apply_leaves_out_what_was_not_accepted_and_does_the_rest(machine: Context, packages: Path) -> None:
    text = "models:\n  - {package: '1.2', active: true}\n  - {package: '1.1', shadow: true}\n"
    done = told(machine, "apply", write_list(packages, text), status=1)
    assert [(step["step"], step["ok"]) for step in done["steps"]] == [
        ("add", False),
        ("add", True),
        ("activate", False),
        ("shadow", True),
    ]
    assert (active(machine), [m.version for m in machine.state.models() if m.shadow]) == ("1.0", ["1.1"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models:\n  - package: '1.1'\n    activ: true\n", "models.yaml:2:5: models[0]: unknown: activ"),
        ("models:\n  - package: '1.1'\n    active: 1\n", "models.yaml:3:5: models[0].active: 1 is not true or false"),
        ("models:\n  - package: '9.9'\n", "models.yaml:2:5: models[0].package: 9.9 is not there"),
        (
            "models:\n  - package: '1.1'\n  - package: '1.1'\n",
            "models.yaml:3:5: models[1]: torso-ct 1.1 is named twice",
        ),
        ("models: [\n", "models.yaml:2:1"),
        ("", "holds no list of models"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_line(
    machine: Context, packages: Path, text: str, words: str
) -> None:
    done = run(machine, "apply", write_list(packages, text))
    assert isinstance(done.exception, InvalidModelList)
    assert words in str(done.exception)
    assert done.exception.exit_code == 2


def test_a_package_that_is_wrong_is_named_with_its_line(machine: Context, packages: Path) -> None:
    (packages / "1.1" / "model.onnx").unlink()
    done = run(machine, "apply", write_list(packages, "models:\n  - package: '1.1'\n"))
    assert isinstance(done.exception, InvalidModelList)
    assert "models.yaml:2:5: models[0].package: model.yaml.network.file" in str(done.exception)
