"""What the node knows and wants of a sender: by its AE title, as an administrator wrote it down."""

from __future__ import annotations

from dataclasses import dataclass

from dicomnode.domain.destination import Address


@dataclass(frozen=True, slots=True)
class Source:
    """Settings for what one calling AE title sends; what is not set is as for everybody."""

    ae_title: str
    query: Address | None = None  # where to ask how many instances a series has: by C-FIND or QIDO-RS
    quiet_period_s: float | None = None
    release: bool = True  # whether the end of an association says something about its series
    allowed_sop_classes: tuple[str, ...] = ()  # UIDs; none: all that may be stored
    refused_sop_classes: tuple[str, ...] = ()
    allowed_transfer_syntaxes: tuple[str, ...] = ()
    refused_transfer_syntaxes: tuple[str, ...] = ()
