"""Sources that are asked about a whole study: with Orthanc by C-FIND and QIDO-RS, and dcmtk's dcmqrscp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from dicomnode.adapters.dicomweb.qido import INSTANCE_BY_INSTANCE_MOST, QidoRs
from dicomnode.adapters.dimse.query_scu import QueryScu
from dicomnode.adapters.dimse.storage_scu import Timeouts
from dicomnode.domain.completeness import SourceCount
from dicomnode.domain.destination import Address, DimseAddress, StowAddress
from dicomnode.domain.source import Source
from dicomnode.errors import DestinationUnavailable
from dicomnode.stages.counting import AddressCounter, SourceCounter
from tests.integration.receiving_node import Receiver, associated, fill, found, search_answer, send, web_server
from tests.made_results import result
from tests.made_series import classic
from tests.server_fixtures import require_dcmtk, require_orthanc
from tests.servers import DcmQrScp, Orthanc

CT = classic(24)
PET = classic(10, modality="PT", series="pet", step_mm=6.0)
STUDY, CT_SERIES, PET_SERIES = (str(uid) for uid in (CT[0].StudyInstanceUID, CT[0].SeriesInstanceUID,
                                                     PET[0].SeriesInstanceUID))  # fmt: skip
PET_CT = {
    "name": "pet-ct",
    "when": {"Modality": "CT"},
    "roles": {"pet": {"when": {"Modality": "PT"}}},
    "model": "fusion",
}
UNKNOWN = "1.2.826.0.1.3680043.8.498.77"


@dataclass(frozen=True)
class Archive:
    """One that can be asked, and filled over its DICOM port; some do not give the counts of a study."""

    server: Orthanc | DcmQrScp
    address: Address
    gives_counts: bool

    def fill(self, *series: list[Dataset]) -> None:
        for images in series:
            fill(self.server.dicom_port, images, self.server.ae_title)

    @property
    def counter(self) -> AddressCounter:
        if isinstance(self.address, StowAddress):
            return QidoRs()
        return QueryScu("DICOMNODE", Timeouts(connect_s=2, association_s=2, response_s=4, stall_s=2))

    def count_study(self, *own_series: str) -> SourceCount | None:
        """As a node asks that has the CT and the PET."""
        kind = "stow" if isinstance(self.address, StowAddress) else "dimse"
        source = Source("CT1", query=self.address)
        return SourceCounter({kind: self.counter}).count_study(source, STUDY, SourceCount(34, 2), own_series)


def made_archive(kind: str, folder: Path) -> Archive:
    if kind == "dcmqrscp":
        require_dcmtk("dcmqrscp")
        archive = DcmQrScp(folder)
        return Archive(archive, DimseAddress(archive.ae_title, "127.0.0.1", archive.dicom_port), False)
    require_orthanc()
    orthanc = Orthanc(folder, options={"DicomAlwaysAllowFind": True})
    if kind == "orthanc-qido":
        return Archive(orthanc, StowAddress(orthanc.dicomweb_url), True)
    return Archive(orthanc, DimseAddress(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port), True)


@pytest.fixture(params=[
    pytest.param("orthanc-find", marks=pytest.mark.orthanc),
    pytest.param("orthanc-qido", marks=pytest.mark.orthanc),
    pytest.param("dcmqrscp", marks=pytest.mark.dcmtk),
])  # fmt: skip
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    made = made_archive(request.param, tmp_path / "archive")
    with made.server:
        yield made


@pytest.fixture(scope="module")
def own_results() -> list[Dataset]:
    """A SEG and an SR as the node makes them of the CT, a series each."""
    _, _, segmentation, report = result(CT)
    assert segmentation is not None
    assert segmentation.SeriesInstanceUID != report.SeriesInstanceUID
    return [segmentation, report]


# ----------------------------------------------------------------------------------------------- real archives


def test_a_study_is_counted_as_it_grows_and_series_by_series(archive: Archive) -> None:
    archive.fill(CT[:20])
    assert archive.counter.count_whole(archive.address, STUDY) == whole(archive, 20, 1)
    assert archive.counter.count_by_series(archive.address, STUDY) == {CT_SERIES: 20}
    archive.fill(CT, PET)
    assert archive.counter.count_whole(archive.address, STUDY) == whole(archive, 34, 2)
    assert archive.counter.count_by_series(archive.address, STUDY) == {CT_SERIES: 24, PET_SERIES: 10}
    assert archive.count_study() == SourceCount(34, 2), "whether or not it gives the study's counts"


def whole(archive: Archive, instances: int, series: int) -> SourceCount:
    return SourceCount(instances, series) if archive.gives_counts else SourceCount(None, None)


def test_own_results_in_the_archive_are_left_out_and_those_of_others_are_not(
    archive: Archive, own_results: list[Dataset]
) -> None:
    archive.fill(CT, PET, own_results)
    segmentation, report = (str(d.SeriesInstanceUID) for d in own_results)
    assert archive.count_study(segmentation, report) == SourceCount(34, 2, 2)
    assert archive.count_study(segmentation, report, UNKNOWN) == SourceCount(34, 2, 2), "one is not sent yet"
    assert archive.count_study(segmentation) == SourceCount(35, 3, 1), "that report may be anybody's"
    assert archive.count_study() == SourceCount(36, 4)


def test_a_study_that_the_archive_does_not_know(archive: Archive) -> None:
    archive.fill(CT)
    assert archive.counter.count_whole(archive.address, UNKNOWN) is None
    assert archive.counter.count_by_series(archive.address, UNKNOWN) == {}
    source = Source("CT1", query=archive.address)
    counter = SourceCounter({"dimse": archive.counter, "stow": archive.counter})
    assert counter.count_study(source, UNKNOWN, SourceCount(1, 1), [CT_SERIES]) is None


def test_a_study_is_complete_once_all_that_its_archive_has_is_here(
    archive: Archive, receiver: Callable[..., Receiver]
) -> None:
    """The second series comes only when the archive has said that there is one, which it is asked between the two."""
    archive.fill(CT, PET)
    node = receiver(archive.address, study_quiet_period_s=300.0)
    node.state.add_rule("pet-ct", PET_CT)
    with associated(node.port) as first:
        send(first, CT)
        node.completed()
    node.wait_for(lambda: len(node.counter.of_studies) >= 2)
    assert set(node.counter.of_studies) == {SourceCount(34, 2)}
    assert len(node.completions()) == 1, "the CT alone"
    assert node.completions("study") == []
    with associated(node.port) as second:
        send(second, PET)
        node.wait_for(lambda: len(node.completions()) == 2)
        assert node.completions("study") == [], "more may come in the association that is open"
    told = node.completed("study")
    assert told.detail["signal"] == "counted"
    assert told.detail["instances"] == 34
    assert told.message.endswith("says 34 instances in 2 series, and 34 in 2 series are here")
    assert len(node.completions("study")) == 1


def test_own_results_that_the_archive_gives_back_do_not_hold_the_study_up(
    archive: Archive, receiver: Callable[..., Receiver], own_results: list[Dataset]
) -> None:
    archive.fill(CT, PET, own_results)
    node = receiver(archive.address, study_quiet_period_s=300.0)
    node.state.add_rule("pet-ct", PET_CT)
    fill(node.port, [*own_results, *CT, *PET])
    told = node.completed("study")
    assert "says 34 instances in 2 series besides 2 of own results, and 34 in 2 series are here" in told.message


def test_a_study_that_its_archive_does_not_know_waits_for_quiet(
    archive: Archive, receiver: Callable[..., Receiver]
) -> None:
    node = receiver(archive.address, quiet_period_s=0.5, study_quiet_period_s=5.0)
    node.state.add_rule("pet-ct", PET_CT)
    fill(node.port, CT)
    told = node.completed("study")
    assert told.detail["signal"] == "quiet"
    assert node.counter.of_studies
    assert set(node.counter.of_studies) == {None}
    assert [e.message for e in node.state.events(STUDY) if e.kind.endswith("count-failed")] == []


@pytest.mark.orthanc
def test_an_archive_is_not_asked_for_a_study_that_no_rule_needs(
    receiver: Callable[..., Receiver], orthanc: Orthanc
) -> None:
    fill(orthanc.dicom_port, CT, orthanc.ae_title)
    node = receiver(StowAddress(orthanc.dicomweb_url), quiet_period_s=2.0, study_quiet_period_s=2.0)
    node.state.add_rule("ct", {"name": "ct", "when": {"Modality": "CT"}, "model": "torso-ct"})
    fill(node.port, CT)
    assert node.completed().detail["signal"] in ("counted", "released")
    assert node.completed("study").detail["signal"] == "quiet"
    assert node.counter.of_studies == []


@pytest.mark.orthanc
def test_an_orthanc_that_does_not_let_us_query_a_study(orthanc: Orthanc) -> None:
    address = DimseAddress(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port)
    with pytest.raises(DestinationUnavailable, match="does it let this node query"):
        QueryScu("DICOMNODE").count_whole(address, STUDY)


# ------------------------------------------------------------------------------------ web servers as they may be

STUDIES, ALL_SERIES = "/studies", f"/studies/{STUDY}/series"
NAMED = found(x0020000D=STUDY)


def instances(series: str, number: int) -> tuple[str, tuple[int, bytes]]:
    """The path and the answer for the instances of a series."""
    answer = search_answer(*(found(x00080018=f"{series}.{n}") for n in range(number)))
    return f"{ALL_SERIES}/{series}/instances", answer


@pytest.mark.parametrize("value", [34, "34"])
def test_counts_of_a_study_in_numbers_and_in_text(value: object) -> None:
    one = found(x0020000D=STUDY, x00201208=value, x00201206=2)
    with web_server({STUDIES: search_answer(found(x0020000D=UNKNOWN, x00201208=9), one)}) as url:
        assert QidoRs().count_whole(StowAddress(url), STUDY) == SourceCount(34, 2)


def test_a_server_without_counts_of_the_study_is_asked_for_its_series() -> None:
    both = search_answer(found(x0020000E="1.1", x00201209=24), found(x0020000E="1.2", x00201209=10))
    with web_server({STUDIES: search_answer(NAMED), ALL_SERIES: both}) as url:
        archive = Archive(DcmQrScp(Path()), StowAddress(url), False)
        assert archive.counter.count_whole(archive.address, STUDY) == SourceCount(None, None)
        assert archive.count_study() == SourceCount(34, 2)
        assert archive.count_study("1.2") == SourceCount(24, 1, 10)


def test_a_server_without_any_counts_is_asked_for_each_instance_of_a_few_series() -> None:
    both = search_answer(found(x0020000E="1.1"), found(x0020000E="1.2", x00201209=10))
    answers = {STUDIES: search_answer(NAMED), ALL_SERIES: both, **dict([instances("1.1", 24)])}
    with web_server(answers) as url:
        assert Archive(DcmQrScp(Path()), StowAddress(url), False).count_study() == SourceCount(34, 2)


def test_a_server_that_would_have_to_be_asked_too_often_is_not_asked() -> None:
    many = search_answer(*(found(x0020000E=f"1.{n}") for n in range(INSTANCE_BY_INSTANCE_MOST + 1)))
    with web_server({STUDIES: search_answer(NAMED), ALL_SERIES: many}) as url:
        archive = Archive(DcmQrScp(Path()), StowAddress(url), False)
        assert archive.counter.count_by_series(archive.address, STUDY) == {}
        assert archive.count_study() == SourceCount(None, None), "nothing is said of the study"


def test_a_server_that_does_not_know_the_study() -> None:
    for answer in [(204, b""), search_answer(), search_answer(found(x0020000D=UNKNOWN, x00201208=9))]:
        with web_server({STUDIES: answer}) as url:
            assert QidoRs().count_whole(StowAddress(url), STUDY) is None


@pytest.mark.dcmtk
def test_a_peer_is_not_asked_for_each_image_of_very_many_series(dcmqrscp: DcmQrScp) -> None:
    scouts = [classic(1, series=f"scout {n}", SeriesInstanceUID=generate_uid())[0] for n in range(21)]
    fill(dcmqrscp.dicom_port, scouts, dcmqrscp.ae_title)
    address = DimseAddress(dcmqrscp.ae_title, "127.0.0.1", dcmqrscp.dicom_port)
    archive = Archive(dcmqrscp, address, False)
    assert archive.counter.count_by_series(address, STUDY) == {}
    assert archive.count_study() == SourceCount(None, None)
