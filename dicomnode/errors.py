"""Every error the node raises on purpose.

    DicomNodeError
    ├── UsageError                    the caller can mend it; exit 2
    │   ├── InvalidSetting
    │   ├── InvalidRule
    │   ├── InvalidModelPackage
    │   ├── InvalidDestination
    │   ├── NotFound
    │   └── AlreadyExists
    ├── ReceiveError                  carries the C-STORE status (PS3.4 B.2.3, PS3.7 9.1.1.1.9)
    │   ├── OutOfResources            0xA700, the sender should try again
    │   ├── DataSetMismatch           0xA900
    │   └── CannotUnderstand          0xC000
    ├── StateError
    │   ├── IllegalTransition
    │   └── AlreadyActive             the database's unique index said so
    ├── SeriesRefused                 the series cannot be processed, by name; never retried
    │   ├── NotAVolume
    │   └── CannotDecode
    ├── InferenceError
    │   ├── EngineUnavailable         retryable: Triton is down or restarting
    │   ├── InferenceTimeout          retryable
    │   └── ModelFailed
    ├── EncodingError
    │   └── NonConformant             a result of ours that its own check refused; quarantined
    └── DeliveryError
        ├── DestinationUnavailable    retryable
        └── DestinationRefused        the peer understood and said no

Each leaf says whether trying again can help (`retryable`), what a C-STORE peer
is answered (`dimse_status`) and what the command line exits with (`exit_code`).
Messages name UIDs, AE titles and what to do; never a patient's name.
"""

from __future__ import annotations

import traceback


class DicomNodeError(Exception):
    """Root of the tree. `code` is the stable word stored in the database and printed with --json."""

    code = "error"
    retryable = False
    dimse_status = 0xC000
    exit_code = 1


def trace_of(error: BaseException) -> str:
    """Type and frames for the log, without the message: an unexpected one may quote a data set."""
    return f"{type(error).__name__}\n" + "".join(traceback.format_tb(error.__traceback__))


class UsageError(DicomNodeError):
    """What the caller gave is wrong; `path` says where in it."""

    code = "usage"
    exit_code = 2

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class InvalidSetting(UsageError):
    code = "invalid-setting"


class InvalidRule(UsageError):
    code = "invalid-rule"


class InvalidModelPackage(UsageError):
    code = "invalid-model-package"


class InvalidDestination(UsageError):
    code = "invalid-destination"


class NotFound(UsageError):
    code = "not-found"
    exit_code = 1


class AlreadyExists(UsageError):
    code = "already-exists"
    exit_code = 1


class ReceiveError(DicomNodeError):
    """An instance was not accepted; the sender keeps the responsibility for it.

    `offending_elements` are tags, for the answer's (0000,0901) (PS3.7 C.4.2).
    """

    code = "receive"

    def __init__(self, message: str, offending_elements: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.offending_elements = offending_elements


class OutOfResources(ReceiveError):
    """PS3.4 Table B.2-1: Refused: Out of Resources."""

    code = "out-of-resources"
    retryable = True
    dimse_status = 0xA700


class DataSetMismatch(ReceiveError):
    """PS3.4 Table B.2-1: Error: Data Set does not match SOP Class."""

    code = "data-set-mismatch"
    dimse_status = 0xA900


class CannotUnderstand(ReceiveError):
    """PS3.4 Table B.2-1: Error: Cannot understand."""

    code = "cannot-understand"
    dimse_status = 0xC000


class StateError(DicomNodeError):
    code = "state"


class DatabaseAway(StateError):
    code = "database-away"
    retryable = True


class IllegalTransition(StateError):
    code = "illegal-transition"


class AlreadyActive(StateError):
    code = "already-active"


class SeriesRefused(DicomNodeError):
    """The series cannot be processed; the message is the reason an administrator reads."""

    code = "refused"


class NotAVolume(SeriesRefused):
    """The instances do not make one rectilinear grid; `reason` is a stable short word for it."""

    code = "not-a-volume"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CannotDecode(SeriesRefused):
    code = "cannot-decode"


class InferenceError(DicomNodeError):
    code = "inference"


class EngineUnavailable(InferenceError):
    code = "engine-unavailable"
    retryable = True


class InferenceTimeout(InferenceError):
    code = "inference-timeout"
    retryable = True


class ModelFailed(InferenceError):
    code = "model-failed"


class EncodingError(DicomNodeError):
    code = "encoding"


class NonConformant(EncodingError):
    code = "non-conformant"


class DeliveryError(DicomNodeError):
    code = "delivery"


class DestinationUnavailable(DeliveryError):
    code = "destination-unavailable"
    retryable = True


class DestinationRefused(DeliveryError):
    code = "destination-refused"
