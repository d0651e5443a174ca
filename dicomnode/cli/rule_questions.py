"""`dicomnode rules explain` and `rules test`: what rules say of a series, without routing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.rule_answers import answer_shown, counted, row_shown, summary
from dicomnode.cli.rule_findings import notes_on
from dicomnode.cli.rule_lookup import Json, is_file, notes_on_revision, print_notes, rules_named
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule
from dicomnode.domain.study import StudyState
from dicomnode.errors import Ambiguous, InvalidRule, NotFound, UsageError
from dicomnode.imaging.series_files import Found, series_in
from dicomnode.stages.asking import Answer, ask, joined, series_of_study
from dicomnode.stages.replay import received

if TYPE_CHECKING:
    from dicomnode.cli.context import Context


def register(app: typer.Typer) -> None:
    app.command("explain")(explain_rule)
    app.command("test")(try_rules)


# ------------------------------------------------------------------------------------------------- explain


def explain_rule(
    ctx: typer.Context,
    rule: Annotated[str, typer.Argument(help="A rule's name, NAME@REVISION, or a YAML file with a draft.")],
    subject: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|FILE|FOLDER",
            help="Study or Series Instance UID, accession number or patient ID of what the node received; "
            "or a DICOM file, or a folder of them.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Each condition of a rule with the value found, and which of them decided. Changes nothing.

    Where the study has a say it is told too: which series was chosen and why, what else the study
    has, and an earlier rule that stopped the series. Of files, the study is what is given.

    Example: dicomnode rules explain torso-ct 20240131-007

    A draft and files need no database: dicomnode rules explain draft.yaml ./ct-folder
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rules = rules_named(context, rule)
    others = _others(context, rules) if not is_file(rule) or not Path(subject).exists() else []
    asked = _subject(context, [subject], whole=any(r.needs_study for r in (*rules, *others)))
    answers = _answers(context, asked, rules, others)
    if context.json:
        context.print_json(
            {"answers": [a.document() for a in answers], "notes": asked.notes, "left_out": asked.left_out}
        )
        return
    for answer in answers:
        context.console.print()
        context.console.print(answer_shown(answer), highlight=False)
    if len(answers) > 1:
        context.console.print(f"\n{counted(answers)}", style="bold", highlight=False)
    print_notes(context, asked.notes)
    if not is_file(rule):
        print_notes(context, notes_on_revision(context.state, rule) or notes_on(context.state, rules[0]))
    _print_left_out(context, asked)


def _others(context: Context, rules: Sequence[Rule]) -> list[Rule]:
    """The rules in force that may stop a series before these are asked."""
    names = {rule.name for rule in rules}
    return [rule for rule in _enabled(context)[0] if rule.stop and rule.name not in names]


# ---------------------------------------------------------------------------------------------------- test


def try_rules(
    ctx: typer.Context,
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER|STUDY...",
            help="DICOM files, folders of them, or studies that the node received (as for rules explain).",
        ),
    ],
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            help="A YAML file with a draft, a rule's name or NAME@REVISION; may be repeated. Left out: all enabled.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """What every enabled rule says of these files: a line a series and rule, as the node asks them. Changes nothing.

    Example: dicomnode rules test ./ct-folder --rule draft.yaml
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rules, broken = ([r for word in rule for r in rules_named(context, word)], []) if rule else _all_enabled(context)
    asked = _subject(context, subjects, whole=any(r.needs_study for r in rules))
    answers = _answers(context, asked, sorted(rules, key=lambda r: (r.order, r.name)), [])
    if context.json:
        rows = [{k: v for k, v in a.document().items() if k != "when"} for a in answers]
        context.print_json(
            {"answers": rows, "broken_rules": broken, "notes": asked.notes, "left_out": asked.left_out}
        )
        return
    for _, of_one in groupby(answers, key=lambda a: a.found.series.series_instance_uid):
        context.console.print()
        context.console.print(row_shown(list(of_one)), highlight=False)
    context.console.print(f"\n{summary(answers)}", style="bold", highlight=False)
    print_notes(context, [*broken, *asked.notes])
    _print_left_out(context, asked)


def _all_enabled(context: Context) -> tuple[list[Rule], list[str]]:
    """Raises NotFound without any."""
    rules, broken = _enabled(context)
    if not rules and not broken:
        raise NotFound("no rule is enabled; add one with dicomnode rules add FILE, or try a draft with --rule FILE")
    return rules, broken


def _enabled(context: Context) -> tuple[list[Rule], list[str]]:
    """The rules that would be asked, and words on those that cannot be read."""
    rules, broken = [], []
    for revision in context.state.enabled_rules():
        try:
            rules.append(parse_rule(revision.document))
        except InvalidRule as error:
            broken.append(f"rule {revision.name} cannot be read: {error}")
    return rules, broken


# -------------------------------------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True)
class _Subject:
    """Series, with the rest of their studies where these have a say."""

    found: Found
    only: frozenset[str]  # the Series Instance UIDs that are meant; none: all
    received: bool  # by the node, and not files
    notes: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        return self.found.left_out


def _answers(context: Context, asked: _Subject, rules: Sequence[Rule], others: Sequence[Rule]) -> list[Answer]:
    priors = received(context.state) if asked.received else None
    classes = context.state.class_news if asked.received else None
    answers = ask(asked.found.series, rules, others, priors, classes)
    return [a for a in answers if not asked.only or a.found.series.series_instance_uid in asked.only]


def _subject(context: Context, words: Sequence[str], whole: bool) -> _Subject:
    """The series of files, folders and received studies; raises NotFound when there is none."""
    files = [Path(word) for word in words if Path(word).exists()]
    keys = [word for word in words if not Path(word).exists()]
    parts = [_Subject(series_in(files), frozenset(), False), *(_received(context, key, whole) for key in keys)]
    found = joined(part.found for part in parts)
    if not found.series:
        left_out = f" ({'; '.join(found.left_out)})" if found.left_out else ""
        raise NotFound(f"no DICOM instance in {', '.join(words)}{left_out}")
    meant = [part.only or _uids(part.found) for part in parts]
    only = frozenset().union(*meant) if any(part.only for part in parts) else frozenset()
    return _Subject(found, only, bool(keys), tuple(note for part in parts for note in part.notes))


def _uids(found: Found) -> frozenset[str]:
    return frozenset(one.series.series_instance_uid for one in found.series)


def _received(context: Context, key: str, whole: bool) -> _Subject:
    try:
        study = context.state.only_study(key)
    except Ambiguous as error:
        raise UsageError(str(error)) from error
    except NotFound as error:
        raise NotFound(f"{error}, and there is no file or folder {key}; see dicomnode studies list") from error
    only = frozenset({key} if any(s.series_instance_uid == key for s in study.series) else ())
    waits = whole and study.state is StudyState.RECEIVING
    note = f"study {study.study_instance_uid} is still being received: rules that look at the whole study wait for it"
    return _Subject(series_of_study(study, key, context.store, whole), only, True, (note,) if waits else ())


def _print_left_out(context: Context, asked: _Subject) -> None:
    for words in asked.left_out:
        context.console.print(words, style="dim", highlight=False, markup=False)
