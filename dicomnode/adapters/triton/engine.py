"""The inference engine port on Triton: volumes and label maps through shared memory, nothing else copied.

What the models do is in `loaded_models`, what one volume is asked in `session`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from dicomnode.adapters.triton.client import Client, self_test
from dicomnode.adapters.triton.hosts import cores
from dicomnode.adapters.triton.large_tensors import Reach
from dicomnode.adapters.triton.loaded_models import LOAD_S, LoadedModels
from dicomnode.adapters.triton.on_gpu import AUTO, GpuVolumes
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import SELF_TEST
from dicomnode.adapters.triton.session import Connection, TritonSession
from dicomnode.adapters.triton.shared_memory import sweep
from dicomnode.adapters.triton.tensors import Shape
from dicomnode.domain.model_card import ModelCard
from dicomnode.errors import InferenceError, InferenceTimeout, ModelFailed, ModelHangs
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.ports import InferenceRequest, ModelVersion

GRACE_S = 60.0  # a server that was killed is back in two seconds; one that starts on a cold disk takes longer
_WARM_SHAPE = (4, 8, 8)
_HANGS = (
    "not ready within {most_s:g} s: its process, which was loading the network or at one window of air, was ended "
    "(a larger timeout_s in its card gives it longer)"
)


class TritonEngine:
    """`folder`: the one that TritonServer serves. `threads`: CPU threads a model may use, 0 for all cores.

    `inner`: one of domain.inner.INNER; `cuda`: whether volumes may lie on the GPU, one of on_gpu.WANTED. Any number
    of processes may share one server; several threads may share one engine.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 0,
        *,
        inner: str = "auto",
        cuda: str = AUTO,
        grace_s: float = GRACE_S,
    ) -> None:
        self._place = Place(Path(folder))
        self._grace_s = grace_s
        self._client = Client(self._place.url)
        self._models = LoadedModels(self._client, self._place, threads or cores(), inner)
        self._reach = Reach()
        self.gpu_volumes = GpuVolumes(self._client, self._place.client_prefix, cuda)
        sweep(self._place.client_prefix)

    def __enter__(self) -> TritonEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """From any thread: calls that wait for the server, load or run end soon with EngineUnavailable."""
        self._client.close()

    def is_there(self) -> bool:
        """Whether the server answers now."""
        return self._place.socket.exists() and self._client.is_ready()

    @contextlib.contextmanager
    def open(self, shape: Shape, further: Sequence[Shape] = ()) -> Iterator[TritonSession]:
        """A session whose volumes lie in shared memory that Triton has mapped."""
        self._client.wait_ready(self._grace_s)
        connection = Connection(
            self._client, self._models, self.gpu_volumes, self._reach, self._place.client_prefix, self._grace_s
        )
        with contextlib.ExitStack() as regions:
            yield TritonSession(connection, regions, [shape, *further])

    def reads(self, model: ModelVersion) -> bool:
        """Whether its server has a backend for the network's file."""
        return self._models.reads(model)

    def load(self, model: ModelVersion) -> None:
        """Loads and warms it if it is not; raises ModelFailed, ModelHangs, EngineUnavailable."""
        self._client.wait_ready(self._grace_s)
        self._models.forget_lost(model)
        self.describe(model)

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        """Loads and warms these models, then unloads others that nobody uses at this moment.

        A model that cannot be loaded raises ModelFailed, or ModelHangs, once the others are.
        """
        self._client.wait_ready(self._grace_s)
        failures: list[InferenceError] = []
        for model in models:
            try:
                self.load(model)
            except (ModelFailed, ModelHangs) as error:
                failures.append(error)
        self._models.unload_all_but({self.name_of(model) for model in models} | {SELF_TEST})
        if failures:
            raise failures[0]

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        """Engine, precision and device, as the process that runs the network says; and the server's version.

        Raises as load.
        """
        if not self._models.info(model):
            most_s = max(LOAD_S, model.card.timeout_s or 0.0)
            try:
                self._warm(model, most_s)
            except InferenceTimeout as error:
                raise ModelHangs(_HANGS.format(most_s=most_s)) from error
        return self._models.info(model)

    def name_of(self, model: ModelVersion) -> str:
        """In Triton: of the one that is called here."""
        return self._models.name_of(model)

    def taken(self, model: ModelVersion) -> Mapping[str, float]:
        """What its process took of memory in its last run here, as hosts.memory has it; empty when nobody knows."""
        return self._models.taken(model)

    def self_test(self) -> None:
        """Every int16 there is through shared memory and back, compared byte for byte; raises when it differs."""
        self._client.wait_ready(self._grace_s)
        self_test(self._client, self._place.client_prefix, SELF_TEST)

    def _warm(self, model: ModelVersion, most_s: float) -> None:
        """One window of air through the whole chain: memory is mapped, kernels are chosen."""
        roles = len(model.card.roles)
        air = Placement(VolumeGeometry(shape_of_air(model.card), np.diag([1.0, 1.0, 1.0, 1.0])), Rescale(1.0, 0.0))
        with self.open(air.geometry.shape, [air.geometry.shape] * roles) as session:
            for volume in (session.volume, *session.further):
                volume[...] = 0
            asked = InferenceRequest(model, air.geometry, air.rescale, timeout_s=most_s, further=[air] * roles)
            with session.ask(asked):
                pass


def shape_of_air(card: ModelCard) -> tuple[int, int, int]:
    """(slice, row, column) of what warms a model: of a bundle of images, which may not resize them, one of its size.

    Its network need not take smaller ones.
    """
    if card.network.brings_its_chain and card.input.size is not None:
        return (1, *card.input.size)
    return _WARM_SHAPE
