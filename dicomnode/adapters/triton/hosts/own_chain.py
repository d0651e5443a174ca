"""A bundle's own transforms, inferer and network over one study, as MONAI's evaluator runs them.

MONAI's axes are (x, y, z) = (column, row, slice), its frame RAS mm; the node's are (slice, row, column) and LPS mm.
What comes in is as LoadImaged gives it for the same series: float32 in modality units (PS3.3 C.11.1) with its affine.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.transforms.compose import Compose
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.post.dictionary import Invertd
from monai.transforms.spatial.array import SpatialResample
from monai.transforms.transform import MapTransform
from monai.transforms.utils import reset_ops_id
from torch.utils._pytree import tree_map_only

from dicomnode.adapters.triton.hosts.asked import Given, Seconds
from dicomnode.adapters.triton.hosts.bundle import Bundle
from dicomnode.adapters.triton.hosts.chain_on_device import ChainOnDevice, told
from dicomnode.adapters.triton.hosts.gpu import is_out_of_memory, let_go
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.inference import CPU

log = logging.getLogger(__name__)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IMAGE, _PREDICTION = "image", "pred"  # monai.utils.CommonKeys
_LABEL_PROMPT = "label_prompt"  # of monai.apps.vista3d.transforms
_NO_CLICKS: dict[str, Any] = dict.fromkeys(("point_coords", "point_labels", "labels", "label_set"))

Images = Callable[[torch.device], dict[str, Any]]  # on the device that is named
Made = Callable[[torch.Tensor], torch.Tensor]  # of (channels, ...) float32 in MONAI's axes, where it lies


class OwnChain:
    """Loads the bundle's parts; `network` in place of the bundle's, to count, cancel and choose engines.

    On a GPU the whole chain runs there: stored values go there once, what is made of the prediction comes back once.
    Where there is no room for it transforms and windows' scores lie in the host's memory, as the same bundle has them
    on a machine without a GPU, and the network alone computes on it.
    """

    def __init__(self, bundle: Bundle, network: torch.nn.Module) -> None:
        self._bundle, self._network = bundle, network
        self._there = _Parts(bundle)
        self._here: _Parts | None = None
        self._no_room = False

    @property
    def device(self) -> torch.device:
        """Where stored values are to lie."""
        return self._bundle.device

    @property
    def words(self) -> str:
        """Where the transforms of the last run were, beyond what the model's device says; "" on a CPU."""
        if self._no_room:
            return ", by the CPU: the GPU had no room"
        names = self._there.by_the_cpu
        return f", by the CPU: {', '.join(names)}" if names else ""

    def run(self, images: Images, made: Made, check: Callable[[], None], seconds: Seconds) -> torch.Tensor:
        """What is `made` of the prediction, on the CPU.

        `check` is called before each window and raises when nobody waits any more.
        """
        self._no_room = False
        try:
            return self._run(self._there, images, made, check, seconds)
        except RuntimeError as error:
            if self.device.type == "cpu" or not is_out_of_memory(error):
                raise
            why = str(error)
        log.warning("the GPU has no room for the transforms of %s: the CPU does them (%s)", self._bundle.folder, why)
        self._no_room = True
        let_go(self.device)
        self._here = self._here or _Parts(Bundle(self._bundle.folder, CPU))
        return self._run(self._here, images, made, check, seconds)

    def _run(
        self, parts: _Parts, images: Images, made: Made, check: Callable[[], None], seconds: Seconds
    ) -> torch.Tensor:
        with seconds.before(self.device):
            given = images(parts.device)
            shape = tuple(given[parts.key].shape[-3:])
            batch = list_data_collate([parts.before(given)])
            del given
        with seconds.network(self.device):
            # what MONAI's evaluator gives to the network; transforms may have made it of several images
            image = batch[_IMAGE if _IMAGE in batch else parts.key].to(parts.device)
            found = self._infer(parts, image, check)
        # as MONAI's Workflow: each by itself, for what lies beside the images need not have their batch's length
        (prediction,) = decollate_batch({_PREDICTION: found})
        result = {**decollate_batch(batch)[0], **prediction}
        if parts.asked is not None:  # as VISTA3D's evaluator leaves both
            result = {**reset_ops_id(result), _LABEL_PROMPT: parts.asked}  # type: ignore[no-untyped-call]
        del batch, image, found
        return made(parts.after(result, shape)).cpu()

    def _infer(self, parts: _Parts, image: torch.Tensor, check: Callable[[], None]) -> torch.Tensor:
        half = self._bundle.half_precision and self.device.type == "cuda"

        network = _Checked(self._network, self.device, check)
        with torch.no_grad(), torch.autocast("cuda", enabled=half):
            if parts.asked is not None:
                result = parts.inferer(inputs=image, network=network, **_NO_CLICKS, class_vector=parts.asked)
            else:
                result = parts.inferer(image, network) if parts.inferer is not None else network(image)
        if not isinstance(result, torch.Tensor):
            raise TypeError(f"the network answers with a {type(result).__name__}; one tensor is needed")
        return result


class _Checked:
    """The network on its device, with `check` before each call; `module` is where torch's own wrappers have it."""

    def __init__(self, module: torch.nn.Module, device: torch.device, check: Callable[[], None]) -> None:
        self.module, self._device, self._check = module, device, check

    def __call__(self, windows: torch.Tensor, *more: Any, **named: Any) -> Any:
        self._check()
        further, beside = tree_map_only(torch.Tensor, lambda one: one.to(self._device), (more, named))
        found = self.module(windows.to(self._device), *further, **beside)
        return found.to(windows.device) if isinstance(found, torch.Tensor) else found


