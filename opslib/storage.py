"""An S3 bucket (R2, S3, rclone, …): complete listings, checked reads, uploads that exist whole or not at all.

What differs between stores is avoided rather than detected: path-style addresses, equal parts, no checksum trailers (R2
refuses them), no tags (rclone would replace the object by them). Every body is signed with its SHA-256 instead, so a
store that checks signatures refuses one altered on the way.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pydantic import SecretStr

from opslib.errors import StorageError
from opslib.settings import Settings
from opslib.storage_errors import (
    IncompleteListingError,
    MissingObjectError,
    ObjectExistsError,
    UnknownUploadError,
    refused,
    translated,
)

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

READ_BYTES = 1024 * 1024  # a read yields at a time, at most
RESUMES = 3
"""How often one read goes on where its connection broke."""
DELETE_BATCH = 1000
"""Keys one DeleteObjects takes."""


@dataclass(frozen=True, slots=True)
class Object:
    """One object as the store describes it.

    Attributes:
        key: Its name.
        size: Bytes.
        etag: The store's mark of this content, without quotes. MD5 only for some objects of some stores.
        modified: When it was written, UTC.
    """

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A multipart upload somebody began and neither completed nor aborted.

    Attributes:
        key: What it would become.
        id: The store's name for it.
        initiated: When it began, UTC.
    """

    key: str
    id: str
    initiated: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bucket is, and who we are there.

    Attributes:
        endpoint: The store's URL.
        bucket: The bucket's name.
        access_key_id: Whose key.
        secret_access_key: Its secret.
        region: As R2 names its only one; another store may want its own.
    """

    endpoint: str
    bucket: str
    access_key_id: SecretStr
    secret_access_key: SecretStr
    region: str = "auto"


class Storage:
    """One bucket. Safe for threads; connects when first asked.

    Args:
        place: The bucket.
        timeout: Seconds without a byte after which a request has failed.
        attempts: How often a request is made in all; only what the store or the network may mend is repeated.
    """

    def __init__(self, place: Place, *, timeout: float = 60, attempts: int = 4) -> None:
        self.place = place
        self.timeout = timeout
        self._attempts = attempts

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The bucket the settings name.

        Raises:
            ConfigError: A setting is missing.
        """
        settings.require("R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
        assert settings.r2_endpoint is not None  # noqa: S101 - required above
        assert settings.r2_bucket is not None  # noqa: S101 - required above
        key, secret = (SecretStr(settings.reveal(name)) for name in ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"))
        return cls(Place(settings.r2_endpoint, settings.r2_bucket, key, secret))

    @property
    def bucket(self) -> str:
        """Its name."""
        return self.place.bucket

    @cached_property
    def client(self) -> S3Client:
        """boto3's client, for what this class has no method for; wrap its calls in `calling`."""
        import boto3  # noqa: PLC0415 - 110 ms
        from botocore.config import Config  # noqa: PLC0415 - as boto3

        config = Config(
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=self.timeout,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            max_pool_connections=16,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path", "payload_signing_enabled": True},
        )
        with self.calling("connect"):
            client = boto3.Session().client(
                "s3",
                endpoint_url=self.place.endpoint,
                region_name=self.place.region,
                aws_access_key_id=self.place.access_key_id.get_secret_value(),
                aws_secret_access_key=self.place.secret_access_key.get_secret_value(),
                config=config,
            )
        client.meta.events.register("before-sign.s3.DeleteObjects", _classic_digest)
        weakref.finalize(self, client.close)  # its sockets go with this object, and not whenever
        return client

    @contextlib.contextmanager
    def calling(self, what: str, key: str = "") -> Iterator[None]:
        """Turn boto3's errors into ours.

        Raises:
            StorageError: What went wrong and what to do.
        """
        with translated(f"{what} {key}".strip(), self.bucket):
            yield

    def pages(self, prefix: str) -> Iterator[tuple[Object, ...]]:
        """Every object below `prefix` in the order of their keys, at most a thousand at a time.

        Who needs all of them before deciding takes `list`; here the end is the proof of completeness.

        Raises:
            IncompleteListingError: The store's pages do not make a whole. Forget those before.
            StorageError: A page could not be had.
        """
        token, last = "", ""
        while True:
            more: dict[str, Any] = {"ContinuationToken": token} if token else {}
            with self.calling("list", prefix):
                answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more)
            found = answer.get("Contents", [])
            page = tuple(_object(entry["Key"], entry, entry["Size"]) for entry in found)
            for one in page:
                if not one.key.startswith(prefix) or one.key.encode() <= last.encode():
                    raise IncompleteListingError(f"list {prefix}: bucket {self.bucket} listed keys out of order")
                last = one.key
            truncated = answer.get("IsTruncated")
            if truncated is None or answer.get("KeyCount", len(page)) != len(page):
                raise IncompleteListingError(f"list {prefix}: bucket {self.bucket} did not say whether this is all")
            yield page
            if not truncated:
                return
            if answer.get("NextContinuationToken", "") in {"", token}:
                raise IncompleteListingError(f"list {prefix}: bucket {self.bucket} has more and does not say where")
            token = answer["NextContinuationToken"]

    def list(self, prefix: str) -> tuple[Object, ...]:
        """Every object below `prefix`: all of them, or an error.

        Raises:
            StorageError: See `pages`.
        """
        return tuple(one for page in self.pages(prefix) for one in page)

    def head(self, key: str) -> Object | None:
        """The object of that key; None if there is none.

        Raises:
            StorageError: Nobody knows.
        """
        try:
            with self.calling("head", key):
                answer = self.client.head_object(Bucket=self.bucket, Key=key)
        except MissingObjectError:
            return None
        return _object(key, answer, answer["ContentLength"])

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes, all of them or an error; a broken connection is resumed on the same version.

        Raises:
            MissingObjectError: There is none.
            StorageError: It could not be read to its end.
        """
        done, size, etag, breaks = 0, -1, "", 0
        while done != size:
            resume: dict[str, Any] = {"Range": f"bytes={done}-", "IfMatch": etag} if done else {}
            with self.calling("read", key):
                answer = self.client.get_object(Bucket=self.bucket, Key=key, **resume)
            if not done:
                size, etag = answer["ContentLength"], answer["ETag"]
            elif answer["ContentLength"] != size - done or answer["ETag"] != etag:
                raise StorageError(f"read {key}: it changed in bucket {self.bucket} while it was read; try again")
            try:
                with contextlib.closing(answer["Body"]) as body, self.calling("read", key):
                    while chunk := body.read(READ_BYTES):
                        done += len(chunk)
                        yield chunk
            except StorageError:
                breaks += 1
                if breaks > RESUMES:
                    raise

    def get(self, key: str) -> bytes:
        """A small object whole (a manifest).

        Raises:
            StorageError: See `read`.
        """
        return b"".join(self.read(key))

    def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        overwrite: bool = True,
    ) -> None:
        """Write a small object; it is there whole afterwards, or not at all.

        `overwrite=False` asks the store to refuse an existing key. Not every store knows how to, so that it is looked
        for before, too.

        Raises:
            ObjectExistsError: There is one, and it must not be overwritten.
            StorageError: It could not be written.
        """
        if not overwrite and self.head(key) is not None:
            raise ObjectExistsError(f"put {key}: bucket {self.bucket} holds an object of this key")
        condition: dict[str, Any] = {} if overwrite else {"IfNoneMatch": "*"}
        with self.calling("put", key):
            self.client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                Metadata={**(metadata or {}), "sha256": hashlib.sha256(body).hexdigest()},
                **condition,
            )

    def delete(self, key: str) -> None:
        """Delete an object; none of that key is as good.

        Raises:
            StorageError: It may still be there.
        """
        with self.calling("delete", key):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def delete_many(self, keys: Iterable[str]) -> int:
        """Delete objects, a thousand per request; how many were asked for.

        Raises:
            StorageError: Some may still be there; the message names the first.
        """
        wanted = list(dict.fromkeys(keys))
        for at in range(0, len(wanted), DELETE_BATCH):
            batch = wanted[at : at + DELETE_BATCH]
            with self.calling("delete", f"{batch[0]} and {len(batch) - 1} more"):
                answer = self.client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            if failed := answer.get("Errors"):
                key, code = failed[0].get("Key", ""), failed[0].get("Code", "")
                raise refused(f"delete {key} and {len(failed) - 1} more", self.bucket, code)
        return len(wanted)

    def pending(self, prefix: str) -> tuple[PendingUpload, ...]:
        """Every unfinished multipart upload below `prefix`.

        Raises:
            StorageError: They could not be listed.
        """
        found: list[PendingUpload] = []
        more: dict[str, Any] = {}
        while True:
            try:
                with self.calling("list uploads", prefix):
                    answer = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix, **more)
            except UnknownUploadError:
                return tuple(found)  # rclone's answer while there has never been one
            found += (
                PendingUpload(entry["Key"], entry["UploadId"], entry["Initiated"].astimezone(UTC))
                for entry in answer.get("Uploads", [])
                if entry["Key"].startswith(prefix)
            )
            if not answer.get("IsTruncated"):
                return tuple(found)
            last, more = more, {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}
            if more == last:
                raise IncompleteListingError(f"list uploads {prefix}: bucket {self.bucket} goes round in circles")

    def abort(self, upload: PendingUpload) -> None:
        """Give up a multipart upload and its parts; one that is gone is as good.

        Raises:
            StorageError: It may still be there.
        """
        with contextlib.suppress(UnknownUploadError), self.calling("abort upload", upload.key):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload.key, UploadId=upload.id)


def _object(key: str, answer: Mapping[str, Any], size: int) -> Object:
    return Object(key, size, answer.get("ETag", "").strip('"'), answer["LastModified"].astimezone(UTC))


def _classic_digest(request: Any, **_: Any) -> None:
    """DeleteObjects must carry a digest; MD5 is the one every store takes, boto3's CRC32 is not."""
    for name in [name for name in request.headers if name.lower().startswith(("x-amz-checksum-", "x-amz-sdk-"))]:
        del request.headers[name]
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    del request.headers["Content-MD5"]
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
