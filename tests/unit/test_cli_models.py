"""`dicomnode models`, with the node's state in memory and thresholds for networks."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from dicomnode import bootstrap
from dicomnode.adapters.model_formats import opening
from dicomnode.cli.context import Context
from dicomnode.cli.models import app
from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, CaseOutcome
from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.errors import (
    AlreadyExists,
    IllegalTransition,
    InvalidModelPackage,
    NotFound,
    UsageError,
)
from tests.adapters.fake_engine import FakeEngine, FakeSession
from tests.adapters.fake_state import FakeState
from tests.made_results import CARD
from tests.made_series import classic
from tests.made_series import write as write_dicom
from tests.triton_models import axial

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


def test_what_runs_a_version_is_said_in_words(context: Context) -> None:
    def engines() -> list[str]:
        return [row["engine"] for row in json.loads(run(context, "list", "--json").stdout)]

    assert engines() == ["not tried yet", "not tried yet"]
    for version, engine in (("0.9", ""), ("1.0", "OpenVINO 2026.4.1")):
        outcome = AcceptanceOutcome.PASSED if engine else AcceptanceOutcome.NONE
        case = (CaseOutcome("a", True, (), ""),) if engine else ()
        tried = Acceptance(
            outcome, datetime(2026, 3, 1, tzinfo=UTC), case, engine=engine, precision="f32" * bool(engine)
        )
        context.state.record_acceptance("torso-ct", version, replace(tried, host=bootstrap.this_host()))
    assert sorted(engines()) == ["OpenVINO 2026.4.1 f32", "chosen when it is loaded"]
    named = parse_model_card(
        {**card_document(CARD), "name": "n", "network": {**card_document(CARD)["network"], "engine": "onnxruntime"}}
    )
    context.state.add_model(named, "e" * 64, Path("/models"))
    assert "onnxruntime fp32, by its card" in engines()


def test_it_shows_the_classes_of_a_model_that_gives_some(context: Context) -> None:
    code = {"value": "69536005", "scheme": "SCT", "meaning": "Head"}
    classes = [{"name": name, "code": code} for name in ("Head", "Chest")]
    output = {"classification": {"finding": code, "classes": classes}}
    document = {**card_document(CARD), "name": "region", "output": output}
    card = parse_model_card({**document, "input": {**document["input"], "size": [64, 64]}})
    context.state.add_model(card, "c" * 64, Path("/models"))
    assert run(context, "show", "region").exit_code == 0
    text = context.console.file.getvalue()  # type: ignore[attr-defined]
    assert "Classes of each image" in text
    assert "69536005, SCT" in text
    assert "| Chest | Head (69536005, SCT) |" in run(context, "card", "region", "--markdown").stdout


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


# -------------------------------------------------------------------------------- adding, and which version runs


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Packages of two versions, 1.1 with a golden case that its thresholds meet, 1.2 with one that they do not."""
    for version, above in (("1.1", 50.0), ("1.2", 90.0)):
        folder = tmp_path / version
        (folder / "golden").mkdir(parents=True)
        (folder / "model.yaml").write_text(yaml.safe_dump({**card_document(CARD), "version": version}))
        (folder / "model.onnx").write_bytes(version.encode())
        case = {"name": "noise", "input": "a.npz", "expected": "b.npz"}
        (folder / "golden/cases.yaml").write_text(yaml.safe_dump({"cases": [case]}))
        values = np.random.default_rng(1).integers(-200, 300, (3, 4, 5)).astype(np.int16)
        np.savez(folder / "golden/a.npz", volume=values, affine=axial((3, 4, 5), (2.0, 1.0, 1.0)).affine)
        np.savez(folder / "golden/b.npz", labels=(values > above).astype(np.uint8))
    return tmp_path


