"""WADO-RS: metadata, instances, frames and bulk data as they lie in the store (PS3.18 10.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from io import BytesIO

from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicomnode.adapters.dicomweb.face.answer import (
    Answer,
    Part,
    Request,
    accepted_types,
    accepts,
    json_answer,
    multipart,
    refused,
    wants_multipart,
)
from dicomnode.adapters.dicomweb.face.catalogue import Catalogue, path_of, read, with_base
from dicomnode.encoding.dicom_json import bulk_value
from dicomnode.encoding.stored_pixels import StoredPixels, stored_pixels
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.stages.preview import Shown

_OCTETS, _DICOM, _RELATED = "application/octet-stream", "application/dicom", "multipart/related"
# PS3.18 Table 8.7.3-5 ff.: the media type of a transfer syntax; of others it is application/octet-stream
_MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
_NO_SUCH = refused(HTTPStatus.NOT_FOUND, "there is no such resource")


def retrieve_metadata(catalogue: Catalogue, request: Request, shown: Sequence[Shown]) -> Answer:
    """PS3.18 10.4.1.1.1; every attribute, the long binary ones as Bulk Data URIs."""
    if not accepts(request.accept, "application/dicom+json", "application/json"):
        return refused(HTTPStatus.NOT_ACCEPTABLE, "metadata are given as application/dicom+json")
    found = [with_base(catalogue.header(one), request.base) for one in shown]
    return json_answer(found) if found else _NO_SUCH


def retrieve_instances(request: Request, shown: Sequence[Shown]) -> Answer:
    """Part 10 files: byte for byte as they lie, but inflated where deflated ones were not asked for."""
    if not shown:
        return _NO_SUCH
    deflated = any(
        parameters.get("transfer-syntax") in ("*", DeflatedExplicitVRLittleEndian)
        for _, parameters in accepted_types(request.accept)
    )
    if len(shown) == 1 and not accepts(request.accept, _RELATED) and accepts(request.accept, _DICOM):
        return Answer(HTTPStatus.OK, _DICOM, _file(shown[0], deflated))
    if not accepts(request.accept, _RELATED):
        return refused(HTTPStatus.NOT_ACCEPTABLE, f"instances are given as {_RELATED} of {_DICOM}")
    return multipart((Part(_DICOM, _file(one, deflated)) for one in shown), _DICOM)


def _file(one: Shown, deflated: bool) -> bytes:
    with odd_values_accepted():
        if not deflated and _syntax(one) == DeflatedExplicitVRLittleEndian:
            data_set = dcmread(one.path)
            data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            content = BytesIO()
            data_set.save_as(content, enforce_file_format=True)
            return content.getvalue()
    return one.path.read_bytes()


def _syntax(one: Shown) -> str:
    return str(dcmread(one.path, specific_tags=[], stop_before_pixels=True).file_meta.get("TransferSyntaxUID", ""))


# -------------------------------------------------------------------------------------- frames and bulk data


def retrieve_frames(request: Request, one: Shown, numbers: str) -> Answer:
    """PS3.18 10.4.1.1.6: frames as they are encoded; the parts say in which transfer syntax."""
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", numbers):
        return refused(HTTPStatus.BAD_REQUEST, "frames are numbers by comma, the first frame is 1")
    pixels = stored_pixels(one.path)
    wanted = [int(number) for number in numbers.split(",")]
    if pixels is None or not all(1 <= number <= pixels.number_of_frames for number in wanted):
        return _NO_SUCH
    kind = _media_type(pixels)
    parts = (Part(_typed(pixels), pixels.frame(number), _frame_url(request, one, number)) for number in wanted)
    if accepts(request.accept, _RELATED):
        return multipart(parts, kind)
    return _single(request, parts, kind) if len(wanted) == 1 else _not_acceptable(kind)


def retrieve_bulk_data(request: Request, one: Shown, path: str) -> Answer:
    """PS3.18 10.4.1.1.5: the value at a path as the metadata's Bulk Data URIs have it; frames one by one."""
    pixels = stored_pixels(one.path)
    if pixels is not None and path == f"{pixels.tag:08X}":
        return _pixel_data(request, one, pixels)
    data_set = read(one.path)
    value = bulk_value(data_set, path)
    if value is None:
        return _NO_SUCH
    kind = str(data_set.get("MIMETypeOfEncapsulatedDocument", "")) if path == "00420011" else ""
    return _bulk(request, [Part(kind or _OCTETS, value)], kind or _OCTETS)


def retrieve_rendered(request: Request, one: Shown) -> Answer:
    """PS3.18 10.4.1.1.3: of an encapsulated document, which is what it looks like; nothing else is rendered."""
    data_set = read(one.path)
    kind, document = str(data_set.get("MIMETypeOfEncapsulatedDocument", "")), data_set.get("EncapsulatedDocument")
    if not kind or not document:
        return refused(HTTPStatus.NOT_FOUND, "images are not rendered here; ask for their frames")
    # the value is padded to an even length (PS3.3 C.24.2); before 2019 nothing said how long it was
    size = int(data_set.get("EncapsulatedDocumentLength") or len(document))
    return _single(request, [Part(kind, document[:size])], kind)


def _pixel_data(request: Request, one: Shown, pixels: StoredPixels) -> Answer:
    if not pixels.is_encapsulated:
        return _bulk(request, [Part(_typed(pixels), pixels.whole())], _OCTETS)
    frames = range(1, pixels.number_of_frames + 1)
    return multipart((Part(_typed(pixels), pixels.frame(n)) for n in frames), _media_type(pixels))


def _bulk(request: Request, parts: Sequence[Part], kind: str) -> Answer:
    """A browser that shows a document asks for no parts."""
    return multipart(parts, kind) if wants_multipart(request.accept) else _single(request, parts, kind)


def _single(request: Request, parts: Iterable[Part], kind: str) -> Answer:
    """PS3.18 8.7.4: one payload by itself."""
    part = next(iter(parts))
    if not accepts(request.accept, kind, _OCTETS):
        return _not_acceptable(kind)
    return Answer(HTTPStatus.OK, part.content_type, part.content)


def _not_acceptable(kind: str) -> Answer:
    return refused(
        HTTPStatus.NOT_ACCEPTABLE, f"it is given as {_RELATED} of {kind}, in the transfer syntax it lies in"
    )


def _media_type(pixels: StoredPixels) -> str:
    return _MEDIA_TYPES.get(pixels.frame_syntax_uid, _OCTETS)


def _typed(pixels: StoredPixels) -> str:
    return f"{_media_type(pixels)}; transfer-syntax={pixels.frame_syntax_uid}"


def _frame_url(request: Request, one: Shown, number: int) -> str:
    return f"{request.base}/{path_of(one)}/frames/{number}"
