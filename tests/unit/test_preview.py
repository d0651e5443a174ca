"""What a preview shows, how its searches match, where OHIF is looked for, and how stored frames are found."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from typer.testing import CliRunner

from dicomnode.adapters.dicomweb.face.answer import Answer, Request, accepts, wants_multipart
from dicomnode.adapters.dicomweb.face.catalogue import Catalogue
from dicomnode.adapters.dicomweb.face.service import ReadOnlyService
from dicomnode.adapters.dicomweb.face.viewer import configuration, find_ohif
from dicomnode.cli.context import Context
from dicomnode.cli.root import app
from dicomnode.config import Settings
from dicomnode.encoding.dicom_json import bulk_value, dicom_json
from dicomnode.encoding.stored_pixels import stored_pixels
from dicomnode.errors import NotFound
from dicomnode.stages.preview import Shown, shown_of
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import SERIES, STUDY, succeeded
from tests.made_series import classic, enhanced, pixels, write
from tests.previews import shown

# ------------------------------------------------------------------------------------------- what is shown


def test_the_jobs_images_and_results_are_shown_and_no_others(tmp_path: Path) -> None:
    state, store = FakeState(), FakeInstanceStore(tmp_path)
    succeeded(state, f"{STUDY}.7")
    job = state.job(succeeded(state))
    for name in (f"{SERIES}/1.dcm", f"{SERIES}/2.dcm", "1/SEG"):  # the others went missing
        store.path(name).parent.mkdir(parents=True, exist_ok=True)
        store.path(name).touch()
    assert shown_of(state, store, job) == [
        Shown(STUDY, SERIES, f"{SERIES}.1", store.path(f"{SERIES}/1.dcm")),
        Shown(STUDY, SERIES, f"{SERIES}.2", store.path(f"{SERIES}/2.dcm")),
        Shown(STUDY, f"{SERIES}.91", f"{SERIES}.91.0", store.path("1/SEG")),
    ]


def command_line(folder: Path) -> tuple[Context, FakeState]:
    context, state = Context(), FakeState()
    context.__dict__ |= {
        "state": state,
        "store": FakeInstanceStore(folder / "store"),
        "_read": (Settings(home=folder), []),
    }
    return context, state


def test_without_a_result_or_ohif_the_command_says_what_to_do(tmp_path: Path) -> None:
    context, state = command_line(tmp_path)
    error = CliRunner().invoke(app, ["preview"], obj=context).exception
    assert isinstance(error, NotFound)
    assert "no job has given a result yet" in str(error)
    succeeded(state)
    error = CliRunner().invoke(app, ["preview"], obj=context).exception
    assert isinstance(error, NotFound)
    assert f"npm pack @ohif/app@3.12.10 --pack-destination {tmp_path / 'viewer'}" in str(error)


def test_the_command_serves_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, state = command_line(tmp_path)
    job_id = succeeded(state)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dicomnode.cli.preview.time.sleep", stop)
    result = CliRunner().invoke(app, ["preview", job_id, "--no-viewer", "--json"], obj=context)
    assert result.exit_code == 0, result.exception
    told = json.loads(result.output)
    assert told["job_id"] == job_id
    assert told["address"].startswith("http://127.0.0.1:")
    assert len(told["key"]) > 20


# ------------------------------------------------------------------------------------------------ searches


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> ReadOnlyService:
    folder = tmp_path_factory.mktemp("images")
    files = write(classic(2, SeriesDescription="Thorax 1.0 B30f"), folder)
    files += write(classic(1, series="b", modality="MR", SeriesDescription="T1"), folder / "b")
    return ReadOnlyService(Catalogue(shown(files)))


def found(service: ReadOnlyService, *path: str, **query: str) -> list[dict[str, object]]:
    answer = service.answer(Request(path, {key: [text] for key, text in query.items()}, "", "http://here/dicom-web"))
    assert isinstance(answer.body, bytes)
    assert answer.status == 200, answer.body
    return list(json.loads(answer.body))


@pytest.mark.parametrize(
    ("query", "modalities"),
    [
        ({}, ["CT", "MR"]),
        ({"Modality": "CT"}, ["CT"]),
        ({"00080060": "MR"}, ["MR"]),
        ({"SeriesDescription": "Thorax*"}, ["CT"]),
        ({"SeriesDescription": "T?"}, ["MR"]),
        ({"SeriesDescription": "*"}, ["CT", "MR"]),
        ({"SeriesDescription": "Thorax 1x0 B30f"}, []),
        ({"PatientName": "müller*"}, ["CT", "MR"]),
        ({"StudyDate": "20260101-20260103"}, ["CT", "MR"]),
        ({"StudyDate": "20260102"}, ["CT", "MR"]),
        ({"StudyDate": "-20260101"}, []),
        ({"StudyDate": "20260103-"}, []),
        ({"StudyTime": "10-11"}, ["CT", "MR"]),
        ({"StudyTime": "1012-"}, []),
        ({"AccessionNumber": ""}, ["CT", "MR"]),
        ({"limit": "1"}, ["CT"]),
        ({"offset": "1", "limit": "5"}, ["MR"]),
    ],
)
def test_series_are_found_by_what_their_studies_and_they_are(
    service: ReadOnlyService, query: dict[str, str], modalities: list[str]
) -> None:
    assert [one["00080060"]["Value"][0] for one in found(service, "series", **query)] == modalities  # type: ignore[index]


def test_uids_are_matched_whole_and_by_lists(service: ReadOnlyService) -> None:
    both = [str(one["0020000E"]["Value"][0]) for one in found(service, "series")]  # type: ignore[index]
    assert len(found(service, "series", SeriesInstanceUID=",".join(both))) == 2
    assert len(found(service, "series", SeriesInstanceUID=both[1])) == 1
    assert found(service, "series", SeriesInstanceUID=both[1][:-1] + "*") == []


def test_every_attribute_is_given_to_who_asks(service: ReadOnlyService) -> None:
    (first, *_) = found(service, "instances", includefield="all")
    assert first["00200032"] == {"vr": "DS", "Value": [-100.0, -80.5, 30.25]}
    assert "7FE00010" not in first


def test_a_file_that_is_no_dicom_does_not_hide_the_others(tmp_path: Path) -> None:
    files = write(classic(1), tmp_path)
    (broken := tmp_path / "broken.dcm").write_bytes(b"not DICOM")
    (good,) = shown(files)
    bad = Shown(good.study_instance_uid, "1.2", "1.2.3", broken)
    service = ReadOnlyService(Catalogue([good, bad]))
    assert len(found(service, "series")) == 2
    url = ("studies", bad.study_instance_uid, "series", "1.2", "instances", "1.2.3", "frames", "1")
    answer: Answer = service.answer(Request(url))
    assert answer.status == 500
    assert b"not DICOM" not in bytes(answer.body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("accept", "kind", "is_accepted"),
    [
        ("", "application/dicom+json", True),
        ("*/*", "application/dicom+json", True),
        ("application/*;q=0.5", "application/dicom+json", True),
        ('multipart/related; type="application/octet-stream"; transfer-syntax=*', "multipart/related", True),
        ("image/png, application/dicom+json", "application/dicom+json", True),
        ("image/png", "application/dicom+json", False),
    ],
)
def test_accept_headers_are_understood(accept: str, kind: str, is_accepted: bool) -> None:
    assert accepts(accept, kind) == is_accepted
    assert wants_multipart(accept) == accept.startswith("multipart")


# --------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_frames_are_given_little_endian(tmp_path: Path, syntax: str) -> None:
    image = enhanced(3)
    wanted = image.PixelData
    image.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        image.PixelData = np.frombuffer(wanted, "<i2").astype(">i2").tobytes()
    path = tmp_path / "image.dcm"
    image.save_as(path, enforce_file_format=True)
    found = stored_pixels(path)
    assert found is not None
    assert b"".join(found.frame(number) for number in (1, 2, 3)) == wanted
    assert found.frame(2) == pixels((3, 12, 16))[1].astype("<i2").tobytes()
    assert found.whole() == wanted


@pytest.mark.parametrize("how", ["offset table", "no offset table", "extended"])
def test_encapsulated_frames_are_found_in_every_way(tmp_path: Path, how: str) -> None:
    frames = [bytes([number]) * (100 + 2 * number) for number in range(3)]
    image = enhanced(3)
    image.file_meta.TransferSyntaxUID = RLELossless
    if how == "extended":
        image.PixelData, image.ExtendedOffsetTable, image.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    else:
        image.PixelData = encapsulate(frames, has_bot=how == "offset table")
    image["PixelData"].VR = "OB"
    path = tmp_path / "image.dcm"
    image.save_as(path, enforce_file_format=True)
    found = stored_pixels(path)
    assert found is not None
    assert [found.frame(number) for number in (3, 1, 2)] == [frames[2], frames[0], frames[1]]
    assert found.frame_syntax_uid == RLELossless


def test_long_binary_values_are_linked_and_found_again() -> None:
    item, data_set = Dataset(), Dataset()
    item.WaveformData, item.WaveformBitsAllocated = b"\1\2" * 600, 8
    item["WaveformData"].VR = "OB"
    data_set.WaveformSequence = [item]
    data_set.EncapsulatedDocument = b"%PDF" * 300
    data_set.ICCProfile = b"short"
    found = dicom_json(data_set, lambda path: f"bulk/{path}")
    assert found["00420011"] == {"vr": "OB", "BulkDataURI": "bulk/00420011"}
    assert "InlineBinary" in found["00282000"]
    link = found["54000100"]["Value"][0]["54001010"]["BulkDataURI"]
    assert bulk_value(data_set, link.removeprefix("bulk/")) == item.WaveformData
    for nothing in ("54000100", "54000100/1/54001010", "54000100/0", "x", "00100010"):
        assert bulk_value(data_set, nothing) is None


# ----------------------------------------------------------------------------------------------------- OHIF


def test_ohif_is_found_unpacked_or_as_npm_packs_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="npm pack"):
        find_ohif(tmp_path / "nowhere")
    with tarfile.open(tmp_path / "ohif-app-3.12.10.tgz", "w:gz") as archive:
        page = tarfile.TarInfo("package/dist/index.html")
        page.size = 4
        archive.addfile(page, io.BytesIO(b"page"))
    found = find_ohif(tmp_path)
    assert (found / "index.html").read_bytes() == b"page"
    assert find_ohif(tmp_path) == find_ohif(found) == find_ohif(found.parents[1]) == found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ohif-app-3.12.10", "ohif-app-3.12.10.tgz"]


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_a_broken_archive_leaves_nothing_behind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ohif-app-3.12.10.tgz").write_bytes(content)
    with pytest.raises(NotFound, match="get it"):
        find_ohif(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ohif-app-3.12.10.tgz"]


def test_ohif_knows_of_no_other_host() -> None:
    assert "://" not in configuration()