@pytest.fixture
def machine(context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Context:
    """A machine whose engine is FakeEngine, with a home of its own."""
    context.given["home"] = str(tmp_path / "home")
    monkeypatch.setattr(FakeSession, "timings_s", {"before": 0.25, "network": 2.0, "after": 0.5})

    @contextlib.contextmanager
    def at_hand(settings: object) -> Iterator[FakeEngine]:
        yield FakeEngine()

    monkeypatch.setattr("dicomnode.bootstrap.engine_at_hand", at_hand)
    monkeypatch.setattr(opening, "check_network", lambda *_: None)  # no network is in the packages
    return context


def told(context: Context, *arguments: str, status: int = 0) -> Any:
    """What a command prints with --json."""
    done = run(context, *arguments, "--json")
    if done.exit_code != status:
        raise done.exception or AssertionError(done.stdout)
    return json.loads(done.stdout)


def test_a_case_is_made_of_a_series_and_accepted(machine: Context, packages: Path, tmp_path: Path) -> None:
    told(machine, "add", str(packages / "1.1"), "--activate")
    folder, series = packages / "1.1", tmp_path / "series"
    write_dicom(classic(5), series)
    asked = ("case", "torso-ct", str(folder), "--series", str(series), "--called", "made")
    assert "nothing was changed" in told(machine, *asked, "--dry-run")["message"]
    assert not (folder / "golden/made.npz").exists()
    assert told(machine, *asked)["shape"][0] == 5
    with pytest.raises(UsageError, match="is there already"):
        raise run(machine, *asked).exception or AssertionError("it was written over")
    with pytest.raises(UsageError, match="ROLE=FOLDER"):
        raise run(machine, *asked, "--role", "pet").exception or AssertionError("it has no folder")
    with pytest.raises(InvalidModelPackage, match=r"the card has the roles \(none\)"):
        raise run(machine, *asked[:-1], "c", "--role", f"pet={series}").exception or AssertionError("no such role")
    card = {**card_document(CARD), "version": "1.3"}
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    assert [case["name"] for case in told(machine, "add", str(folder))["cases"]] == ["noise", "made"]


def active(context: Context) -> str:
    model = context.state.active_model("torso-ct")
    return model.version if model else ""


def test_a_version_that_is_added_runs_its_golden_cases_and_waits_to_be_activated(
    machine: Context, packages: Path
) -> None:
    added = told(machine, "add", str(packages / "1.1"), "--author", "anna", "--reason", "better lungs")
    assert (added["state"], added["acceptance"], added["engine"]) == ("registered", "passed", "thresholds f32")
    assert added["cases"][0]["figures"] == {"Dice Bone": 1.0, "Dice Lungs": 1.0}
    assert "1.0 stays active; to change that: dicomnode models activate torso-ct 1.1" in added["message"]
    assert active(machine) == "1.0"
    assert told(machine, "activate", "torso-ct", "1.1", "--author", "anna")["active"]
    assert active(machine) == "1.1"


def test_a_zip_is_taken_as_the_folder_in_it(machine: Context, packages: Path) -> None:
    """Its golden cases with it; and the same content is the same version, however it came."""
    archive = shutil.make_archive(str(packages / "torso"), "zip", packages, "1.1")
    added = told(machine, "add", archive, "--activate")
    assert (added["state"], added["acceptance"]) == ("active", "passed")
    assert told(machine, "add", str(packages / "1.1"))["digest"] == added["digest"]


def test_a_networks_file_comes_with_a_card_beside_it(machine: Context, packages: Path) -> None:
    network, card = packages / "net.onnx", packages / "card.yaml"
    network.write_bytes(b"network")
    document = card_document(CARD)
    card.write_text(
        yaml.safe_dump({**document, "version": "7", "network": {**document["network"], "file": "net.onnx"}})
    )
    tried = told(machine, "add", str(network), "--card", str(card), "--dry-run")
    assert "torso-ct 7 is a valid package" in tried["message"]
    assert not (machine.settings.models_folder / "torso-ct").exists()
    assert told(machine, "add", str(network), "--card", str(card))["version"] == "7"
    card.write_text("name: torso-ct\n")
    with pytest.raises(UsageError, match=r"model\.yaml: version is missing"):
        told(machine, "add", str(network), "--card", str(card))


@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_what_is_not_taken_is_refused_by_the_same_words_before(
    machine: Context, packages: Path, dry_run: list[str]
) -> None:
    (packages / "1.1" / "golden" / "b.npz").unlink()
    refused = run(machine, "add", str(packages / "1.1"), *dry_run)
    assert isinstance(refused.exception, InvalidModelPackage)
    assert "b.npz" in str(refused.exception)
    assert machine.state.model_version("torso-ct", "1.1") is None
    assert not (machine.settings.models_folder / "torso-ct").exists()
    other = yaml.safe_dump({**card_document(CARD), "version": "1.0"})
    (packages / "1.2" / "model.yaml").write_text(other)
    refused = run(machine, "add", str(packages / "1.2"), *dry_run)
    assert isinstance(refused.exception, AlreadyExists)
    assert str(refused.exception) == "torso-ct 1.0 is there with other content; give the new one a new version"


def test_what_would_become_of_a_package_is_said_before(machine: Context, packages: Path) -> None:
    for more, words in (
        ([], "torso-ct 1.1 would be registered, and its 1 golden case run"),
        (["--activate"], "torso-ct 1.1 would be active, once its 1 golden case passes here"),
    ):
        assert words in told(machine, "add", str(packages / "1.1"), "--dry-run", *more)["message"]
    told(machine, "add", str(packages / "1.1"))
    said = told(machine, "add", str(packages / "1.1"), "--dry-run")["message"]
    assert "torso-ct 1.1 is there already, registered; its 1 golden case would be run again; nothing" in said
    shutil.rmtree(packages / "1.1" / "golden")
    (packages / "1.1" / "model.yaml").write_text(yaml.safe_dump({**card_document(CARD), "version": "1.3"}))
    said = told(machine, "add", str(packages / "1.1"), "--dry-run")["message"]
    assert "torso-ct 1.3 would be registered; it has no golden cases, so nobody would have checked" in said


@pytest.mark.parametrize(
    "arguments",
    [("activate", "torso-ct", "1.2"), ("shadow", "torso-ct", "1.2"), ("shadow", "torso-ct", "--off")],
)
@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_what_is_not_accepted_or_not_there_is_refused_before(
    machine: Context, packages: Path, arguments: tuple[str, ...], dry_run: list[str]
) -> None:
    told(machine, "add", str(packages / "1.2"), status=1)
    refused = run(machine, *arguments, *dry_run)
    assert isinstance(refused.exception, IllegalTransition)
    assert "not accepted" in str(refused.exception) or "no version of torso-ct is a shadow" in str(refused.exception)


@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_a_rollback_to_nowhere_is_refused_before(machine: Context, dry_run: list[str]) -> None:
    refused = run(machine, "rollback", "torso-ct", *dry_run)
    assert (type(refused.exception), machine.state.active_model("torso-ct") is not None) == (type(None), True)
    run(machine, "rollback", "torso-ct")
    refused = run(machine, "rollback", "torso-ct", *dry_run)
    assert isinstance(refused.exception, IllegalTransition)
    assert "no version of torso-ct was active before" in str(refused.exception)


@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_a_version_whose_files_are_gone_is_refused_before(machine: Context, dry_run: list[str]) -> None:
    told(machine, "remove", "torso-ct", "0.9", "--files-only")
    refused = run(machine, "activate", "torso-ct", "0.9", *dry_run)
    assert isinstance(refused.exception, IllegalTransition)
    assert "the files of torso-ct 0.9 were removed" in str(refused.exception)


def test_without_golden_cases_it_is_taken_with_a_warning(machine: Context, packages: Path) -> None:
    shutil.rmtree(packages / "1.1" / "golden")
    added = told(machine, "add", str(packages / "1.1"), "--activate")
    assert (added["state"], added["acceptance"]) == ("active", "none")
    assert "nobody has checked what this version gives on this machine" in added["message"]


def test_one_that_fails_is_kept_out_with_its_figures_and_exit_status_1(machine: Context, packages: Path) -> None:
    added = told(machine, "add", str(packages / "1.2"), "--activate", status=1)
    assert (added["state"], added["acceptance"], active(machine)) == ("failed", "failed", "1.0")
    assert "case noise: Dice of Lungs is 0.8" in added["message"]
    done = run(machine, "activate", "torso-ct", "1.2")
    assert isinstance(done.exception, IllegalTransition)
    assert "case noise: Dice of Lungs is 0.8" in str(done.exception)
    assert done.exception.exit_code == 1


def test_the_way_there_and_back_is_in_the_history(machine: Context, packages: Path) -> None:
    told(machine, "add", str(packages / "1.1"), "--activate", "--author", "anna", "--reason", "better")
    told(machine, "rollback", "torso-ct", "--author", "ben", "--reason", "worse")
    assert active(machine) == "1.0"
    told(machine, "shadow", "torso-ct", "1.1", "--author", "ben")
    told(machine, "shadow", "torso-ct", "--off", "--author", "ben")
    told(machine, "deactivate", "torso-ct", "--author", "ben")
    assert active(machine) == ""
    history = told(machine, "history", "torso-ct")
    assert [(h["version"], h["change"], h["author"], h["reason"]) for h in history[-5:]] == [
        ("1.1", "activated", "anna", "better"),
        ("1.0", "rolled back", "ben", "worse"),
        ("1.1", "shadowed", "ben", ""),
        ("1.1", "unshadowed", "ben", ""),
        ("1.0", "deactivated", "ben", ""),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("activate", "torso-ct", "0.9"),
        ("deactivate", "torso-ct"),
        ("rollback", "torso-ct"),
        ("shadow", "torso-ct", "0.9"),
    ],
)
def test_a_change_can_be_tried(machine: Context, arguments: tuple[str, ...]) -> None:
    before = machine.state.models()
    assert "nothing was changed" in told(machine, *arguments, "--dry-run")["message"]
    assert machine.state.models() == before
    told(machine, *arguments)
    assert machine.state.models() != before


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("activate", "torso-ct", "7"), NotFound, "there are: 0.9, 1.0"),
        (("activate", "lung-ct", "7"), NotFound, "there are: torso-ct"),
        (("shadow", "torso-ct"), UsageError, "give a version or --off"),
        (("shadow", "torso-ct", "1.0"), IllegalTransition, "is active"),
        (("shadow", "torso-ct", "1.0", "--dry-run"), IllegalTransition, "is active"),
        (("shadow", "torso-ct", "--off"), IllegalTransition, "no version of torso-ct is a shadow"),
        (("history", "lung-ct"), NotFound, "there is no model lung-ct"),
        (("card", "lung-ct"), NotFound, "there is no model lung-ct"),
    ],
)
def test_what_cannot_be_done_says_what_can(
    machine: Context, arguments: tuple[str, ...], error: type[Exception], words: str
) -> None:
    done = run(machine, *arguments)
    assert isinstance(done.exception, error)
    assert words in str(done.exception)


