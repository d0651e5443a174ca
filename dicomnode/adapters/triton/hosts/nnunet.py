"""Runs an nnU-Net v2 model folder by nnU-Net's own predictor: its resampling, normalisation, windows and folds.

nnU-Net takes arrays as SimpleITK reads them, (z, y, x) with the spacing in that order, and looks at no direction: an
image has to lie as those it was trained on. The card's `input.orientation` says how: LPS is a DICOM series as
SimpleITK reads it, RAS what nnU-Net's NibabelIOWithReorient makes of any image.
"""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.adapters.triton.hosts.asked import Asked, Given
from dicomnode.adapters.triton.hosts.gpu import device_here
from dicomnode.adapters.triton.hosts.model import Host, HostSettings, Outputs
from dicomnode.adapters.triton.hosts.networks import LoadedNetwork
from dicomnode.adapters.triton.hosts.networks.loaded import CPU
from dicomnode.adapters.triton.hosts.own_chain import image, onto
from dicomnode.domain.model_parameter import MINIMUM_VOLUME_ML, OVERLAP
from dicomnode.errors import InvalidModelPackage
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.inference import without_islands
from dicomnode.imaging.resample import oriented_axes

INSTALL = "pip install 'dicomnode[nnunet]'"
FloatVolume = npt.NDArray[np.float32]


class NnunetHost(Host):
    """As Host, for a folder that nnU-Net's training wrote: plans.json, dataset.json, fold_*/checkpoint_final.pth."""

    def _loaded(self, settings: HostSettings) -> LoadedNetwork:
        device = device_here()
        checkpoint = Path(self._card.network.file).name
        self._predictor = predictor = _predictor(device)
        with _quiet():
            predictor.initialize_from_trained_model_folder(str(settings.package), None, checkpoint)
        self._waiting: Any = None
        predictor.network.register_forward_pre_hook(self._check)
        return LoadedNetwork(predictor.network, device, 1, self._described(device))

    @property
    def _begins_on(self) -> torch.device:
        return CPU  # nnU-Net resamples there

    def _described(self, device: torch.device) -> dict[str, str]:
        from importlib.metadata import version

        return {
            "engine": f"nnU-Net {version('nnunetv2')}, torch {torch.__version__}",
            "precision": "f16" if device.type == "cuda" else "f32",  # nnU-Net runs a GPU in mixed precision
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
            "chain": f"nnU-Net's, {len(self._predictor.list_of_parameters)} folds",
        }

    def _check(self, *_: Any) -> None:
        """Before each window."""
        if self._waiting is not None:
            self._go_on(self._waiting)

    def _answers(self, asked: Asked) -> Outputs:
        geometry = asked.main.placement.geometry
        with asked.seconds.before():
            oriented = _Oriented(geometry, self._card.input.orientation)
            values = np.stack([oriented.there(volume) for volume in _volumes(asked.main, asked.further)])
        self._predictor.tile_step_size = 1 - float(asked.parameters[OVERLAP])
        self._waiting = asked.request
        with asked.seconds.network(), _quiet(), reader_let_go():
            found = self._predictor.predict_single_npy_array(values, {"spacing": oriented.spacing_mm})
        labels = torch.from_numpy(oriented.back(_labels(np.asarray(found), len(self._card.segments))))
        without_islands(labels, geometry, float(asked.parameters[MINIMUM_VOLUME_ML]))
        return {"LABELMAP": labels}


@contextlib.contextmanager
def reader_let_go() -> Iterator[None]:
    """Of a prediction that is broken off inside the block no thread stays behind.

    nnU-Net cuts windows in a thread of its own and hands them over in a queue of two. Once nobody takes them that
    waits for ever, with the whole resampled image in hand: `slicers` and `queue` in
    nnUNetPredictor._internal_predict_sliding_window_return_logits, which are found where the error came from.
    """
    try:
        yield
    except BaseException as error:
        for slicers, queue in _readers(error):
            slicers.clear()
            with contextlib.suppress(Empty):
                while True:
                    queue.get_nowait()  # what it still puts there, a window and the end, has room then
        raise


def _readers(error: BaseException | None) -> Iterator[tuple[list[Any], Queue[Any]]]:
    """Also of the run before: on a GPU nnU-Net tries what failed once more, with its results on the CPU."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            slicers, queue = frame.f_locals.get("slicers"), frame.f_locals.get("queue")
            if isinstance(slicers, list) and isinstance(queue, Queue):
                yield slicers, queue
        error = error.__context__


class _Oriented:
    """Between (slice, row, column) and nnU-Net's (z, y, x), where x, y and z run as an orientation says."""

    def __init__(self, geometry: VolumeGeometry, orientation: str) -> None:
        (x, y, z), (x_sign, y_sign, z_sign) = oriented_axes(geometry, orientation)
        self._axes, self._flipped = (z, y, x), [i for i, sign in enumerate((z_sign, y_sign, x_sign)) if sign < 0]
        self.spacing_mm = [float(geometry.spacing_mm[axis]) for axis in self._axes]

    def there(self, volume: FloatVolume) -> FloatVolume:
        return np.ascontiguousarray(np.flip(volume.transpose(self._axes), self._flipped))

    def back(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        inverse = [self._axes.index(axis) for axis in range(3)]
        return np.ascontiguousarray(np.flip(labels, self._flipped).transpose(inverse))


def _volumes(main: Given, further: Sequence[Given]) -> Iterator[FloatVolume]:
    """(slice, row, column) float32 in modality units, each in the main one's grid."""
    first = image(main)
    yield first.numpy().T
    for given in further:
        yield onto(image(given), first).numpy().T


def _labels(found: npt.NDArray[Any], count: int) -> npt.NDArray[np.uint8]:
    if (highest := int(found.max(initial=0))) > count:
        raise ValueError(f"nnU-Net gives the label {highest} and the card has {count} segments")
    return found.astype(np.uint8)


def _predictor(device: torch.device) -> Any:
    try:
        with _quiet():
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    except ImportError as error:
        raise InvalidModelPackage(
            f"this model needs nnU-Net, which is not installed ({error}): {INSTALL}", "model.yaml.network.format"
        ) from error
    with _quiet():
        return nnUNetPredictor(perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """nnU-Net prints what it does; here nobody reads it."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
