"""One attempt to deliver, on fakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.destination import Destination, DimseAddress, StowAddress
from dicomnode.ports import Delivered, DeliveryWork, NotDelivered
from dicomnode.stages.deliver import DeliverStage, DestinationSink
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_sink import FakeSink
from tests.adapters.sample_results import sample_result

PACS = Destination("pacs", DimseAddress("PACS", "127.0.0.1", 4242))


@pytest.fixture
def work(tmp_path: Path) -> DeliveryWork:
    return DeliveryWork("1", PACS, sample_result(tmp_path)[1], attempt=1)


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
