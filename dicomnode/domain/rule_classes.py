"""Rules that ask for classes: whether anything gives them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from dicomnode.domain.class_facts import CODE, ClassFact, class_fact
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_output import Classification
from dicomnode.domain.rule_fit import ACTIVE, Cards
from dicomnode.domain.rule_lint import Finding, Found, Severity, conditions_of, named, place_of
from dicomnode.domain.rules import All, AnyOf, Comparison, Condition, Not, Operator, Rule


def about_classes(rules: Sequence[Rule], others: Sequence[Rule], cards: Cards) -> Iterator[Finding]:
    """What these rules ask for in vain; `others` are the other rules in force."""
    everyone = [*rules, *others]
    for rule in rules:
        for path, comparison, asked in _asked_in(rule):
            wrong = list(_of_model(path, comparison, asked, cards))
            yield from named(rule, wrong)
            if not wrong:
                yield from named(rule, _of_rules(path, rule, asked, everyone, cards), Severity.WARNING)


def _asked_in(rule: Rule) -> Iterator[tuple[str, Comparison, ClassFact]]:
    for path, condition in conditions_of(rule):
        for place, comparison in _comparisons(condition, path):
            if asked := class_fact(comparison.subject):
                yield f"{place}.{comparison.subject}", comparison, asked


def _comparisons(condition: Condition, path: str) -> Iterator[tuple[str, Comparison]]:
    match condition:
        case All(parts) | AnyOf(parts):
            word = "all" if isinstance(condition, All) else "any"
            for number, part in enumerate(parts):
                yield from _comparisons(part, f"{path}.{word}[{number}]")
        case Not(part):
            yield from _comparisons(part, f"{path}.not")
        case Comparison():
            yield path, condition


# ----------------------------------------------------------------------------------------------- of the model


def _of_model(path: str, comparison: Comparison, asked: ClassFact, cards: Cards) -> Iterator[Found]:
    """A model that is registered and can never give what is asked for, in any of its versions."""
    versions = cards.get(asked.model, {})
    specs = [card.classification for card in versions.values() if card.classification]
    if versions and not specs:
        problem = f"the model {asked.model} gives no classes"
        classifiers = [name for name, of_it in cards.items() if any(map(_is_classifier, of_it.values()))]
        yield path, problem, f"name a model that does: {', '.join(sorted(classifiers)) or 'none is registered'}"
        return
    for word in _words(comparison, asked) if specs else ():
        known = sorted({name for spec in specs for name in _known(asked, spec)})
        if word.casefold() not in {name.casefold() for name in known}:
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
            remedy = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known)}"
            yield path, f"the model {asked.model} has no class {word}", remedy


def _is_classifier(card: ModelCard) -> bool:
    return card.classification is not None


def _words(comparison: Comparison, asked: ClassFact) -> list[str]:
    """The classes, or codes, that are named whole."""
    if asked.name:
        return [asked.name]
    whole = comparison.operator in (Operator.EQUALS, Operator.ONE_OF)
    return [str(operand).strip() for operand in comparison.operands] if whole else []


def _known(asked: ClassFact, spec: Classification) -> list[str]:
    return [one.code.value if asked.kind == CODE else one.name for one in spec.classes]


# ------------------------------------------------------------------------------------------ of the other rules


def _of_rules(path: str, rule: Rule, asked: ClassFact, everyone: Sequence[Rule], cards: Cards) -> Iterator[Found]:
    """That nothing runs the model, or only what waits for this rule."""
    model = asked.model
    if model not in cards:
        yield path, f"no model {model} is registered, so nothing gives its classes", "dicomnode models add FOLDER"
        return
    running = [r for r in everyone if r.model == model and r.runs_model and r.version in cards[model]]
    if not [r for r in running if r.name != rule.name]:
        itself = " but this one, which waits for it" if running else ""
        problem = f"no rule that is enabled runs {model}{itself}, so a series never has a class of it"
        yield path, f"{problem}{_leads(model, cards)}", _how_run(model, cards)
    elif rule.stop and path.startswith("when") and all(place_of(r) > place_of(rule) for r in running):
        later = running[0]
        problem = f"rule {later.name}, which runs {model}, comes after this one, which may stop it: none is there yet"
        yield path, problem, f"give this rule an order above {later.order}"


def _leads(model: str, cards: Cards) -> str:
    """That it comes before other models, which ask it for themselves alone: a job of its own makes facts."""
    later = sorted({name for name in cards for card in cards[name].values() if _comes_after(card, model)})
    return f" ({', '.join(later)} asks it too, for itself alone)" if later else ""


def _comes_after(card: ModelCard, model: str) -> bool:
    return any(step.model.name == model for step in card.after)


def _how_run(model: str, cards: Cards) -> str:
    if ACTIVE not in cards[model]:
        return f"dicomnode models activate {model} VERSION, and a rule with `model: {model}`"
    return f"add a rule with `model: {model}`, or enable the one there is"
