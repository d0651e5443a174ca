"""When a series, and a study, is complete: signals of different worth, fused into one decision with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from dicomnode.domain.announcement import AnnouncementKind
from dicomnode.domain.quantity import quantity
from dicomnode.domain.signs import (
    AnnouncedSigns,
    ArrivalSigns,
    CountSigns,
    Place,
    SeriesSigns,
    SourceCount,
    StudySigns,
    believable,
)
from dicomnode.domain.source import Source

__all__ = [
    "AnnouncedSigns",
    "ArrivalSigns",
    "CountSigns",
    "Need",
    "Place",
    "Policy",
    "SeriesSigns",
    "Signal",
    "SourceCount",
    "Stack",
    "StudySigns",
    "Verdict",
    "Wait",
    "believable",
    "series_verdict",
    "study_verdict",
]


class Signal(StrEnum):
    """What made a series count as complete, the surest first."""

    ANNOUNCED = "announced"  # MPPS completed, or IAN: every instance it names is here
    COUNTED = "counted"  # the source says how many instances there are, and they are here
    RELEASED = "released"  # the association was released after the last instance of a contiguous stack
    QUIET = "quiet"  # nothing came for the quiet period


@dataclass(frozen=True, slots=True)
class Verdict:
    """A series or study is complete, by which signal, and all signs that were looked at, JSON-able."""

    signal: Signal
    words: str
    instances: int  # that it was decided for: one more, and the decision is void
    signs: Mapping[str, Any] = field(default_factory=dict)


class Need(StrEnum):
    """What would say more, and costs something to find out."""

    CONTIGUITY = "contiguity"  # the stack, from State.places
    COUNT = "count"  # the source's answer


@dataclass(frozen=True, slots=True)
class Wait:
    """Not complete yet."""

    words: str
    again_s: float  # when to look again at the latest, if nothing happens meanwhile
    latest_s: float  # when it is taken as it is, if nothing comes meanwhile
    needs: frozenset[Need] = frozenset()


@dataclass(frozen=True, slots=True)
class Stack:
    """Whether the instances lie without a gap; see contiguity.look_at_stack."""

    contiguous: bool
    words: str


@dataclass(frozen=True, slots=True)
class Policy:
    """How long is waited for what; a source's own settings go over it."""

    quiet_period_s: float = 5.0
    study_quiet_period_s: float = 20.0
    release_grace_s: float = 0.5  # after the end of an association: another one may follow at once
    settle_s: float = 0.3  # after an instance by an association that goes on
    held_most_s: float = 60.0  # how long an open but silent association keeps what it brought from being quiet
    sources: Mapping[str, Source] = field(default_factory=dict)  # by AE title

    def at_once(self) -> Policy:
        """Without the moments that are waited in case more comes."""
        return replace(self, release_grace_s=0.0, settle_s=0.0)

    def source(self, ae_title: str) -> Source:
        return self.sources.get(ae_title) or Source(ae_title)

    def quiet_s(self, ae_title: str) -> float:
        own = self.source(ae_title).quiet_period_s
        return self.quiet_period_s if own is None else own

    def study_quiet_s(self, ae_title: str) -> float:
        """A study is not quiet before its series may be."""
        return max(self.study_quiet_period_s, self.quiet_s(ae_title))

    def held_s(self, quiet_s: float) -> float:
        return max(self.held_most_s, quiet_s)

    def missing_s(self, quiet_s: float) -> float:
        """How long instances are waited for of which somebody said that there are more."""
        return max(self.held_most_s, _MISSING_PERIODS * quiet_s)


# ------------------------------------------------------------------------------------------------- decisions

