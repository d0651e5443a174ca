"""The host of models that find things and put boxes around them, in a volume or on single images.

As hosts.classify; BOXES has an empty row before the boxes, so that the tensor of none is one too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dicomnode.adapters.triton.hosts.classify import ClassifyHost
from dicomnode.adapters.triton.hosts.model import Given, Outputs
from dicomnode.domain.boxes_output import BoxesOutput
from dicomnode.domain.model_parameter import OVERLAP, SCORE_LEAST, Value
from dicomnode.imaging.detect import detect, in_image, in_patient, rows_of
from dicomnode.imaging.resample import model_grid


class BoxesHost(ClassifyHost):
    """One loaded model that detects."""

    _gives = "values"

    def _answers(
        self, main: Given, further: Sequence[Given], parameters: Mapping[str, Value], request: Any
    ) -> tuple[Outputs, torch.Tensor]:
        seconds = torch.zeros(3)

        def network(windows: torch.Tensor) -> Sequence[torch.Tensor]:
            self._go_on(request)
            begun = time.perf_counter()
            with torch.inference_mode():
                # answers may lie in the network's own memory
                found = [one.clone() for one in self._network.answers(windows.to(self._network.device), *own)]
            seconds[1] += time.perf_counter() - begun
            return found

        own, begun = self._own(parameters, self._network.device), time.perf_counter()
        look = self._on_images if self._boxes.of_images else self._in_volume
        rows = look(main, further, parameters, network, seconds)
        seconds[2] = time.perf_counter() - begun - float(seconds[:2].sum())
        boxes = np.concatenate([np.zeros((1, rows.shape[1]), np.float32), rows])
        return {"BOXES": torch.from_numpy(boxes)}, seconds

    @property
    def _boxes(self) -> BoxesOutput:
        spec = self._card.boxes
        assert spec is not None  # choice.open_host
        return spec

    def _in_volume(
        self, main: Given, further: Sequence[Given], parameters: Mapping[str, Value], network: Any, seconds: Any
    ) -> Any:
        begun, given = time.perf_counter(), self._card.input
        grid = model_grid(main.placement.geometry, given.orientation, given.spacing_mm)
        image = self._image(main, further, grid)
        seconds[0] += time.perf_counter() - begun
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
        return in_patient(found, grid, main.placement.geometry)

    def _on_images(
        self, main: Given, further: Sequence[Given], parameters: Mapping[str, Value], network: Any, seconds: Any
    ) -> Any:
        size, shape, spec = self._card.input.size, main.volume.shape[1:], self._boxes
        assert size is not None  # of_images
        found, least = [np.zeros((0, 7), np.float32)], float(parameters[SCORE_LEAST])
        images = (image for part in self._parts(main, further, seconds) for image in part)
        for number, image in enumerate(images):
            rows = rows_of(network(image[None]), spec, 2)
            found.append(in_image(rows[rows[:, 4] >= least], number, shape, size, spec))
        return np.concatenate(found)
