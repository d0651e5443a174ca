"""What every ResultSink does, tried on the fake, on C-STORE and on STOW-RS (both against a real Orthanc)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.adapters.dicomweb.stow import StowRs
from dicomnode.adapters.dimse.storage_scu import StorageScu
from dicomnode.domain.destination import Destination, DimseAddress
from dicomnode.errors import DeliveryError, DestinationUnavailable
from dicomnode.ports import ResultSink
from dicomnode.stages.deliver import DestinationSink
from tests.adapters.fake_sink import FakeSink
from tests.adapters.sample_results import sample_result
from tests.servers import Orthanc


@dataclass(frozen=True)
class Case:
    """A sink, a destination that it serves, and a hand on what stands behind it."""

    sink: ResultSink
    destination: Destination
    instances: Callable[[], list[str]]
    content: Callable[[str], bytes]
    stop: Callable[[], object]
    start: Callable[[], object]


@pytest.fixture(
    params=[
        "fake",
        pytest.param("dimse", marks=pytest.mark.orthanc),
        pytest.param("stow", marks=pytest.mark.orthanc),
        pytest.param("dispatched", marks=pytest.mark.orthanc),
    ]
)
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "fake":
        fake = FakeSink()
        destination = Destination("pacs", DimseAddress("PACS", "127.0.0.1", 4242))
        received = fake.received[destination.name]
        return Case(
            fake,
            destination,
            lambda: list(received),
            received.__getitem__,
            lambda: fake.stop(destination.name),
            lambda: fake.start(destination.name),
        )
    orthanc: Orthanc = request.getfixturevalue("orthanc")
    dimse, stow = StorageScu("DICOMNODE"), StowRs()
    sink, destination = {
        "dimse": (dimse, orthanc.dimse_destination()),
        "stow": (stow, orthanc.stow_destination()),
        "dispatched": (DestinationSink({"dimse": dimse, "stow": stow}), orthanc.stow_destination()),
    }[request.param]
    return Case(sink, destination, orthanc.instances, orthanc.file, orthanc.stop, orthanc.start)


@pytest.mark.parametrize("kind", ["SR", "SEG"])
def test_what_is_sent_arrives_unchanged(case: Case, tmp_path: Path, kind: str) -> None:
    path, result = sample_result(tmp_path, kind)
    assert case.sink.send(case.destination, path, result) == "stored"
    assert case.instances() == [result.sop_instance_uid]
    assert dcmread(BytesIO(case.content(result.sop_instance_uid))) == dcmread(path)


def test_a_repeat_is_harmless(case: Case, tmp_path: Path) -> None:
    path, result = sample_result(tmp_path)
    answers = [case.sink.send(case.destination, path, result) for _ in range(3)]
    assert all(answers)
    assert case.instances() == [result.sop_instance_uid]


def test_echo_says_that_the_destination_answers(case: Case) -> None:
    assert "answered" in case.sink.echo(case.destination)


def test_a_destination_that_is_down_is_retryable_and_takes_the_object_when_it_is_back(
    case: Case, tmp_path: Path
) -> None:
    path, result = sample_result(tmp_path)
    case.stop()
    with pytest.raises(DestinationUnavailable, match="connection refused") as unavailable:
        case.sink.send(case.destination, path, result)
    assert unavailable.value.retryable
    with pytest.raises(DestinationUnavailable, match="connection refused"):
        case.sink.echo(case.destination)
    case.start()
    assert case.sink.send(case.destination, path, result) == "stored"
    assert case.instances() == [result.sop_instance_uid]


@pytest.mark.parametrize("content", [b"", b"no DICOM at all"], ids=["empty", "text"])
def test_a_file_that_is_no_dicom_is_never_sent_and_never_retried(case: Case, tmp_path: Path, content: bytes) -> None:
    path, result = sample_result(tmp_path)
    path.write_bytes(content)
    with pytest.raises(DeliveryError) as failed:
        case.sink.send(case.destination, path, result)
    assert not failed.value.retryable
    assert case.instances() == []


def test_several_threads_send_at_once(case: Case, tmp_path: Path) -> None:
    results = [sample_result(tmp_path, kind) for kind in ("SR", "SEG") * 4]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda pair: case.sink.send(case.destination, *pair), results))
    assert answers == ["stored"] * len(results)
    assert sorted(case.instances()) == sorted(result.sop_instance_uid for _, result in results)
