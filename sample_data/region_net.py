"""The sample classifier's network."""

from __future__ import annotations

import torch

from sample_data.region_slices import REGIONS

SIZE = (128, 128)
HU_FROM = (-1000.0, 1000.0)
# On the card's scale, where 0 is -1000 HU and 1 is 1000 HU: air and lung, fat and soft tissue, bone
_WINDOWS = ((0.0, 0.25), (0.42, 0.62), (0.55, 1.0))
_CHANNELS = (16, 32, 48, 64, 96)


class RegionNet(torch.nn.Module):
    """Images (n, 1, 128, 128) in [0, 1] to scores (n, regions): five convolutions, a mean, and a line."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        inside = 1 + len(_WINDOWS)
        for outside in _CHANNELS:
            layers += [
                torch.nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False),
                torch.nn.BatchNorm2d(outside),
                torch.nn.ReLU(),
            ]
            inside = outside
        self.features = torch.nn.Sequential(*layers)
        self.drop = torch.nn.Dropout(0.2)
        self.line = torch.nn.Linear(inside, len(REGIONS))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        windows = [torch.clamp((image - low) / (high - low), 0.0, 1.0) for low, high in _WINDOWS]
        features = self.features(torch.cat([image, *windows], dim=1) - 0.5)
        scores: torch.Tensor = self.line(self.drop(features.mean((2, 3))))
        return scores
