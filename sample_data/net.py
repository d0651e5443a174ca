"""The sample model's network."""

from __future__ import annotations

import torch
from monai.networks.nets.unet import UNet

CLASSES = ("background", "lungs", "bone", "body")
# On the card's scale, where 0 is -1000 HU and 1 is 1000 HU: air and lung, fat and soft tissue, bone
_WINDOWS = ((0.0, 0.25), (0.40, 0.64), (0.50, 1.0))


class TorsoNet(torch.nn.Module):
    """Image (n, 1, x, y, z) in [0, 1] to scores (n, 4, x, y, z).

    The image goes in as radiologists look at it, in several windows beside the whole range: the step from air to
    lung and from fat to muscle is a fortieth of the range, which a few thousand samples would not teach. 1.13
    million parameters; the finest level works at half resolution, which makes it fast on a CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(
            spatial_dims=3,
            in_channels=1 + len(_WINDOWS),
            out_channels=len(CLASSES),
            channels=(24, 48, 96, 136),
            strides=(2, 2, 2),
            num_res_units=1,
            norm="batch",
            act="relu",
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        windows = [torch.clamp((image - low) / (high - low), 0.0, 1.0) for low, high in _WINDOWS]
        scores: torch.Tensor = self.unet(torch.cat([image, *windows], dim=1) - 0.5)
        return scores