def test_the_card_is_readable(machine: Context, packages: Path) -> None:
    told(machine, "add", str(packages / "1.1"), "--activate", "--author", "anna")
    machine.json = False
    text = run(machine, "card", "torso-ct", "--markdown").stdout
    for line in (
        "# torso-ct 1.1",
        "**Limits.** tests",
        "| state | active |",
        "| main | CT | -1000 to 1000 (any unit) | - |",
        "| 2 | Bone | Bone (272673000, SCT) | Tissue (85756007, SCT) |",
        "| overlap | number | 0.25 | 0 or more, below 1 |",
        "| noise | passed | Dice Bone 1, Dice Lungs 1 |",
    ):
        assert line in text, line
    assert run(machine, "card", "torso-ct").exit_code == 0
    assert "Takes" in machine.console.file.getvalue()  # type: ignore[attr-defined]


def test_bench_shows_medians_of_its_parts_on_a_golden_case_or_a_made_up_volume(
    machine: Context, packages: Path
) -> None:
    told(machine, "add", str(packages / "1.1"), "--activate")
    found = told(machine, "bench", "torso-ct", "--runs", "2")
    assert (found["volume"], found["shape"], found["runs"]) == ("golden case noise", "3 × 4 × 5", 2)
    assert found["medians_s"] == {"before": 0.25, "network": 2.0, "after": 0.5, "whole": 2.75}
    assert told(machine, "bench", "torso-ct", "--version", "0.9", "--runs", "1")["volume"] == "made up"


