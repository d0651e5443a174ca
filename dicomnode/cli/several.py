"""What a command shows of a study, or of each one when an accession number or a patient ID fits several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from dicomnode.cli.lines import Labelled
from dicomnode.cli.watch import View
from dicomnode.ports import StudyView

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

T = TypeVar("T")

_DRAWN_MOST = 5


@dataclass(frozen=True, slots=True)
class OneStudy(Generic[T]):
    """What is shown of one study: as View."""

    look: Callable[[StudyView], T]
    draw: Callable[[T], RenderableType]
    document: Callable[[T], Any]
    parts: Callable[[T], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The studies that a key fits, newest first, and what is shown of the first of them, or with --json of each."""

    studies: list[StudyView]
    looks: list[T]


def each_study(context: Context, key: str, one: OneStudy[T], *, end_first: bool = False) -> View[Found[T]]:
    """In JSON one document for one study, and a list of them for several."""

    def look() -> Found[T]:
        studies = context.state.studies_named(key)
        return Found(studies, [one.look(study) for study in (studies if context.json else studies[:_DRAWN_MOST])])

    def document(found: Found[T]) -> Any:
        documents = [one.document(looked) for looked in found.looks]
        return documents if len(documents) > 1 else documents[0]

    return View(
        look=look,
        draw=lambda found: _drawn(key, found, one.draw),
        document=document,
        parts=lambda found: dict(_parts(found, one.parts)),
        end_first=end_first,
    )


def _parts(found: Found[T], parts: Callable[[T], Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for study, looked in zip(found.studies, found.looks, strict=False):
        for name, part in parts(looked).items():
            yield f"{study.study_instance_uid} {name}", part


def _drawn(key: str, found: Found[T], draw: Callable[[T], RenderableType]) -> RenderableType:
    if len(found.studies) == 1:
        return draw(found.looks[0])
    number = len(found.studies)
    each: list[RenderableType] = [fitting(key, found.studies)]
    for place, looked in enumerate(found.looks, start=1):
        each += [Text(), Rule(f"{place} of {number}", style="cyan"), draw(looked)]
    if number > len(found.looks):
        words = f"\nThe {number - len(found.looks)} older ones are not shown: name one by its UID"
        each.append(Text(words))
    return Group(*each)


def fitting(key: str, studies: Iterable[StudyView]) -> RenderableType:
    """The list of them, in the order in which they follow."""
    listed = list(studies)
    rows = [(Text(f"  {study.received_at.astimezone():%Y-%m-%d %H:%M}"), _named(study)) for study in listed]
    return Group(Text(f"{len(listed)} studies fit {key}, newest first:", style="bold"), Labelled(rows))


def _named(study: StudyView) -> Text:
    facts = [study.description, f"accession {study.accession_number}" if study.accession_number else ""]
    words = " · ".join(fact for fact in facts if fact)
    return Text(f"{words}\n{study.study_instance_uid}".strip())
