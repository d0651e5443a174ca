"""What a model says of an open session, where a test wants one array of it alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from dicomnode.ports import InferenceRequest, InferenceSession


@contextmanager
def labelled(session: InferenceSession, request: InferenceRequest) -> Iterator[npt.NDArray[np.uint8]]:
    """(slice, row, column), of a model whose segments do not overlap; valid inside the `with`."""
    with session.ask(request) as answers:
        yield answers["LABELMAP"]


def scored(session: InferenceSession, request: InferenceRequest) -> npt.NDArray[np.float32]:
    """(image, class or value), a copy."""
    with session.ask(request) as answers:
        scores: npt.NDArray[np.float32] = answers["SCORES"].copy()
        return scores
