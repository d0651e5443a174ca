"""Asks a peer by C-FIND how many instances it has of a series or a study (PS3.4 C.4.1, Study Root)."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from dicomnode.adapters.dimse.storage_scu import Call, StorageScu, Timeouts
from dicomnode.domain.completeness import SourceCount, believable
from dicomnode.domain.destination import Address, DimseAddress
from dicomnode.errors import DestinationRefused, DestinationUnavailable

# Studies wait for the answer: better none than a late one
QUICK = Timeouts(connect_s=3.0, association_s=3.0, response_s=4.0, stall_s=3.0)

# Series of one study that are asked for image by image, an association each
IMAGE_BY_IMAGE_MOST = 20

_OF_SERIES = "NumberOfSeriesRelatedInstances"
_SUCCESS = 0x0000
_PENDING = (0xFF00, 0xFF01)  # PS3.4 C.4.1.1.4
_FAILURES = {
    0xA700: (0xFFFF, "out of resources; see the peer's log"),
    0xA900: (0xFFFF, "the query does not match its SOP class; see the peer's log"),
    0xC000: (0xF000, "unable to process; see the peer's log"),
    0xFE00: (0xFFFF, "cancelled"),
    0x0122: (0xFFFF, "SOP class not supported; enable Study Root C-FIND at the peer"),
    0x0124: (0xFFFF, "not authorised; allow this node's AE title to query at the peer"),
}


class QueryScu:
    """Counts by NumberOfSeriesRelatedInstances, or image by image where the peer does not give that attribute."""

    def __init__(self, calling_ae_title: str, timeouts: Timeouts = QUICK) -> None:
        self._peers = StorageScu(calling_ae_title, timeouts)
        self._timeouts = timeouts

    def count(self, address: Address, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """None when the peer does not know the series. Raises DestinationUnavailable, DestinationRefused."""
        assert isinstance(address, DimseAddress)
        found = self._find(address, series_query(study_instance_uid, series_instance_uid))
        same = [one for one in found if str(one.get("SeriesInstanceUID", "")) == series_instance_uid]
        if not same:
            return None
        number = _number(same[0], _OF_SERIES)
        return self._images(address, study_instance_uid, series_instance_uid) if number is None else number

    def count_whole(self, address: Address, study_instance_uid: str) -> SourceCount | None:
        """As the peer counts at STUDY level (PS3.4 C.6.2.1.2); None when it does not know it. Raises as count."""
        assert isinstance(address, DimseAddress)
        found = self._find(address, study_query(study_instance_uid))
        same = [one for one in found if str(one.get("StudyInstanceUID", "")) == study_instance_uid]
        if not same:
            return None
        instances, series = (_number(same[0], f"NumberOfStudyRelated{what}") for what in ("Instances", "Series"))
        return SourceCount(instances, series)

    def count_by_series(self, address: Address, study_instance_uid: str) -> dict[str, int]:
        """By Series Instance UID; empty also when too many would have to be asked for image by image.

        Raises as count.
        """
        assert isinstance(address, DimseAddress)
        found = self._find(address, series_query(study_instance_uid, ""))
        numbers = {str(one.get("SeriesInstanceUID", "")): _number(one, _OF_SERIES) for one in found}
        if sum(number is None for number in numbers.values()) > IMAGE_BY_IMAGE_MOST:
            return {}
        return {
            uid: (self._images(address, study_instance_uid, uid) or 0) if number is None else number
            for uid, number in numbers.items()
        }

    def _images(self, address: DimseAddress, study_instance_uid: str, series_instance_uid: str) -> int | None:
        images = self._find(address, image_query(study_instance_uid, series_instance_uid))
        return len({str(one.get("SOPInstanceUID", "")) for one in images}) or None

    def _find(self, address: DimseAddress, query: Dataset) -> list[Dataset]:
        """One query on an association of its own.

        Between two requests pynetdicom's own thread may take the second one's response, under load, and drop it.
        """
        contexts = [build_context(StudyRootQueryRetrieveInformationModelFind)]
        with self._peers.associated(address, contexts, self._timeouts.response_s) as call:
            return list(_answers(call, query))


def study_query(study_instance_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study_instance_uid
    query.NumberOfStudyRelatedSeries = None
    query.NumberOfStudyRelatedInstances = None
    return query


def series_query(study_instance_uid: str, series_instance_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = study_instance_uid
    query.SeriesInstanceUID = series_instance_uid
    query.NumberOfSeriesRelatedInstances = None
    return query


def image_query(study_instance_uid: str, series_instance_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = study_instance_uid
    query.SeriesInstanceUID = series_instance_uid
    query.SOPInstanceUID = ""
    return query


def _number(answer: Dataset, keyword: str) -> int | None:
    """One of (0020,1206), (0020,1208) and (0020,1209), an IS that may be empty, or hold what is no number."""
    try:
        element = answer.get(keyword)
        return believable(int(str(element))) if element not in (None, "") else None
    except (TypeError, ValueError, OverflowError):
        return None


def _answers(call: Call, query: Dataset) -> Iterator[Dataset]:
    """The identifiers that match; raises unless the peer answers with success in the end."""
    started = time.monotonic()
    try:
        answers = call.association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
        for status, identifier in answers:
            code = status.get("Status")
            if code in _PENDING and identifier is not None:
                yield identifier
            elif code not in _PENDING and code != _SUCCESS:
                _raise_failed(call, code, started)
    except RuntimeError as error:  # the peer ended the association before the request
        raise call.ended(started) from error


def _raise_failed(call: Call, code: object, started: float) -> None:
    if not isinstance(code, int):
        # Orthanc, for one, aborts when a peer queries that it does not know
        allow = "; does it let this node query?" if call.watch.abort is not None else ""
        raise DestinationUnavailable(f"{call.peer} {call.end_words(started)}{allow}")
    masked = ((words, code & mask == status & mask) for status, (mask, words) in _FAILURES.items())
    words = next((words for words, same in masked if same), "see the peer's log")
    raise DestinationRefused(f"{call.peer} answered C-FIND with status 0x{code:04X}: {words}")
