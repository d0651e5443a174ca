"""A bundle's own transforms, inferer and network over one study, as MONAI's evaluator runs them.

MONAI's axes are (x, y, z) = (column, row, slice), its frame RAS mm; the node's are (slice, row, column) and LPS mm.
What comes in is as LoadImaged gives it for the same series: float32 in modality units (PS3.3 C.11.1) with its affine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import Invertd
from monai.transforms.spatial.array import SpatialResample
from monai.transforms.transform import MapTransform

from dicomnode.adapters.triton.hosts.asked import Given, Seconds
from dicomnode.adapters.triton.hosts.bundle import Bundle
from dicomnode.imaging.geometry import VolumeGeometry

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IMAGE, _PREDICTION = "image", "pred"  # monai.utils.CommonKeys


class OwnChain:
    """Loads the bundle's parts; `network` in place of the bundle's, to count, cancel and choose engines."""

    def __init__(self, bundle: Bundle, network: torch.nn.Module) -> None:
        self._bundle, self._network = bundle, network
        self._before = bundle.part("preprocessing")
        self._inferer = bundle.part("inferer")
        self._after = bundle.part("postprocessing")
        self._key = bundle.image_keys[0]
        for chain in (self._before, self._after):
            _make_ready(chain)

    def run(self, images: dict[str, MetaTensor], check: Callable[[], None], seconds: Seconds) -> torch.Tensor:
        """(channels, ...) float32 in MONAI's axes.

        `check` is called before each window and raises when nobody waits any more.
        """
        with seconds.before(self._bundle.device):
            data = _applied(self._before, images)
            batch = list_data_collate([data])
        with seconds.network(self._bundle.device):
            # what MONAI's evaluator gives to the network; transforms may have made it of several images
            batch[_PREDICTION] = self._infer(batch[_IMAGE if _IMAGE in batch else self._key], check)
        (result,) = decollate_batch(batch)
        result = _applied(self._after, result)
        return self._in_place(result, images[self._key])

    def _infer(self, image: torch.Tensor, check: Callable[[], None]) -> torch.Tensor:
        device, half = self._bundle.device, self._bundle.half_precision and self._bundle.device.type == "cuda"

        def network(windows: torch.Tensor, *more: Any, **named: Any) -> Any:
            check()
            return self._network(windows, *more, **named)

        with torch.no_grad(), torch.autocast("cuda", enabled=half):
            inputs = image.to(device)
            result = self._inferer(inputs, network) if self._inferer is not None else network(inputs)
        if not isinstance(result, torch.Tensor):
            raise TypeError(f"the network answers with a {type(result).__name__}; one tensor is needed")
        return result

    def _in_place(self, result: Any, image: MetaTensor) -> torch.Tensor:
        """The prediction in the image's grid; a chain that does not invert what it did is inverted here."""
        values = result[_PREDICTION]
        if tuple(values.shape[1:]) != tuple(image.shape[-3:]) and values.ndim == 4 and self._before is not None:
            back = Invertd(keys=_PREDICTION, transform=self._before, orig_keys=self._key, nearest_interp=True)
            values = back(result)[_PREDICTION]
        plain: torch.Tensor = torch.as_tensor(values.as_tensor() if isinstance(values, MetaTensor) else values)
        return plain.float().cpu()


def _applied(chain: Any, data: Any) -> Any:
    """Raises RuntimeError with what was wrong in it; MONAI's own says only where."""
    if chain is None:
        return data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's remarks on transforms that the bundle chose
            return chain(data)
    except RuntimeError as error:
        raise RuntimeError(f"{error}: {error.__cause__}" if error.__cause__ else str(error)) from error


def _make_ready(chain: Any) -> None:
    """Takes out what is disabled and was referred to by name, and lets labels be absent, of which there are none."""
    if not isinstance(chain, Compose):
        return
    chain.transforms = tuple(transform for transform in chain.transforms if transform is not None)
    for transform in chain.transforms:
        _make_ready(transform)
        if isinstance(transform, MapTransform):
            transform.allow_missing_keys = True


def images_of(bundle: Bundle, main: Given, further: Sequence[Given]) -> dict[str, MetaTensor]:
    """The series as the bundle's transforms know them: an image each, or one image with a channel each."""
    keys = bundle.image_keys
    given = [main, *further]
    if len(keys) == len(given):
        return {key: _named(image(one), bundle) for key, one in zip(keys, given, strict=True)}
    if len(keys) == 1:
        channels = [image(main), *(onto(image(one), image(main)) for one in further)]
        stacked = MetaTensor(torch.stack([c.as_tensor() for c in channels]), affine=channels[0].affine)
        stacked.meta["original_channel_dim"] = 0
        return {keys[0]: stacked}
    raise ValueError(f"the bundle loads {', '.join(keys)} and its card has {len(given)} series: give it `inputs`")


def _named(whole: MetaTensor, bundle: Bundle) -> MetaTensor:
    if not bundle.channel_first_on_loading:
        return whole
    first = MetaTensor(whole.as_tensor()[None], affine=whole.affine)
    first.meta["original_channel_dim"] = 0
    return first


def image(given: Given) -> MetaTensor:
    """(column, row, slice) float32 in modality units, with its affine to RAS mm; no channel yet."""
    rescale = given.placement.rescale
    values = given.volume.permute(2, 1, 0).to(torch.float32)
    values.mul_(rescale.slope).add_(rescale.intercept)
    result = MetaTensor(values.contiguous(), affine=torch.from_numpy(ras(given.placement.geometry)))
    # what EnsureChannelFirst asks for; not a number stands for "no channel" in MONAI
    result.meta.update({"original_channel_dim": float("nan"), "spatial_shape": np.array(values.shape)})
    result.meta.update({"original_affine": result.affine.clone(), "space": "RAS"})
    return result


def ras(geometry: VolumeGeometry) -> Any:
    """(4, 4) float64: (column, row, slice, 1) to RAS mm."""
    return _LPS_TO_RAS @ geometry.affine[:, [2, 1, 0, 3]]


def onto(moving: MetaTensor, fixed: MetaTensor) -> MetaTensor:
    """A further series in the grid of the main one, by trilinear interpolation; zero where it has nothing."""
    resample = SpatialResample(mode="bilinear", padding_mode="zeros")
    first = MetaTensor(moving.as_tensor()[None], affine=moving.affine)
    result = torch.as_tensor(resample(first, dst_affine=fixed.affine, spatial_size=fixed.shape))
    plain = result.as_tensor() if isinstance(result, MetaTensor) else result
    return MetaTensor(plain[0], affine=fixed.affine)
