"""rules add: what is refused, what is a note, what changes nothing; and all that is wrong with files at once."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from dicomnode.cli.rule_files import read_rules, rules_in
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.errors import InvalidRule, NotFound
from dicomnode.imaging.attributes import keyword_vrs
from tests.unit.test_cli_state import RULE, Screen

CONTRADICTION = RULE.replace("Modality: CT", "Modality: CT\n    - Modality: MR").replace("torso\n", "both\n", 1)


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(tmp_path)


def names(screen: Screen) -> list[str]:
    return [rule.name for rule in screen.node.state.rules()]


# ----------------------------------------------------------------------------- what can never work is refused


NEVER = [
    (
        "    - Modality: CT\n",
        "    - Modality: CT\n    - Modality: MR\n",
        "rule.yaml:6:7: when.all[1].Modality (rule torso): it says Modality equals 'MR'",
    ),
    ("{contains: LOC", "{equals: 'A\\B', contains: LOC", "rule.yaml:6:13: when.all[1].not.all[0].ImageType (rule to"),
    (
        "model: torso-ct",
        "study: {has: [{Modality: PT}], has_not: [{Modality: PT}]}\nmodel: torso-ct",
        "rule.yaml:7:42: study.has_not[0] (rule torso): no series of the study may be so",
    ),
    (
        "model: torso-ct",
        "model: torso-ct\nparameters: {overlapp: 0.5}",
        "rule.yaml:8:14: parameters.overlapp (rule torso): the model torso-ct has no such parameter; did you mean",
    ),
    (
        "model: torso-ct",
        "model: torso-ct\nparameters: {overlap: 2}",
        "parameters.overlap (rule torso): 2 is not below 1",
    ),
    ("Modality: CT", "Modality: US", "when.all[0].Modality (rule torso): the model torso-ct takes CT, and the rule"),
    (
        "model: torso-ct",
        "model: torso-ct\nresults: [MAP]",
        "results[0] (rule torso): the model torso-ct gives no MAP",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "said"), NEVER)
def test_what_can_never_work_is_refused_where_it_stands(screen: Screen, right: str, wrong: str, said: str) -> None:
    screen.node.model()
    assert RULE.count(right) == 1
    file = screen.file(RULE.replace(right, wrong))
    for more in ([], ["--dry-run"]):
        error = screen.fails("rules", "add", file, *more)
        assert isinstance(error, InvalidRule)
        assert said in str(error)
        assert "nothing was added" in str(error)
        assert "--force" in str(error)
    assert names(screen) == []


@pytest.mark.parametrize(("right", "wrong", "said"), NEVER)
def test_it_is_added_by_force_with_a_note(screen: Screen, right: str, wrong: str, said: str) -> None:
    screen.node.model()
    (change,) = screen.json("rules", "add", screen.file(RULE.replace(right, wrong)), "--force")
    finding = next(f for f in change["findings"] if f["severity"] == "error")
    assert f"{finding['path']} (rule to" in said
    assert f"{finding['path']}: {finding['problem']}; {finding['remedy']}" in change["notes"]
    assert names(screen) == ["torso"]


def test_one_that_can_never_work_keeps_the_others_out(screen: Screen) -> None:
    good, bad = screen.file(RULE, "good.yaml"), screen.file(CONTRADICTION, "bad.yaml")
    error = screen.fails("rules", "add", good, bad)
    assert isinstance(error, InvalidRule)
    assert len(error.each) == 1
    assert names(screen) == []
    screen.run("rules", "add", good, bad, "--force")
    assert names(screen) == ["both", "torso"]


def test_two_rules_of_one_name_at_once(screen: Screen) -> None:
    error = screen.fails("rules", "add", screen.file(RULE), screen.file(RULE + "priority: stat\n", "again.yaml"))
    assert "again.yaml:2:1: name (rule torso): two of these rules have this name" in str(error)
    assert names(screen) == []


# -------------------------------------------------------------------------------- the rest is told as notes


def test_what_is_not_there_yet_is_a_note(screen: Screen) -> None:
    said = screen.run("rules", "add", screen.file(RULE))
    assert "rule torso revision 1 is in force" in said
    assert "note: no model torso-ct is registered; dicomnode models add FOLDER" in said
    assert "note: destination pacs does not exist; dicomnode destinations add pacs" in said


def test_what_lint_finds_of_the_added_rule_is_told(screen: Screen) -> None:
    screen.node.model()
    screen.node.destination("pacs")
    screen.node.rule("first", {"Modality": "CT"}, stop=True, order=1)
    said = screen.run("rules", "add", screen.file(RULE))
    assert (
        "note: order: it never gets a series: rule first (order 1) takes all of them and says stop; give it" in said
    )
    assert "note" not in screen.run("rules", "add", screen.file(RULE.replace("CT", "CT\n    - Rows: 5", 1).replace(
        "name: torso", "order: 0\nname: early")))  # fmt: skip


def test_a_costly_overlap_is_a_note_and_no_failure_of_lint(screen: Screen) -> None:
    screen.node.model()
    screen.node.destination("pacs")
    slow = screen.file(RULE + "parameters: {overlap: 0.9}\n")
    said = screen.run("rules", "add", slow)
    assert "note: parameters.overlap: an overlap of 0.9 is up to 422 times the windows" in said
    linted = screen.run("rules", "lint")  # exit status 0
    assert "advice: rule torso, parameters.overlap: an overlap of 0.9" in linted
    assert "nothing is wrong" in linted


# ------------------------------------------------------------------------------------ what changes nothing

SPELT_OTHERWISE = """\
# the same rule, as somebody else writes it
state: enabled
priority: routine
schedule: now
choose: all
when:
    all: [{Modality: {equals: CT}}, {not: {"ImageType": {contains: "LOCALIZER"}}}]
