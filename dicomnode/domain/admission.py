"""Whether a job may begin beside those that run: by what it needs of memory, and by what the machine has.

Sizes are bytes. `Room` is used for three things: what a machine has in all, what of it is free, and what a job needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dicomnode.domain.model_card import ModelCard


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of three kinds; regions of shared memory count as memory of the host too, which they are."""

    host_bytes: float = 0.0
    shared_bytes: float = 0.0  # in /dev/shm
    gpu_bytes: float = 0.0

    def __add__(self, other: Room) -> Room:
        return Room(*(mine + yours for mine, yours in zip(self.parts, other.parts, strict=True)))

    def __sub__(self, other: Room) -> Room:
        return Room(*(mine - yours for mine, yours in zip(self.parts, other.parts, strict=True)))

    def least_of(self, other: Room) -> Room:
        return Room(*map(min, self.parts, other.parts))

    def most_of(self, other: Room) -> Room:
        return Room(*map(max, self.parts, other.parts))

    @property
    def parts(self) -> tuple[float, float, float]:
        return self.host_bytes, self.shared_bytes, self.gpu_bytes


NOTHING, WITHOUT_END = Room(), Room(math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job takes at its peak: `surely`, since its arrays are so large; `likely`, with activations too."""

    surely: Room = NOTHING
    likely: Room = NOTHING


def in_turn(needs: Iterable[Needs]) -> Needs:
    """Of models that run one after the other on a series: the most that one of them needs."""
    most = Needs()
    for each in needs:
        most = Needs(most.surely.most_of(each.surely), most.likely.most_of(each.likely))
    return most


class Verdict(StrEnum):
    BEGIN = "begin"
    WAIT = "wait"
    NEVER = "never"
    ELSEWHERE = "elsewhere"  # another worker is to have it


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    words: str = ""  # why not


_KINDS = ("memory", "shared memory (/dev/shm)", "GPU memory")
_REMEDIES = (
    "run it on a larger host, or leave large series to another model by the rule",
    "make it larger (mount -o remount,size=…; in a container --shm-size)",
    "run it on a larger GPU, or leave large series to another model by the rule",
)


def decide(needs: Needs, free: Room, total: Room, *, is_alone: bool) -> Decision:
    """`is_alone`: nothing else runs, so that waiting would free nothing; what could ever fit is tried then."""
    for kind, remedy, sure, whole in zip(_KINDS, _REMEDIES, needs.surely.parts, total.parts, strict=True):
        if sure > whole:
            words = f"needs at least {_gb(sure)} of {kind}, and this machine has {_gb(whole)} in all: {remedy}"
            return Decision(Verdict.NEVER, words)
    for kind, likely, left in zip(_KINDS, needs.likely.parts, free.parts, strict=True):
        if likely > left and not is_alone:
            return Decision(Verdict.WAIT, f"waits for {kind}: needs {_gb(likely)}, {_gb(max(left, 0.0))} free")
    return Decision(Verdict.BEGIN)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 0.05e9 else f"{size / 1e6:.0f} MB"


@dataclass(frozen=True, slots=True)
class Places:
    """Of one worker: `at_once` for any job and one beside them for a STAT job; how many of each kind have one."""

    at_once: int
    urgent: int = 0
    others: int = 0

    def left(self, *, urgent: bool) -> int:
        """The place beside the others is an urgent job's, so that it takes none of theirs."""
        if urgent:
            return max(self.at_once + 1 - self.urgent - self.others, 0)
        return max(self.at_once - self.others - self._of_urgent_ones, 0)

    @property
    def _of_urgent_ones(self) -> int:
        """Places of other jobs that urgent ones have."""
        return max(self.urgent - 1, 0)

    def words(self, *, urgent: bool) -> str:
        """Why a job that has none here waits; other workers may have one for it."""
        taken = self.others + (self.urgent if urgent else self._of_urgent_ones)
        jobs = f"{taken} {'job' if taken == 1 else 'jobs'} before it"
        stat = f", {self._of_urgent_ones} of them STAT" if self._of_urgent_ones and not urgent else ""
        return f"waits for a worker with a free place: the last that was asked has {jobs}, as many as it may{stat}"


# ------------------------------------------------------------------------------------------------ what is needed


@dataclass(frozen=True, slots=True)
class Extent:
    """A series, as far as it decides what it takes: voxels, and how much of the patient they are."""

    voxels: int
    volume_mm3: float = 0.0  # 0: not known


# Of a window, how many float32 volumes of its size a network keeps at once: two layers of 32 channels at full
# resolution, as U-Nets have them. What a model really took takes the place of this once it has run.
_VOLUMES_OF_ACTIVATIONS = 64
# Of the model's grid along its first axis: a window of some hundred.
_KEPT_SHARE = 0.4
_FLOAT_BYTES, _STORED_BYTES, _LABEL_BYTES = 4, 2, 1
_LABEL_MAPS_TO_ENCODE = 4  # beside the one in shared memory: segments, statistics, frames


def needs_of(card: ModelCard, extents: Iterable[Extent], *, windows_at_once: int, on_gpu: bool) -> Needs:
    """From the card and the series' sizes, the main one first."""
    sizes = tuple(extents)
    if not sizes:
        return Needs()
    main = sizes[0].voxels
    stored = _STORED_BYTES * sum(extent.voxels for extent in sizes)
    labels = _answer_bytes(card) * main
    regions = float(stored + labels)
    own, guessed = _grid_bytes(card, sizes[0]), _activation_bytes(card, windows_at_once)
    guessed += _scores_guessed_bytes(card, sizes[0])
    encoding = _LABEL_MAPS_TO_ENCODE * labels
    gpu_surely = own + _uploaded_bytes(card, sizes[0]) if on_gpu else 0.0
    gpu = gpu_surely + guessed if on_gpu else 0.0
    on_host = 0.0 if on_gpu else own + guessed
    return Needs(
        surely=Room(regions + (0.0 if on_gpu else own), regions, gpu_surely),
        likely=Room(regions + encoding + on_host, regions, gpu),
    )


def _answer_bytes(card: ModelCard) -> int:
    """For each voxel of the main series, of the answers that are as large as it (ports.InferenceSession.ask)."""
    each = {"LABELMAP": _LABEL_BYTES, "PROBABILITIES": _LABEL_BYTES * len(card.segments), "MAP": _FLOAT_BYTES}
    return sum(each.get(name, 0) for name in card.output.arrays)


def _uploaded_bytes(card: ModelCard, main: Extent) -> float:
    """Of the main series on the GPU, where it is resampled there: by the model's process, or once for several."""
    return float(_STORED_BYTES * main.voxels) if _grid_voxels(card, main) else 0.0


def _has_labels_at_once(card: ModelCard) -> bool:
    """Whether labels are made of the scores as they come, so that these are never whole."""
    return card.network.restore == "labels" and card.output.arrays == ("LABELMAP",)


def _grid_bytes(card: ModelCard, main: Extent) -> float:
    """The model's input and the scores it has to have at once, float32 on the model's grid; 0 where not known."""
    if not (voxels := _grid_voxels(card, main)):
        return 0.0
    whole = card.gives in ("segments", "map") and not _has_labels_at_once(card)
    scores = voxels if whole else min(math.prod(card.network.window), voxels)
    return _FLOAT_BYTES * (voxels * (1 + len(card.roles)) + scores * (1 + len(card.segments)))


def _scores_guessed_bytes(card: ModelCard, main: Extent) -> float:
    """Scores that are kept until windows beside have been there, where labels are made of them as they come."""
    if not _has_labels_at_once(card):
        return 0.0
    return _FLOAT_BYTES * _KEPT_SHARE * _grid_voxels(card, main) * (1 + len(card.segments))


def _grid_voxels(card: ModelCard, main: Extent) -> float:
    if card.input.is_of_images or card.network.brings_its_chain or card.classification is not None:
        return 0.0  # of a series as a whole a classifier sees one window
    return main.volume_mm3 / math.prod(card.input.spacing_mm)


def _activation_bytes(card: ModelCard, windows_at_once: int) -> float:
    window = card.input.size or card.network.window
    return float(math.prod(window) * _FLOAT_BYTES * _VOLUMES_OF_ACTIVATIONS * windows_at_once)


def learned(estimate: Needs, taken: Mapping[str, float]) -> Needs:
    """The estimate with what the model's process took of memory when it ran last, in place of what was guessed.

    `taken`: "host_bytes" and "gpu_bytes" at the peak of that run, scaled to this series.
    """
    surely, likely = estimate.surely, estimate.likely
    host = likely.shared_bytes + taken["host_bytes"] if "host_bytes" in taken else likely.host_bytes
    gpu = taken.get("gpu_bytes", likely.gpu_bytes)
    return Needs(surely, Room(max(host, likely.shared_bytes), likely.shared_bytes, gpu))
