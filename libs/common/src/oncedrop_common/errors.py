"""Every error oncedrop raises on purpose. No HTTP in here: problems.py maps leaves to answers.

OncedropError
├── RequestError                the caller can do something about it
│   ├── RequestInvalid          a field, header or form is not what it must be
│   ├── UploadIncomplete        the body ended before it was whole
│   ├── UploadTooLarge          over the size limit
│   ├── UploadUnauthorized      uploads need the upload token
│   ├── AdminUnauthorized       operators' calls need the admin token
│   ├── PasswordNeeded          the drop has a password and none was given
│   ├── PasswordWrong           the password given is not the drop's
│   ├── RateLimited             too many attempts; carries when to come back
│   ├── LinkUnknown             no such link, or long forgotten
│   ├── DropGone                used, being taken, expired, deleted or locked
│   ├── ClaimHeld               a restorable drop someone is downloading now
│   ├── ConditionFailed         If-Match does not match
│   ├── RangeUnsatisfiable      no byte of the range exists
│   └── MethodUnsupported       the path does not take this method
├── DependencyError             Redis or the volume is not as it must be
│   ├── StoreUnavailable        Redis did not answer
│   ├── VolumeUnavailable       the volume is not there, not ours, or fails
│   ├── VolumeFull              no space, or over the quota
│   ├── BlobMissing             a record says ready and no file is where it should be
│   ├── BlobDamaged             header, size and record do not agree
│   └── SweepGuarded            a sweep would delete more than it may
└── ConfigurationError          at start: a message, no traceback
"""

from __future__ import annotations

from oncedrop_common.drops import DropId, GoneReason


class OncedropError(Exception):
    """Base of all.

    Attributes:
        slug: Stable name of the leaf, in logs, metrics and problem documents.
        detail: One sentence for the person who reads it; holds no secret.
        drop_id: The drop in question, when there is one.
    """

    slug = "error"

    def __init__(self, detail: str, *, drop_id: DropId | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.drop_id = drop_id


class RequestError(OncedropError):
    """The caller can do something about it."""

    slug = "request_error"


class RequestInvalid(RequestError):
    """A field, header or form is not what it must be; names the field."""

    slug = "request_invalid"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.field = field


class UploadIncomplete(RequestError):
    """The body ended before it was whole."""

    slug = "upload_incomplete"


class UploadTooLarge(RequestError):
    """Over the size limit (bytes)."""

    slug = "upload_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The upload is larger than the {limit} bytes this server takes.")
        self.limit = limit


class UploadUnauthorized(RequestError):
    """Uploads need the upload token."""

    slug = "upload_unauthorized"


class AdminUnauthorized(RequestError):
    """Operators' calls need the admin token."""

    slug = "admin_unauthorized"


class PasswordNeeded(RequestError):
    """The drop has a password and none was given."""

    slug = "password_needed"


class PasswordWrong(RequestError):
    """The password given is not the drop's."""

    slug = "password_wrong"


class RateLimited(RequestError):
    """Too many attempts."""

    slug = "rate_limited"

    def __init__(
        self, detail: str, *, retry_after_seconds: int, drop_id: DropId | None = None
    ) -> None:
        super().__init__(detail, drop_id=drop_id)
        self.retry_after_seconds = retry_after_seconds


class LinkUnknown(RequestError):
    """No such link, or long forgotten."""

    slug = "link_unknown"


class DropGone(RequestError):
    """Used, being taken (reason None), expired, deleted or locked."""

    slug = "drop_gone"

    def __init__(
        self, detail: str, *, drop_id: DropId, reason: GoneReason | None, gone_ms: int
    ) -> None:
        super().__init__(detail, drop_id=drop_id)
        self.reason = reason
        self.gone_ms = gone_ms


class ClaimHeld(RequestError):
    """A restorable drop that someone is downloading now."""

    slug = "claim_held"

    def __init__(self, detail: str, *, drop_id: DropId, retry_after_seconds: int) -> None:
        super().__init__(detail, drop_id=drop_id)
        self.retry_after_seconds = retry_after_seconds


class ConditionFailed(RequestError):
    """If-Match does not match (RFC 9110 section 13.1.1)."""

    slug = "condition_failed"


class RangeUnsatisfiable(RequestError):
    """No byte of the range exists (RFC 9110 section 15.5.17)."""

    slug = "range_unsatisfiable"

    def __init__(self, size: int, *, drop_id: DropId | None = None) -> None:
        super().__init__(f"The file has {size} bytes; the range lies outside.", drop_id=drop_id)
        self.size = size


class MethodUnsupported(RequestError):
    """The path does not take this method."""

    slug = "method_unsupported"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"This path takes {', '.join(allowed)} only.")
        self.allowed = allowed


class DependencyError(OncedropError):
    """Redis or the volume is not as it must be; nothing is lost, try again."""

    slug = "dependency_error"


class StoreUnavailable(DependencyError):
    """Redis did not answer; nothing is known to have changed."""

    slug = "store_unavailable"


class VolumeUnavailable(DependencyError):
    """The volume is not there, is not ours, or fails."""

    slug = "volume_unavailable"


class VolumeFull(DependencyError):
    """No space is left, or the quota is used up."""

    slug = "volume_full"


class BlobMissing(DependencyError):
    """No file where the record says one is; a sweep will decide."""

    slug = "blob_missing"


class BlobDamaged(DependencyError):
    """Header, size and record do not agree; never served."""

    slug = "blob_damaged"


class SweepGuarded(DependencyError):
    """A sweep stopped before deleting: wrong volume, or far too much to delete."""

    slug = "sweep_guarded"


class ConfigurationError(OncedropError):
    """The process cannot start like this; shown as one line without a traceback."""

    slug = "configuration_error"
