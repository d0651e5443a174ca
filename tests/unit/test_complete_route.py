"""From quiet to routed: when a series is closed, which jobs it gets, and the reason in words."""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.destination import Destination, parse_dimse
from dicomnode.domain.job import JobState, Priority
from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.domain.study import ReceivedInstance, SeriesState
from dicomnode.errors import IllegalTransition
from dicomnode.ports import State
from dicomnode.stages.complete import Completer
from dicomnode.stages.route import NO_RULE, RouteStage
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_state import FakeClock, FakeState

QUIET_S = 5.0
CT = "1.2.840.10008.5.1.4.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
CARD: dict[str, Any] = {
    "name": "torso-ct",
    "version": "1.0.0",
    "manufacturer": "dicomnode",
    "intended_use": "tests",
    "limits": "tests",
    "input": {"modality": ["CT"], "spacing_mm": [3, 3, 3], "intensity": {"from": [-1000, 1000]}},
    "network": {"file": "models/model.onnx", "window": [96, 96, 96]},
    "output": {
        "segments": [
            {
                "number": 1,
                "name": "Lungs",
                "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
                "type": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
                "colour": [0, 151, 206],
            }
        ]
    },
}


class Node:
    """The stages on a fake state and a fake store."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.state = FakeState(self.clock)
        self.store = FakeInstanceStore(folder)
        self.route = RouteStage(self.state, self.store, self.clock)
        self.completer = Completer(self.state, self.route, self.clock, QUIET_S)

    def model(self, version: str = "1.0.0") -> None:
        self.state.add_model(_card(version), "0" * 64, Path("/models"))

    def destination(self, name: str) -> None:
        self.state.add_destination(Destination(name, parse_dimse("PACS@127.0.0.1:104")))

    def rule(self, name: str = "torso", when: Any = None, **more: Any) -> None:
        document = {"name": name, "when": when or {"Modality": "CT"}, "model": "torso-ct"} | more
        self.state.add_rule(name, document)

    def receive(
        self,
        series: str = "1.1",
        number: int = 1,
        sop_class: str = CT,
        content: bytes | None = None,
        study: str = "1",
        **header: Any,
    ) -> None:
        dataset = Dataset()
        for keyword, value in {"Modality": "CT", "Rows": 2, "Columns": 2, **header}.items():
            if value is not None:
                setattr(dataset, keyword, value)
        uid = f"{series}.{number}"
        path = f"{uid}.dcm"
        _write(self.store.path(path), dataset, sop_class, uid) if content is None else self.store.path(
            path
        ).write_bytes(content)
        instance = ReceivedInstance(
            sop_instance_uid=uid,
            sop_class_uid=sop_class,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            study_instance_uid=study,
            series_instance_uid=series,
            path=path,
            size_bytes=1,
            sha256=f"{number:064}",
            received_at=self.clock.now(),
            calling_ae_title="CT1",
            called_ae_title="DICOMNODE",
            modality=str(header.get("Modality", "CT")),
            instance_number=number,
            series_number=header.get("SeriesNumber"),
            series_description=str(header.get("SeriesDescription", "")),
            patient_id=str(header.get("PatientID", "")),
            study_date=str(header.get("StudyDate", "")),
        )
        self.state.record_instances([instance])

    def sweep(self) -> int:
        self.clock.advance(QUIET_S)
        return self.completer.sweep()

    def why(self, series: str = "1.1") -> str:
        return next(s.why for s in self.state.study(series).series if s.series_instance_uid == series)

    def routed(self, series: str = "1.1") -> Mapping[str, Any]:
        """The detail of its last routing."""
        events = [e for e in self.state.events("1") if e.kind in ("series.routed", "series.not-routed")]
        return next(e.detail for e in reversed(events) if e.series_instance_uid == series)

    def series_state(self, series: str = "1.1") -> SeriesState:
        return next(s.state for s in self.state.study(series).series if s.series_instance_uid == series)


def _write(path: Path, dataset: Dataset, sop_class: str, uid: str) -> None:
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def _card(version: str) -> ModelCard:
    return parse_model_card(CARD | {"version": version})


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_fake_is_a_state() -> None:
    state: State = FakeState()
    assert state.studies() == []


def test_a_matching_rule_makes_a_job(node: Node) -> None:
    node.model()
    node.destination("pacs")
    node.rule(priority="high")
    node.receive()
    assert node.sweep() == 1
    (job,) = node.state.jobs()
    assert (job.model, job.rule, job.priority) == ("torso-ct 1.0.0", "torso revision 1", Priority.HIGH)
    assert node.state.enqueued_jobs == [(job.job_id, 0.0)]
    assert node.series_state() is SeriesState.ROUTED
    assert node.why() == "rule torso matched: Modality is 'CT'"


def test_a_series_in_which_images_still_arrive_is_left_alone(node: Node) -> None:
    node.receive(number=1)
    node.clock.advance(QUIET_S - 1)
    node.receive(number=2)
    node.clock.advance(QUIET_S - 1)
    assert node.completer.sweep() == 0
    assert node.series_state() is SeriesState.RECEIVING


def test_late_images_close_and_route_the_series_again(node: Node) -> None:
    node.model()
    node.rule()
    node.receive(number=1)
    node.sweep()
    node.receive(number=2)
    assert node.sweep() == 1
    states = sorted(job.state for job in node.state.jobs())
    assert states == [JobState.CANCELLED, JobState.QUEUED]


def test_no_rules_say_what_to_do(node: Node) -> None:
    node.receive()
    node.sweep()
    assert node.series_state() is SeriesState.NOT_ROUTED
    assert node.why() == NO_RULE


def test_only_disabled_rules(node: Node) -> None:
    node.rule(enabled=False)
    node.receive()
    node.sweep()
    assert node.why() == "every rule is disabled"


def test_every_rule_is_told_of_the_ones_that_run_first(node: Node) -> None:
    node.model()
    node.destination("pacs")
    node.rule("a-mr", {"Modality": "MR"})
    node.rule("b-ct", {"Modality": "CT"})
    node.rule("c-many", {"NumberOfInstances": {"at_least": 10}})
    node.receive()
    node.sweep()
    assert node.why() == (
        "rule b-ct matched: Modality is 'CT'. Rule a-mr did not match: Modality is 'CT', not 'MR'. "
        "Rule c-many did not match: NumberOfInstances is 1, below 10"
    )
    detail = node.routed("1.1")["rules"]
    assert [(r["rule"], r["matches"], r["model"]) for r in detail] == [
        ("b-ct", True, "torso-ct 1.0.0"),
        ("a-mr", False, None),
        ("c-many", False, None),
    ]


def test_two_rules_that_match_make_two_jobs(node: Node) -> None:
    node.model()
    node.rule("a")
    node.rule("b")
    node.receive()
    node.sweep()
    assert {job.rule for job in node.state.jobs()} == {"a revision 1", "b revision 1"}


def test_a_model_that_is_not_there_is_named(node: Node) -> None:
    node.rule()
    node.receive()
    node.sweep()
    assert node.series_state() is SeriesState.NOT_ROUTED
    assert node.why() == (
        "rule torso matched: Modality is 'CT'; but no model torso-ct is registered (dicomnode models add FOLDER)"
    )


def test_the_active_version_runs(node: Node) -> None:
    node.model("1.0.0")
    node.model("1.1.0")
    node.rule()
    node.receive()
    node.sweep()
    assert node.state.jobs()[0].model == "torso-ct 1.1.0"


@pytest.mark.parametrize(
    ("named", "goes_to", "words"),
    [
        ([], ("archive", "pacs"), ""),
        (["pacs"], ("pacs",), ""),
        (["pacs", "gone"], ("pacs",), "; destination gone does not exist"),
        (["gone"], (), "; destination gone does not exist; its results are kept here and go nowhere"),
    ],
)
def test_destinations(node: Node, named: list[str], goes_to: tuple[str, ...], words: str) -> None:
    node.model()
    node.destination("pacs")
    node.destination("archive")
    node.rule(destinations=named)
    node.receive()
    node.sweep()
    work = node.state.start_job(node.state.jobs()[0].job_id)
    assert work is not None
    assert work.destinations == goes_to
    assert node.why() == f"rule torso matched: Modality is 'CT'{words}"


def test_a_rule_that_cannot_be_read_does_not_stop_the_others(node: Node) -> None:
    node.model()
    node.rule("a", {"Modality": {"is": "CT"}})
    node.rule("b")
    node.receive()
    node.sweep()
    assert len(node.state.jobs()) == 1
    assert "Rule a cannot be read: when.Modality.is: unknown" in node.why()


@pytest.mark.parametrize(
    ("modality", "sop_class", "rows"),
    [("SR", SR, None), ("RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3", None), ("SEG", SEG, 2)],
)
def test_a_series_without_an_image_goes_nowhere(node: Node, modality: str, sop_class: str, rows: int | None) -> None:
    node.model()
    node.rule(when={"Modality": {"exists": True}})
    node.receive(sop_class=sop_class, Modality=modality, Rows=rows)
    node.sweep()
    assert node.state.jobs() == []
    assert node.why() == f"the series holds no image to work on: it is {modality}"


def test_the_next_instance_is_read_when_the_first_cannot_be(node: Node) -> None:
    node.model()
    node.rule(when={"BodyPartExamined": "CHEST"})
    node.receive(number=1, content=b"rubbish")
    node.receive(number=2, BodyPartExamined="CHEST")
    node.sweep()
    assert len(node.state.jobs()) == 1


def test_a_series_that_cannot_be_read_says_so_and_the_others_go_on(node: Node) -> None:
    node.model()
    node.rule()
    node.receive("1.1", content=b"rubbish")
    node.receive("1.2")
    assert node.sweep() == 2
    assert node.series_state("1.1") is SeriesState.NOT_ROUTED
    assert node.why("1.1") == "1.1.1.dcm is no DICOM Part 10 file"
    assert node.series_state("1.2") is SeriesState.ROUTED


def test_what_a_dead_process_left_is_routed(node: Node) -> None:
    node.model()
    node.rule()
    node.receive()
    node.clock.advance(QUIET_S)
    node.state.complete_series("1.1", QUIET_S)
    assert node.completer.sweep() == 0
    assert node.completer.resume() == 1
    assert node.series_state() is SeriesState.ROUTED
    assert node.completer.resume() == 0


def test_two_processes_that_route_the_same_series_make_one_job(node: Node) -> None:
    node.model()
    node.rule()
    node.receive()
    node.clock.advance(QUIET_S)
    series = node.state.complete_series("1.1", QUIET_S)
    assert series is not None
    assert len(node.route.route(series)) == 1
    assert node.route.route(series) == []
    assert len(node.state.jobs()) == 1


class _RefusesOnce(RouteStage):
    """Fails for one series as a database or a disk may."""

    fails: str = ""

    def route(self, series: Any) -> list[str]:
        if series.series_instance_uid == self.fails:
            raise IllegalTransition("not now")
        return super().route(series)


def test_a_failure_is_told_once_and_tried_again(node: Node) -> None:
    route = _RefusesOnce(node.state, node.store, node.clock)
    route.fails = "1.1"
    completer = Completer(node.state, route, node.clock, QUIET_S)
    node.receive("1.1")
    node.receive("1.2")
    node.clock.advance(QUIET_S)
    assert completer.sweep() == 2
    assert node.series_state("1.2") is SeriesState.NOT_ROUTED
    assert completer.resume() == 0
    told = [event for event in node.state.events("1") if event.kind == "series.routing-failed"]
    assert [event.message for event in told] == ["Routing failed and will be tried again: not now"]
    route.fails = ""
    assert completer.resume() == 1
    assert node.series_state("1.1") is SeriesState.NOT_ROUTED


def test_the_loop_runs_until_it_is_told_to_stop(node: Node) -> None:
    node.receive()
    node.clock.advance(QUIET_S)
    stop = threading.Event()
    thread = threading.Thread(target=node.completer.run, args=(stop, 0.005))
    thread.start()
    while node.series_state() is not SeriesState.NOT_ROUTED and thread.is_alive():
        stop.wait(0.005)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_own_results_are_never_routed(node: Node) -> None:
    node.rule(when={"Modality": {"exists": True}})
    own = ReceivedInstance(
        "9.1", SEG, ExplicitVRLittleEndian, "1", "9", "9.1.dcm", 1, "0" * 64, node.clock.now(), "A", "B",
        modality="SEG", manufacturer="dicomnode",
    )  # fmt: skip
    node.state.record_instances([own, replace(own, sop_instance_uid="9.2")])
    assert node.sweep() == 0
    assert node.series_state("9") is SeriesState.OWN_RESULT


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE])
def test_a_disk_that_is_away_for_a_moment_loses_no_series(
    node: Node, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, "not now")

    node.model()
    node.rule()
    node.receive()
    with monkeypatch.context() as away:
        away.setattr(pydicom, "dcmread", fails)
        node.sweep()
    assert node.series_state() is SeriesState.COMPLETE
    assert "tried again" in node.state.events("1")[-1].message
    node.clock.advance(60.0)
    node.completer.resume()
    assert node.series_state() is SeriesState.ROUTED


def test_a_store_that_is_not_mounted_loses_no_series(node: Node) -> None:
    node.model()
    node.rule()
    node.receive()
    away = node.store.root.rename(node.store.root.with_name("elsewhere"))
    node.sweep()
    assert node.series_state() is SeriesState.COMPLETE
    away.rename(node.store.root)
    node.clock.advance(60.0)
    node.completer.resume()
    assert node.series_state() is SeriesState.ROUTED


def test_a_file_that_is_gone_for_good_is_said_to_be(node: Node) -> None:
    node.rule()
    node.receive()
    node.store.path("1.1.1.dcm").unlink()
    node.sweep()
    assert node.series_state() is SeriesState.NOT_ROUTED
    assert "cannot be read: No such file" in node.why()
