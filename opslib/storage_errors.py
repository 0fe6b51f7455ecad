"""What an object store may answer instead of what was asked for, as errors of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from opslib.errors import StorageError


class MissingObjectError(StorageError):
    """No object has this key."""


class ObjectExistsError(StorageError):
    """An object has this key already, and nothing is overwritten."""


class UnknownUploadError(StorageError):
    """This multipart upload was completed or aborted, or never begun."""


class IncompleteListingError(StorageError):
    """The store's answer is not a whole listing: nothing may be decided by what is absent from it."""


_KINDS: dict[str, type[StorageError]] = {
    "404": MissingObjectError,
    "NoSuchKey": MissingObjectError,
    "NotFound": MissingObjectError,
    "412": ObjectExistsError,
    "PreconditionFailed": ObjectExistsError,
    "NoSuchUpload": UnknownUploadError,
}
_DENIED = "check the access key, its secret, and what it may do in this bucket"
_ADVICE = {
    MissingObjectError: "there is no such object",
    ObjectExistsError: "an object has this key already, or is no longer the one it was",
    UnknownUploadError: "somebody else completed or aborted it",
    "401": _DENIED,
    "403": _DENIED,
    "AccessDenied": _DENIED,
    "InvalidAccessKeyId": _DENIED,
    "SignatureDoesNotMatch": _DENIED,
    "Unauthorized": _DENIED,
    "NoSuchBucket": "check the bucket's name, or create it",
}
_SERVER = 500


def refused(of: str, bucket: str, code: str, status: int = 0) -> StorageError:
    """The error for the code (and HTTP status) a store answered with."""
    kind = _KINDS.get(code, StorageError)
    advice = _ADVICE.get(kind) or _ADVICE.get(code)
    if advice is None:
        advice = "see the store's status page, then try again" if status >= _SERVER else "check the bucket's settings"
    return kind(f"{of}: bucket {bucket} answered {code or status or 'an error'}; {advice}")


@contextlib.contextmanager
def translated(of: str, bucket: str) -> Iterator[None]:
    """Turn boto3's errors into ours. `of` is what was being done, to which key.

    Raises:
        StorageError: What went wrong and what to do.
    """
    from boto3.exceptions import Boto3Error  # noqa: PLC0415 - 110 ms
    from botocore import exceptions as errors  # noqa: PLC0415 - as boto3

    try:
        yield
    except errors.ClientError as exc:
        code = exc.response.get("Error", {}).get("Code", "")
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise refused(of, bucket, code, status) from exc
    except (
        errors.HTTPClientError,
        errors.ConnectionError,
    ) as exc:  # a connection that was never made, broke, or fell silent
        raise StorageError(
            f"{of}: bucket {bucket} did not answer ({type(exc).__name__}); check the endpoint and the network"
        ) from exc
    except (errors.BotoCoreError, Boto3Error) as exc:
        raise StorageError(f"{of}: bucket {bucket}: {type(exc).__name__}; check the bucket's settings") from exc
