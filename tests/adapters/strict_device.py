"""A device that is none: its tensors hold values in the host's memory, and are as strict as those of a GPU.

What meets a tensor of the CPU raises, but for a single number; so does `.numpy()`. What goes there or comes back is
counted. It is torch's place for devices of others (PrivateUse1), which a process gets once and for good: use it in a
process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import collate_meta_tensor_fn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from torch.utils.data._utils.collate import default_collate_fn_map

from tests.adapters.crossings import Crossings

_setup_privateuseone_for_python_backend("strict")
DEVICE = torch.device("strict", 0)
# what a GPU takes tensors of the CPU for, too: copies, and indices
_AND_ACROSS = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor}


class There(torch.Tensor):
    """A tensor on the device; `held`: its values, in the host's memory."""

    __slots__ = ("held",)  # MONAI copies what a tensor has in its __dict__ to those that come of it
    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        made: There = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def as_subclass(self, cls: Any) -> Any:
        """torch's own would make a tensor of the host's memory of it."""
        return There.__new__(ThereWithMeta if issubclass(cls, MetaTensor) else There, self.held)


class ThereWithMeta(MetaTensor, There):  # type: ignore[misc]
    """MONAI's tensor with its metadata, on the device."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> ThereWithMeta:
        made: ThereWithMeta = There.__new__(cls, held)
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # of MONAI's class and not of this one, so that what comes back to the host becomes MONAI's tensor there
        return MetaTensor.__torch_function__.__func__(MetaTensor, func, (MetaTensor,), args, kwargs)


default_collate_fn_map[ThereWithMeta] = collate_meta_tensor_fn  # as monai.data has it for its own class, by type


class _FromNumbers(TorchFunctionMode):
    """Makes tensors of numbers for the device, and indices; torch would fill them with a kernel that there is not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func is torch.Tensor.__getitem__ and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1]))
        if func not in (torch.as_tensor, torch.tensor) or isinstance(args[0], torch.Tensor):
            return func(*args, **named)
        asked = named.pop("device", None)
        made = func(tree_map(lambda one: one.item() if isinstance(one, There) else one, args[0]), *args[1:], **named)
        return made if asked is None else made.to(asked)


class Strict(Crossings):
    """While it is on, tensors can be made on the device, and what goes there and comes back is noted: bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._from_numbers = _FromNumbers()

    def __enter__(self) -> Strict:
        self._from_numbers.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._from_numbers.__exit__(*error)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _run(func, args, kwargs)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    there = any(isinstance(one, There) for one in tensors)
    asked = kwargs.get("device")
    if asked is not None:
        there = torch.device(asked).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu") if there else asked}
    if func not in _AND_ACROSS:
        strangers = [one for one in tensors if not isinstance(one, There) and one.ndim]
        if strangers and any(isinstance(one, There) for one in tensors):
            raise RuntimeError(
                f"{func}: expected all tensors on one device; {tuple(strangers[0].shape)} is on the CPU"
            )
    plain = tree_map(lambda one: one.held if isinstance(one, There) else one, (args, kwargs))
    found = func(*plain[0], **plain[1])
    if func._schema.is_mutable:  # the very tensor that was written to
        return kwargs["out"] if "out" in kwargs else args[0]
    return tree_map(lambda one: There(one) if there and isinstance(one, torch.Tensor) else one, found)


def network(run: Callable[..., tuple[torch.Tensor, ...]]) -> Callable[..., tuple[torch.Tensor, ...]]:
    """One that takes tensors on the device alone, and answers there."""

    def called(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert all(isinstance(one, There) for one in inputs), "the network was given a tensor of the CPU"
        return tuple(There(answer.clone()) for answer in run(*(one.held for one in inputs)))  # type: ignore[attr-defined]

    return called
