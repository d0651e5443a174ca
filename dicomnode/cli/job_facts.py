"""What is shown of a job, as lines of words with units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.text import Text

from dicomnode.cli.study_story import JOB_STYLES
from dicomnode.domain.job import DeliveryState
from dicomnode.domain.quantity import quantity
from dicomnode.domain.result import StoredResult
from dicomnode.ports import DeliveryView, JobView

# The end of a name → the unit of its number.
_UNITS = {"_ml": "ml", "_mm": "mm", "_ms": "ms", "_s": "s", "_hu": "HU"}
_BYTES = "_bytes"
_LABELS = {
    "worker_peak_bytes": "peak memory",
    "measurements": "measured",
    "inferred_before": "answer",
    "before": "ran after",
    "runs": "images",
}
# What is shown in a place of its own; probabilities of every image are for programs (--json).
_ELSEWHERE = ("parameters", "inputs", "probabilities")


def facts(job: JobView) -> Iterator[tuple[Text, Text]]:
    """A label and words, line by line; the label of a further line of the same kind is empty."""
    for label, words in _facts(job):
        for number, line in enumerate(words):
            yield Text(label if number == 0 else "", style="bold"), line


def _facts(job: JobView) -> Iterator[tuple[str, list[Text]]]:
    yield "job", [Text(job.job_id)]
    yield "state", [Text(job.state, style=JOB_STYLES[job.state])]
    yield "reason", [Text(job.reason + (f" ({job.code})" if job.code else ""))] if job.reason else []
    yield (
        "model",
        [Text(f"{job.model}, a shadow: its results are kept here and sent nowhere" * job.shadow or job.model)],
    )
    yield "rule", [Text(f"{job.rule}, priority {job.priority}")]
    yield "parameters", _parameters(job)
    yield "series", [Text(f"{job.series_description}\n{job.series_instance_uid}".strip())]
    yield "inputs", [Text(f"{role}: {uid}") for role, uid in job.inputs.items()]
    yield "study", [Text(job.study_instance_uid)]
    yield from _times(job)
    yield "stages", list(map(Text, _stages(job.timings_s)))
    yield "results", [_result(job, result) for result in job.results]
    yield "deliveries", [_delivery(delivery) for delivery in job.deliveries]
    yield from _details({name: value for name, value in job.details.items() if name not in _ELSEWHERE})


# ----------------------------------------------------------------------------------------------------- times


def _times(job: JobView) -> Iterator[tuple[str, list[Text]]]:
    yield "made", [Text(at(job.created_at))]
    yield "not before", [Text(at(job.not_before))] if job.not_before is not None else []
    if job.started_at is not None:
        yield "started", [Text(at(job.started_at) + (f", attempt {job.attempts}" if job.attempts > 1 else ""))]
    if job.finished_at is not None:
        yield "finished", [Text(at(job.finished_at) + (f", after {seconds_of(job):.2f} s" * bool(job.started_at)))]


def at(moment: datetime | None, layout: str = "%Y-%m-%d %H:%M:%S") -> str:
    """In this host's zone."""
    return "-" if moment is None else moment.astimezone().strftime(layout)


def seconds_of(job: JobView) -> float:
    """From its start to its end; 0 when it did not run to an end."""
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return (job.finished_at - job.started_at).total_seconds()


def _stages(timings_s: Mapping[str, float]) -> Iterator[str]:
    """infer 7.12 s (before 0.29 s, network 6.40 s): parts of a stage are named as "infer: network"."""
    for name, seconds in timings_s.items():
        stage, _, part = name.partition(": ")
        if part and stage in timings_s:
            continue
        parts = [
            f"{n.removeprefix(f'{name}: ')} {s:.2f} s" for n, s in timings_s.items() if n.startswith(f"{name}: ")
        ]
        yield f"{name} {seconds:.2f} s" + (f" ({', '.join(parts)})" if parts else "")


# --------------------------------------------------------------------------------------- results, deliveries


def _result(job: JobView, result: StoredResult) -> Text:
    text = Text(f"{result.kind} {result.size_bytes / 1e6:.2f} MB")
    if later := job.superseded.get(result.sop_instance_uid):
        text.append(f", superseded by job {later}", style="dim")
    return text.append(f"\n{result.path}", style="dim")


def _delivery(delivery: DeliveryView) -> Text:
    text = Text(f"{delivery.kind} to {delivery.destination}: ")
    text.append(delivery.state, style=JOB_STYLES.get(delivery.state, ""))
    if delivery.delivered_at is not None:
        text.append(f" {at(delivery.proven_at or delivery.delivered_at)}")
    text.append(said_of(delivery))
    return text.append("".join(f"; {words}" for words in [next_attempt(delivery)] if words))


def next_attempt(delivery: DeliveryView) -> str:
    """When it is tried again by itself; "" when it is not."""
    if delivery.state is not DeliveryState.WAITING or delivery.next_attempt_at is None:
        return ""
    if delivery.parked:
        return f"it goes out when {delivery.destination} answers again"
    return f"attempt {delivery.attempts + 1} at {at(delivery.next_attempt_at)}"


