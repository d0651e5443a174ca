"""The slices to look at first, as a Key Object Selection (PS3.3 A.35.4, PS3.16 TID 2010)."""

from __future__ import annotations

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.encoding.findings import Marks
from dicomnode.encoding.provenance import MANUFACTURER, series_description
from dicomnode.encoding.sr import observer_context
from dicomnode.imaging.headers import odd_values_accepted

_KIND = "KO"


def encode_key_objects(findings: Marks) -> Dataset:
    """Of each segment that was found the slice in which it is largest, and the segmentation."""
    with odd_values_accepted():
        sources, uids = findings.sources(), findings.uids(_KIND)
        slices = sorted(set(findings.key_slices.values()))
        chosen = [*(sources.headers[k] for k in slices), *findings.segmentations]
        selection: Dataset = hd.ko.KeyObjectSelectionDocument(
            evidence=chosen,
            content=hd.ko.KeyObjectSelection(
                document_title=codes.DCM.OfInterest,
                referenced_objects=chosen,
                observer_device_context=observer_context(findings.card, findings.made),
                description=f"{findings.card.name} {findings.card.version}: {_words(findings)}"[:1024],
            ),
            series_instance_uid=uids[0],
            series_number=findings.series_number(_KIND),
            sop_instance_uid=uids[1],
            instance_number=1,
            manufacturer=MANUFACTURER,
            contributing_equipment=findings.contributing_equipment(_KIND, uids[0]),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        selection.SeriesDescription = series_description(findings.card, _KIND)
        sources.mend(selection)
        sources.set_character_set(selection)
        findings.complete(selection)
    return selection


def _words(findings: Marks) -> str:
    """Which slice is whose, counted from 1 in their order."""
    where = findings.slice_word
    return "; ".join(f"{s.name} largest in {where} {findings.key_slices[s.number] + 1}" for s in findings.found)
