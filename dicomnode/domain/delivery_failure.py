"""Why a delivery did not arrive, in kinds: what is told apart in lists and counts, beside the words of each case."""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    NO_CONNECTION = "no-connection"
    TLS = "tls"
    ASSOCIATION_REJECTED = "association-rejected"  # A-ASSOCIATE-RJ (PS3.8 9.3.4)
    ASSOCIATION_ABORTED = "association-aborted"  # A-ABORT, or the connection closed under it (PS3.8 9.3.8)
    NO_ANSWER = "no-answer"  # to the association request
    NO_RESPONSE = "no-response"  # to the object
    CONTEXT_NOT_ACCEPTED = "context-not-accepted"  # PS3.8 9.3.3.2
    STATUS = "status"  # a failure status of C-STORE, or one of STOW-RS about the object
    PARTIAL = "partial"  # of what was posted together some was stored and this was not (FailedSOPSequence)
    CREDENTIALS = "credentials"
    HTTP = "http"  # a status that may be about the object
    NO_SERVICE = "no-service"  # HTTP says that the service is away, elsewhere or too busy
    NO_DICOMWEB = "no-dicomweb"  # something answers there that is no DICOMweb service
    NOT_COMMITTED = "not-committed"  # it said stored, and said later that it has it not
    FILE = "file"  # ours cannot be read
    INTERNAL = "internal"


WORDS: dict[FailureKind, str] = {
    FailureKind.NO_CONNECTION: "no connection",
    FailureKind.TLS: "no TLS connection",
    FailureKind.ASSOCIATION_REJECTED: "association rejected",
    FailureKind.ASSOCIATION_ABORTED: "association aborted",
    FailureKind.NO_ANSWER: "no answer to the association request",
    FailureKind.NO_RESPONSE: "no response to the object",
    FailureKind.CONTEXT_NOT_ACCEPTED: "SOP class or transfer syntax not accepted",
    FailureKind.STATUS: "failure status",
    FailureKind.PARTIAL: "partial failure",
    FailureKind.CREDENTIALS: "credentials",
    FailureKind.HTTP: "HTTP error",
    FailureKind.NO_SERVICE: "service away",
    FailureKind.NO_DICOMWEB: "no DICOMweb service",
    FailureKind.NOT_COMMITTED: "not kept by the destination",
    FailureKind.FILE: "our file",
    FailureKind.INTERNAL: "internal error",
}

# What would befall every other object too: the destination is waited for as a whole. Not so what may be about one
# object: an archive that aborts over it must not keep the others from being sent.
_OF_THE_DESTINATION = frozenset(
    {
        FailureKind.NO_CONNECTION,
        FailureKind.TLS,
        FailureKind.ASSOCIATION_REJECTED,
        FailureKind.NO_ANSWER,
        FailureKind.CREDENTIALS,
        FailureKind.NO_SERVICE,
        FailureKind.NO_DICOMWEB,
    }
)


def is_of_the_destination(failure: str) -> bool:
    return failure in _OF_THE_DESTINATION


def failure_words(failure: str) -> str:
    """As people read it; a word that a later version wrote, as it is."""
    return WORDS[FailureKind(failure)] if failure in set(FailureKind) else failure