def said_of(delivery: DeliveryView) -> str:
    """What the destination said when it was sent, and about keeping it; or why it did not arrive."""
    words = f", {delivery.reason}" if delivery.reason else ""
    if delivery.proof:
        words += f"; {delivery.proof}"
    elif delivery.state is DeliveryState.SENT and delivery.ask_at is not None:
        words += "; it is to be asked whether it keeps it"
    return words


# --------------------------------------------------------------------------------------------------- details


def _parameters(job: JobView) -> list[Text]:
    """Those it ran with, once it ran; which of them its rule gave."""
    settled = job.details.get("parameters")
    every = {**job.parameters, **settled} if isinstance(settled, Mapping) else job.parameters
    return [
        Text(f"{name}: {_value(name, value)}" + (", by its rule" if name in job.parameters else ""))
        for name, value in every.items()
    ]


def _details(details: Mapping[str, Any]) -> Iterator[tuple[str, list[Text]]]:
    for name, value in details.items():
        label = _LABELS.get(name, name.replace("_", " "))
        yield label, [Text(line) for line in _detail(name, value) if line]


def _detail(name: str, value: Any) -> list[str]:
    words = _ROWS.get(name, lambda row: _value(name, row))
    return [words(one) for one in value] if isinstance(value, list | tuple) else [words(value)]


def _inferred(before: bool) -> str:
    return "was there before the job: made while the series settled, or for another job" * before


def _class(row: Mapping[str, Any]) -> str:
    """Chest: 9 images, 22%."""
    return f"{row['class']}: {quantity(row['images'], 'image')}, {row['share']:.0%}"


def _run(row: Mapping[str, Any]) -> str:
    """32-41: Chest, probability 0.961 on average, 0.895 at least; of one image 32: Chest, probability 0.961."""
    first, _, last = str(row["images"]).partition("-")
    words = f"{first if first == last else row['images']}: {row['class']}"
    if row["probability"] is None:
        return words
    spread = f" on average, {row['least']:.3f} at least" if first != last else ""
    return f"{words}, probability {row['probability']:.3f}{spread}"


def _first(row: Mapping[str, Any]) -> str:
    """torso-ct 1.0.0 (42c2b2d5f49c, OpenVINO 2026.4.1 f32), which came first; then what it was asked, and said."""
    ran = f"{row['engine']} {row['precision']}".strip()
    return f"{row['model']} ({row['digest'][:12]}, {ran}): {row['asked']}; {row['said']}"


def _number(row: Mapping[str, Any]) -> str:
    """Agatston score: 120.5; or Angle on image 3: 12 deg."""
    where = f" on image {row['image']}" if "image" in row else ""
    said = "no number" if row["value"] is None else f"{row['value']:.6g} {row['unit']}".rstrip()
    return f"{row['measurement']}{where}: {said}"


def _box(row: Mapping[str, Any]) -> str:
    """Nodule, score 0.93: slice 31, length 12.1 mm, width 9 mm, depth 8 mm; or image 3, 30 columns, 38 rows."""
    if "columns" in row:
        extent = [f"image {row['image']}", f"{row['columns']:g} columns", f"{row['rows']:g} rows"]
    else:
        sides = (f"{side} {_value(f'{side}_mm', row[f'{side}_mm'])}" for side in ("length", "width", "depth"))
        extent = [f"slice {row['slice']}", *sides]
    return f"{row['finding']}, score {row['score']:.3g}: {', '.join(extent)}"


def _value(name: str, value: Any) -> str:
    """A number with the unit that its name ends in; the members of a mapping or list, with commas between."""
    if isinstance(value, Mapping):
        return _members(name, value)
    if isinstance(value, list | tuple):
        return ", ".join(_value(name, one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if name.endswith(_BYTES):
        return f"{value / 1e6:.1f} MB"
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    return f"{value:.10g} {unit}".rstrip()


def _members(name: str, value: Mapping[str, Any]) -> str:
    """OpenVINO 2026.4.1, precision f32: the one that has the name of the whole comes without it."""
    return ", ".join(
        _value(member, one) if member == name else f"{member} {_value(member, one)}" for member, one in value.items()
    )


def _measured(row: Mapping[str, Any]) -> str:
    """Lungs: 3434.396 ml, mean -773.11 HU; or Lungs on image 1: 5120.4 mm², mean 211."""
    unit = str(row.get("unit", ""))
    parts = [_value("volume_ml", row.get("volume_ml", 0))] if "image" not in row else [_area(row)]
    if row.get("mean") is not None:
        parts.append(f"mean {row['mean']} {unit}".rstrip())
    known = {"segment", "volume_ml", "mean", "unit", "image", "area_mm2", "pixels"}
    parts += [f"{name} {_value(name, value)}" for name, value in row.items() if name not in known]
    where = f" on image {row['image']}" if "image" in row else ""
    return f"{row['segment']}{where}: {', '.join(parts)}"


def _area(row: Mapping[str, Any]) -> str:
    """Of a segment on a single image: in pixels where nobody knows how large these are."""
    return f"{row['pixels']} pixels" if row.get("area_mm2") is None else f"{row['area_mm2']} mm²"


# What a row of these is in words; of others each member with its name.
_ROWS: Mapping[str, Callable[[Any], str]] = {
    "measurements": _measured,
    "inferred_before": _inferred,
    "classes": _class,
    "runs": _run,
    "before": _first,
    "numbers": _number,
    "boxes": _box,
}
