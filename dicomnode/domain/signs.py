"""What is known about a series, and a study, that is being received: the signs by which it may be complete."""

from __future__ import annotations

from dataclasses import dataclass

from dicomnode.domain.announcement import AnnouncementKind, AnnouncementState


@dataclass(frozen=True, slots=True)
class Place:
    """One instance in its stack."""

    instance_number: int | None
    plane: str  # "" where it has none
    position_mm: float | None
    number_of_frames: int
    images_announced: int | None


@dataclass(frozen=True, slots=True)
class ArrivalSigns:
    """What one association brought of a series; ages by the database's clock."""

    association: str
    calling_ae_title: str
    instances: int
    idle_s: float  # since its last instance of this series
    ended_how: str = ""  # "" while it is open; released, aborted, lost
    ended_s: float | None = None  # since it ended
    began_s: float = 0.0  # since its first instance of this series
    any_idle_s: float | None = None  # since its last instance of any series; None: of no other than this one

    def has_moved_on(self, quiet_s: float) -> bool:
        """Whether it has brought other series for so long since its last instance of this one."""
        return self.any_idle_s is not None and self.idle_s - self.any_idle_s >= quiet_s


@dataclass(frozen=True, slots=True)
class AnnouncedSigns:
    kind: AnnouncementKind
    state: AnnouncementState
    expected: int  # instances of this series that it names
    missing: int  # of them, not here

    @property
    def is_final(self) -> bool:
        return self.state is not AnnouncementState.IN_PROGRESS


@dataclass(frozen=True, slots=True)
class CountSigns:
    """The source's answer to how many instances it has of the series or the study."""

    instances: int
    source: str  # in words, as in "C-FIND to PACS@192.0.2.1:104"
    age_s: float  # since it was asked: what came later it does not know of
    series: int = 0  # of a study; 0 where it does not say
    own_results: int = 0  # of a study: instances of the node's own results that it has besides


# what an IS, the VR of all counts, can say (PS3.5 Table 6.2-1), and what the database keeps
COUNT_MOST = 2**31 - 1


def believable(number: int) -> int | None:
    """A count as a peer gave it; None for what is no count."""
    return number if 0 <= number <= COUNT_MOST else None


@dataclass(frozen=True, slots=True)
class SourceCount:
    """How many instances a source has of a series or a study, and in how many series; None where it does not say."""

    instances: int | None
    series: int | None = None
    own_results: int = 0  # instances of the node's own results, which are left out of both

    def is_more_than(self, instances: int, series: int) -> bool:
        return (self.instances or 0) > instances or (self.series or 0) > series


@dataclass(frozen=True, slots=True)
class SeriesSigns:
    """All that is known about whether a series that is being received is complete."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    calling_ae_title: str
    instances: int
    idle_s: float  # since its last instance, a repeated one included
    arrivals: tuple[ArrivalSigns, ...] = ()
    announced: tuple[AnnouncedSigns, ...] = ()  # those that name it, and those in progress for its study
    counted: CountSigns | None = None
    counting: bool = False  # the source has been asked and has not answered yet
    named: int = 0  # different instances that the final ones of `announced` name together, where there are several

    @property
    def expected(self) -> int:
        """As many instances as the source, or announcements, say that there are; 0 when nobody says."""
        counted = self.counted.instances if self.counted else 0
        return max([counted, self.named, *(a.expected for a in self.announced)])

    @property
    def named_in_all(self) -> int:
        return max([self.named, *(a.expected for a in self.announced if a.is_final)])

    @property
    def missing(self) -> int:
        """Instances that an announcement names and that are not here."""
        return max((a.missing for a in self.announced), default=0)

    @property
    def held_back(self) -> bool:
        """Whether an announcement says that there is more to come, to the source too."""
        return any(a.missing or not a.is_final for a in self.announced)


@dataclass(frozen=True, slots=True)
class StudySigns:
    """All that is known about whether a study is complete whose series are all complete."""

    study_instance_uid: str
    calling_ae_title: str
    idle_s: float  # since the last instance of any of its series
    open_associations: int  # that have brought something of it
    announced: tuple[AnnouncedSigns, ...] = ()  # summed up over all the series that each names
    instances: int = 0  # of all its series
    series: int = 0  # own results left out, as from the instances
    counted: CountSigns | None = None
    named: int = 0  # as of a series
    senders: tuple[str, ...] = ()  # AE titles of all that brought something of it

    @property
    def named_in_all(self) -> int:
        return max([self.named, *(a.expected for a in self.announced if a.is_final)])

    @property
    def held_back(self) -> bool:
        """As of a series."""
        return any(a.missing or not a.is_final for a in self.announced)
