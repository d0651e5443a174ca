"""What a destination is sent of a result: in which encodings, and in which transfer syntax if it takes that.

Models give their own kinds: SEG, SEG-PROB, MAP, SR. FORMS are made of a segmentation where a destination's profile
or a rule asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dicomnode.errors import InvalidDestination

OWN_KINDS = ("SEG", "SEG-PROB", "MAP", "SR")
FORMS = ("SEG-LABELMAP", "SEG-FULL", "RTSTRUCT", "GSPS", "SC", "PDF", "KO")

# (PS3.5 A): names that people know, for the UIDs
TRANSFER_SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "implicit": "1.2.840.10008.1.2",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """`kinds`, in the order in which they are sent; `transfer_syntaxes`, the best first, of what the peer takes."""

    name: str
    kinds: tuple[str, ...]
    transfer_syntaxes: tuple[str, ...]
    why: str

    @property
    def forms(self) -> tuple[str, ...]:
        return tuple(kind for kind in self.kinds if kind in FORMS)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "standard",
            OWN_KINDS,
            ("deflated", "explicit", "implicit"),
            "What the model gives, as the standard has it: an archive keeps it and viewers of any make read it.",
        ),
        Profile(
            "ohif",
            ("SEG", "SEG-PROB", "MAP", "SR", "PDF"),
            ("explicit", "implicit"),
            "OHIF draws BINARY segmentations in their own colours, and of LABELMAP ones each segment in that of the "
            "one before; of a report it shows lines at most, so the numbers come on a page too.",
        ),
        Profile(
            "orthanc",
            OWN_KINDS,
            ("deflated", "explicit", "implicit"),
            "Orthanc keeps every SOP class, and a deflated data set as it came.",
        ),
        Profile(
            "dcm4chee",
            (*OWN_KINDS, "KO"),
            ("deflated", "explicit", "implicit"),
            "An archive of every SOP class; its own list of key objects is filled.",
        ),
        Profile(
            "weasis",
            ("SEG", "SR", "KO"),
            ("explicit", "implicit"),
            "Weasis draws BINARY segmentations and lists key images.",
        ),
        Profile(
            "slicer",
            ("SEG", "SEG-PROB", "MAP", "SR", "RTSTRUCT"),
            ("explicit", "implicit"),
            "3D Slicer reads segmentations and reports with its Quantitative Reporting and structures with SlicerRT.",
        ),
        Profile(
            "generic-pacs",
            ("SC", "PDF"),
            ("explicit", "implicit"),
            "A PACS that shows pictures and documents and nothing else.",
        ),
    )
}
STANDARD = PROFILES["standard"]


def profile_of(name: str, kinds: Iterable[str] = ()) -> Profile:
    """The profile of this name, with other kinds if some are given; raises InvalidDestination."""
    if name not in PROFILES:
        raise InvalidDestination(f"{name!r} is no profile: there are {', '.join(PROFILES)}", "--profile")
    profile, wanted = PROFILES[name], tuple(kinds)
    if unknown := [kind for kind in wanted if kind not in (*OWN_KINDS, *FORMS)]:
        raise InvalidDestination(f"{', '.join(unknown)}: there are {', '.join((*OWN_KINDS, *FORMS))}", "--results")
    if not wanted:
        return profile
    return Profile(profile.name, wanted, profile.transfer_syntaxes, profile.why)


def wanted_kinds(of_rule: Iterable[str], profile: Profile) -> tuple[str, ...]:
    """What is sent to a destination: what the rule names, else what the destination's profile does."""
    return tuple(of_rule) or profile.kinds


def wanted_forms(of_rule: Iterable[str], profiles: Iterable[Profile]) -> tuple[str, ...]:
    """The forms that have to be made for these destinations."""
    rule = tuple(of_rule)
    wanted = {kind for profile in profiles for kind in wanted_kinds(rule, profile)} | set(rule)
    return tuple(form for form in FORMS if form in wanted)
