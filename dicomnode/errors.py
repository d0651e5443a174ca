"""Every error the node raises on purpose.

    DicomNodeError
    ├── UsageError                    the caller can mend it; exit 2
    │   ├── InvalidSetting
    │   ├── DatabaseUnusable          it is there, and is none of ours or of a later version
    │   ├── InvalidRule
    │   ├── InvalidModelPackage
    │   │   └── NetworkUnfit          exit 1: its file is no network, or none that fits its card
    │   ├── InvalidModelList
    │   ├── InvalidDestination
    │   ├── InvalidSource
    │   ├── NotFound
    │   ├── Ambiguous                 several fit, and only one may be meant
    │   └── AlreadyExists
    ├── ReceiveError                  carries the status of the answer (PS3.4 B.2.3 and F.7.2, PS3.7 C)
    │   ├── OutOfResources            0xA700, the sender should try again
    │   ├── DataSetMismatch           0xA900
    │   ├── CannotUnderstand          0xC000
    │   ├── SopClassRefused           0x0122
    │   ├── NotAuthorised             0x0124
    │   ├── MissingAttribute          0x0120, MissingAttributeValue 0x0121
    │   ├── InvalidAttribute          0x0106
    │   ├── InvalidArgumentValue      0x0115
    │   ├── DuplicateInstance         0x0111
    │   ├── DuplicateTransaction      0x0131
    │   ├── NoSuchInstance            0x0112
    │   └── NoLongerUpdatable         0x0110 with Error ID 0xA710
    ├── StateError
    │   ├── IllegalTransition
    │   └── AlreadyActive             the database's unique index said so
    ├── SeriesRefused                 the series cannot be processed, by name; never retried
    │   ├── NotAVolume
    │   └── CannotDecode
    ├── InferenceError
    │   ├── EngineUnavailable         retryable: Triton is down or restarting
    │   ├── InferenceTimeout          retryable
    │   ├── InferenceStopped          nobody wants the answer any more
    │   └── ModelFailed
    ├── EncodingError
    │   └── NonConformant             a result of ours that its own check refused; quarantined
    └── DeliveryError                 says of what kind the failure is
        ├── DestinationUnavailable    retryable
        ├── DestinationRefused        the peer understood and said no
        └── ProofUnsupported          the peer cannot say whether it keeps what it was sent

Each leaf says whether trying again can help (`retryable`), what a C-STORE peer
is answered (`dimse_status`) and what the command line exits with (`exit_code`).
Messages name UIDs, AE titles and what to do; never a patient's name.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence


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
    """What the caller gave is wrong; `path` says where in it, `message` what, without the path.

    One error may stand for several: `each` has them all, in their order, and is the error itself otherwise.
    """

    code = "usage"
    exit_code = 2

    def __init__(self, message: str, path: str = "", several: Sequence[UsageError] = ()) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.message, self.path, self._several = message, path, tuple(several)

    @property
    def each(self) -> tuple[UsageError, ...]:
        return self._several or (self,)


class InvalidSetting(UsageError):
    code = "invalid-setting"


class DatabaseUnusable(UsageError):
    code = "database-unusable"


class InvalidRule(UsageError):
    code = "invalid-rule"


class InvalidModelPackage(UsageError):
    code = "invalid-model-package"


class NetworkUnfit(InvalidModelPackage):
    """Of a network that was opened: its file is none, or is not what the card says."""

    code = "network-unfit"
    exit_code = 1


class InvalidModelList(UsageError):
    code = "invalid-model-list"


class InvalidDestination(UsageError):
    code = "invalid-destination"


class InvalidSource(UsageError):
    code = "invalid-source"


class NotFound(UsageError):
    code = "not-found"
    exit_code = 1


class Ambiguous(UsageError):
    """Several fit where one must be meant; the message lists them."""

    code = "ambiguous"
    exit_code = 1


class AlreadyExists(UsageError):
    code = "already-exists"
    exit_code = 1


class ReceiveError(DicomNodeError):
    """An instance was not accepted; the sender keeps the responsibility for it.

    `offending_elements` are tags, for the answer's (0000,0901) (PS3.7 C.4.2); `error_id` is its (0000,0903).
    """

    code = "receive"
    error_id: int | None = None

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


class SopClassRefused(ReceiveError):
    """PS3.7 C.5: Refused: SOP Class not supported; here: not from this sender."""

    code = "sop-class-refused"
    dimse_status = 0x0122


class NotAuthorised(ReceiveError):
    """PS3.7 C.5: Refused: not authorised."""

    code = "not-authorised"
    dimse_status = 0x0124


class MissingAttribute(ReceiveError):
    """PS3.7 C.5: Missing Attribute."""

    code = "missing-attribute"
    dimse_status = 0x0120


class MissingAttributeValue(MissingAttribute):
    """PS3.7 C.5: Missing Attribute Value."""

    dimse_status = 0x0121


class InvalidAttribute(ReceiveError):
    """PS3.7 C.5: Invalid attribute value."""

    code = "invalid-attribute"
    dimse_status = 0x0106


class InvalidArgumentValue(ReceiveError):
    """PS3.7 C.5: Invalid argument value."""

    code = "invalid-argument-value"
    dimse_status = 0x0115


class DuplicateInstance(ReceiveError):
    """PS3.7 C.5: Duplicate SOP Instance."""

    code = "duplicate-instance"
    dimse_status = 0x0111


class DuplicateTransaction(ReceiveError):
    """PS3.4 J.3.2.1.4: the Transaction UID of the Storage Commitment Request is already in use."""

    code = "duplicate-transaction"
    dimse_status = 0x0131


class NoSuchInstance(ReceiveError):
    """PS3.7 C.5: No such SOP Instance."""

    code = "no-such-instance"
    dimse_status = 0x0112


class NoLongerUpdatable(ReceiveError):
    """PS3.4 F.7.2.2: the Performed Procedure Step object may no longer be updated."""

    code = "no-longer-updatable"
    dimse_status = 0x0110
    error_id = 0xA710


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


class InferenceStopped(InferenceError):
    code = "stopped"


class ModelFailed(InferenceError):
    code = "model-failed"


class ModelHangs(InferenceError):
    """A model that loads, or runs its first window, for longer than it may: nobody knows whether it ever would."""

    code = "model-hangs"


class EncodingError(DicomNodeError):
    code = "encoding"


class NonConformant(EncodingError):
    """`kind` and `content`, its Part 10 file, are of the object that was refused, once its maker has added them."""

    code = "non-conformant"
    kind = ""
    content: bytes | bytearray = b""


class DeliveryError(DicomNodeError):
    """`failure` is one of domain.delivery_failure.FailureKind, "" where none was named."""

    code = "delivery"

    def __init__(self, message: str, failure: str = "") -> None:
        super().__init__(message)
        self.failure = failure


class DestinationUnavailable(DeliveryError):
    code = "destination-unavailable"
    retryable = True


class DestinationRefused(DeliveryError):
    code = "destination-refused"


class ProofUnsupported(DeliveryError):
    code = "proof-unsupported"
