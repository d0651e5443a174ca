"""What rules say of series, on the screen: the conditions as a tree, what the study has to do with it, and totals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from dicomnode.domain.conditions import Explanation, found_words
from dicomnode.domain.routing import OutcomeKind, RuleOutcome
from dicomnode.domain.rules import AnyOf, Comparison, Not, condition_text
from dicomnode.imaging.series_files import FoundSeries
from dicomnode.stages.asking import Answer, short_words

_STYLES = {
    OutcomeKind.MATCHED: "bold green",
    OutcomeKind.SHADOW: "bold cyan",
    OutcomeKind.STOPPED: "bold magenta",
    OutcomeKind.NOT_CHOSEN: "bold yellow",
    OutcomeKind.WAITS_FOR_CLASSES: "bold yellow",
}
_MARKS = {
    OutcomeKind.MATCHED: ("✓ match", "bold green"),
    OutcomeKind.SHADOW: ("✓ shadow", "bold cyan"),
    OutcomeKind.STOPPED: ("– stopped", "magenta"),
    OutcomeKind.NOT_CHOSEN: ("✗ not chosen", "yellow"),
    OutcomeKind.WAITS_FOR_CLASSES: ("… waits", "yellow"),
}


def answer_shown(answer: Answer) -> Group:
    """One rule of one series: the sentence, and below it all that was looked at."""
    sentence = answer.why()
    style = _STYLES.get(answer.outcome.kind, "bold red") if answer.outcome else "bold magenta"
    parts: list[Text | Padding] = [headline(answer.found), Text(sentence[:1].upper() + sentence[1:], style=style)]
    if answer.decision:
        parts.append(Padding(explanation_tree(answer.decision.explanation), (0, 0, 0, 2)))
    if answer.outcome:
        parts += [Padding(line, (0, 0, 0, 2)) for line in _study_lines(answer, answer.outcome)]
    return Group(*parts)


def _study_lines(answer: Answer, outcome: RuleOutcome) -> Iterator[Text]:
    """What the study has to do with it: its other series, the choice among them, the roles they fill."""
    for clause in outcome.study:
        yield _line(clause.holds, clause.words)
    if outcome.selection is not None:
        chosen = outcome.selection.series_instance_uid == answer.found.series.series_instance_uid
        passed_over = outcome.selection.passed_over.get(answer.found.series.series_instance_uid, "")
        why = outcome.selection.words.removeprefix("chosen: ")
        yield _line(chosen, f"chosen: {why}" if chosen else passed_over)
    for filled in outcome.filled:
        yield _line(True, f"{filled.role.name} is {filled.words}: {filled.selection.words}")
    if outcome.kind is OutcomeKind.ROLE_MISSING:
        yield _line(False, outcome.words.partition(": ")[2])


def _line(holds: bool, words: str) -> Text:
    return Text.assemble((_truth(holds), "bold green" if holds else "bold red"), f" {words}")


def headline(found: FoundSeries) -> Text:
    """CT Torso 1.0 · 300 images, and its UID."""
    series, count = found.series, len(found.series.instances)
    text = Text(f"{series.modality or '?'} {found.description}".strip(), style="bold")
    text.append(f" · {count} image{'s' if count != 1 else ''}", style="not bold")
    return text.append(f"\n{series.series_instance_uid}", style="dim not bold")


def explanation_tree(explanation: Explanation) -> Tree:
    """Conditions that decided in colour, the others dimmed."""
    return _branch(explanation, frozenset(id(clause) for clause in explanation.deciding()))


def _branch(explanation: Explanation, deciding: frozenset[int]) -> Tree:
    tree = Tree(_label(explanation, id(explanation) in deciding), guide_style="dim")
    for part in explanation.parts:
        tree.children.append(_branch(part, deciding))
    return tree


def _label(explanation: Explanation, decides: bool) -> Text:
    condition, holds = explanation.condition, explanation.holds
    colour = "green" if holds else "red"
    if not isinstance(condition, Comparison):
        word = "not" if isinstance(condition, Not) else "any of" if isinstance(condition, AnyOf) else "all of"
        return Text.assemble((_truth(holds), colour), " ", word)
    style = f"bold {colour}" if decides else "dim"
    text = Text.assemble((_truth(holds), style), " ", (condition_text(condition), style))
    return text.append(f"  found: {found_words(explanation, in_full=True)}", style="" if decides else "dim")


def _truth(holds: bool) -> str:
    return "✓ true " if holds else "✗ false"


# ---------------------------------------------------------------------------------------------- many rules


def row_shown(answers: Sequence[Answer]) -> Group:
    """All rules of one series, a line each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", max_width=24)
    grid.add_column(overflow="fold")
    never = answers[0].never
    if never:
        grid.add_row(Text("never", style="magenta"), "", Text(f"no rule is asked: {never}"))
    for answer in answers:
        if answer.outcome:
            mark, style = _MARKS.get(answer.outcome.kind, ("✗ no", "red"))
            grid.add_row(Text(mark, style=style), Text(answer.rule.name), Text(short_words(answer.outcome)))
    return Group(headline(answers[0].found), Padding(grid, (0, 0, 0, 2)))


def counted(answers: Sequence[Answer]) -> str:
    """A line at the end: with many series the ones that match are far up."""
    matching = [a for a in answers if a.matches]
    series = {a.found.series.series_instance_uid for a in answers}
    return (
        f"{len(matching)} of {len(answers)} match"
        if len(series) == 1
        else (f"{len({a.found.series.series_instance_uid for a in matching})} of {len(series)} series match")
    )


def summary(answers: Sequence[Answer]) -> str:
    """1 of 3 series matched by one of 2 rules."""
    series = {a.found.series.series_instance_uid for a in answers}
    taken = {a.found.series.series_instance_uid for a in answers if a.matches}
    rules = len({a.rule.name for a in answers})
    return f"{len(taken)} of {len(series)} series matched by {'the rule' if rules == 1 else f'one of {rules} rules'}"
