"""Which resource of the DICOMweb service a path names (PS3.18 Tables 10.4.1-1 and 10.6.1-1)."""

from __future__ import annotations

import struct
from http import HTTPStatus

from pydicom.errors import InvalidDicomError

from dicomnode.adapters.dicomweb.face.answer import Answer, Request, refused
from dicomnode.adapters.dicomweb.face.catalogue import Catalogue
from dicomnode.adapters.dicomweb.face.retrieve import (
    retrieve_bulk_data,
    retrieve_frames,
    retrieve_instances,
    retrieve_metadata,
    retrieve_rendered,
)
from dicomnode.adapters.dicomweb.face.search import search_instances, search_series, search_studies
from dicomnode.stages.preview import Shown

_NO_SUCH = refused(HTTPStatus.NOT_FOUND, "there is no such resource")
_UNREADABLE = (OSError, InvalidDicomError, ValueError, EOFError, struct.error)


class ReadOnlyService:
    """QIDO-RS and WADO-RS over a catalogue. Names are looked up in it: no path of the disk is made of them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def answer(self, request: Request) -> Answer:
        try:
            return self._search(request) or self._retrieve(request) or _NO_SUCH
        except _UNREADABLE:  # without the message, which may quote the file
            return refused(HTTPStatus.INTERNAL_SERVER_ERROR, "the file cannot be read as this was asked for")

    def _search(self, request: Request) -> Answer | None:
        match request.path:
            case ("studies",):
                return search_studies(self._catalogue, request)
            case ("series",):
                return search_series(self._catalogue, request)
            case ("instances",):
                return search_instances(self._catalogue, request)
            case ("studies", study, "series"):
                return search_series(self._catalogue, request, study)
            case ("studies", study, "instances"):
                return search_instances(self._catalogue, request, study)
            case ("studies", study, "series", series, "instances"):
                return search_instances(self._catalogue, request, study, series)
        return None

    def _retrieve(self, request: Request) -> Answer | None:
        match request.path:
            case ("studies", study, *rest) if len(rest) <= 1:
                return self._several(request, self._catalogue.instances(study), rest)
            case ("studies", study, "series", series, *rest) if len(rest) <= 1:
                return self._several(request, self._catalogue.instances(study, series), rest)
            case ("studies", study, "series", series, "instances", uid, *rest):
                return self._of_instance(request, self._catalogue.instances(study, series, uid), rest)
        return None

    def _several(self, request: Request, shown: list[Shown], rest: list[str]) -> Answer | None:
        match rest:
            case []:
                return retrieve_instances(request, shown)
            case ["metadata"]:
                return retrieve_metadata(self._catalogue, request, shown)
        return None

    def _of_instance(self, request: Request, shown: list[Shown], rest: list[str]) -> Answer | None:
        if not shown:
            return None
        match rest:
            case ["frames", numbers]:
                return retrieve_frames(request, shown[0], numbers)
            case ["rendered"]:
                return retrieve_rendered(request, shown[0])
            case ["bulkdata", *path] if path:
                return retrieve_bulk_data(request, shown[0], "/".join(path))
        return self._several(request, shown, rest)