def test_a_limit_is_set_shown_and_taken_away(context: Context) -> None:
    assert run(context, "limit", "torso-ct", "1", "--dry-run").exit_code == 0
    assert context.state.model_limits() == {}
    for given, expected in (("1", {"torso-ct": 1}), ("none", {"torso-ct": 0}), ("card", {})):
        assert run(context, "limit", "torso-ct", given).exit_code == 0
        assert context.state.model_limits() == expected
    context.state.limit_model("torso-ct", 3)
    rows = json.loads(run(context, "limit", "--json").stdout)
    assert rows == [{"name": "torso-ct", "at_once": 3, "said_by": "models limit"}]
    text = context.console.file.getvalue()  # type: ignore[attr-defined]
    assert "torso-ct would run at most 1 at once; nothing was changed" in text
    assert "torso-ct runs as often at once as its card says" in text


def test_a_limit_that_is_none_or_of_no_model_is_refused(context: Context) -> None:
    assert isinstance(run(context, "limit", "torso-ct", "0").exception, UsageError)
    assert isinstance(run(context, "limit", "lung", "1").exception, NotFound)
    assert isinstance(run(context, "limit", "lung").exception, NotFound)


def test_a_version_is_removed_with_its_files_and_only_where_that_is_said(context: Context, tmp_path: Path) -> None:
    context.given["home"] = tmp_path
    place = tmp_path / "models" / "torso-ct" / "abc"
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(b"x")
    card = parse_model_card({**card_document(CARD), "version": "0.1"})
    context.state.add_model(card, "a" * 64, place, activate=False)
    with pytest.raises(IllegalTransition, match="is active: activate another version or dicomnode models deactivate"):
        raise_of(run(context, "remove", "torso-ct", "1.0"))
    assert run(context, "remove", "torso-ct", "0.1", "--dry-run").exit_code == 0
    assert place.is_dir()
    done = run(context, "remove", "torso-ct", "0.1", "--reason", "recalled", "--json")
    assert json.loads(done.stdout)["version"] == "0.1"
    assert not place.exists()
    assert place.parent.is_dir()
    assert [m.version for m in context.state.models()] == ["0.9", "1.0"]
    history = json.loads(run(context, "history", "torso-ct", "--json").stdout)
    assert [(row["version"], row["change"], row["reason"]) for row in history][-1] == ("0.1", "removed", "recalled")
    elsewhere = json.loads(run(context, "remove", "torso-ct", "0.9", "--json").stdout)
    assert "is not on this host" in elsewhere["message"]