class _Parts:
    """What a bundle has around its network, ready to run on its device."""

    def __init__(self, bundle: Bundle) -> None:
        self.device, self.key = bundle.device, bundle.image_keys[0]
        self.inferer = bundle.part("inferer")
        everything = bundle.everything
        # (label, 1) int64: the labels that a network is asked for, where it is
        self.asked = torch.tensor(everything, device=self.device)[:, None] if everything else None
        before, after, back = bundle.part("preprocessing"), bundle.part("postprocessing"), None
        for chain in (before, after):
            _make_ready(chain)
        if isinstance(before, InvertibleTransform):
            back = Invertd(keys=_PREDICTION, transform=before, orig_keys=self.key, nearest_interp=True)
        self._before, self._after, self._back = (_placed(chain, self.device) for chain in (before, after, back))

    @property
    def by_the_cpu(self) -> list[str]:
        """The names of the transforms that a GPU does not run."""
        chains = (self._before, self._after, self._back)
        return [name for chain in chains if isinstance(chain, ChainOnDevice) for name in chain.by_the_cpu]

    def before(self, images: dict[str, Any]) -> Any:
        """What the network is given, and the transforms after it know of what was done."""
        return _applied(self._before, images)

    def after(self, result: Any, shape: tuple[int, ...]) -> torch.Tensor:
        """The prediction in the image's grid; a chain that does not invert what it did is inverted here."""
        result = _applied(self._after, result)
        values = result[_PREDICTION]
        if tuple(values.shape[1:]) != shape and values.ndim == 4:
            values = _applied(self._back, result)[_PREDICTION]
        plain: torch.Tensor = torch.as_tensor(values.as_tensor() if isinstance(values, MetaTensor) else values)
        return plain.float()


def _placed(chain: Any, device: torch.device) -> Any:
    return chain if chain is None or device.type == "cpu" else ChainOnDevice(chain, device)


def _applied(chain: Any, data: Any) -> Any:
    """Raises RuntimeError with what was wrong in it; MONAI's own says only where."""
    if chain is None:
        return data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's remarks on transforms that the bundle chose
            return chain(data)
    except RuntimeError as error:
        raise RuntimeError(told(error)) from error


def _make_ready(chain: Any) -> None:
    """Takes out what is disabled and was referred to by name, and lets labels be absent, of which there are none."""
    if not isinstance(chain, Compose):
        return
    chain.transforms = tuple(transform for transform in chain.transforms if transform is not None)
    for transform in chain.transforms:
        _make_ready(transform)
        if isinstance(transform, MapTransform):
            transform.allow_missing_keys = True


def images_of(bundle: Bundle, main: Given, further: Sequence[Given], device: torch.device = CPU) -> dict[str, Any]:
    """The series as the bundle's transforms know them: an image each, or one image with a channel each."""
    keys = bundle.image_keys
    given = [image(one, device) for one in (main, *further)]
    if len(keys) == len(given):
        return _named_images(bundle, dict(zip(keys, given, strict=True)))
    if len(keys) == 1:
        channels = [given[0], *(onto(one, given[0]) for one in given[1:])]
        stacked = MetaTensor(torch.stack([c.as_tensor() for c in channels]), affine=channels[0].affine)
        stacked.meta["original_channel_dim"] = 0
        return {keys[0]: stacked}
    raise ValueError(f"the bundle loads {', '.join(keys)} and its card has {len(given)} series: give it `inputs`")


def _named_images(bundle: Bundle, found: dict[str, MetaTensor]) -> dict[str, Any]:
    """Each image by its key, in the grid of the first, which the bundle was trained on and does not make by itself.

    Series of one study seldom have the very same grid, and MONAI then ends where the bundle puts them together.
    """
    first = next(iter(found.values()))
    if not bundle.matches_grids:
        found = {key: _in_grid_of(first, one) for key, one in found.items()}
    images: dict[str, Any] = {key: _named(one, bundle) for key, one in found.items()}
    if bundle.loads_metadata:
        images |= {f"{key}_meta_dict": dict(one.meta) for key, one in found.items()}
    return images


def _in_grid_of(first: MetaTensor, one: MetaTensor) -> MetaTensor:
    if one.shape == first.shape and bool(torch.allclose(one.affine, first.affine, atol=1e-3)):
        return one
    moved = onto(one, first)
    moved.meta.update(first.meta)
    return moved


def _named(whole: MetaTensor, bundle: Bundle) -> MetaTensor:
    if not bundle.channel_first_on_loading:
        return whole
    first = MetaTensor(whole.as_tensor()[None], affine=whole.affine)
    first.meta["original_channel_dim"] = 0
    return first


def image(given: Given, device: torch.device = CPU) -> MetaTensor:
    """(column, row, slice) float32 in modality units, with its affine to RAS mm; no channel yet.

    To another device go the stored values, as they are.
    """
    rescale = given.placement.rescale
    values = given.volume.to(device).permute(2, 1, 0).to(torch.float32)
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
    """A further series in the grid of the main one, by trilinear interpolation.

    Where it has nothing it is as low as it is anywhere: air in a CT, and no tissue where its units are 0.
    """
    resample = SpatialResample(mode="bilinear", padding_mode="zeros")
    low = moving.as_tensor().min()
    first = MetaTensor(moving.as_tensor()[None] - low, affine=moving.affine)
    result = torch.as_tensor(resample(first, dst_affine=fixed.affine, spatial_size=fixed.shape))
    plain = result.as_tensor() if isinstance(result, MetaTensor) else result
    return MetaTensor(plain[0] + low, affine=fixed.affine)
