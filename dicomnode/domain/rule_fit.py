"""What a rule asks of the node: a model that is there and takes what it is given, destinations that exist."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from dicomnode.domain.clauses import Claim, Dictionary, claims, exclude
from dicomnode.domain.model_card import ModelCard, RoleSpec
from dicomnode.domain.model_parameter import OVERLAP
from dicomnode.domain.rule_lint import Finding, Found, Severity, named
from dicomnode.domain.rules import Comparison, Condition, Operator, Origin, Role, Rule

ACTIVE = "active"
# Model → version → its card; the active version's also under "active", which is how a rule names it
Cards = Mapping[str, Mapping[str, ModelCard]]
OVERLAP_MOST = 0.8  # from here on each step more costs far more time than it makes better


def missing(
    rule: Rule,
    modalities: Mapping[str, Sequence[str]],
    destinations: Collection[str],
    dictionary: Dictionary,
    cards: Cards | None = None,
) -> list[Finding]:
    """What the rule needs of the node and is not there: `modalities` are those that each active model takes.

    Without cards nothing is said of the version, the parameters, the roles and the results.
    """
    if not rule.model:
        return []
    card = (cards or {}).get(rule.model, {}).get(rule.version)
    absent = [*_about_model(rule, modalities, cards), *_about_destinations(rule, destinations)]
    unfit = [
        *_about_modality(rule, modalities, card, dictionary),
        *(_about_card(rule, card, dictionary) if card else ()),
    ]
    found = named(rule, unfit) + named(rule, absent, Severity.WARNING)
    if card:
        found += named(rule, _about_priors(rule, card), Severity.WARNING)
        found += named(rule, _about_time(rule, card), Severity.ADVICE)
    return found


def _about_model(rule: Rule, modalities: Mapping[str, Sequence[str]], cards: Cards | None) -> Iterator[Found]:
    known = modalities if cards is None else cards
    if rule.model not in known and (cards is not None or rule.version == ACTIVE):
        yield "model", f"no model {rule.model} is registered", _near(rule.model, known, "models add FOLDER")
    elif cards is not None and rule.version not in cards[rule.model]:
        yield _about_version(rule, cards[rule.model])


def _about_modality(
    rule: Rule, modalities: Mapping[str, Sequence[str]], card: ModelCard | None, dictionary: Dictionary
) -> Iterator[Found]:
    takes = card.input.modality if card else modalities.get(rule.model, ()) if rule.version == ACTIVE else ()
    if takes and (claim := _other_modality(rule.when, "when", takes, dictionary)):
        words = f"the model {rule.model} takes {' or '.join(takes)}, and the rule says {claim.words()}"
        yield claim.path, words, "name a modality that the model takes, or another model"


def _about_version(rule: Rule, versions: Collection[str]) -> Found:
    there = ", ".join(sorted(set(versions) - {ACTIVE}))
    if rule.version == ACTIVE:
        return "model", f"no version of the model {rule.model} is active", f"name one of its versions: {there}"
    problem = f"version {rule.version} of the model {rule.model} is not registered; there are: {there}"
    return "version", problem, "dicomnode models add FOLDER, or `version: active`"


def _about_destinations(rule: Rule, destinations: Collection[str]) -> Iterator[Found]:
    for number, name in enumerate(rule.destinations):
        if name not in destinations:
            remedy = _near(name, destinations, f"destinations add {name} ...")
            yield f"destinations[{number}]", f"destination {name} does not exist", remedy
    if not rule.destinations and not destinations:
        yield (
            "destinations",
            "there is no destination yet, so results stay here",
            "dicomnode destinations add NAME ...",
        )


def _other_modality(
    condition: Condition, path: str, modalities: Sequence[str], dictionary: Dictionary
) -> Claim | None:
    taken = Claim("model", Comparison("Modality", Operator.ONE_OF, tuple(modalities)))
    return next((claim for claim in claims(condition, path) if exclude(taken, claim, dictionary)), None)


# ----------------------------------------------------------------------------------------------- the model card


def _about_card(rule: Rule, card: ModelCard, dictionary: Dictionary) -> Iterator[Found]:
    yield from _about_roles(rule, card, dictionary)
    yield from _about_parameters(rule, card)
    for number, kind in enumerate(rule.results):
        kinds = (*card.output.result_kinds, *card.output.forms)
        if kind not in kinds:
            why = f": {reason}" if (reason := card.output.why_not(kind)) else ""
            problem = f"the model {card.name} gives no {kind}{why}"
            yield f"results[{number}]", problem, f"name those that it gives: {', '.join(kinds)}"


def _about_roles(rule: Rule, card: ModelCard, dictionary: Dictionary) -> Iterator[Found]:
    given, needed = {role.name: role for role in rule.roles}, {role.name: role for role in card.roles}
    takes = ", ".join(needed) or "none"
    for name in sorted(given.keys() - needed.keys()):
        remedy = "remove it" if not needed else f"name it as the model does: {takes}"
        yield f"roles.{name}", f"the model {card.name} has no such role; its roles: {takes}", remedy
    for name in sorted(needed.keys() - given.keys()):
        modality = " or ".join(needed[name].modality)
        problem = f"the model {card.name} needs a series as {name}, and the rule names none"
        yield "roles", problem, f"add {name}: {{when: {{Modality: {modality}}}, from: study}}"
    for name in sorted(given.keys() & needed.keys()):
        yield from _about_role(given[name], needed[name], dictionary)


def _about_role(role: Role, needed: RoleSpec, dictionary: Dictionary) -> Iterator[Found]:
    if claim := _other_modality(role.when, f"roles.{role.name}.when", needed.modality, dictionary):
        takes = " or ".join(needed.modality)
        problem = f"the model takes {takes} as {role.name}, and the rule says {claim.words()}"
        yield claim.path, problem, "name a modality that the model takes there"


def _about_parameters(rule: Rule, card: ModelCard) -> Iterator[Found]:
    specs = card.parameters
    for name, value in rule.parameters.items():
        if name not in specs:
            near = difflib.get_close_matches(name, list(specs), n=1, cutoff=0.6)
            remedy = f"did you mean {near[0]}?" if near else f"it takes: {', '.join(specs)}"
            yield f"parameters.{name}", f"the model {card.name} has no such parameter", remedy
        elif complaint := specs[name].check(value):
            yield f"parameters.{name}", complaint, specs[name].description or "give it another value"


def _about_priors(rule: Rule, card: ModelCard) -> Iterator[Found]:
    """Series of one study may share a frame of reference; a new examination begins one (PS3.3 C.7.4.1.1.1)."""
    same = {spec.name for spec in card.roles if spec.needs_same_frame_of_reference}
    for role in rule.roles:
        if role.origin is Origin.PRIOR and role.name in same:
            problem = (
                f"the model {card.name} needs {role.name} in the frame of reference of the main series, "
                "and those of two studies are hardly ever one: its jobs would be refused"
            )
            remedy = "take it `from: study`, or a model whose card says `frame_of_reference: any` of it"
            yield f"roles.{role.name}.from", problem, remedy


def _about_time(rule: Rule, card: ModelCard) -> Iterator[Found]:
    """Windows along an axis go with 1 / (1 - overlap)."""
    overlap = rule.parameters.get(OVERLAP)
    if isinstance(overlap, str | bool) or overlap is None or not OVERLAP_MOST < overlap < 1:
        return
    times = ((1 - card.network.overlap) / (1 - overlap)) ** 3
    problem = f"an overlap of {overlap:g} is up to {times:.0f} times the windows, and the time, of the model's own"
    yield f"parameters.{OVERLAP}", problem, f"take {OVERLAP_MOST:g} or less; its card says {card.network.overlap:g}"


def _near(name: str, known: Iterable[str], command: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"dicomnode {command}" + (f", or did you mean {near[0]}?" if near else "")
