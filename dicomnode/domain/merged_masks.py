"""What the labels mean that a model makes of masks which overlap: which masks each label is in, and outside of which.

BraTS is the known case: of tumour core, whole tumour and enhancing tumour come the labels 1, 2 and 4, of which 2 is
the whole tumour outside the other two, so that nobody may call it the whole tumour (MONAI Model Zoo,
brats_mri_segmentation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MASKS_MOST = 6


def meanings(labels: Sequence[int], names: Sequence[str]) -> Mapping[int, str]:
    """In words, by label; nothing where a label is not "in these masks and outside those" and words would mislead.

    `labels`: of each set of masks, one for each of the 2**n sets: mask k is in set s where bit k of s is set.
    """
    if len(labels) != 2 ** len(names) or labels[0] != 0:
        return {}
    found = {label: _meaning(_sets_of(labels, label), names) for label in sorted(set(labels) - {0})}
    return found if all(found.values()) and len(set(found.values())) == len(found) else {}


def _sets_of(labels: Sequence[int], label: int) -> set[int]:
    return {number for number, one in enumerate(labels) if one == label}


def _meaning(sets: set[int], names: Sequence[str]) -> str:
    """Of one label; "" when it is no plain meeting of masks."""
    everywhere = set(range(len(names)))
    within = {mask for mask in everywhere if all(one >> mask & 1 for one in sets)}
    outside = {mask for mask in everywhere if not any(one >> mask & 1 for one in sets)}
    described = {one for one in range(2 ** len(names)) if _has(one, within) and not _touches(one, outside)}
    if not within or described != sets:
        return ""
    words = " and ".join(names[mask] for mask in sorted(within))
    return f"{words} outside {', '.join(names[mask] for mask in sorted(outside))}" if outside else words


def _has(masks: int, all_of: set[int]) -> bool:
    return all(masks >> mask & 1 for mask in all_of)


def _touches(masks: int, any_of: set[int]) -> bool:
    return any(masks >> mask & 1 for mask in any_of)
