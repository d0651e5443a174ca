"""What an administrator can do about a study that is stuck, or that is not as it should be, from its states alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from dicomnode.domain.job import DeliveryState, JobState
from dicomnode.domain.quantity import quantity
from dicomnode.domain.study import SeriesState, StudyState
from dicomnode.ports import DeliveryView, JobView, SeriesView
from dicomnode.stages.situation import Lack, Shortage, Situation, Waiting

_STUCK = "if it stays so, no worker runs: dicomnode status"
_SERIES_COMPLETE = f"{{name}} waits to be routed; {_STUCK}"
_NOWHERE = (
    "{name} goes nowhere, for the reason above; if that is right, there is nothing to do; else change a rule "
    "(dicomnode rules list, dicomnode rules add FILE) and have it routed again: dicomnode studies rerun {uid}"
)
_UNREADABLE = "{name} cannot be read, for the reason above; send it again from where it came from"
_GOES_ON = (
    "nothing has to be done: it goes on by itself at {until} at the latest, and sooner when it is seen to be complete"
)
_SEND_REST = (
    "when the sender has stopped, send the rest again from there; at {until} at the latest it goes on with what is "
    "here"
)
_AT_ONCE = "it goes on within seconds"
_NO_WORKER = "when it does not, no worker runs: dicomnode status"
_SHORT = (
    "{name} was taken as complete with {here}, but {missing} missing, as {by} says: send it again from the modality "
    "or the PACS (what is here already does no harm); when the rest comes, it is complete again, its jobs run again, "
    "and their results supersede these"
)
_STUDY_COMPLETE = f"the study is complete and {{rules}} about to be decided; {_STUCK}"
_JOBS = {
    JobState.QUEUED: f"job {{id}} waits for a worker; {_STUCK}",
    JobState.RUNNING: "job {id} is running; nothing to do",
    JobState.REFUSED: "job {id} cannot be done on this series ({reason}); exclude such series by a rule, "
    "or send one that is a volume",
    JobState.FAILED: "job {id} failed ({reason}); when that is mended: dicomnode jobs retry {id}",
    JobState.CANCELLED: "job {id} was cancelled ({reason}); to run it after all: dicomnode jobs retry {id}",
}
_SLICES_MISSING = (
    "job {id} cannot be done on this series ({reason}); send the whole series again from the modality or the PACS: "
    "when what is missing comes, a new job is made by itself"
)
_HOURS = "job {id} waits for its rule's hours, until {until}; now instead: dicomnode jobs prioritise {id} high --now"
_BEGINS = "job {id} has not begun yet ({reason}); it does so by itself"
_TRIED_AGAIN = "job {id} could not be done yet ({reason}); it is tried again by itself"
_KEPT = (
    "the {kinds} of job {id} went nowhere, since there was no destination; dicomnode destinations list shows those "
    "there are, dicomnode destinations add --help how to add one; then: dicomnode studies rerun {series}"
)
_DELIVERIES = {
    DeliveryState.QUEUED: f"the {{kind}} is to be sent to {{destination}}; {_STUCK}",
    DeliveryState.WAITING: "the {kind} did not reach {destination} ({reason}); it is tried again by itself, and "
    "dicomnode destinations echo {destination} says whether it answers now",
    DeliveryState.FAILED: "the {kind} did not reach {destination} ({reason}); when that is mended: "
    "dicomnode jobs retry {id}",
    DeliveryState.CANCELLED: "sending the {kind} to {destination} was cancelled; to send it after all: "
    "dicomnode jobs retry {id}",
}
_SUPERSEDED = "superseded"  # a job ended because late images came; the next one does its work
_NO_SLICES = "missing-slices"  # why a series was refused, as imaging.volume says it


def next_steps(seen: Situation) -> list[str]:
    """In words, one step each; empty when everything has arrived."""
    steps = [step for series in seen.study.series for step in _of_series(series, seen)]
    steps += [*_of_study(seen), *(_of_lack(lack, seen) for lack in seen.lacks)]
    return list(dict.fromkeys([*steps, *(step for job in seen.jobs for step in _of_job(job, seen))]))


# ------------------------------------------------------------------------------------------- series and studies


def _of_series(series: SeriesView, seen: Situation) -> Iterator[str]:
    uid, name = series.series_instance_uid, _name(series)
    if short := seen.short.get(uid):
        yield _short_words(name, short)
    if series.state is SeriesState.RECEIVING:
        yield _wait_words(f"{name} is still being received", seen.waiting.get(uid), seen)
    elif series.state is SeriesState.COMPLETE:
        yield _SERIES_COMPLETE.format(name=name)
    elif series.state is SeriesState.NOT_ROUTED:
        yield from _of_nowhere(series, seen)


def _of_nowhere(series: SeriesView, seen: Situation) -> Iterator[str]:
    """Scouts and reports beside a series that was routed are no reason to do anything."""
    uid = series.series_instance_uid
    waits = seen.is_study_open and uid in seen.awaiting
    lacks = any(uid in lack.series for lack in seen.lacks)
    if uid in seen.unreadable:
        yield _UNREADABLE.format(name=_name(series))
    elif not (waits or lacks or uid in seen.without_images or _is_routed(seen)):
        yield _NOWHERE.format(name=_name(series), uid=uid)


def _is_routed(seen: Situation) -> bool:
    return any(series.state is SeriesState.ROUTED for series in seen.study.series)


def _name(series: SeriesView) -> str:
    kind = f"the {series.modality or 'unknown'} series"
    return f"{kind} {series.description!r}" if series.description else kind


def _wait_words(what: str, wait: Waiting | None, seen: Situation) -> str:
    """What it waits for, until when at the latest, and what helps."""
    if wait is None:
        return f"{what}; {_AT_ONCE}; {_NO_WORKER}"
    goes_on = (_SEND_REST if wait.short else _GOES_ON) if wait.until > seen.now else _AT_ONCE
    return f"{what} ({wait.words}); {goes_on.format(until=_at(wait.until, '%H:%M:%S'))}; {_NO_WORKER}"


def _short_words(name: str, short: Shortage) -> str:
    missing = f"{short.missing} {'is' if short.missing == 1 else 'are'}"
    return _SHORT.format(name=name, here=quantity(short.here, "instance"), missing=missing, by=short.by)


def _of_study(seen: Situation) -> Iterator[str]:
    """Of a study whose series wait for nothing themselves."""
    study, rules = seen.study, seen.study_rules
    if short := seen.short.get(study.study_instance_uid):
        yield _short_words("the study", short)
    open_series = any(series.state in (SeriesState.RECEIVING, SeriesState.COMPLETE) for series in study.series)
    if not rules or open_series:
        return
    names = f"rule{'s' if len(rules) > 1 else ''} {', '.join(rules)}"
    if study.state is StudyState.COMPLETE:
        yield _STUDY_COMPLETE.format(rules=f"{names} {'are' if len(rules) > 1 else 'is'}")
    elif study.state is StudyState.RECEIVING:
        what = f"{names} wait{'' if len(rules) > 1 else 's'} until the whole study is here"
        yield _wait_words(what, seen.waiting.get(study.study_instance_uid), seen)


def _of_lack(lack: Lack, seen: Situation) -> str:
    """The rerun is of the series alone where it is one: the others' jobs need not run again."""
    uid = lack.series[0] if len(lack.series) == 1 else seen.study.study_instance_uid
    again = f"dicomnode studies rerun {uid}"
    if lack.mended:
        return f"rule {lack.rule} matched, but {lack.what} was not there; that has changed since: {again}"
    if lack.is_destination:
        add = f"dicomnode destinations add {lack.what.removeprefix('destination ')}, with its address"
        return f"rule {lack.rule} names {lack.what}, which does not exist: {add}; then {again}"
    if lack.registered:
        activate = f"dicomnode models activate {lack.registered}"
        return f"rule {lack.rule} matched, but no version of {lack.what} is active: {activate}; then {again}"
    return (
        f"rule {lack.rule} matched, but {lack.what} is not registered (dicomnode models list shows those that are): "
        f"dicomnode models add FOLDER, or name another in the rule; then {again}"
    )


