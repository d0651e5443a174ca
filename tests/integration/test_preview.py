"""The DICOMweb face of a preview as an independent client reads it (dicomweb-client), and who may not."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from dicomnode.adapters.dicomweb.face.viewer import OhifFiles
from dicomnode.imaging.headers import odd_values_accepted
from tests.made_results import result
from tests.made_series import classic, enhanced
from tests.previews import KEY, previewed, saved
from tests.unit.test_forms import made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images, compressed ones and results, by what they are."""
    images = classic(5, rows=11, columns=13)  # a SEG's frame of them is no whole number of bytes
    _, _, segmentation, report = result(images)
    assert segmentation is not None
    packed = enhanced(3, series="packed", name="1")
    packed.compress(RLELossless)
    jpegls = classic(1, series="jpegls")[0]
    jpegls.compress(JPEGLSLossless)
    found = {f"image {k}": image for k, image in enumerate(images)}
    found |= {"SEG": segmentation, "SR": report, "RLE": packed, "JPEG-LS": jpegls, "MF": enhanced(4)}
    return dict(zip(found, saved(tmp_path_factory.mktemp("shown"), list(found.values())), strict=True))


@pytest.fixture(scope="module")
def objects(files: dict[str, Path]) -> dict[str, Dataset]:
    with odd_values_accepted():
        return {what: pydicom.dcmread(file) for what, file in files.items()}


@pytest.fixture(scope="module")
def address(files: dict[str, Path]) -> Iterator[str]:
    with previewed(list(files.values())) as found:
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> DICOMwebClient:
    return DICOMwebClient(f"{address}/dicom-web", headers={"Authorization": f"Bearer {KEY}"})


def uids(one: Dataset) -> tuple[str, str, str]:
    return str(one.StudyInstanceUID), str(one.SeriesInstanceUID), str(one.SOPInstanceUID)


def test_studies_series_and_instances_are_found(client: DICOMwebClient, objects: dict[str, Dataset]) -> None:
    study, series, _ = uids(objects["image 0"])
    (found,) = client.search_for_studies(search_filters={"PatientID": "P-1"})
    assert found["0020000D"]["Value"] == [study]
    assert found["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
    assert found["00201208"]["Value"] == [len(objects)]
    assert found["00080061"]["Value"] == ["CT", "SEG", "SR"]
    assert len(client.search_for_series(study)) == 6
    assert [one["00080060"]["Value"] for one in client.search_for_series(search_filters={"Modality": "SEG"})] == [
        ["SEG"]
    ]
    listed = client.search_for_instances(study, series, fields=["ImagePositionPatient"])
    assert [one["00200013"]["Value"] for one in listed] == [[1], [2], [3], [4], [5]]
    assert listed[1]["00200032"]["Value"] == [float(v) for v in objects["image 1"].ImagePositionPatient]
    assert (
        client.search_for_instances(study, series, limit=2, offset=3)
        == client.search_for_instances(study, series)[3:]
    )
    assert client.search_for_studies(search_filters={"PatientID": "P-2"}) == []


@pytest.mark.parametrize("what", ["image 0", "SEG", "SR", "RLE", "MF"])
def test_metadata_are_the_data_set_without_its_pixels(
    client: DICOMwebClient, objects: dict[str, Dataset], what: str
) -> None:
    found = client.retrieve_instance_metadata(*uids(objects[what]))
    found.pop("00083002")
    link = found.pop("7FE00010", None)
    assert (link is None) == (what == "SR")
    wanted = pydicom.Dataset({element.tag: element for element in objects[what] if element.tag != 0x7FE00010})
    with odd_values_accepted():
        read = pydicom.Dataset.from_json(found)
        wanted.pop("SpecificCharacterSet")
        assert read.to_json_dict() == wanted.to_json_dict()


@pytest.mark.parametrize("what", ["image 0", "SR", "RLE", "JPEG-LS", "SEG"])
def test_instances_come_as_they_lie(client: DICOMwebClient, objects: dict[str, Dataset], what: str) -> None:
    found = client.retrieve_instance(*uids(objects[what]), media_types=(("application/dicom", "*"),))
    assert found.file_meta.TransferSyntaxUID == objects[what].file_meta.TransferSyntaxUID
    assert found.get("PixelData") == objects[what].get("PixelData")
    assert found.to_json_dict() == objects[what].to_json_dict()


def test_a_series_comes_whole(client: DICOMwebClient, objects: dict[str, Dataset]) -> None:
    found = client.retrieve_series(*uids(objects["image 0"])[:2])
    assert [uids(one) for one in found] == [uids(objects[f"image {k}"]) for k in range(5)]


@pytest.mark.parametrize("what", ["image 2", "MF", "RLE", "JPEG-LS"])
def test_frames_come_as_they_are_encoded(client: DICOMwebClient, objects: dict[str, Dataset], what: str) -> None:
    one = objects[what]
    number = int(one.get("NumberOfFrames", 1))
    frames = client.retrieve_instance_frames(*uids(one), frame_numbers=list(range(1, number + 1)))
    if one.file_meta.TransferSyntaxUID.is_encapsulated:
        assert frames == list(generate_frames(one.PixelData, number_of_frames=number))
    else:
        assert b"".join(frames) == one.PixelData
        assert client.retrieve_instance_frames(*uids(one), frame_numbers=[number]) == frames[-1:]


def test_frames_of_bits_are_each_by_itself(client: DICOMwebClient, objects: dict[str, Dataset]) -> None:
    """11 × 13 pixels are 143 bits: in the file a frame begins in the middle of a byte."""
    one = objects["SEG"]
    numbers = list(range(1, one.NumberOfFrames + 1))
    frames = client.retrieve_instance_frames(*uids(one), frame_numbers=numbers)
    for frame, wanted in zip(frames, one.pixel_array, strict=True):
        assert len(frame) == 18
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:143]
        assert np.array_equal(bits.reshape(11, 13), wanted)