_MISSING_PERIODS = 12
_PAUSES = 2.0  # a sender that makes an association for each image is waited for so many of its longest pauses
_ASSOCIATIONS_TOLD = 20
_NEVER_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What one signal says."""

    signal: Signal
    complete: bool
    words: str
    again_s: float = _NEVER_S
    needs: frozenset[Need] = frozenset()
    also: tuple[str, ...] = ()  # what else it goes by

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(words for words in (self.words, *self.also) if words)

    @property
    def said(self) -> str:
        return "; ".join(self.parts)


def series_verdict(signs: SeriesSigns, policy: Policy, stack: Stack | None = None) -> Verdict | Wait:
    """Whether a series is complete, by the surest signal that says so.

    `stack` is of the instances as they are now; None: not looked at yet, and the answer says when that would help.
    """
    quiet = _quiet(signs, policy)
    looks = (_announced(signs, policy), _counted(signs, policy), _released(signs, policy, stack), quiet)
    if (sure := next((look for look in looks if look.complete), None)) is not None:
        return Verdict(sure.signal, sure.said, signs.instances, _document(signs, looks))
    return _wait(looks, quiet)


def study_verdict(signs: StudySigns, policy: Policy) -> Verdict | Wait:
    """Whether a study is complete all of whose series are: by what was announced or counted, or when it is quiet."""
    quiet = _study_quiet(signs, policy)
    looks = (_study_announced(signs, policy), _study_counted(signs, policy), quiet)
    if (sure := next((look for look in looks if look.complete), None)) is not None:
        return Verdict(sure.signal, sure.said, signs.instances, _study_document(signs, looks))
    return _wait(looks, quiet)


def _wait(looks: Sequence[_Look], quiet: _Look) -> Wait:
    """Signals may say the same, which is said once; time alone ends every wait."""
    return Wait(
        words="; ".join(dict.fromkeys(words for look in looks for words in look.parts)),
        again_s=min(look.again_s for look in looks if look.again_s > 0),
        latest_s=quiet.again_s,
        needs=frozenset().union(*(look.needs for look in looks)),
    )


def _settling_s(signs: SeriesSigns, policy: Policy) -> float:
    """Seconds until no open association has brought an instance just now; 0 or less when that is so."""
    return max((policy.settle_s - a.idle_s for a in signs.arrivals if not a.ended_how), default=0.0)


def _announced(signs: SeriesSigns, policy: Policy) -> _Look:
    """MPPS (PS3.4 F.7.2) and IAN (PS3.4 R.3) name every instance; one that is still in progress may name more."""
    final = [a for a in signs.announced if a.is_final and a.expected]
    if not final:
        return _Look(Signal.ANNOUNCED, False, "")
    words = _announced_words(final, signs.named)
    if signs.missing:
        return _Look(Signal.ANNOUNCED, False, words)
    if signs.instances > signs.named_in_all:
        return _Look(Signal.ANNOUNCED, False, f"{words}, and more came")
    settling_s = _settling_s(signs, policy)
    return _Look(Signal.ANNOUNCED, settling_s <= 0, words, settling_s)


def _announced_words(final: Sequence[AnnouncedSigns], named: int = 0) -> str:
    """Of the one that lacks most, or names most; of all together when they name more than that, and nothing lacks."""
    most = max(final, key=lambda a: (a.missing, a.expected))
    if named > most.expected and not most.missing:
        what = most.kind.upper() if len({a.kind for a in final}) == 1 else "announcements"
        return f"{len(final)} {what} together name {quantity(named, 'instance')}, and all of them are here"
    of_whom = f"the {most.kind.upper()} {'' if most.kind is AnnouncementKind.IAN else f'is {most.state} and '}names"
    all_here = "and it is here" if most.expected == 1 else "and all of them are here"
    are = "is" if most.missing == 1 else "are"
    here = f"but {most.missing} of them {are} missing" if most.missing else all_here
    return f"{of_whom} {quantity(most.expected, 'instance')}, {here}"


def _counted(signs: SeriesSigns, policy: Policy) -> _Look:
    """The source's answer counts when it was asked after the last instance, and has just what is here.

    A source that is growing still, or was, may have fewer. While more is announced it has not all of it either.
    """
    count, asked = signs.counted, policy.source(signs.calling_ae_title).query is not None
    if signs.held_back:
        return _Look(Signal.COUNTED, False, _count_words(count, signs.instances) if count else "")
    settling_s = max(_settling_s(signs, policy), policy.settle_s - signs.idle_s)
    if count is None:
        ask = asked and settling_s <= 0
        return _Look(Signal.COUNTED, False, "", settling_s if asked else _NEVER_S, _needs(Need.COUNT, ask))
    words = _count_words(count, signs.instances)
    fresh = count.age_s <= signs.idle_s
    complete = fresh and settling_s <= 0 and count.instances == signs.instances
    ask = asked and settling_s <= 0 and not complete
    return _Look(Signal.COUNTED, complete, words, settling_s, _needs(Need.COUNT, ask))


def _count_words(count: CountSigns, here: int) -> str:
    return f"{count.source} says {quantity(count.instances, 'instance')}, and {_are(here)} here"


def _are(number: int) -> str:
    return "1 is" if number == 1 else f"{number} are"


def _needs(need: Need, wanted: bool) -> frozenset[Need]:
    return frozenset({need} if wanted else ())


def _released(signs: SeriesSigns, policy: Policy, stack: Stack | None) -> _Look:
    """All associations that brought it were released, and what they brought is a stack without a gap."""
    if doubt := _release_doubt(signs, policy):
        return _Look(Signal.RELEASED, False, doubt)
    ended_s = min(a.ended_s or 0.0 for a in signs.arrivals)
    grace_s = max(policy.release_grace_s, _PAUSES * _longest_pause_s(signs, policy))
    if ended_s < grace_s:
        words = f"{_senders(signs)} {ended_s:.1f} s ago, and may make another one"
        return _Look(Signal.RELEASED, False, words, grace_s - ended_s)
    if stack is None:
        return _Look(Signal.RELEASED, False, "", 0.0, frozenset({Need.CONTIGUITY}))
    if not stack.contiguous:
        return _Look(Signal.RELEASED, False, f"{_senders(signs)}, but {stack.words}")
    return _Look(Signal.RELEASED, True, f"{_senders(signs)} after {stack.words}")


def _release_doubt(signs: SeriesSigns, policy: Policy) -> str:
    """Why the end of associations says nothing of this series; empty when it does."""
    if not signs.arrivals:
        return "which association brought it is not known"
    if not all(policy.source(a.calling_ae_title).release for a in signs.arrivals):
        return "the end of this source's associations says nothing"
    if open_ones := [a for a in signs.arrivals if not a.ended_how]:
        return _open_words(len(open_ones), " that brought it")
    last = min(signs.arrivals, key=lambda a: a.ended_s or 0.0)
    if last.ended_how != "released":
        return f"the last association that brought it was {last.ended_how}"
    if not all(a.is_final for a in signs.announced):
        return "an MPPS of the study is in progress"
    if signs.expected > signs.instances or signs.missing:
        return _missing_words(signs)
    return "the source is being asked how many there are" if signs.counting else ""


def _longest_pause_s(signs: SeriesSigns, policy: Policy) -> float:
    """Between associations, while none was open; pauses over the quiet period were the end of an earlier delivery."""
    quiet_s = policy.quiet_s(signs.calling_ae_title)
    longest_s, ended_s = 0.0, None
    for arrival in sorted(signs.arrivals, key=lambda a: -a.began_s):
        if ended_s is not None and arrival.began_s < ended_s <= arrival.began_s + quiet_s:
            longest_s = max(longest_s, ended_s - arrival.began_s)
        ended_s = min(arrival.ended_s or 0.0, _NEVER_S if ended_s is None else ended_s)
    return longest_s


def _quiet(signs: SeriesSigns, policy: Policy) -> _Look:
    quiet_s = policy.quiet_s(signs.calling_ae_title)
    holds = [(quiet_s - signs.idle_s, "")]
    for arrival in signs.arrivals:
        if not arrival.ended_how and not arrival.has_moved_on(quiet_s):
            words = f"an association from {arrival.calling_ae_title} is open"
            holds.append((policy.held_s(quiet_s) - arrival.idle_s, words))
    if signs.expected > signs.instances or signs.missing:
        holds.append((policy.missing_s(quiet_s) - signs.idle_s, _missing_words(signs)))
    longest_s = max(seconds for seconds, _ in holds)
    reasons = tuple(dict.fromkeys(words for _, words in holds if words))
    return _Look(Signal.QUIET, longest_s <= 0, _idle_words(signs.idle_s, longest_s <= 0), longest_s, also=reasons)


def _idle_words(idle_s: float, over: bool) -> str:
    return f"nothing came for {idle_s:.1f} s" if over else f"the last instance came {idle_s:.1f} s ago"


def _missing_words(signs: SeriesSigns) -> str:
    if signs.counted is not None and signs.counted.instances > signs.instances:
        return _count_words(signs.counted, signs.instances)
    return _announced_words([a for a in signs.announced if a.expected or a.missing])


def _senders(signs: SeriesSigns) -> str:
    titles = sorted({a.calling_ae_title for a in signs.arrivals})
    whose = "its" if len(titles) == 1 else "their"
    what = "association" if len(signs.arrivals) == 1 else f"{len(signs.arrivals)} associations"
    return f"{' and '.join(titles)} released {whose} {what}"


def _open_words(associations: int, which: str = "") -> str:
    return f"an association{which} is open" if associations == 1 else f"{associations} associations{which} are open"


def _study_announced(signs: StudySigns, policy: Policy) -> _Look:
    if not all(a.is_final for a in signs.announced):
        return _Look(Signal.ANNOUNCED, False, "an MPPS of it is in progress")
    final = [a for a in signs.announced if a.expected]
    if not final:
        return _Look(Signal.ANNOUNCED, False, "")
    if signs.named_in_all < signs.instances:
        return _Look(Signal.ANNOUNCED, False, f"{_announced_words(final, signs.named)}, and more came")
    settling_s = policy.settle_s - signs.idle_s if signs.open_associations else 0.0
    settled = settling_s <= 0 and not any(a.missing for a in final)
    return _Look(
        Signal.ANNOUNCED, settled, _announced_words(final, signs.named), settling_s if settling_s > 0 else _NEVER_S
    )


def _study_counted(signs: StudySigns, policy: Policy) -> _Look:
    """As _counted. An open association may bring what the archive has not yet; one that is silent brings no more."""
    asked = policy.source(signs.calling_ae_title).query is not None
    if signs.held_back or not (asked or signs.counted):
        return _Look(Signal.COUNTED, False, "")
    count, silent_s = signs.counted, policy.quiet_s(signs.calling_ae_title) if signs.open_associations else 0.0
    settling_s = max(policy.settle_s, silent_s) - signs.idle_s
    fits = count is not None and count.instances == signs.instances and count.series in (0, signs.series)
    complete = count is not None and fits and count.age_s <= signs.idle_s and settling_s <= 0
    ask = asked and settling_s <= 0 and not complete
    words = _study_count_words(count, signs) if count else ""
    return _Look(Signal.COUNTED, complete, words, settling_s, _needs(Need.COUNT, ask))


def _study_count_words(count: CountSigns, signs: StudySigns) -> str:
    in_series = f" in {count.series} series" if count.series else ""
    own = f" besides {count.own_results} of own results" if count.own_results else ""
    here = f"{signs.instances} in {signs.series} series are" if count.series else _are(signs.instances)
    said = f"{count.source} says {quantity(count.instances, 'instance')}{in_series}{own}, and {here} here"
    others = sorted({*signs.senders} - {signs.calling_ae_title})
    if not others:
        return said
    return f"{said} (asked since {signs.calling_ae_title} sent last; {' and '.join(others)} sent some of it too)"


def _study_quiet(signs: StudySigns, policy: Policy) -> _Look:
    quiet_s = policy.study_quiet_s(signs.calling_ae_title)
    holds = [(quiet_s - signs.idle_s, "")]
    if signs.open_associations:
        holds.append((policy.held_s(quiet_s) - signs.idle_s, _open_words(signs.open_associations)))
    if missing := [a for a in signs.announced if a.missing]:
        holds.append((policy.missing_s(quiet_s) - signs.idle_s, _announced_words(missing)))
    if signs.counted is not None and signs.counted.instances > signs.instances:
        # as long as for a series: many an archive never sends all that it has of a study
        missing_s = policy.missing_s(policy.quiet_s(signs.calling_ae_title))
        holds.append((missing_s - signs.idle_s, _study_count_words(signs.counted, signs)))
    longest_s = max(seconds for seconds, _ in holds)
    also = tuple(words for _, words in holds if words)
    return _Look(Signal.QUIET, longest_s <= 0, _idle_words(signs.idle_s, longest_s <= 0), longest_s, also=also)


# ----------------------------------------------------------------------------------------- what was looked at


def _document(signs: SeriesSigns, looks: Sequence[_Look]) -> dict[str, Any]:
    last = sorted(signs.arrivals, key=lambda a: a.idle_s)[:_ASSOCIATIONS_TOLD]
    document: dict[str, Any] = {
        "idle_s": round(signs.idle_s, 3),
        "associations": [_arrival_document(arrival) for arrival in last],
        "said": _said(looks),
    }
    if len(signs.arrivals) > len(last):
        document["associations_in_all"] = len(signs.arrivals)
    if signs.announced:
        document["announced"] = [_announced_document(a) for a in signs.announced]
    if signs.counted is not None:
        document["counted"] = _count_document(signs.counted)
    return document


def _study_document(signs: StudySigns, looks: Sequence[_Look]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "idle_s": round(signs.idle_s, 3),
        "open_associations": signs.open_associations,
        "announced": [_announced_document(a) for a in signs.announced],
        "said": _said(looks),
    }
    if signs.counted is not None:
        of_study = {"series": signs.counted.series, "own_results": signs.counted.own_results}
        document["counted"] = _count_document(signs.counted) | of_study
    return document


def _count_document(counted: CountSigns) -> dict[str, Any]:
    return {"instances": counted.instances, "source": counted.source, "age_s": round(counted.age_s, 3)}


def _said(looks: Sequence[_Look]) -> dict[str, str]:
    return {str(look.signal): look.said for look in looks if look.words}


def _arrival_document(arrival: ArrivalSigns) -> dict[str, Any]:
    ended_s = None if arrival.ended_s is None else round(arrival.ended_s, 3)
    return {
        "association": arrival.association,
        "calling_ae_title": arrival.calling_ae_title,
        "instances": arrival.instances,
        "idle_s": round(arrival.idle_s, 3),
        "ended": arrival.ended_how,
        "ended_s": ended_s,
    }


def _announced_document(announced: AnnouncedSigns) -> dict[str, Any]:
    return {
        "kind": str(announced.kind),
        "state": str(announced.state),
        "expected": announced.expected,
        "missing": announced.missing,
    }
