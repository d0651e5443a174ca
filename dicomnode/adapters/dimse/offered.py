"""What the node's SCP accepts and its SCUs propose, asked of the code that does it: for the conformance statement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.adapters.dimse import commitment
from dicomnode.adapters.dimse.storage_scp import VERIFICATION, acceptable_contexts
from dicomnode.domain.source import Source
from dicomnode.encoding.part10 import TRANSFER_SYNTAXES
from dicomnode.encoding.transfer import FileHeader, proposed

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # PS3.4 C.6.2, of query_scu
_LARGE = 1 << 30  # so that a preference for deflating is worth it
_NEWER_STORAGE = ("1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.66.8")  # pydicom 3.0 cannot name them


@dataclass(frozen=True, slots=True)
class Offered:
    """A presentation context: UIDs, and the roles that the node takes in it."""

    sop_class_uid: str
    transfer_syntax_uids: tuple[str, ...]
    scu: bool
    scp: bool


def accepted(source: Source, *, announcements: bool = True, commitments: bool = True) -> list[Offered]:
    """Of every SOP class of the standard, proposed with every transfer syntax, what the SCP takes of this source."""
    every = sorted({uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class"} | {*_NEWER_STORAGE})
    syntaxes = sorted(TRANSFER_SYNTAXES)
    contexts = acceptable_contexts((_context(uid, syntaxes) for uid in every), source, announcements, commitments)
    return [
        Offered(
            str(one.abstract_syntax),
            tuple(map(str, one.transfer_syntax)),
            scu=bool(one.scu_role),
            scp=one.scp_role is not False,
        )
        for one in contexts
    ]


def _context(sop_class_uid: str, syntaxes: Iterable[str]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = UID(sop_class_uid)
    context.transfer_syntax = [UID(uid) for uid in syntaxes]
    return context


def proposed_for_storage(sop_class_uids: Iterable[str], preferred: tuple[str, ...]) -> list[Offered]:
    """For a result of each SOP class, at its largest choice of encodings: a context each in this order."""
    found = []
    for uid in sop_class_uids:
        header = FileHeader(UID(uid), UID("2.25.1"), ExplicitVRLittleEndian, _LARGE, 8)
        found.append(Offered(uid, tuple(map(str, proposed(header, preferred))), scu=True, scp=False))
    return found


def proposed_beside() -> list[Offered]:
    """Of the other SCUs: echo, queries about completeness, Storage Commitment asked for and reported."""
    both = tuple(map(str, commitment.context().transfer_syntax))
    plain = tuple(map(str, build_context(VERIFICATION).transfer_syntax))
    return [
        Offered(VERIFICATION, plain, scu=True, scp=False),
        Offered(STUDY_ROOT_FIND, plain, scu=True, scp=False),
        Offered(commitment.SOP_CLASS, both, scu=True, scp=True),
    ]