def test_parts_say_in_which_transfer_syntax_they_are(address: str, objects: dict[str, Dataset]) -> None:
    for what, kind in {"JPEG-LS": "image/jls", "RLE": "image/dicom-rle", "MF": "application/octet-stream"}.items():
        study, series, uid = uids(objects[what])
        url = f"{address}/dicom-web/studies/{study}/series/{series}/instances/{uid}/frames/1"
        accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
        answer = requests.get(url, headers={"Authorization": f"Bearer {KEY}", "Accept": accept}, timeout=10)
        syntax = objects[what].file_meta.TransferSyntaxUID
        assert f"Content-Type: {kind}; transfer-syntax={syntax}\r\n".encode() in answer.content


def test_pixels_come_as_bulk_data_too(client: DICOMwebClient, objects: dict[str, Dataset]) -> None:
    metadata = client.retrieve_instance_metadata(*uids(objects["SEG"]))
    assert client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"]) == [objects["SEG"].PixelData]


def test_what_is_deflated_is_inflated_for_who_did_not_ask_for_it(tmp_path: Path) -> None:
    image = classic(1)[0]
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with previewed(saved(tmp_path, [image])) as address:
        client = DICOMwebClient(f"{address}/dicom-web", headers={"Authorization": f"Bearer {KEY}"})
        assert client.retrieve_instance(*uids(image)).PixelData == image.PixelData
        assert client.retrieve_instance_frames(*uids(image), frame_numbers=[1]) == [image.PixelData]
        url = f"{address}/dicom-web/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}/instances/"
        for accept, size in {"application/dicom": False, "application/dicom; transfer-syntax=*": True}.items():
            headers = {"Authorization": f"Bearer {KEY}", "Accept": accept}
            answer = requests.get(url + image.SOPInstanceUID, headers=headers, timeout=10)
            found = pydicom.dcmread(io.BytesIO(answer.content))
            assert (found.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian) == size
            assert found.PixelData == image.PixelData


def test_a_document_is_rendered_as_itself(tmp_path: Path) -> None:
    """OHIF asks for the page so, within its own."""
    [page] = made("PDF")
    page.EncapsulatedDocument, page.EncapsulatedDocumentLength = b"%PDF-" + bytes(2000) + b"\0", 2005
    [image] = classic(1)
    with previewed(saved(tmp_path, [page, image])) as address:
        url = f"{address}/dicom-web/studies/{{}}/series/{{}}/instances/{{}}/rendered"
        answer = get(url.format(*uids(page)), Authorization=f"Bearer {KEY}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/pdf")
        assert answer.content == page.EncapsulatedDocument[:2005]
        assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]
        assert get(url.format(*uids(page)) + "?accept=image/png", Authorization=f"Bearer {KEY}").status_code == 406
        assert get(url.format(*uids(image)), Authorization=f"Bearer {KEY}").status_code == 404


