"""What `jobs show` says of a job, in words: nothing of how the node keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dicomnode.cli.job_facts import facts
from dicomnode.domain.job import JobState
from dicomnode.ports import JobView
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import SERIES, routed


@pytest.fixture
def job() -> JobView:
    state = FakeState()
    return state.job(routed(state, SERIES))


def said(job: JobView, label: str) -> list[str]:
    """The lines behind a label."""
    found: dict[str, list[str]] = {}
    last = ""
    for head, words in facts(job):
        last = head.plain or last
        found.setdefault(last, []).append(words.plain)
    return found.get(label, [])


RUNS = [
    {"images": "1-31", "class": "Abdomen", "probability": 0.974, "least": 0.8986},
    {"images": "32-32", "class": "(not certain)", "probability": None, "least": None},
    {"images": "33-33", "class": "Chest", "probability": 0.9611, "least": 0.9611},
]
FIRST = {
    "model": "torso-ct 1.0.0",
    "digest": "42c2b2d5f49c87d9a43a8fc1655e92d1",
    "engine": "OpenVINO 2026.4.1",
    "precision": "f32",
    "asked": "only in the box around Lungs",
    "said": "it found 1319.2 mL of Lungs",
}
BOX = {"finding": "Nodule", "score": 0.9312}


@pytest.mark.parametrize(
    ("details", "label", "expected"),
    [
        ({"classes": [{"class": "Chest", "images": 9, "share": 0.2195}]}, "classes", ["Chest: 9 images, 22%"]),
        (
            {"runs": RUNS},
            "images",
            [
                "1-31: Abdomen, probability 0.974 on average, 0.899 at least",
                "32: (not certain)",
                "33: Chest, probability 0.961",
            ],
        ),
        (
            {"before": [FIRST]},
            "ran after",
            [
                "torso-ct 1.0.0 (42c2b2d5f49c, OpenVINO 2026.4.1 f32): only in the box around Lungs; "
                "it found 1319.2 mL of Lungs"
            ],
        ),
        (
            {"numbers": [{"measurement": "Agatston score", "value": 120.5, "unit": ""}]},
            "numbers",
            ["Agatston score: 120.5"],
        ),
        (
            {"numbers": [{"image": 3, "measurement": "Angle", "value": None, "unit": "deg"}]},
            "numbers",
            ["Angle on image 3: no number"],
        ),
        (
            {"boxes": [{**BOX, "slice": 31, "length_mm": 12.1, "width_mm": 9.0, "depth_mm": 8.0}]},
            "boxes",
            ["Nodule, score 0.931: slice 31, length 12.1 mm, width 9 mm, depth 8 mm"],
        ),
        (
            {"boxes": [{**BOX, "image": 3, "columns": 30.0, "rows": 38.5}]},
            "boxes",
            ["Nodule, score 0.931: image 3, 30 columns, 38.5 rows"],
        ),
        (
            {"map": {"map": "Perfusion", "least": 0.5, "mean": 2.0, "highest": 9.0, "unit": "ml/min"}},
            "map",
            ["Perfusion, least 0.5, mean 2, highest 9, unit ml/min"],
        ),
        (
            {"inferred_before": True},
            "answer",
            ["was there before the job: made while the series settled, or for another job"],
        ),
        ({"inferred_before": False}, "answer", []),
        ({"probabilities": [[0.1, 0.9]]}, "probabilities", []),
    ],
)
def test_details_are_words(job: JobView, details: Mapping[str, Any], label: str, expected: list[str]) -> None:
    assert said(replace(job, details=details), label) == expected


def test_a_switch_of_the_card_is_on_or_off(job: JobView) -> None:
    asked = replace(job, parameters={"fine": True}, details={"parameters": {"fine": True, "coarse": False}})
    assert said(asked, "parameters") == ["fine: yes, by its rule", "coarse: no"]


def test_what_has_not_happened_is_left_out(job: JobView) -> None:
    assert said(job, "made")
    assert not said(job, "started")
    assert not said(job, "finished")
    moment = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    cancelled = replace(job, state=JobState.CANCELLED, finished_at=moment)
    assert said(cancelled, "started") == []
    assert "after" not in said(cancelled, "finished")[0]
    assert said(replace(cancelled, started_at=moment, attempts=2), "started")[0].endswith(", attempt 2")
