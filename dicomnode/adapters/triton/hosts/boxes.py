"""The host of models that find things and put boxes around them, in a volume or on single images.

As hosts.classify; BOXES has an empty row before the boxes, so that the tensor of none is one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dicomnode.adapters.triton.hosts.asked import Asked
from dicomnode.adapters.triton.hosts.classify import ClassifyHost
from dicomnode.adapters.triton.hosts.model import Outputs
from dicomnode.domain.boxes_output import BoxesOutput
from dicomnode.domain.model_parameter import OVERLAP, SCORE_LEAST
from dicomnode.imaging.detect import detect, in_image, in_patient, rows_of
from dicomnode.imaging.resample import model_grid


class BoxesHost(ClassifyHost):
    """One loaded model that detects."""

    _gives = "values"

    def _answers(self, asked: Asked) -> Outputs:
        def network(windows: torch.Tensor) -> Sequence[torch.Tensor]:
            self._go_on(asked.request)
            with asked.seconds.network(), torch.inference_mode():
                # answers may lie in the network's own memory
                return [one.clone() for one in self._network.answers(windows.to(self._network.device), *own)]

        own = self._own_inputs(asked.parameters, self._network.device)
        look = self._on_images if self._boxes.of_images else self._in_volume
        rows = look(asked, network)
        boxes = np.concatenate([np.zeros((1, rows.shape[1]), np.float32), rows])
        return {"BOXES": torch.from_numpy(boxes)}

    @property
    def _boxes(self) -> BoxesOutput:
        spec = self._card.boxes
        assert spec is not None  # choice.open_host
        return spec

    def _in_volume(self, asked: Asked, network: Any) -> Any:
        given, geometry, parameters = self._card.input, asked.main.placement.geometry, asked.parameters
        with asked.seconds.before():
            grid = model_grid(geometry, given.orientation, given.spacing_mm)
            image = self._image(asked.main, asked.further, grid)
        found = detect(
            image,
            network,
            self._card.network.window,
            float(parameters[OVERLAP]),
            given.intensity_to[0],
            self._boxes,
            given.spacing_mm,
            float(parameters[SCORE_LEAST]),
        )
        return in_patient(found, grid, geometry)

    def _on_images(self, asked: Asked, network: Any) -> Any:
        size, shape, spec = self._card.input.size, asked.main.volume.shape[1:], self._boxes
        assert size is not None  # of_images
        found, least = [np.zeros((0, 7), np.float32)], float(asked.parameters[SCORE_LEAST])
        images = (image for part in self._parts(asked) for image in part)
        for number, image in enumerate(images):
            rows = rows_of(network(image[None]), spec, 2)
            found.append(in_image(rows[rows[:, 4] >= least], number, shape, size, spec))
        return np.concatenate(found)
