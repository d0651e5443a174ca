"""rules explain and rules test: what rules say of files and of received studies, and that nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.errors import NotFound
from dicomnode.imaging.series_files import NO_DICOM, NO_UIDS, REPEATED, series_in
from dicomnode.ports import InstanceStore
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.unit.test_cli_state import Screen
from tests.unit.test_complete_route import SR
from tests.unit.test_series_facts import write_slice

DATA = Path(__file__).parents[3] / "shared" / "data"
DRAFT = """
name: thin
when:
  all:
    - Modality: CT
    - not: {ImageType: {contains: LOCALIZER}}
    - any:
        - BodyPartExamined: CHEST
        - IsAVolume: true
    - NumberOfInstances: {at_least: 3}
model: torso-ct
"""


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(tmp_path)


def folder(screen: Screen, numbers: list[int], name: str = "ct", **changes: Any) -> str:
    place = screen.folder / name
    place.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        write_slice(place / f"{number}.dcm", number, **changes)
    return str(place)


def stored(screen: Screen, series: str, numbers: list[int], **changes: Any) -> None:
    """A series as the node receives it and as the store lays it out."""
    place = f"instances/1/{series}"
    folder(screen, numbers, place, SeriesInstanceUID=series, **changes)
    for number in numbers:
        screen.node.receive(series, number)


def without_a_database(screen: Screen) -> Screen:
    del screen.context.__dict__["state"], screen.context.__dict__["store"]
    screen.context.given["home"] = screen.folder / "no" / "such" / "home"
    return screen


# ------------------------------------------------------------------------------------------------- explain


def test_a_draft_is_explained_on_a_folder_without_a_database(screen: Screen) -> None:
    draft, files = screen.file(DRAFT), folder(screen, [1, 2, 3])
    said = without_a_database(screen).run("rules", "explain", draft, files)
    assert "Rule thin matched: Modality is 'CT'" in said
    assert "✓ true  Modality equals 'CT'  found: 'CT'" in said
    assert "✗ false ImageType contains 'LOCALIZER'  found: 'ORIGINAL\\PRIMARY\\AXIAL'" in said
    assert "✗ false BodyPartExamined equals 'CHEST'  found: missing" in said
    assert "✓ true  IsAVolume equals true  found: true" in said
    assert not (screen.folder / "no").exists()


def test_a_file_that_does_not_match(screen: Screen) -> None:
    files = folder(screen, [1])
    said = " ".join(screen.run("rules", "explain", screen.file(DRAFT), f"{files}/1.dcm").split())
    assert "Rule thin did not match: BodyPartExamined is missing; IsAVolume is false, not true (single-slice" in said
    assert "found: 1" in said


def test_only_what_decided_is_in_colour(screen: Screen) -> None:
    from rich.console import Console

    screen.context.console = Console(width=100, force_terminal=True, color_system="standard")
    lines = screen.run("rules", "explain", screen.file(DRAFT), folder(screen, [1, 2, 3])).splitlines()
    bold_green, dim = "\x1b[1;32m", "\x1b[2m"
    (decided,) = [line for line in lines if "IsAVolume equals" in line]
    (other,) = [line for line in lines if "BodyPartExamined equals" in line]
    assert bold_green + "✓ true " in decided
    assert dim + "✗ false" in other
    assert bold_green not in other


def test_explained_as_json(screen: Screen) -> None:
    told = screen.json("rules", "explain", screen.file(DRAFT), folder(screen, [1, 2, 4]))
    (answer,) = told["answers"]
    assert (answer["rule"], answer["matches"], answer["instances"]) == ("thin", False, 3)
    assert [words.partition(" ")[0] for words in answer["decided_by"]] == ["BodyPartExamined", "IsAVolume"]
    assert answer["when"]["all"][2]["any"][1]["clause"] == {"IsAVolume": {"equals": True}}


def test_a_stored_rule_on_a_received_study(screen: Screen) -> None:
    screen.node.rule("ct1", {"CallingAETitle": "CT1", "Modality": "CT"}, model="gone")
    stored(screen, "1.1", [1, 2])
    stored(screen, "1.2", [3], Modality="MR")
    said = screen.run("rules", "explain", "ct1", "1")
    assert "found: 'CT1'" in said
    assert "1 of 2 series match" in said
    assert "note: no model gone is registered" in said
    (answer,) = screen.json("rules", "explain", "ct1", "1.2")["answers"]
    assert (answer["series_instance_uid"], answer["matches"]) == ("1.2", False)
    assert screen.node.state.jobs() == []


@pytest.mark.parametrize("make", [FolderInstanceStore, FakeInstanceStore])
def test_a_series_is_found_where_a_store_files_it(make: Callable[[Path], InstanceStore], screen: Screen) -> None:
    """Other bytes under a UID that is there lie beside it, and are not in use."""
    store = make(screen.folder / "store")
    for number, description in ((1, "first"), (2, "first"), (1, "again")):
        content = write_slice(screen.folder / "new.dcm", number, SeriesDescription=description).read_bytes()
        spooled = store.spool([content], calling_ae_title="CT1", called_ae_title="DICOMNODE")
        digest = sha256(content).hexdigest()
        store.file(spooled, study="1", series="1.1", instance=f"1.2.{number}", sha256=digest)
        store.discard(spooled)
    screen.context.__dict__["store"] = store
    screen.node.receive()
    screen.node.rule("first", {"SeriesDescription": "first", "NumberOfInstances": 2})
    told = screen.json("rules", "test", "1.1")
    assert [(row["matches"], row["instances"]) for row in told["answers"]] == [(True, 2)]
    assert len(told["left_out"]) == 1


def test_asking_and_routing_agree(screen: Screen) -> None:
    """The words of `rules explain` are those that stand in `studies why` once the node has routed."""
    rule = {"all": [{"IsAVolume": True}, {"Orientation": "coronal"}]}
    screen.node.rule("coronal", rule)
    for number in (1, 2, 3):
        screen.node.receive("1.1", number)
        place = write_slice(screen.node.store.path(f"1.1.{number}.dcm"), number)
        (screen.folder / "instances/1/1.1").mkdir(parents=True, exist_ok=True)
        (screen.folder / f"instances/1/1.1/{number}.dcm").write_bytes(place.read_bytes())
    screen.node.sweep()
    (answer,) = screen.json("rules", "explain", "coronal", "1.1")["answers"]
    assert answer["why"] == screen.node.why("1.1")


def test_series_that_no_rule_is_asked_about(screen: Screen) -> None:
    screen.node.rule("any", {"Modality": {"exists": True}})
    report = folder(screen, [1], "sr", Modality="SR", SOPClassUID=SR, Rows=None, PixelData=None)
    said = screen.run("rules", "explain", "any", report)
    assert "Rule any is not asked: the series holds no image to work on: it is SR" in said
    (row,) = screen.json("rules", "test", report)["answers"]
    assert (row["matches"], row["decided_by"]) == (False, [])
    assert "never" in screen.run("rules", "test", report)


def test_files_that_left_the_store(screen: Screen) -> None:
    screen.node.rule()
    screen.node.receive()
    error = screen.fails("rules", "explain", "torso", "1")
    assert isinstance(error, NotFound)
    assert "its files are not in the store" in str(error)


@pytest.mark.parametrize(
    ("rule", "subject", "words"),
    [
        ("torsos", "1", "did you mean torso?"),
        ("torso", "no-such-study", "there is no file or folder no-such-study; see dicomnode studies list"),
        ("gone.yaml", "1", "gone.yaml"),
    ],
)
def test_what_is_not_there(screen: Screen, rule: str, subject: str, words: str) -> None:
    screen.node.rule()
    assert words in str(screen.fails("rules", "explain", rule, subject))


# --------------------------------------------------------------------------------------- the study has a say

CHOOSE = "name: thin\nmodel: m\nwhen: {Modality: CT}\nchoose: [thinnest_slices]\n"


def study(screen: Screen) -> str:
    """Thick and thin CT and a PET, in one folder."""
    folder(screen, [1, 2, 3], "study/thick", SeriesInstanceUID="1.1", SeriesNumber=1, SliceThickness=5)
    thin = {"SeriesInstanceUID": "1.2", "SeriesNumber": 2, "SliceThickness": 1}
    for number in range(1, 4):
        place = screen.folder / "study" / "thin"
        place.mkdir(parents=True, exist_ok=True)
        write_slice(place / f"{number}.dcm", 10 + number, ImagePositionPatient=[0, 0, number * 1.0], **thin)
    folder(screen, [21], "study/pet", SeriesInstanceUID="1.3", SeriesNumber=3, Modality="PT")
    return str(screen.folder / "study")


def outcomes(told: Any) -> dict[str, str]:
    return {answer["series_instance_uid"]: answer["outcome"] for answer in told["answers"]}


def test_which_series_was_preferred_and_why(screen: Screen) -> None:
    files, draft = study(screen), screen.file(CHOOSE)
    said = " ".join(screen.run("rules", "explain", draft, files).split())
    assert "✓ true chosen: thinnest slices, 1 mm against 5 mm of CT series 1" in said
    assert "Rule thin did not choose it: CT series 2 was chosen: thinnest slices, 1 mm against 5 mm" in said
    assert "1 of 3 series match" in said
    told = screen.json("rules", "explain", draft, files)
    assert outcomes(told) == {"1.1": "not-chosen", "1.2": "matched", "1.3": "not-matched"}
    assert "✗ not chosen" in screen.run("rules", "test", files, "--rule", draft)


def test_what_the_study_has_and_who_fills_a_role(screen: Screen) -> None:
    files = study(screen)
    has = screen.file(CHOOSE + "study: {has: [{Modality: PT}], has_not: [{Modality: MR}]}\n", "has.yaml")
    said = " ".join(screen.run("rules", "explain", has, files).split())
    assert "✓ true the study has PT series 3: Modality is 'PT'" in said
    assert "✓ true no series of the study has Modality equals 'MR'" in said
    hasnt = screen.file(CHOOSE + "study: {has_not: [{Modality: PT}]}\n", "has-not.yaml")
    said = " ".join(screen.run("rules", "explain", hasnt, files).split())
    assert "✗ false the study has PT series 3, which it must not: Modality is 'PT'" in said
    role = screen.file(CHOOSE + "roles: {pet: {when: {Modality: PT}}}\n", "role.yaml")
    assert "✓ true pet is PT series 3: the only series that fits" in " ".join(
        screen.run("rules", "explain", role, files).split()
    )
    missing = screen.file(CHOOSE + "roles: {mr: {when: {Modality: MR}}}\n", "missing.yaml")
    said = " ".join(screen.run("rules", "explain", missing, files).split())
    assert "✗ false no series of the study fits as mr: Modality equals 'MR'" in said


def test_an_earlier_study_among_the_files(screen: Screen) -> None:
    for name, date, more in (("new", "20240201", {}), ("old", "20230101", {"StudyInstanceUID": "2"})):
        uid = f"1.{name == 'old':d}"
        folder(
            screen, [1 if name == "new" else 2], name, SeriesInstanceUID=uid, StudyDate=date, PatientID="P", **more
        )
    rule = "name: change\nmodel: m\nwhen: {Modality: CT}\nroles: {before: {when: {Modality: CT}, from: prior}}\n"
    told = screen.json("rules", "explain", screen.file(rule), str(screen.folder))
    assert outcomes(told) == {"1.0": "matched", "1.1": "role-missing"}


def test_an_earlier_rule_in_force_stops_the_series(screen: Screen) -> None:
    screen.node.rule("first", {"Modality": "CT"}, model="m", stop=True, order=1)
    screen.node.rule("second", {"Modality": "CT"})
    stored(screen, "1.1", [1])
    said = screen.run("rules", "explain", "second", "1.1")
    assert "Rule second was not asked: rule first stopped it" in said
    (answer,) = screen.json("rules", "explain", "second", "1.1")["answers"]
    assert (answer["outcome"], answer["stopped_by"], answer["matches"]) == ("stopped", "first", False)
    draft = screen.file("name: second\nmodel: m\nwhen: {Modality: CT}\norder: 0\n")
    (answer,) = screen.json("rules", "explain", draft, "1.1")["answers"]
    assert answer["outcome"] == "matched"
    assert "– stopped" in screen.run("rules", "test", "1.1")


def test_one_series_is_asked_about_with_the_rest_of_its_study(screen: Screen) -> None:
    screen.node.rule("lowest", {"Modality": "CT"}, choose=["lowest_number"])
    stored(screen, "1.1", [1], SeriesNumber=1)
    stored(screen, "1.2", [2], SeriesNumber=2)
    told = screen.json("rules", "explain", "lowest", "1.2")
    assert outcomes(told) == {"1.2": "not-chosen"}
    assert "is still being received" in told["notes"][0]
    assert "note: study 1 is still being received" in screen.run("rules", "explain", "lowest", "1.2")


def test_shadows_and_disabled_rules_are_asked(screen: Screen) -> None:
    screen.node.rule("shy", {"Modality": "CT"}, state="shadow")
    screen.node.rule("off", {"Modality": "CT"}, state="disabled")
    files = folder(screen, [1])
    said = screen.run("rules", "explain", "shy", files)
    assert "Rule shy, a shadow, would have matched" in said
    assert "note: the rule is a shadow" in said
    said = screen.run("rules", "explain", "off", files)
    assert "Rule off matched" in said
    assert "note: the rule is disabled; dicomnode rules enable off" in said


def test_routing_and_asking_agree_on_a_study(screen: Screen) -> None:
    """Both phases of routing, and the answers about the files in the store."""
    screen.node.model()
    screen.node.state.add_rule("stop", {"name": "stop", "when": {"SeriesNumber": 3}, "stop": True, "order": 1})
    screen.node.rule("choose", {"Modality": "CT"}, choose=["most_instances"])
    for series, numbers in (("1.1", [1]), ("1.2", [2, 3]), ("1.3", [4, 5, 6])):
        stored(screen, series, numbers, SeriesNumber=int(series[-1]))
        for number in numbers:
            screen.node.receive(series, number, SeriesNumber=int(series[-1]))
    for _ in range(4):
        screen.node.sweep()
    told = screen.json("rules", "explain", "choose", "1")
    assert outcomes(told) == {"1.1": "not-chosen", "1.2": "matched", "1.3": "stopped"}
    assert [job.series_instance_uid for job in screen.node.state.jobs()] == ["1.2"]


# ---------------------------------------------------------------------------------------------------- test


def test_every_enabled_rule_says_a_line_a_series(screen: Screen) -> None:
    screen.node.rule("a-ct", {"Modality": "CT"})
    screen.node.rule("b-mr", {"Modality": "MR"})
    screen.node.rule("c-off", {"Modality": "CT"}, enabled=False)
    screen.node.rule("d-old", {"Modality": {"was": "CT"}})
    files = folder(screen, [1, 2, 3])
    said = screen.run("rules", "test", files)
    assert "✓ match  a-ct  Modality is 'CT'" in said
    assert "✗ no     b-mr  Modality is 'CT', not 'MR'" in said
    assert "c-off" not in said
    assert "note: rule d-old cannot be read" in said
    assert "1 of 1 series matched by one of 2 rules" in said
    told = screen.json("rules", "test", files)
    assert [(row["rule"], row["matches"]) for row in told["answers"]] == [("a-ct", True), ("b-mr", False)]


def test_a_draft_is_tested_without_a_database(screen: Screen) -> None:
    draft, files = screen.file(DRAFT), folder(screen, [1, 2, 3])
    other = folder(screen, [7], "mr", Modality="MR", SeriesInstanceUID="1.7")
    told = without_a_database(screen).json("rules", "test", files, other, "--rule", draft)
    assert [(row["series_instance_uid"], row["matches"]) for row in told["answers"]] == [
        ("1.1", True),
        ("1.7", False),
    ]
    assert not (screen.folder / "no").exists()


def test_no_rule_to_test(screen: Screen) -> None:
    assert "--rule FILE" in str(screen.fails("rules", "test", folder(screen, [1])))


def test_no_image_to_test(screen: Screen) -> None:
    (screen.folder / "empty").mkdir()
    error = screen.fails("rules", "test", str(screen.folder / "empty"), "--rule", screen.file(DRAFT))
    assert "no DICOM instance in" in str(error)


# --------------------------------------------------------------------------------------------------- files


def test_files_are_sorted_into_series_and_the_rest_is_named(screen: Screen) -> None:
    place = Path(folder(screen, [2, 1, 10]))
    write_slice(place / "b.dcm", 5, SeriesInstanceUID="1.2", SeriesDescription="other")
    write_slice(place / "copy.dcm", 1)
    write_slice(place / "nameless.dcm", 6, SeriesInstanceUID=None)
    (place / "notes.txt").write_text("no image", encoding="utf-8")
    found = series_in([place])
    assert [[i.instance_number for i in s.series.instances] for s in found.series] == [[1, 2, 10], [5]]
    assert found.series[1].description == "other"
    assert found.left_out == (
        f"1 file left out, {REPEATED}: copy.dcm",
        f"1 file left out, {NO_UIDS}: nameless.dcm",
        f"1 file left out, {NO_DICOM}: notes.txt",
    )


@pytest.mark.real_data
def test_real_folders(screen: Screen) -> None:
    if not DATA.is_dir():
        pytest.skip("../shared/data is not there")
    stack = "name: stack\nmodel: m\nwhen: {Modality: CT, IsAVolume: true, Orientation: axial}\n"
    told = screen.json("rules", "test", str(DATA / "ct"), "--rule", screen.file(stack))
    counts = sorted(row["instances"] for row in told["answers"] if row["matches"])
    assert counts == [12, 41]
    assert len(told["answers"]) == 12


@pytest.mark.real_data
def test_broken_files_are_left_out_or_answered(screen: Screen) -> None:
    if not DATA.is_dir():
        pytest.skip("../shared/data is not there")
    everything = "name: all\nmodel: m\nwhen: {IsAVolume: true, Orientation: axial, AgeInYears: {at_least: 1}}\n"
    told = screen.json("rules", "test", str(DATA / "broken"), "--rule", screen.file(everything))
    assert told["left_out"]
    assert all(row["why"] for row in told["answers"])


# ------------------------------------------------------------------------------------------ older revisions


def test_an_older_revision_is_explained_and_tested(screen: Screen) -> None:
    screen.node.rule("ct", {"Modality": "CT"})
    screen.node.rule("ct", {"Modality": "CT", "SeriesDescription": "thin"})
    files = folder(screen, [1, 2])
    now = screen.run("rules", "explain", "ct", files)
    assert "did not match" in now
    assert "this is what revision" not in now
    before = screen.run("rules", "explain", "ct@1", files)
    assert "Rule ct matched: Modality is 'CT'" in before
    assert "note: this is what revision 1 says; revision 2 is in force" in before
    assert "Rule ct did not match" in screen.run("rules", "explain", "ct@2", files)
    assert "1 of 1 series matched by the rule" in screen.run("rules", "test", files, "--rule", "ct@1")
    screen.run("rules", "remove", "ct")
    assert "says; the rule was removed" in screen.run("rules", "explain", "ct@2", files)


def test_an_older_revision_on_a_received_study(screen: Screen) -> None:
    screen.node.rule("ct", {"Modality": "CT"}, choose=["lowest_number"])
    screen.node.rule("ct", {"Modality": "MR"})
    stored(screen, "1.1", [1], SeriesNumber=1)
    stored(screen, "1.2", [2], SeriesNumber=2)
    assert outcomes(screen.json("rules", "explain", "ct@1", "1")) == {"1.1": "matched", "1.2": "not-chosen"}
    assert outcomes(screen.json("rules", "explain", "ct", "1")) == {"1.1": "not-matched", "1.2": "not-matched"}


def test_a_revision_that_is_not_there_or_cannot_be_read(screen: Screen) -> None:
    screen.node.state.add_rule("old", {"name": "old", "model": "m", "when": {"Modality": {"was": "CT"}}})
    screen.node.rule("old", {"Modality": "CT"})
    files = folder(screen, [1])
    assert "rule old has no revision 3; there are: 1, 2" in str(screen.fails("rules", "explain", "old@3", files))
    error = screen.fails("rules", "explain", "old@1", files)
    assert str(error).startswith("rule old@1: when.Modality.was: unknown")
    assert "dicomnode rules show old@1 prints it" in str(error)