def raise_of(done: Result) -> None:
    if done.exception:
        raise done.exception


def test_show_says_where_the_golden_cases_were_run(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    case = (CaseOutcome("trunk", True, (), "as expected"),)
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    passed = Acceptance(AcceptanceOutcome.PASSED, moment, case, "OpenVINO", "f32", "CPU", host="a", cpu="EPYC")
    context.state.record_acceptance("torso-ct", "1.0", passed)
    monkeypatch.setattr(bootstrap, "this_host", lambda: "b")
    assert run(context, "show", "torso-ct").exit_code == 0
    text = context.console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line for line in text.splitlines() if "a (EPYC)" in line)
    assert all(words in row for words in ("passed: 1 run", "OpenVINO f32, CPU", "2026-03-01 12:00 UTC"))
    assert "Its golden cases were not run on this machine: a worker here runs them before it serves" in text
    case = (CaseOutcome("trunk", False, (), "Dice of Lungs is 0.5"),)
    failed = replace(passed, outcome=AcceptanceOutcome.FAILED, cases=case, host="b", engine="torch")
    context.state.record_acceptance("torso-ct", "1.0", failed)
    shown = json.loads(run(context, "show", "torso-ct", "--json").stdout)
    assert [(one["host"], one["outcome"]) for one in shown["acceptances"]] == [("a", "passed"), ("b", "failed")]
    assert (shown["accepted_on"], shown["not_accepted_on"]) == (["a (EPYC)"], ["b (EPYC)"])
