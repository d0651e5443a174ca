"""Who made a result, from what, and how: the same words in the SEG, in the SR and in their UIDs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.domain.model_card import Code, ModelCard
from dicomnode.domain.model_parameter import Value
from dicomnode.encoding.references import Further, UsedImages, study_and_series
from dicomnode.imaging.headers import text, value

MANUFACTURER = "dicomnode"
# In the order of their series' numbers
_KINDS = ("SEG", "SR", "SEG-PROB", "MAP", "SEG-LABELMAP", "SEG-FULL", "SC", "PDF", "RTSTRUCT", "GSPS", "KO")
_LO_MOST = 64  # characters of a long string (PS3.5 6.2)
_SH_MOST = 16
_ST_MOST = 1024


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An earlier result that this run's of the same kind supersedes."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    kind: str = "SR"


@dataclass(frozen=True, slots=True)
class Preceding:
    """A model that came first: it let the one after it run, or said where that looks."""

    name: str
    version: str
    manufacturer: str
    family: str
    digest: str
    engine: str
    precision: str
    asked: str  # in words: "only if it finds Lungs of at least 500 mL"
    said: str

    @property
    def words(self) -> str:
        made_with = f"digest {self.digest}, {self.engine} {self.precision}"
        return f"{self.name} {self.version}, {made_with}, {self.asked}: {self.said}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Strings only. Equal provenance and equal results give equal bytes: take `created_at` from the work that is
    being done (as when its series became complete), not from the clock, if a repeat is to be the same object.
    """

    node_version: str
    device_serial_number: str  # which node of the hospital's this was, as its AE title
    model_digest: str
    engine: str  # "OpenVINO 2026.4.1 CPU"
    precision: str  # "fp32"
    rule_name: str
    rule_revision: int
    created_at: datetime
    job_id: str = ""
    predecessors: tuple[Predecessor, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)  # of the model, every one with its value
    before: tuple[Preceding, ...] = ()  # in their order

    def replaced(self, kind: str, series_instance_uid: str) -> tuple[Predecessor, ...]:
        """What a result of this kind in this series takes the place of.

        Late images that the volume leaves out give the same result again, which does not supersede itself.
        """
        return tuple(p for p in self.predecessors if p.kind == kind and p.series_instance_uid != series_instance_uid)


def result_uids(
    kind: str, plan: UsedImages, further: Further, card: ModelCard, made: Provenance, content: str
) -> tuple[str, str]:
    """(Series, SOP) Instance UIDs of a result: the same for the same content made the same way of the same images.

    The rule's revision is none of it: an edit of the rule that changes nothing of the result gives the same object.
    """
    parts = (
        kind,
        text(plan.first, "SeriesInstanceUID"),
        card.name,
        card.version,
        made.model_digest,
        made.engine,
        made.precision,
        made.rule_name,
        _configuration(card, made),
        _images(plan, further),
        content,
    )
    return deterministic_uid("series", *parts), deterministic_uid("instance", *parts)


def _configuration(card: ModelCard, made: Provenance) -> str:
    """The parameters that are not as the card has them, for to name a default is to change nothing; and what came
    before, for another model there may lead to something else.
    """
    changed = {n: v for n, v in made.parameters.items() if n in card.parameters and v != card.parameters[n].default}
    before = [f"after {b.name} {b.version} {b.digest} {b.engine} {b.precision}" for b in made.before]
    return ";".join([*(f"{name}={changed[name]!r}" for name in sorted(changed)), *before])


def _images(plan: UsedImages, further: Further) -> str:
    """A digest of the frames that went into the volumes, in slice order, role by role."""
    digest = hashlib.sha256()
    used: UsedImages
    for role, used in (("", plan), *sorted(further.items())):
        digest.update(f"role {role}\n".encode())
        digest.update("".join(f"{f.sop_instance_uid} {f.number}\n" for f in used.frames).encode())
    return digest.hexdigest()


def tracking(subject_uid: str, card: ModelCard, segment_number: int) -> tuple[str, str]:
    """(identifier, UID) of a finding: one a segment of a model on a series, the same in the SEG and in the SR.

    `subject_uid`: of the series; of single images that of the image, for the next one shows another view.
    """
    segment = card.segments[segment_number - 1]
    uid = deterministic_uid("tracking", subject_uid, card.name, str(segment_number), segment.name)
    return f"{card.name} {segment.name}"[:_LO_MOST], uid


def software_versions(card: ModelCard, made: Provenance) -> tuple[str, ...]:
    return f"{MANUFACTURER} {made.node_version}"[:_LO_MOST], f"{card.name} {card.version}"[:_LO_MOST]


def algorithm(card: ModelCard, made: Provenance) -> hd.AlgorithmIdentificationSequence:
    """Segmentation Algorithm Identification (PS3.3 10.16, C.8.20.2): the model, then those that came before it."""
    every = hd.AlgorithmIdentificationSequence(
        name=card.name,
        family=codes.cid7162.ArtificialIntelligence,
        version=card.version,
        source=card.manufacturer,
        parameters=_parameters(card, made),
    )
    for first in made.before:
        every.extend(
            hd.AlgorithmIdentificationSequence(
                name=first.name,
                family=codes.cid7162.ArtificialIntelligence,
                version=first.version,
                source=first.manufacturer,
                parameters=_parameters_of_first(first),
            )
        )
    return every


def _parameters_of_first(first: Preceding) -> dict[str, str]:
    return {
        "family": first.family,
        "digest": first.digest,
        "engine": first.engine,
        "precision": first.precision,
        "asked": first.asked,
        "said": first.said,
    }


