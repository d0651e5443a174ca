"""All that masks of single images become: encoded, checked, as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_described
from dicomnode.encoding.check_images import check_image_report, check_image_segmentation
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.refusal import kept_when_refused
from dicomnode.encoding.results import EncodedResult, encoded
from dicomnode.encoding.seg_file import SegFile
from dicomnode.encoding.seg_images import frames_of, image_uids, segmentation_of
from dicomnode.encoding.sr_images import encode_image_report
from dicomnode.imaging.headers import items, text
from dicomnode.imaging.images import ImagesPlan
from dicomnode.imaging.masked_images import MaskedInstance, RegionStatistics


def encode_image_results(
    instances: Sequence[MaskedInstance],
    statistics: Sequence[RegionStatistics],
    plan: ImagesPlan,
    card: ModelCard,
    made: Provenance,
) -> tuple[EncodedResult, ...]:
    """SEGs, one of each kind for each instance that something was found on, and an SR; of nothing the SR alone.

    `statistics` is what imaging.masked_images.measured gave for the card's segments. Raises NonConformant.
    """
    kinds = [kind for kind in card.output.result_kinds if kind != "SR"]
    made = _superseding(made, [image_uids(*one) for one in _contents(instances, kinds, card, made)])
    results: list[EncodedResult] = []
    referred: dict[str, SegFile] = {}  # by image; the first kind of each is what the SR refers to
    written: dict[str, Dataset] = {}
    for kind in kinds:
        for instance in instances:
            if (file := segmentation_of(instance, kind, plan, card, made)) is None:
                continue
            as_written, uid = _passed(file, kind, instance, plan, card), text(instance.header, "SOPInstanceUID")
            referred.setdefault(uid, file)
            written.setdefault(uid, as_written)
            results.append(encoded(kind, file.header, file))
    report = encode_image_report(statistics, plan, card, made, referred)
    with kept_when_refused("SR", partial(to_part10_bytes, report)):
        check_image_report(report, statistics, plan, card, written)
    return (*results, encoded("SR", report))


def _superseding(made: Provenance, given: Sequence[tuple[str, str]]) -> Provenance:
    """Without those of its predecessors that are given again: another image's object takes no place of theirs."""
    again = {series for series, _ in given}
    return replace(made, predecessors=tuple(p for p in made.predecessors if p.series_instance_uid not in again))


def _contents(
    instances: Sequence[MaskedInstance], kinds: Sequence[str], card: ModelCard, made: Provenance
) -> Iterator[tuple[str, str, MaskedInstance, ModelCard, Provenance]]:
    """What the UIDs of the SEGs follow from; none need be asked for where nothing was there before."""
    for kind in kinds if made.predecessors else ():
        for instance in instances:
            yield kind, frames_of(instance, kind).digest(), instance, card, made


def _passed(file: SegFile, kind: str, instance: MaskedInstance, plan: ImagesPlan, card: ModelCard) -> Dataset:
    """The attributes as they are written, checked."""
    as_written = file.as_written()
    with kept_when_refused(kind, partial(getattr, file, "content")):
        check_image_segmentation(
            as_written, instance, plan, pixel_bytes=file.pixel_bytes, fractional=kind == "SEG-PROB"
        )
        check_described(items(as_written, "SegmentSequence"), card)
    return as_written
