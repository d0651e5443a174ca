"""What an administrator can do about a study that is stuck, from its states alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from dicomnode.domain.completeness import Policy, series_verdict, study_verdict
from dicomnode.domain.job import DeliveryState, JobState
from dicomnode.domain.study import SeriesState, StudyState
from dicomnode.ports import DeliveryView, JobView, SeriesView, State, StudyView

_STUCK = "if it stays so, no worker runs: dicomnode status"
_SERIES = {
    SeriesState.RECEIVING: "{name} is still being received{wait}; when no image comes any more and it stays so, "
    "no worker runs: dicomnode status",
    SeriesState.COMPLETE: f"{{name}} waits to be routed; {_STUCK}",
    SeriesState.NOT_ROUTED: "{name} goes nowhere, for the reason above; if it should, change a rule "
    "(dicomnode rules list, dicomnode rules add FILE) and have it routed again: dicomnode studies rerun {uid}",
}
_STUDY = {
    StudyState.RECEIVING: "{rules} can say more when the whole study is here{wait}; "
    "when that stays so for minutes, no worker runs: dicomnode status",
    StudyState.COMPLETE: f"the study is complete and {{rules}} about to be decided; {_STUCK}",
}
_JOBS = {
    JobState.QUEUED: f"job {{id}} waits for a worker; {_STUCK}",
    JobState.RUNNING: "job {id} is running; nothing to do",
    JobState.REFUSED: "job {id} cannot be done on this series ({reason}); exclude such series by a rule, "
    "or send one that is a volume",
    JobState.FAILED: "job {id} failed ({reason}); when that is mended: dicomnode jobs retry {id}",
    JobState.CANCELLED: "job {id} was cancelled ({reason}); to run it after all: dicomnode jobs retry {id}",
}
_HOURS = "job {id} waits for its rule's hours, until {until}; now instead: dicomnode jobs prioritise {id} high --now"
_TRIED_AGAIN = "job {id} could not be done yet ({reason}); it is tried again by itself"
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
_ASKED_MOST = 1000


def waits(state: State, study: StudyView, policy: Policy) -> dict[str, str]:
    """Why the study and those of its series that are still received are not complete yet; by UID, in words."""
    uid = study.study_instance_uid
    if any(series.state is SeriesState.RECEIVING for series in study.series):
        signs = [s for s in state.receiving_series(_ASKED_MOST) if s.study_instance_uid == uid]
        return {s.series_instance_uid: series_verdict(s, policy).words for s in signs}
    if study.state is StudyState.RECEIVING:
        of_studies = {s.study_instance_uid: s for s in state.receiving_studies(_ASKED_MOST)}
        return {uid: study_verdict(of_studies[uid], policy).words} if uid in of_studies else {}
    return {}


def next_steps(
    study: StudyView,
    jobs: Sequence[JobView],
    now: datetime,
    waiting: Mapping[str, str] | None = None,
    study_rules: Sequence[str] = (),
) -> list[str]:
    """In words, one step each; empty when everything has arrived.

    `waiting` as `waits` gives it; `study_rules` are names of rules that wait until the study is complete.
    """
    waiting = waiting or {}
    routed = any(series.state is SeriesState.ROUTED for series in study.series)
    steps = [step for series in study.series for step in _of_series(series, routed, waiting)]
    steps += _of_study(study, waiting, study_rules)
    return list(dict.fromkeys([*steps, *(step for job in jobs for step in _of_job(job, now))]))


def _of_series(series: SeriesView, other_routed: bool, waiting: Mapping[str, str]) -> Iterator[str]:
    """Scouts and reports beside a series that was routed are no reason to do anything."""
    if series.state is SeriesState.NOT_ROUTED and other_routed:
        return
    if series.state in _SERIES:
        name = (
            f"the {series.modality or 'unknown'} series {series.description!r}" if series.description else "a series"
        )
        uid = series.series_instance_uid
        yield _SERIES[series.state].format(name=name, uid=uid, wait=_because(waiting.get(uid)))


def _of_study(study: StudyView, waiting: Mapping[str, str], rules: Sequence[str]) -> Iterator[str]:
    """Of a study whose series wait for nothing themselves."""
    open_series = any(series.state in (SeriesState.RECEIVING, SeriesState.COMPLETE) for series in study.series)
    if rules and study.state in _STUDY and not open_series:
        names = f"rule{'s' if len(rules) > 1 else ''} {', '.join(rules)}"
        yield _STUDY[study.state].format(rules=names, wait=_because(waiting.get(study.study_instance_uid)))


def _because(words: str | None) -> str:
    return f" ({words})" if words else ""


def _of_job(job: JobView, now: datetime) -> Iterator[str]:
    if job.code == _SUPERSEDED:
        return
    if job.state in _JOBS:
        yield _job_words(job, now).format(
            id=job.job_id, reason=job.reason or job.code, until=_at(job.not_before) if job.not_before else ""
        )
    current = [delivery for delivery in job.deliveries if delivery.sop_instance_uid not in job.superseded]
    alike: dict[tuple[DeliveryState, str, str], list[DeliveryView]] = {}
    for delivery in current:
        alike.setdefault((delivery.state, delivery.destination, delivery.reason), []).append(delivery)
    for deliveries in alike.values():
        yield from _of_deliveries(deliveries)


def _job_words(job: JobView, now: datetime) -> str:
    if job.state is JobState.QUEUED and job.not_before is not None and job.not_before > now:
        return _HOURS
    return _TRIED_AGAIN if job.state is JobState.QUEUED and job.reason else _JOBS[job.state]


def _at(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


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