def _parameters(card: ModelCard, made: Provenance) -> dict[str, str]:
    return {**_made_with(card, made), **_settings(made)}


def _made_with(card: ModelCard, made: Provenance) -> dict[str, str]:
    return {
        "family": card.family,
        "digest": made.model_digest,
        "engine": made.engine,
        "precision": made.precision,
        "rule": f"{made.rule_name} revision {made.rule_revision}",
    }


def _settings(made: Provenance) -> dict[str, str]:
    return {
        **{f"parameter {name}": str(value) for name, value in made.parameters.items()},
        **{f"after {number}": first.words for number, first in enumerate(made.before, 1)},
    }


def parameters_in_words(card: ModelCard, made: Provenance) -> list[str]:
    return [f"{name}: {value}" for name, value in _parameters(card, made).items()]


def contributing_equipment(
    card: ModelCard, made: Provenance, plan: UsedImages, kind: str, series_instance_uid: str
) -> list[hd.ContributingEquipment]:
    """The models as equipment that processed the images (PS3.3 C.12.1.5, CID 7005); the one that gave them first.

    For a result of this kind in this series.
    """
    number = made.model_digest or made.device_serial_number
    words = _contribution(card, made, plan, kind, series_instance_uid)
    return [
        _equipment(card.manufacturer, card.name, card.version, number, words, made),
        *(
            _equipment(b.manufacturer, b.name, b.version, b.digest, f"came before: {b.words}", made)
            for b in made.before
        ),
    ]


def _contribution(card: ModelCard, made: Provenance, plan: UsedImages, kind: str, series_instance_uid: str) -> str:
    """What has no attribute of its own in every kind of object; what may be long comes last, and is cut off first."""
    replaced = dict.fromkeys(p.series_instance_uid for p in made.replaced(kind, series_instance_uid))
    said = {
        **_made_with(card, made),
        "job": made.job_id,
        "source series": study_and_series(plan)[1],
        "supersedes series": ", ".join(replaced),
        **_settings(made),
    }
    return "; ".join(f"{name}: {words}" for name, words in said.items() if words)


def _equipment(
    manufacturer: str, name: str, version: str, serial_number: str, words: str, made: Provenance
) -> hd.ContributingEquipment:
    """Its Device UID is another when the model is another (IHE RAD TF supplement AIR, 6.5.3.1)."""
    equipment = hd.ContributingEquipment(
        manufacturer=manufacturer,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=name,
        software_versions=version,
        device_serial_number=serial_number[:_LO_MOST],
        contribution_datetime=local(made.created_at),
        contribution_description=words[:_ST_MOST],
    )
    equipment.DeviceUID = deterministic_uid("model", manufacturer, name, version, serial_number)
    return equipment


def set_equipment(dataset: Dataset, card: ModelCard, made: Provenance) -> None:
    """The node and the model (PS3.3 C.7.5.1), in place of what libraries leave out or take from the source."""
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, card.name
    dataset.StationName = made.device_serial_number[:_SH_MOST]
    dataset.DeviceSerialNumber = made.device_serial_number
    dataset.SoftwareVersions = list(software_versions(card, made))


def hierarchical_reference(predecessor: Predecessor) -> Dataset:
    """An item of Predecessor Documents Sequence (PS3.3 C.17.2.1)."""
    document, series, study = Dataset(), Dataset(), Dataset()
    document.ReferencedSOPClassUID = predecessor.sop_class_uid
    document.ReferencedSOPInstanceUID = predecessor.sop_instance_uid
    series.SeriesInstanceUID, series.ReferencedSOPSequence = predecessor.series_instance_uid, [document]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = predecessor.study_instance_uid, [series]
    return study


def local(moment: datetime) -> datetime:
    """In the node's own time zone and without one, as the study's other dates and times are."""
    return moment.astimezone().replace(tzinfo=None) if moment.tzinfo else moment


def result_series_number(source_series_number: int | None, kind: str) -> int:
    """Beside the source's: series 4 gives 4001 for its SEG, 4002 for its SR and so on; 9001, ... without one."""
    base = source_series_number if source_series_number and 0 < source_series_number < 1_000_000 else 9
    return base * 1000 + _KINDS.index(kind) + 1


def series_description(card: ModelCard, kind: str) -> str:
    return f"{card.name} {card.version} {kind}"[:_LO_MOST]


def texts_of(card: ModelCard, made: Provenance) -> Sequence[str]:
    """All free text of ours that goes into a result, to choose a character set that can hold it."""
    return [
        card.manufacturer,
        *(first.manufacturer for first in made.before),
        *(s.name for s in card.segments),
        *_meanings(card),
        *parameters_in_words(card, made),
        made.device_serial_number,
    ]


def _meanings(card: ModelCard) -> Sequence[str]:
    codes_of: list[Code] = []
    names: list[str] = []
    if card.classification is not None:
        codes_of += [card.classification.finding, *(one.code for one in card.classification.classes)]
    if card.measurements is not None:
        codes_of += [code for v in card.measurements.values for code in (v.code, v.finding_site) if code]
    if card.boxes is not None:
        names += [one.name for one in card.boxes.classes]
        codes_of += [one.code for one in card.boxes.classes]
    if card.map is not None:
        names.append(card.map.name)
        codes_of.append(card.map.quantity)
    return [*names, *(code.meaning for code in codes_of)]


def is_own(dataset: Dataset) -> bool:
    """Whether a node made it: its software versions begin with the node's (software_versions)."""
    found = value(dataset, "SoftwareVersions", "")
    return any(str(one).startswith("dicomnode ") for one in ([found] if isinstance(found, str) else found))
