"""`dicomnode models apply`: the registry becomes what a file says it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode import bootstrap
from dicomnode.cli.model_lookup import Author, DryRun, Json, Reason, foreseen
from dicomnode.cli.progress import working
from dicomnode.cli.rule_lookup import author_or_user
from dicomnode.cli.rule_yaml import Document, Mistake, documents_in
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_list import (
    Entry,
    Known,
    ModelList,
    Step,
    StepKind,
    Wanted,
    parse_model_list,
    steps,
)
from dicomnode.errors import IllegalTransition, InvalidModelList, InvalidModelPackage, NotFound, UsageError
from dicomnode.ports.progress import Told
from dicomnode.stages.foreseen import Foreseen

if TYPE_CHECKING:
    from dicomnode.cli.context import Context
    from dicomnode.config import Settings

FILE = "models.yaml"
# Of a composed model that lacks what comes first, of one whose files or acceptance are not there
_REFUSED = (InvalidModelPackage, IllegalTransition, NotFound)


def register(app: typer.Typer) -> None:
    app.command("apply")(apply)


def apply(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help=f"A {FILE}, or a folder with one.", exists=True)],
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add, activate and shadow what a file says, and nothing that is so already; see docs/models.md.

    What it does not name stays as it is, unless it says `prune: true`.

    Example: dicomnode models apply models.yaml --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    if file.is_dir():
        file = file / FILE
    read = WantedFile.read(file)
    with working(context, "reads the packages") as told:
        cards = read.wanted(context.settings)
        wanted = [one for one, _ in cards]
        found = read.steps(context, wanted)
        packages = {(one.name, one.version): read.package(one.entry) for one in wanted}
        change = (
            _Asked(
                foreseen(context),
                {(one.name, one.version): (card, one.digest) for one, card in cards},
                lambda which: bootstrap.tried_package(context.settings, *packages[which], told),
            )
            if dry_run
            else _Change(context, packages, author_or_user(author), reason, told)
        )
        said = [{"step": str(s.kind), "name": s.name, "version": s.version} | change.done(s) for s in found]
    if context.json:
        context.print_json({"file": str(file), "dry_run": dry_run, "steps": said, "ok": not change.failed})
    else:
        _tell(context, said, dry_run)
    if change.failed:
        raise typer.Exit(1)


def _tell(context: Context, said: list[dict[str, Any]], dry_run: bool) -> None:
    for one in said:
        would = "would " if dry_run and one["ok"] else ""
        context.done(f"{would}{one['message']}")
    if dry_run or not said:
        context.done("nothing was changed" if said else "everything is as the file says; nothing was changed")


@dataclass(frozen=True)
class WantedFile:
    """A file that was read, with its packages."""

    path: Path
    document: Document
    models: ModelList

    @classmethod
    def read(cls, path: Path) -> WantedFile:
        """Raises InvalidModelList naming line and column."""
        try:
            found = list(documents_in(path.read_text(encoding="utf-8-sig")))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidModelList(str(error), str(path)) from error
        if mistakes := [item for item in found if isinstance(item, Mistake)]:
            raise InvalidModelList(mistakes[0].words, ":".join(map(str, (path, *(mistakes[0].place or ())))))
        documents = [item for item in found if isinstance(item, Document)]
        if len(documents) != 1:
            raise InvalidModelList("the file holds no list of models, or several", str(path))
        with _placed(path, documents[0]):
            return cls(path, documents[0], parse_model_list(documents[0].value))

    def package(self, entry: Entry) -> tuple[Path, Path | None]:
        folder = self.path.parent
        return folder / entry.package, folder / entry.card if entry.card else None

    def wanted(self, settings: Settings) -> list[tuple[Wanted, ModelCard]]:
        return [self._wanted(entry, settings) for entry in self.models.entries]

    def _wanted(self, entry: Entry, settings: Settings) -> tuple[Wanted, ModelCard]:
        with _placed(self.path, self.document, f"{entry.place}.package"):
            package, card = self.package(entry)
            if not package.exists() or (card is not None and not card.exists()):
                raise InvalidModelList(f"{entry.card if package.exists() else entry.package} is not there")
            found, digest, _ = bootstrap.tried_package(settings, package, card, opens=False)
            return Wanted(entry, found.name, found.version, digest, _names_before(found)), found

    def steps(self, context: Context, wanted: list[Wanted]) -> list[Step]:
        known = [
            Known(m.name, m.version, m.digest, m.active, m.shadow, _names_before(m.card))
            for m in context.state.models()
        ]
        with _placed(self.path, self.document):
            return steps(wanted, known, self.models.prune)


def _names_before(card: ModelCard) -> tuple[str, ...]:
    return tuple(step.model.name for step in card.after)


@contextlib.contextmanager
def _placed(file: Path, document: Document, path: str = "") -> Iterator[None]:
    """Says of what is wrong in which line and column of the file its path, or this one, stands."""
    try:
        yield
    except UsageError as error:
        own = error.path if isinstance(error, InvalidModelList) else ""
        message = str(error).removeprefix(f"{own}: ") if own else str(error)
        line, column = document.place(own or path)
        raise InvalidModelList(message, f"{file}:{line}:{column}: {own or path}".rstrip(": ")) from error


@dataclass
class _Asked:
    """Says of steps what would come of them; of what depends on one that cannot be, too."""

    registry: Foreseen
    packages: Mapping[tuple[str, str], tuple[ModelCard, str]]  # by name and version: card and digest
    check: Callable[[tuple[str, str]], object]  # of one that is new; raises InvalidModelPackage
    failed: bool = False

    def done(self, step: Step) -> dict[str, Any]:
        try:
            self._ask(step)
        except _REFUSED as error:
            self.failed = True
            return {"ok": False, "message": f"cannot {step.words}: {error}"}
        return {"ok": True, "message": step.words}

    def _ask(self, step: Step) -> None:
        registry, name, version = self.registry, step.name, step.version
        match step.kind:
            case StepKind.ADD:
                self.check((name, version))
                registry.add(*self.packages[name, version])
            case StepKind.ACTIVATE:
                registry.activate(name, version)
            case StepKind.SHADOW:
                registry.shadow(name, version)
            case StepKind.DEACTIVATE:
                registry.deactivate(name)
            case StepKind.UNSHADOW:
                registry.unshadow(name)


@dataclass
class _Change:
    """Carries out steps; those of a version that was not accepted are left out."""

    context: Context
    packages: Mapping[tuple[str, str], tuple[Path, Path | None]]  # by name and version, with a card or none
    author: str
    reason: str
    told: Told
    failed: bool = False

    def __post_init__(self) -> None:
        self._refused: set[tuple[str, str]] = set()
        self._registry = bootstrap.registry(self.context.settings, self.context.state, self.told)

    def done(self, step: Step) -> dict[str, Any]:
        if (step.name, step.version) in self._refused:
            return {"ok": False, "message": f"not done: {step.words}: it was not accepted"}
        try:
            said = self._carry_out(step)
        except _REFUSED as error:
            self.failed = True
            self._refused.add((step.name, step.version))
            return {"ok": False, "message": f"not done: {step.words}: {error}"}
        return {"ok": (step.name, step.version) not in self._refused, "message": said}

    def _carry_out(self, step: Step) -> str:
        who: dict[str, str] = {"author": self.author, "reason": self.reason}
        state, name, version = self.context.state, step.name, step.version
        match step.kind:
            case StepKind.ADD:
                return self._add(step)
            case StepKind.ACTIVATE:
                return self._registry.activate(name, version, **who).words
            case StepKind.SHADOW:
                return self._registry.shadow(name, version, **who).words
            case StepKind.DEACTIVATE:
                state.deactivate_model(name, **who)
                return f"{name} {version} is not active any more"
            case StepKind.UNSHADOW:
                state.shadow_model(name, **who)
                return f"{name} {version} is no shadow any more"

    def _add(self, step: Step) -> str:
        self.told(f"copies and reads {step.name} {step.version}")
        package, card = self.packages[step.name, step.version]
        added = bootstrap.add_package(self.context.settings, package, card, self.told)
        done = self._registry.add(*added, activate=False, author=self.author, reason=self.reason)
        if not done.accepted:
            self.failed = True
            self._refused.add((step.name, step.version))
        return done.words