# ---------------------------------------------------------------------------------------------- who may not


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=10, allow_redirects=False)


def test_without_the_key_nothing_of_a_patient_is_given(address: str) -> None:
    for headers in ({}, {"Authorization": "Bearer another"}, {"Cookie": "dicomnode-preview=another"}):
        answer = get(f"{address}/dicom-web/studies", **headers)
        assert answer.status_code == 401
        assert "ller" not in answer.text
    assert get(f"{address}/open?key=another").status_code == 403
    opened = get(f"{address}/open?key={KEY}")
    assert opened.status_code == 303
    assert opened.headers["Location"].startswith("/viewer?StudyInstanceUIDs=")
    cookie = opened.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert get(f"{address}/dicom-web/studies", Cookie=cookie.partition(";")[0]).status_code == 200


def test_nothing_is_written(address: str, objects: dict[str, Dataset]) -> None:
    study = objects["image 0"].StudyInstanceUID
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        url = f"{address}/dicom-web/studies/{study}"
        answer = requests.request(method, url, headers={"Authorization": f"Bearer {KEY}"}, data=b"x", timeout=10)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "studies/1.2.3",
        "studies//series",
        "studies/../series/x",
        "other",
        "studies/{0}/metadata/x",
        "studies/{0}/series/9",
        "studies/{0}/series/{1}/instances/{2}/frames/2",
        "studies/{0}/series/{1}/instances/{2}/frames/0",
        "studies/{0}/series/{1}/instances/{2}/bulkdata/0010",
        "studies/{0}/series/{1}/instances/{2}/bulkdata/x/1",
        "studies/{0}/series/{1}/instances/{2}/bulkdata/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_what_is_not_there_is_not_found(address: str, objects: dict[str, Dataset], path: str) -> None:
    url = f"{address}/dicom-web/{path.format(*uids(objects['image 0']))}"
    assert get(url, Authorization=f"Bearer {KEY}").status_code == 404


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("studies?Nonsense=1", "", 400),
        ("studies?limit=-1", "", 400),
        ("studies", "application/dicom+xml", 406),
        ("studies/{0}/metadata", "application/dicom+xml", 406),
        ("studies/{0}/series/{1}/instances/{2}", "image/png", 406),
        ("studies/{0}/series/{1}/instances/{2}/frames/x", "", 400),
        ("studies/{0}/series/{1}/instances/{2}/frames/1", "video/mp4", 406),
    ],
)
def test_what_cannot_be_given_is_refused(
    address: str, objects: dict[str, Dataset], path: str, accept: str, status: int
) -> None:
    url = f"{address}/dicom-web/{path.format(*uids(objects['image 0']))}"
    headers = {"Authorization": f"Bearer {KEY}", "Accept": accept or "*/*"}
    assert get(url, **headers).status_code == status


def test_no_path_leads_out_of_the_viewers_folder(tmp_path: Path) -> None:
    viewer, secret = tmp_path / "viewer", tmp_path / "secret.txt"
    viewer.mkdir()
    (viewer / "index.html").write_text("the viewer")
    (viewer / "link.txt").symlink_to(secret)
    secret.write_text("secret")
    with previewed([], OhifFiles(viewer)) as address:
        assert get(f"{address}/viewer?StudyInstanceUIDs=1.2").text == "the viewer"
        assert "dicom-web" in get(f"{address}/app-config.js").text
        port = int(address.rpartition(":")[2])
        for path in (
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "//secret.txt",
            f"/{secret}",
            "/link.txt",
            "/%00",
            "/a%00.js",
        ):
            answer = raw(port, path)
            assert b"secret" not in answer.partition(b"\r\n\r\n")[2], path
            assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 200")), path


def raw(port: int, path: str) -> bytes:
    """The answer to a path that no client would send as it is."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))