destinations:
  - pacs      # the one we have
model: 'torso-ct'
order: 100
name: torso
"""


def test_the_same_rule_spelt_otherwise_is_no_new_revision(screen: Screen) -> None:
    screen.run("rules", "add", screen.file(RULE))
    for more in ([], ["--dry-run"], ["--force"]):
        assert "rule torso is unchanged (revision 1)" in screen.run(
            "rules", "add", screen.file(SPELT_OTHERWISE), *more
        )
    assert len(screen.node.state.rule_history("torso")) == 1


def test_the_state_takes_it_for_the_same_too(screen: Screen) -> None:
    """Two who add it at once both saw it absent."""
    spelt = {"model": "m", "when": {"Modality": "CT"}, "name": "a"}
    made = screen.node.state.add_rule("a", {"name": "a", "when": {"Modality": {"equals": "CT"}}, "model": "m"})
    assert screen.node.state.add_rule("a", spelt) == made
    assert screen.node.state.add_rule("a", spelt | {"order": 99}).revision == 2


def test_true_is_not_one(screen: Screen) -> None:
    """Python takes 1, 1.0 and true for equal; a rule that is told apart by them is another rule."""
    for number, value in enumerate(("1", "true", '"1"', "1.0"), 1):
        screen.run("rules", "add", screen.file(RULE + f"parameters: {{x: {value}}}\n"))
        assert screen.node.state.rules()[0].revision == number


# ------------------------------------------------------------------------------------- everything at once

WRONG = """\
name: a b
whem: {Modality: CT}
when:
  all:
    - Modalty: CT
    - SliceThickness: {at_most: thin, at_leest: 5}
    - any: [{Rows: {between: [1]}}, {StudyDate: soon}]
