"""Asks a DICOMweb service whether it has what STOW-RS brought: a search for each instance (PS3.18 10.6)."""

from __future__ import annotations

from dicomnode.adapters.dicomweb import qido
from dicomnode.adapters.dicomweb.service import Service
from dicomnode.domain.destination import StowAddress
from dicomnode.domain.proof import NO_SUCH_OBJECT, ProofAnswer, Reference
from dicomnode.errors import DeliveryError, ProofUnsupported
from dicomnode.ports import ProofWork

SOP_CLASS_UID = "00080016"
# A service that stores and does not search, or not for us, answers so
_NO_SEARCH = {
    400: "does not understand the search",
    401: "does not let these credentials search",
    403: "does not let these credentials search",
    405: "does not search",
    406: "does not answer searches in DICOM JSON",
    415: "does not answer searches in DICOM JSON",
    501: "does not search",
}
FOUND = "found by QIDO-RS with its SOP class; its size and bytes cannot be asked for in that way"


class QidoProver:
    """A `Prover` for destinations of kind "stow"."""

    def __init__(self, *, connect_timeout_s: float = 10.0, read_timeout_s: float = 30.0) -> None:
        self._timeouts_s = (connect_timeout_s, read_timeout_s)

    def prove(self, work: ProofWork) -> ProofAnswer:
        assert isinstance(work.destination.address, StowAddress), work.destination.kind
        service = Service(work.destination.address, *self._timeouts_s, options=work.destination.options)
        found = {reference.sop_instance_uid: _is_there(service, reference) for reference in work.references}
        missing = {uid: NO_SUCH_OBJECT for uid, there in found.items() if not there}
        if missing:
            _check_that_it_searches(service)
        words = f"{service.url} does not find it by QIDO-RS, though it answered that it stored it"
        proven = frozenset(found.keys() - missing.keys())
        return ProofAnswer(proven, missing, committed=False, words=FOUND if proven and not missing else words)


def _is_there(service: Service, reference: Reference) -> bool:
    """Raises ProofUnsupported, DestinationUnavailable."""
    path = f"/studies/{reference.study_instance_uid}/series/{reference.series_instance_uid}/instances"
    answer = service.get(path, {"SOPInstanceUID": reference.sop_instance_uid}, "application/dicom+json")
    if answer.status_code in (404, 410):  # of a study that it does not have, some servers say so
        return False
    _check_supported(service, answer.status_code)
    return any(_is_same(one, reference) for one in qido.matches(service, answer))


def _is_same(found: dict[str, object], reference: Reference) -> bool:
    """Where the server says the SOP class, which PS3.18 Table 10.6.3-5 wants, it has to be the same."""
    sop_class = qido.value(found, SOP_CLASS_UID)
    same = qido.value(found, qido.SOP_INSTANCE_UID) == reference.sop_instance_uid
    return same and sop_class in (None, reference.sop_class_uid)


def _check_that_it_searches(service: Service) -> None:
    """Before something is said to be missing: a service without searches finds nothing either."""
    answer = service.get("/studies", {"limit": "1"}, "application/dicom+json")
    if answer.status_code == 404:
        raise ProofUnsupported(f"{service.url} does not search")
    _check_supported(service, answer.status_code)
    try:
        qido.matches(service, answer)
    except DeliveryError as error:
        raise ProofUnsupported(f"{service.url} does not search as QIDO-RS does") from error


def _check_supported(service: Service, status: int) -> None:
    if (words := _NO_SEARCH.get(status)) is not None:
        raise ProofUnsupported(f"{service.url} {words} (HTTP {status})")
