"""Where each model's network runs, by what its package and the server have: see domain.inner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.adapters.triton_config import own_backend
from dicomnode.domain.inner import LOCAL, Asked, inner_of
from dicomnode.errors import InvalidModelPackage
from dicomnode.ports import ModelVersion


@dataclass(frozen=True)
class About:
    """What a server has; without a word of it: what the embedded one has."""

    backends: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False


def write_about(file: Path, backends: Mapping[str, str], *, gpu: bool) -> None:
    scratch = file.with_name(f".new-{file.name}")
    scratch.write_text(json.dumps({"backends": dict(backends), "gpu": gpu}, indent=1), encoding="utf-8")
    scratch.replace(file)


def read_about(file: Path) -> About:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return About(document["backends"], bool(document["gpu"]))
    except (OSError, ValueError, KeyError, TypeError):
        return About()


class InnerChoice:
    """`file`: what the server says of itself; `wanted`: one of domain.inner.INNER. Safe from several threads."""

    def __init__(self, file: Path, wanted: str) -> None:
        self._file, self._wanted = file, wanted
        self._own: dict[str, str] = {}  # backend of a package's own configuration, by digest

    @property
    def about(self) -> About:
        return read_about(self._file)

    def of(self, model: ModelVersion) -> str:
        """LOCAL or BLS."""
        about = self.about
        try:
            own = self._own_backend(model)
            asked = Asked(self._wanted, model.chosen_engine, about.backends, own, about.gpu)
            return inner_of(model.card.network, asked)
        except InvalidModelPackage:  # the host says so, to whoever runs the model
            return LOCAL

    def _own_backend(self, model: ModelVersion) -> str:
        if model.digest not in self._own:
            self._own[model.digest] = own_backend(model.path)
        return self._own[model.digest]