model: torso-ct
choose: [thickest]
schedule: at night
destinations: [ok, "not ok"]
stop: yes
---
name: fine
when: {Modality: CT}
model: m
---
name: worse
when: {Modality: CT}
"""


def test_every_mistake_in_a_file_is_told_in_the_order_of_its_lines() -> None:
    with pytest.raises(InvalidRule) as caught:
        rules_in(WRONG, "wrong.yaml", keyword_vrs())
    told = [str(error).removeprefix("wrong.yaml:") for error in caught.value.each]
    assert [": ".join(line.split(": ")[:2]) for line in told] == [
        "1:1: name",
        "2:1: whem",
        "5:7: when.all[0].Modalty",
        "6:24: when.all[1].SliceThickness.at_most",
        "6:39: when.all[1].SliceThickness.at_leest",
        "7:21: when.all[2].any[0].Rows.between",
        "7:38: when.all[2].any[1].StudyDate",
        "9:10: choose[0]",
        "10:1: schedule",
        "11:20: destinations[1]",
        "12:1: stop",
        "18:1: model is missing; only a rule that says `stop",
    ]
    assert str(caught.value).startswith("12 things are wrong:\n  wrong.yaml:1:1: name: 'a b' is not allowed")


def test_the_mistakes_of_all_files_are_told_and_nothing_is_added(screen: Screen) -> None:
    files = [screen.file(text, f"{n}.yaml") for n, text in enumerate((RULE, WRONG, "name: [", "model: m\nstop: 5\n"))]
    error = screen.fails("rules", "add", *files, str(screen.folder / "none.yaml"))
    assert isinstance(error, InvalidRule)
    named = [Path(each.path.split(":")[0]).name for each in error.each]
    assert named == ["1.yaml"] * 12 + ["2.yaml"] + ["3.yaml"] * 3 + ["none.yaml"]
    assert names(screen) == []


def test_a_stored_rule_tells_all_of_it_on_one_line() -> None:
    with pytest.raises(InvalidRule, match=r"^order: .*; when\.Modality: .*; model: ") as caught:
        parse_rule({"name": "a", "order": "x", "when": {"Modality": []}, "model": 5})
    assert len(caught.value.each) == 3


def test_lint_tells_what_add_refuses_with_its_place(screen: Screen) -> None:
    result = screen._invoke("rules", "lint", screen.file(WRONG), screen.file(CONTRADICTION, "both.yaml"))
    said = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "rule.yaml:7:38: when.all[2].any[1].StudyDate: " in said
    assert "both.yaml:6:7: when.all[1].Modality: it says Modality equals 'MR'" in said


# ---------------------------------------------------------------------------------------- in plain words

YAML_MISTAKES = [
    ("name: a\nwhen:\n\tModality: CT\n", "3:1: a tab stands here, and YAML takes spaces only"),
    ("name: a\nwhen: {Modality: CT,\n\tRows: 5}\n", "3:1: a tab stands here"),
    ("name: a\nwhen:\n  all:\n\t- Modality: CT\n", "4:1: a tab stands here"),
    ("name: a\ndescription: thin: axial\n", "2:18: a colon too many: quote text that holds ': '"),
    ("name: a\nwhen\nmodel: x\n", "2:1: a name without its colon"),
    ("name: a\nModality:CT\nmodel: x\n", "2:1: a name without its colon: write NAME: VALUE, with a space after"),
    ('when: {PatientID: {matches: "\\d+"}}\n', "1:31: in double quotes a backslash begins an escape: put patterns"),
    ('name: "abc\nmodel: x\n', "3:1: the quotation mark that opens in line 1 is not closed"),
    ("name: a\nwhen: {Modality: CT\nmodel: x\n", "3:6: the bracket that opens in line 2 lacks a comma or its } here"),
    ("name: a\nwhen: [a, b\nmodel: x\n", "3:6: the bracket that opens in line 2 lacks a comma or its ] here"),
    ("name: @x\n", "1:7: text that begins with @ has to be quoted, as in '@…'"),
    ("name: *x\n", "1:7: aliases (*name) are not allowed; text that begins with * has to be quoted"),
    ("name: &x y\n", "1:7: aliases (&name) are not allowed; text that begins with & has to be quoted"),
    ("name: &x\nmodel: y\n", "1:7: aliases (&name) are not allowed"),
    ("a: &b [c]\n", "1:4: aliases (&name) are not allowed"),
    ("name: !x y\n", "1:7: text that begins with ! has to be quoted"),
    ("when: {Rows: >5}\n", "1:14: text that begins with > has to be quoted"),
    ("when: >= 5\n", "1:8: text that begins with | or > has to be quoted"),
    ("when:\n  all:\n    - Modality: CT\n   - Rows: 5\n", "4:4: this does not fit what begins in line 2: check the"),
    ("name: - a\n", "1:7: a list cannot begin here"),
    ("name: a\nmodel: b\nwhen: {Rows: 5}\n...\nname: b\n", "5:1: this belongs to no rule"),
    ("{[a]: b}\n", "1:2: a list or mapping cannot be a name"),
    ("name: a\x07b\n", "1:8: a control character stands here"),
    ("name: a\nmodel: b\nname: c\n", "3:1: name is written twice"),
    ("[" * 20000, " it is nested too deep"),
    ("when: {(0019,10,ACME): 5}\n", '1:8: in braces a comma ends a name: quote the tag, as in "(0019,10,ACME)"'),
    ("when: {(0029,1010): 5}\n", '1:8: in braces a comma ends a name: quote the tag, as in "(0029,1010)"'),
    ("when:\n  true: 5\n", "when: this is not a mapping of names to values: quote True if it is a name"),
    (
        "name: a\nmodel: b\nwhen:\n  (0029,1010): 5\n",
        "4:3: when.(0029,1010): '(0029,1010)' is no attribute: a private one is named with its creator, in quotes, "
        'as in "(0029,10,CREATOR)"; of the element the last two digits',
    ),
    ("name: a\nmodel: b\nwhen:\n  (0018,0050): 5\n", "those of the standard go by their keyword (PS3.6), as Sl"),
    ("name: a\nmodel: b\nwhen:\n  (0019,10): 5\n", 'quote a private tag, or YAML takes it apart at its commas: "(0'),
    ("name: a\nmodel: b\nstop: True\nwhen: {Rows: 5}\n", "stop: 'True' is not true or false (small letters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), YAML_MISTAKES)
def test_what_is_no_yaml_is_told_in_plain_words(text: str, said: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        rules_in(text, "rule.yaml", keyword_vrs())
    assert said in str(caught.value)
    assert str(caught.value.each[0]).startswith(f"rule.yaml:{said}") or not said[0].isdigit()
    for raw in ("found", "expected", "while", "token", "Errno"):
        assert raw not in str(caught.value)


def test_what_comes_before_a_mistake_of_form_is_still_checked() -> None:
    with pytest.raises(InvalidRule) as caught:
        rules_in("name: a\nmodel: b\n---\nwhen: [", "rule.yaml")
    assert [error.path.removeprefix("rule.yaml:") for error in caught.value.each] == ["1:1", "4:8"]


def test_after_a_slip_the_file_is_read_on_as_it_was_meant() -> None:
    text = "name: a b\nwhen: {(0019,10,A B): 5, Modalty: CT, (0021,11,C): 6, (0023: 1}\nmodel: m\nmodel: n\n"
    with pytest.raises(InvalidRule) as caught:
        rules_in(text, "rule.yaml", keyword_vrs())
    assert [error.path.removeprefix("rule.yaml:") for error in caught.value.each] == [
        "4:1",
        "2:8",
        "2:39",
        "2:55",
        "1:1: name",
        "2:26: when.Modalty",
        "2:55: when.(0023",
    ]
    assert '"(0019,10,A B)"' in str(caught.value)
    assert '"(0021,11,C)"' in str(caught.value)


def test_the_rule_that_the_help_shows_can_be_added(screen: Screen) -> None:
    shown = " ".join(screen.run("rules", "add", "--help").split("name: torso-ct")[0].split())
    assert "dicomnode rules schema" in shown
    lines = [line.strip("│ ").rstrip() for line in screen.run("rules", "add", "--help").splitlines()]
    begin = lines.index("name: torso-ct")
    indented = screen.run("rules", "add", "--help").splitlines()[begin : lines.index("- pacs") + 1]
    (rule,) = rules_in(textwrap.dedent("\n".join(indented)), "help", keyword_vrs())
    assert (rule.name, rule.destinations) == ("torso-ct", ("pacs",))


def test_what_is_in_brackets_in_the_help_is_not_taken_for_colour(screen: Screen) -> None:
    assert "Left out: all enabled" in " ".join(screen.run("rules", "test", "--help").replace("│", "").split())
    assert "the user who is logged in" in " ".join(screen.run("rules", "add", "--help").replace("│", "").split())


def test_an_empty_list_says_how_to_begin(screen: Screen) -> None:
    assert "dicomnode rules add FILE" in screen.run("rules", "list")
    assert screen.json("rules", "list") == []


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: a\ndescription: Sch\xe4del\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    for name, said in {
        "none.yaml": "none.yaml: there is no such file",
        "": "this is a folder: name the files in it, as in ",
        "latin.yaml": "latin.yaml:2: this is no UTF-8 text: save the file as UTF-8",
        "large.yaml": "large.yaml: the file is larger than 1048576 bytes",
    }.items():
        with pytest.raises(InvalidRule) as caught:
            read_rules(tmp_path / name)
        assert said in str(caught.value)
        assert "Errno" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_is_closed_to_this_user(tmp_path: Path) -> None:
    file = tmp_path / "closed.yaml"
    file.write_text(RULE, encoding="utf-8")
    file.chmod(0)
    with pytest.raises(InvalidRule, match=r"closed.yaml: this user may not read the file"):
        read_rules(file)


# --------------------------------------------------------------------------------- names that do not exist


@pytest.mark.parametrize(
    "words",
    [
        ["show", "torsoo"],
        ["show", "torsoo@1"],
        ["history", "torsoo"],
        ["diff", "torsoo", "1", "2"],
        ["diff", "torso", "torsoo"],
        ["explain", "torsoo", "1"],
        ["test", "1", "--rule", "torsoo"],
        ["replay", "torsoo"],
        ["enable", "torsoo"],
        ["disable", "torsoo"],
        ["shadow", "torsoo"],
        ["remove", "torsoo"],
    ],
)
def test_an_unknown_rule_is_answered_with_what_there_is_the_nearest_first(screen: Screen, words: list[str]) -> None:
    for name in ("abdomen", "torso", "zebra", "torso-next"):
        screen.node.rule(name, {"Modality": "CT"})
    error = screen.fails("rules", *words)
    assert isinstance(error, NotFound)
    assert "there is no rule torsoo; did you mean torso or torso-next? There are: torso, torso-next, " in str(error)
    assert {"abdomen", "zebra"} <= set(str(error).replace(",", "").split())


def test_of_many_rules_the_nearest_are_named(screen: Screen) -> None:
    for number in range(40):
        screen.node.rule(f"rule-{number:02}", {"Modality": "CT"})
    said = str(screen.fails("rules", "show", "xyz"))
    assert "did you mean" not in said
    assert said.endswith(" and 20 more (dicomnode rules list)")


def test_without_any_rule(screen: Screen) -> None:
    assert (
        str(screen.fails("rules", "show", "x"))
        == "there is no rule x; there is none at all yet: dicomnode rules list"
    )
