"""What the headers of all instances of a series say together: facts that rules may ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from pydicom import Dataset

from dicomnode.domain.rules import FACTS, FACTS_OF_ALL_HEADERS
from dicomnode.domain.study import Element, Header
from dicomnode.errors import CannotDecode, NotAVolume
from dicomnode.imaging.decode import plan_instances
from dicomnode.imaging.frames import frames_of, is_image, is_localizer
from dicomnode.imaging.grid import plane_name
from dicomnode.imaging.headers import Instance, odd_values_accepted, read_instances


def facts_of_all_headers(paths: Sequence[Path], wanted: Collection[str]) -> Header:
    """Those wanted of FACTS_OF_ALL_HEADERS, of a series' Part 10 files. Nothing is read when none is wanted."""
    names = FACTS_OF_ALL_HEADERS & set(wanted)
    if not names:
        return {}
    try:
        instances = read_instances(paths)
    except CannotDecode as error:
        return {name: _unknown(name, str(error)) for name in names}
    with odd_values_accepted():
        facts = _facts(instances, names)
    return {name: facts[name] for name in names}


def _facts(instances: Sequence[Instance], names: Collection[str]) -> dict[str, Element]:
    headers = [instance.header for instance in instances]
    facts = {"IsLocalizer": _is_localizer(headers)}
    if "Orientation" in names:
        facts["Orientation"] = _orientation(headers)
    if {"IsAVolume", "MeasuredSliceSpacing"} & set(names):
        facts |= _volume(instances)
    return facts


def _unknown(name: str, why: str) -> Element:
    """A series that cannot be read is no volume; of the rest nobody knows."""
    return Element(FACTS[name], (False,) if name == "IsAVolume" else (), why)


def _is_localizer(headers: Sequence[Dataset]) -> Element:
    """True when every image is one: localizers beside a stack are left out of the volume, not the reverse."""
    images = [header for header in headers if is_image(header)]
    localizers = sum(map(is_localizer, images))
    some = 0 < localizers < len(images)
    note = f"{localizers} of {len(images)} images {'is one' if localizers == 1 else 'are'}" if some else ""
    return Element("FLAG", (bool(images) and localizers == len(images),), note)


def _orientation(headers: Sequence[Dataset]) -> Element:
    """The planes of the images, the most frequent first; localizers count only where there is nothing else."""
    images = [i for i, header in enumerate(headers) if is_image(header)]
    which = [i for i in images if not is_localizer(headers[i])] or images
    try:
        planes = Counter(plane_name(frame) for frame in frames_of(headers, which))
    except NotAVolume as error:
        return _unknown("Orientation", str(error))
    note = ", ".join(f"{count} {plane}" for plane, count in planes.most_common()) if len(planes) > 1 else ""
    return Element("CS", tuple(plane for plane, _ in planes.most_common()), note)


def _volume(instances: Sequence[Instance]) -> dict[str, Element]:
    """By the same plan that the model gets: what is no volume here is refused there."""
    try:
        geometry = plan_instances(instances).geometry
    except NotAVolume as error:
        return _no_volume(error.reason, str(error))
    except CannotDecode as error:
        return _no_volume(error.code, str(error))
    # along the normal, as Spacing Between Slices (0018,0088) is defined, so that a tilted gantry changes nothing
    step_mm = abs(float(geometry.affine[:3, 0] @ geometry.normal))
    return {"IsAVolume": Element("FLAG", (True,)), "MeasuredSliceSpacing": Element("DS", (round(step_mm, 4),))}


def _no_volume(reason: str, words: str) -> dict[str, Element]:
    """The words once: rules often ask for both."""
    return {
        "IsAVolume": Element("FLAG", (False,), f"{reason}: {words}"),
        "MeasuredSliceSpacing": Element("DS", (), f"no volume: {reason}"),
    }
