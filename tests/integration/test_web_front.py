"""STOW-RS and QIDO-RS through a real nginx to a real Orthanc: TLS, certificates, credentials, and what goes wrong."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.adapters.dicomweb.qido_proof import QidoProver
from dicomnode.adapters.dicomweb.stow import StowRs
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.proof import Reference
from dicomnode.domain.result import StoredResult
from dicomnode.errors import DeliveryError, DestinationRefused
from dicomnode.ports import ProofWork
from tests.adapters.sample_results import sample_result
from tests.server_fixtures import require_nginx
from tests.servers import Orthanc
from tests.web_front import PASSWORD, TOKEN, USER, WebFront

K = FailureKind
pytestmark = pytest.mark.orthanc
STUDY = "1.2.826.0.1.3680043.8.498.78"
Sample = tuple[Path, StoredResult]


@pytest.fixture(scope="module")
def front_of_module(
    orthanc_of_session: Orthanc, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebFront]:
    require_nginx()
    # one takes connections and never reads; the other keeps a port on which nobody listens
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        folder, ports = tmp_path_factory.mktemp("nginx"), [one.getsockname()[1] for one in (mute, closed)]
        with WebFront(folder, orthanc_of_session.dicomweb_url, certificates, *ports) as server:
            yield server


@pytest.fixture
def front(front_of_module: WebFront, orthanc: Orthanc) -> WebFront:
    return front_of_module


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return sample_result(tmp_path, "SEG", study_instance_uid=STUDY)


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    made = {}
    for name, secret in (("password", PASSWORD), ("token", TOKEN), ("wrong", "hunter2")):
        (tmp_path / name).write_text(f"{secret}\n")
        made[name] = f"file:{tmp_path / name}"
    return made


def client(certificates: Path, name: str = "client") -> dict[str, str]:
    return {"certificate": str(certificates / f"{name}.pem"), "key": str(certificates / f"{name}.key")}


def check_accepted(orthanc: Orthanc, destination: object, sample: Sample) -> None:
    """Sent, found by QIDO-RS on the same way, and in the archive as it was sent."""
    path, result = sample
    sink = StowRs()
    assert sink.send(destination, path, result) == "stored"  # type: ignore[arg-type]
    assert "answered QIDO-RS" in sink.echo(destination)  # type: ignore[arg-type]
    reference = Reference(result.sop_class_uid, result.sop_instance_uid, result.series_instance_uid, STUDY)
    answer = QidoProver().prove(ProofWork("2.25.1", destination, (reference,)))  # type: ignore[arg-type]
    assert answer.proven == {result.sop_instance_uid}
    assert dcmread(BytesIO(orthanc.file(result.sop_instance_uid))) == dcmread(path)


# ---------------------------------------------------------------------------------------------------- accepted


def test_a_private_authority(front: WebFront, orthanc: Orthanc, sample: Sample) -> None:
    check_accepted(orthanc, front.destination(), sample)


def test_a_client_certificate(front: WebFront, orthanc: Orthanc, certificates: Path, sample: Sample) -> None:
    check_accepted(orthanc, front.destination("mutual", **client(certificates)), sample)


def test_a_client_certificate_and_its_key_in_one_file(
    front: WebFront, orthanc: Orthanc, certificates: Path, sample: Sample
) -> None:
    check_accepted(orthanc, front.destination("mutual", certificate=str(certificates / "both.pem")), sample)


def test_basic_authentication(front: WebFront, orthanc: Orthanc, sample: Sample, secrets: dict[str, str]) -> None:
    destination = front.destination(path="/basic", user=USER, password=secrets["password"])
    check_accepted(orthanc, destination, sample)


def test_a_bearer_token(front: WebFront, orthanc: Orthanc, sample: Sample, secrets: dict[str, str]) -> None:
    check_accepted(orthanc, front.destination(path="/bearer", token=secrets["token"]), sample)


def test_a_large_segmentation_through_tls(
    front: WebFront, orthanc: Orthanc, certificates: Path, tmp_path: Path
) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=20_000_000)
    explicit = front.destination("mutual", **client(certificates))
    assert StowRs().send(explicit, path, result) == "stored, as Deflated Explicit VR Little Endian"
    assert dcmread(BytesIO(orthanc.file(result.sop_instance_uid))) == dcmread(path)


# ------------------------------------------------------------------------------------------------- told apart


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("expired-server", "the server's certificate has expired; renew it at the server"),
        ("elsewhere-server", "certificate is not for the host 127.0.0.1; give the URL with the name"),
        ("foreign-server", "of an authority that is not trusted here; give the authority's certificate by --ca-file"),
    ],
)
def test_what_is_wrong_with_the_servers_certificate(front: WebFront, sample: Sample, server: str, words: str) -> None:
    check_failure(front, sample, server, "/dicom-web", {}, words, K.TLS)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("", "the server wants a client certificate; give it by --client-certificate"),
        ("expired-client", "does not accept the client certificate: it has expired, or is of an authority"),
        ("foreign-client", "does not accept the client certificate: it has expired, or is of an authority"),
    ],
)
def test_what_is_wrong_with_the_clients_certificate(
    front: WebFront, sample: Sample, certificates: Path, shown: str, words: str
) -> None:
    options = client(certificates, shown) if shown else {}
    check_failure(front, sample, "mutual", "/dicom-web", options, words, K.CREDENTIALS)


@pytest.mark.parametrize(
    ("files", "words", "kind"),
    [
        (("client.pem", "server.key"), "the client key is not that of the client certificate", K.CREDENTIALS),
        (("client.pem", "encrypted.key"), "the client key is encrypted; give one that is not", K.CREDENTIALS),
        (("client.csr", "client.key"), "a file of certificates or keys is no PEM file of them", K.CREDENTIALS),
    ],
)
def test_what_is_wrong_with_our_files(
    front: WebFront, sample: Sample, certificates: Path, files: tuple[str, str], words: str, kind: FailureKind
) -> None:
    certificate, key = (str(certificates / name) for name in files)
    check_failure(front, sample, "mutual", "/dicom-web", {"certificate": certificate, "key": key}, words, kind)


def test_authorities_that_are_none(front: WebFront, sample: Sample, certificates: Path) -> None:
    words = "a file of certificates or keys is no PEM file of them"
    check_failure(
        front, sample, "server", "/dicom-web", {"ca_file": str(certificates / "ca.key")}, words, K.CREDENTIALS
    )


@pytest.mark.parametrize(
    ("path", "words", "kind", "retryable"),
    [
        ("/basic", "HTTP 401 Unauthorized: credentials are wanted or wrong", K.CREDENTIALS, True),
        ("/bearer", "HTTP 401 Unauthorized: credentials are wanted or wrong", K.CREDENTIALS, True),
        ("/forbidden", "HTTP 403 Forbidden: these credentials may not do this", K.CREDENTIALS, True),
        ("/nowhere", "HTTP 404 Not Found: there is no DICOMweb service at this path", K.NO_SERVICE, True),
        ("/small", "HTTP 413 Request Entity Too Large: the object is larger than the server allows", K.HTTP, False),
        ("/gone", "HTTP 502 Bad Gateway: the DICOMweb service behind that server is not there", K.NO_SERVICE, True),
        ("/shut", "HTTP 503 Service Temporarily Unavailable: the service is shut or too busy", K.NO_SERVICE, True),
        (
            "/slow",
            "HTTP 504 Gateway Time-out: the DICOMweb service behind that server gave no answer",
            K.NO_SERVICE,
            True,
        ),
        ("/moved", "sends us on to https://127.0.0.1.*/dicom-web/studies; register that URL", K.NO_SERVICE, True),
    ],
)
def test_what_http_says(
    front: WebFront, tmp_path: Path, path: str, words: str, kind: FailureKind, retryable: bool
) -> None:
    sample = sample_result(tmp_path, payload_bytes=100_000)
    check_failure(front, sample, "server", path, {}, words, kind, retryable=retryable)


@pytest.mark.parametrize(("path", "option"), [("/basic", "password"), ("/bearer", "token")])
def test_wrong_credentials_are_told_and_not_shown(
    front: WebFront, sample: Sample, secrets: dict[str, str], path: str, option: str
) -> None:
    options = {option: secrets["wrong"]} | ({"user": USER} if option == "password" else {})
    said = check_failure(front, sample, "server", path, options, "HTTP 401.*credentials", K.CREDENTIALS)
    assert "hunter2" not in said


def test_https_without_tls_and_tls_without_https(front: WebFront, sample: Sample) -> None:
    plain_at_tls, tls_at_plain = front.destination("server"), front.destination("plain")
    for destination, words in (
        (str(plain_at_tls.address).replace("https:", "http:"), "that port wants https:// in the URL"),
        (str(tls_at_plain.address).replace("http:", "https:"), "that port speaks no TLS"),
    ):
        with pytest.raises(DeliveryError, match=words) as failed:
            StowRs().send(type(plain_at_tls)("x", type(plain_at_tls.address)(destination)), *sample)  # type: ignore[call-arg]
        assert (failed.value.failure, failed.value.retryable) == (K.TLS, True)


def check_failure(
    front: WebFront,
    sample: Sample,
    server: str,
    path: str,
    options: dict[str, str],
    words: str,
    kind: FailureKind,
    *,
    retryable: bool = True,
) -> str:
    """Of the sending and of the echo alike, save where the size or the method matters."""
    destination = front.destination(server, path, **options)
    with pytest.raises(DeliveryError, match=words) as failed:
        StowRs().send(destination, *sample)
    assert (failed.value.failure, failed.value.retryable) == (kind, retryable)
    assert isinstance(failed.value, DestinationRefused) is not retryable
    if path not in ("/small", "/moved"):
        with pytest.raises(DeliveryError, match=words):
            StowRs().echo(destination)
    return str(failed.value)
