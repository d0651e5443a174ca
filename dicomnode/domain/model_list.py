"""The wanted state of the registry, `models.yaml`, and the steps that lead there from what is.

models:
  - package: torso-ct            # a folder or file beside this one, or anywhere
    card: torso-ct.yaml          # optional: a model.yaml for a package that has none
    active: true                 # true, false, or left out: as it is
  - package: torso-ct-1.1.zip
    shadow: true                 # likewise
prune: false                     # true: what is not named here is neither active nor a shadow
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dicomnode.domain.document import Node
from dicomnode.errors import InvalidModelList

_IN_A_ROW_MOST = 8  # over composition.DEEPEST: what is too long is found when it is added


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list; `place` is its path in the document."""

    package: str
    place: str
    card: str = ""
    active: bool | None = None  # None: as it is
    shadow: bool | None = None


@dataclass(frozen=True, slots=True)
class ModelList:
    entries: tuple[Entry, ...]
    prune: bool = False


def parse_model_list(document: object) -> ModelList:
    """Raises InvalidModelList with the path of what is wrong."""
    root = Node(document, "", InvalidModelList)
    root.only("models", "prune")
    return ModelList(tuple(map(_entry, root["models"].items())), root.get("prune", False).boolean())


def _entry(node: Node) -> Entry:
    node.only("package", "card", "active", "shadow")
    active, shadow = (_yes_or_no(node, key) for key in ("active", "shadow"))
    if active and shadow:
        node["shadow"].fail("a version is active or a shadow, not both")
    card = node["card"].text() if "card" in node else ""
    return Entry(node["package"].text(), node.path, card, active, shadow)


def _yes_or_no(node: Node, key: str) -> bool | None:
    return node[key].boolean() if key in node else None


# -------------------------------------------------------------------------------------------------------- steps


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry whose package was read."""

    entry: Entry
    name: str
    version: str
    digest: str
    after: tuple[str, ...] = ()  # names of the models that come before it


@dataclass(frozen=True, slots=True)
class Known:
    """A registered version."""

    name: str
    version: str
    digest: str
    active: bool = False
    shadow: bool = False
    after: tuple[str, ...] = ()  # as of Wanted


class StepKind(StrEnum):
    ADD = "add"
    DEACTIVATE = "deactivate"
    UNSHADOW = "unshadow"
    ACTIVATE = "activate"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Step:
    kind: StepKind
    name: str
    version: str
    instead_of: str = ""  # the version that is active or a shadow now

    @property
    def words(self) -> str:
        instead = f", in place of {self.instead_of}" if self.instead_of else ""
        return f"{self.kind} {self.name} {self.version}{instead}"


def steps(wanted: Sequence[Wanted], known: Sequence[Known], prune: bool) -> list[Step]:
    """What has to be done, in an order in which it can be; nothing where all is as wanted.

    A model that others come after is there before them, and goes after them. Raises InvalidModelList with the path of
    what contradicts itself or what is registered.
    """
    _check(wanted, known)
    names = sorted({w.name for w in wanted} | ({k.name for k in known} if prune else set()))
    found = [step for name in names for step in _of_name(name, wanted, known, prune)]
    rows = _rows([*wanted, *known])
    return sorted(found, key=lambda step: (_turn(step, rows), list(StepKind).index(step.kind)))


def _rows(versions: Sequence[Wanted | Known]) -> dict[str, int]:
    """How many models come one after the other before each of those of a name."""
    rows = dict.fromkeys((one.name for one in versions), 0)
    for _ in range(_IN_A_ROW_MOST):
        for one in versions:
            rows[one.name] = max([rows[one.name], *(rows.get(first, 0) + 1 for first in one.after)])
    return rows


def _turn(step: Step, rows: dict[str, int]) -> int:
    goes = step.kind in (StepKind.DEACTIVATE, StepKind.UNSHADOW)
    return -rows[step.name] if goes else rows[step.name]


def _of_name(name: str, wanted: Sequence[Wanted], known: Sequence[Known], prune: bool) -> Iterator[Step]:
    ours, theirs = [w for w in wanted if w.name == name], [k for k in known if k.name == name]
    there = {k.version for k in theirs}
    yield from (Step(StepKind.ADD, name, w.version) for w in ours if w.version not in there)
    runs = next((k.version for k in theirs if k.active), "")
    to_run = next((w.version for w in ours if w.entry.active), "")
    yield from _moved(
        name, (runs, to_run), _given_up(runs, {w.version: w.entry.active for w in ours}, prune), _ACTIVE
    )
    beside = next((k.version for k in theirs if k.shadow), "")
    to_shadow = next((w.version for w in ours if w.entry.shadow), "")
    given_up = _given_up(beside, {w.version: w.entry.shadow for w in ours}, prune)
    if beside != to_run:  # what becomes active is no shadow any more by that alone
        yield from _moved(name, (beside, to_shadow), given_up, _SHADOW)
    elif to_shadow:
        yield Step(StepKind.SHADOW, name, to_shadow)


_ACTIVE, _SHADOW = (StepKind.ACTIVATE, StepKind.DEACTIVATE), (StepKind.SHADOW, StepKind.UNSHADOW)


def _given_up(now: str, said: dict[str, bool | None], prune: bool) -> bool:
    """Whether what is so now is not to be any more."""
    return bool(now) and (said[now] is False if now in said else prune)


def _moved(name: str, versions: tuple[str, str], given_up: bool, kinds: tuple[StepKind, StepKind]) -> Iterator[Step]:
    now, then = versions
    if then and then != now:
        yield Step(kinds[0], name, then, now)
    elif given_up and not then:
        yield Step(kinds[1], name, now)


def _check(wanted: Sequence[Wanted], known: Sequence[Known]) -> None:
    digests = {(k.name, k.version): k.digest for k in known}
    for n, one in enumerate(wanted):
        others = wanted[:n]
        if digests.get((one.name, one.version), one.digest) != one.digest:
            _fail(one, f"{one.name} {one.version} is registered with other content; give this one a new version")
        if any((o.name, o.version) == (one.name, one.version) for o in others):
            _fail(one, f"{one.name} {one.version} is named twice")
        if one.entry.active and _has(others, one.name, active=True):
            _fail(one, f"another version of {one.name} is to be active too", ".active")
        if one.entry.shadow and _has(others, one.name, active=False):
            _fail(one, f"another version of {one.name} is to be a shadow too", ".shadow")


def _has(wanted: Iterable[Wanted], name: str, *, active: bool) -> bool:
    return any(w.name == name and (w.entry.active if active else w.entry.shadow) for w in wanted)


def _fail(one: Wanted, message: str, key: str = "") -> None:
    raise InvalidModelList(message, f"{one.entry.place}{key}")
