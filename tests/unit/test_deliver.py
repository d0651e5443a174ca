"""One attempt to deliver, on fakes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.destination import Destination, DimseAddress, StowAddress
from dicomnode.domain.result import StoredResult
from dicomnode.errors import DestinationUnavailable
from dicomnode.ports import Delivered, DeliveryOutcome, DeliveryWork, NotDelivered
from dicomnode.stages import deliver
from dicomnode.stages.deliver import DeliverStage, DestinationSink
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_sink import FakeSink
from tests.adapters.sample_results import sample_result

PACS = Destination("pacs", DimseAddress("PACS", "127.0.0.1", 4242))


@pytest.fixture
def work(tmp_path: Path) -> DeliveryWork:
    return DeliveryWork("1", "job", PACS, sample_result(tmp_path)[1], attempt=1)


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def stage(sink: FakeSink, tmp_path: Path) -> DeliverStage:
    return DeliverStage(sink, FakeInstanceStore(tmp_path))


def test_delivered_with_the_peers_words(stage: DeliverStage, work: DeliveryWork, sink: FakeSink) -> None:
    assert stage.deliver(work) == Delivered("stored")
    assert list(sink.received["pacs"]) == [work.result.sop_instance_uid]


def test_a_destination_that_is_down_is_tried_again(stage: DeliverStage, work: DeliveryWork, sink: FakeSink) -> None:
    sink.stop("pacs")
    outcome = stage.deliver(work)
    assert isinstance(outcome, NotDelivered)
    assert outcome.retryable
    assert "connection refused" in outcome.reason


def test_a_refusal_is_final(stage: DeliverStage, work: DeliveryWork, sink: FakeSink) -> None:
    sink.refuse("pacs")
    outcome = stage.deliver(work)
    assert isinstance(outcome, NotDelivered)
    assert not outcome.retryable
    assert "0xA900" in outcome.reason


def test_a_missing_file_is_named_and_nobody_is_bothered(
    stage: DeliverStage, work: DeliveryWork, sink: FakeSink, tmp_path: Path
) -> None:
    (tmp_path / work.result.path).unlink()
    outcome = stage.deliver(work)
    assert outcome == NotDelivered(
        f"{work.result.path} is missing from the instance store; run the job again: dicomnode jobs retry",
        False,
        "file",
    )
    assert sink.attempts == 0


def test_a_file_cut_short_is_not_sent(stage: DeliverStage, work: DeliveryWork, sink: FakeSink) -> None:
    outcome = stage.deliver(replace(work, result=replace(work.result, size_bytes=work.result.size_bytes + 2)))
    assert isinstance(outcome, NotDelivered)
    assert not outcome.retryable
    assert "is damaged" in outcome.reason
    assert sink.attempts == 0


def test_each_kind_of_destination_has_its_sink(work: DeliveryWork, tmp_path: Path) -> None:
    dimse, stow = FakeSink(), FakeSink()
    both = DestinationSink({"dimse": dimse, "stow": stow})
    web = Destination("web", StowAddress("http://pacs/dicom-web"))
    path = tmp_path / work.result.path
    both.send(PACS, path, work.result)
    both.send(web, path, work.result)
    assert (list(dimse.received), list(stow.received)) == (["pacs"], ["web"])
    stow.stop("web")
    assert "PACS@127.0.0.1:4242 answered" in both.echo(PACS)


class SlowSink(FakeSink):
    """The SEG is on its way until it is let through, or lost."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way, self.may_arrive = threading.Event(), threading.Event()
        self.is_lost = False

    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        if result.kind == "SEG":
            self.under_way.set()
            assert self.may_arrive.wait(20)
            if self.is_lost:
                raise DestinationUnavailable("lost")
        return super().send(destination, file, result)


Ordered = tuple[SlowSink, Callable[[str, str], "Future[DeliveryOutcome]"]]


@pytest.fixture
def ordered(tmp_path: Path, work: DeliveryWork) -> Iterator[Ordered]:
    """A sink and what delivers the result of a kind, of a job, in a thread."""
    sink = SlowSink()
    stage = DeliverStage(sink, FakeInstanceStore(tmp_path))
    with ThreadPoolExecutor() as threads:

        def delivered(kind: str, job_id: str) -> Future[DeliveryOutcome]:
            result = replace(work.result, kind=kind, sop_instance_uid=f"2.25.{kind}{job_id}")
            return threads.submit(stage.deliver, replace(work, job_id=job_id, result=result))

        yield sink, delivered
        sink.may_arrive.set()


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_report_waits_for_the_images_of_its_job_however_they_fare(ordered: Ordered, is_lost: bool) -> None:
    sink, delivered = ordered
    sink.is_lost = is_lost
    seg = delivered("SEG", "job")
    assert sink.under_way.wait(20)
    report = delivered("SR", "job")
    delivered("SR", "other").result(20)
    assert list(sink.received["pacs"]) == ["2.25.SRother"]
    assert not report.done()
    sink.may_arrive.set()
    assert isinstance(seg.result(20), NotDelivered if is_lost else Delivered)
    assert report.result(20) == Delivered("stored")


def test_a_report_does_not_wait_for_ever(ordered: Ordered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "REPORT_WAITS_S", 0.05)
    sink, delivered = ordered
    seg = delivered("SEG", "job")
    assert sink.under_way.wait(20)
    assert delivered("SR", "job").result(20) == Delivered("stored")
    assert not seg.done()
