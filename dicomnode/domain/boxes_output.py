"""Boxes around findings: the `output.boxes` of a card, of a volume, or of single images (with input.size).

output:
  boxes:
    classes:                     # in the order of the network's numbers of classes
      - {name: Nodule, code: {value: "27925004", scheme: SCT, meaning: Nodule}}
    unit: voxels                 # of the corners, along the model's axes; or mm. Of images: pixels of input.size
    order: xyxy                  # of images: column, row, column, row; or yxyx
    edges: false                 # 0 is the centre of the first voxel; true: its outer edge (always so of images)
    first_class: 0               # the number of the first class; 1 of networks whose 0 is the background
    scores: probabilities        # or logits, of which the sigmoid is taken
    non_maximum_suppression: 0.3 # of two boxes of a class that overlap more (intersection over union), the one with
                                 # the lower score goes; left out: the network did that
    score_least: 0.5             # the default of the parameter `score_least`
    most: 100                    # boxes of a series or of an image, those with the highest scores

The network answers with three tensors: boxes (n, 6), or (n, 4) of an image, the lower corner first; scores (n,);
numbers of classes (n,). Or with two: boxes and scores (n, classes), of which the highest counts; (n,) of one class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.domain.coded import ClassSpec, class_document, classes
from dicomnode.domain.document import Node

UNITS = ("voxels", "mm")
ORDERS = ("xyxy", "yxyx")
SCORES = ("probabilities", "logits")
MOST = 100
_MOST_OF_ALL = 1000
_SUPPRESSION = "non_maximum_suppression"


@dataclass(frozen=True, slots=True)
class BoxesOutput:
    classes: tuple[ClassSpec, ...]
    unit: str = "voxels"  # one of UNITS
    order: str = "xyxy"  # one of ORDERS, of images
    edges: bool = False
    scores: str = "probabilities"  # one of SCORES
    non_maximum_suppression: float | None = None
    score_least: float = 0.5
    most: int = MOST
    first_class: int = 0
    of_images: bool = False  # of a card with input.size


def boxes_output(node: Node, *, of_images: bool) -> BoxesOutput:
    own = ("order",) if of_images else ("unit", "edges")
    node.only("classes", *own, "first_class", "scores", _SUPPRESSION, "score_least", "most")
    return BoxesOutput(
        classes=classes(node["classes"], 1),
        unit=node.get("unit", "voxels").one_of(UNITS),
        order=node.get("order", "xyxy").one_of(ORDERS),
        edges=of_images or node.get("edges", False).boolean(),
        scores=node.get("scores", "probabilities").one_of(SCORES),
        non_maximum_suppression=_share(node[suppression]) if (suppression := _SUPPRESSION) in node else None,
        score_least=_share(node.get("score_least", 0.5)),
        most=node.get("most", MOST).whole(1, _MOST_OF_ALL),
        first_class=node.get("first_class", 0).whole(0, 1),
        of_images=of_images,
    )


def _share(node: Node) -> float:
    number = node.number()
    if not 0 <= number <= 1:
        node.fail(f"{number} is not from 0 to 1")
    return number


def boxes_document(found: BoxesOutput) -> Mapping[str, Any]:
    """As boxes_output reads it."""
    own = {"order": found.order} if found.of_images else {"unit": found.unit, "edges": found.edges}
    suppression = found.non_maximum_suppression
    return {
        "classes": [class_document(one) for one in found.classes],
        **own,
        "first_class": found.first_class,
        "scores": found.scores,
        **({} if suppression is None else {"non_maximum_suppression": suppression}),
        "score_least": found.score_least,
        "most": found.most,
    }