# ------------------------------------------------------------------------------------------ jobs and deliveries


def _of_job(job: JobView, seen: Situation) -> Iterator[str]:
    if job.code == _SUPERSEDED:
        return
    if job.state in _JOBS:
        yield _job_words(job, seen.now).format(
            id=job.job_id, reason=job.reason or job.code, until=_at(job.not_before) if job.not_before else ""
        )
    kept = [result.kind for result in job.results if result.sop_instance_uid not in job.superseded]
    if kept and not job.deliveries and job.job_id not in seen.unwanted:
        yield _KEPT.format(kinds=" and ".join(kept), id=job.job_id, series=job.series_instance_uid)
    current = [delivery for delivery in job.deliveries if delivery.sop_instance_uid not in job.superseded]
    alike: dict[tuple[DeliveryState, str, str], list[DeliveryView]] = {}
    for delivery in current:
        alike.setdefault((delivery.state, delivery.destination, delivery.reason), []).append(delivery)
    for deliveries in alike.values():
        yield from _of_deliveries(deliveries)


def _job_words(job: JobView, now: datetime) -> str:
    if job.state is JobState.QUEUED and job.not_before is not None and job.not_before > now:
        return _HOURS
    if job.state is JobState.REFUSED and job.code == _NO_SLICES:
        return _SLICES_MISSING
    if job.state is JobState.QUEUED and job.reason:
        return _TRIED_AGAIN if job.attempts else _BEGINS
    return _JOBS[job.state]


def _at(moment: datetime, layout: str = "%Y-%m-%d %H:%M") -> str:
    return moment.astimezone().strftime(layout)


def _of_deliveries(alike: Sequence[DeliveryView]) -> Iterator[str]:
    """Of results of one job that came to the same at one destination."""
    first = alike[0]
    if first.state in _DELIVERIES:
        yield _DELIVERIES[first.state].format(
            kind=" and ".join(delivery.kind for delivery in alike),
            destination=first.destination,
            reason=first.reason,
            id=first.job_id,
        )
