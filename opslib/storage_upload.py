"""One large object on its way: equal parts, few of them in memory, finished by `commit` alone.

A store makes an object of parts at once and only when told to (CompleteMultipartUpload). So whatever ends the sender
before, nothing has that key; at worst parts stay behind, which `Storage.pending` shows and `abort` removes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from opslib.errors import StorageError
from opslib.storage import PendingUpload, Storage
from opslib.storage_errors import ObjectExistsError

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 8 * 1024 * 1024
"""All parts but the last have one size, as R2 asks: this one, unless more than `MAX_PARTS` of it are expected."""
MAX_PARTS = 10_000
"""S3 takes no more."""
IN_FLIGHT = 3
"""Parts being sent at a time: with the one being filled, four stand in memory."""


class Upload:
    """Writes a large object.

    A context manager: what is not committed in the block is aborted::

        with Upload(storage, key) as upload:
            for chunk in chunks:
                upload.write(chunk)
            upload.commit()

    Args:
        storage: The bucket.
        key: What it will be.
        content_type: Its type.
        expected: The most bytes it may have; 0: nobody knows.

    Attributes:
        size: Bytes written so far.
        confirmed: Did the store, on completing, name the parts' own digests: that it holds these parts, all, in order?
            Not every store does; of what is not confirmed, ask `Storage.head`.
    """

    def __init__(
        self, storage: Storage, key: str, *, content_type: str = "application/octet-stream", expected: int = 0
    ) -> None:
        self.size = 0
        self.confirmed = False
        self._storage = storage
        self._key = key
        self._content_type = content_type
        self._part_bytes = max(PART_BYTES, -(-expected // MAX_PARTS))
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._begun: PendingUpload | None = None
        self._sending: deque[Future[CompletedPartTypeDef]] = deque()
        self._sent: list[CompletedPartTypeDef] = []
        self._threads = ThreadPoolExecutor(IN_FLIGHT, "upload")
        self._committed = False

    @property
    def sha256(self) -> str:
        """Of every byte written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Append; waits while enough parts are on their way.

        Raises:
            StorageError: A part before could not be sent.
        """
        self._digest.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            taken = view[: self._part_bytes - len(self._buffer)]
            self._buffer += taken
            view = view[len(taken) :]
            if len(self._buffer) == self._part_bytes:
                self._send()

    def commit(self, *, overwrite: bool = False) -> None:
        """Make the object of what was written. Its digest must be what the caller wants by now.

        Raises:
            ObjectExistsError: The key is taken, and must not be overwritten.
            StorageError: There is no such object now, or nobody knows.
        """
        if not overwrite and self._storage.head(self._key) is not None:
            raise ObjectExistsError(f"upload {self._key}: bucket {self._storage.bucket} holds an object of this key")
        if self._begun is None:  # all of it fits into one request
            self._once(overwrite=overwrite)
        else:
            if self._buffer:
                self._send()
            while self._sending:
                self._sent.append(self._sending.popleft().result())
            self._complete(self._begun)
        self._committed = True

    def __enter__(self) -> Self:
        """Nothing is sent yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Abort what is not committed; what cannot be aborted now is left to the next run, and said so."""
        self._threads.shutdown(cancel_futures=True)
        if self._committed or self._begun is None:
            return
        try:
            self._storage.abort(self._begun)
        except StorageError as failed:
            structlog.get_logger().warning("upload.not_aborted", key=self._key, error=str(failed))

    def _send(self) -> None:
        if self._begun is None:
            self._begun = self._begin()
        number = len(self._sent) + len(self._sending) + 1
        if number > MAX_PARTS:
            raise StorageError(f"upload {self._key}: more than {MAX_PARTS} parts of {self._part_bytes} bytes")
        while len(self._sending) >= IN_FLIGHT:
            self._sent.append(self._sending.popleft().result())
        part, self._buffer = bytes(self._buffer), bytearray()
        self._sending.append(self._threads.submit(self._part, self._begun, number, part))

    def _begin(self) -> PendingUpload:
        storage = self._storage
        with storage.calling("begin upload", self._key):
            answer = storage.client.create_multipart_upload(
                Bucket=storage.bucket, Key=self._key, ContentType=self._content_type
            )
        return PendingUpload(self._key, answer["UploadId"], datetime.now(UTC))

    def _part(self, upload: PendingUpload, number: int, body: bytes) -> CompletedPartTypeDef:
        storage = self._storage
        with storage.calling(f"upload part {number} of", self._key):
            answer = storage.client.upload_part(
                Bucket=storage.bucket, Key=self._key, UploadId=upload.id, PartNumber=number, Body=body
            )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _once(self, *, overwrite: bool) -> None:
        try:
            self._storage.put(self._key, bytes(self._buffer), content_type=self._content_type, overwrite=overwrite)
        except StorageError:
            if not self._is_there():
                raise

    def _complete(self, upload: PendingUpload) -> None:
        storage = self._storage
        try:
            with storage.calling("complete upload", self._key):
                answer = storage.client.complete_multipart_upload(
                    Bucket=storage.bucket, Key=self._key, UploadId=upload.id, MultipartUpload={"Parts": self._sent}
                )
            self.confirmed = answer.get("ETag", "").strip('"') == _of_parts(self._sent)
        except StorageError:
            # The store may have done it and only the answer was lost; a repetition then finds no such upload.
            if not self._is_there():
                raise

    def _is_there(self) -> bool:
        """After an error: is this very content under the key all the same? Read to the last byte, for certainty."""
        there = self._storage.head(self._key)
        if there is None or there.size != self.size:
            return False
        digest = hashlib.sha256()
        for chunk in self._storage.read(self._key):
            digest.update(chunk)
        return digest.digest() == self._digest.digest()


def _of_parts(parts: Iterable[CompletedPartTypeDef]) -> str:
    """The ETag of an object made of these parts, as S3, R2 and most others form it; empty: theirs are no digests."""
    digests = [part["ETag"].strip('"') for part in parts]
    try:
        joined = b"".join(bytes.fromhex(digest) for digest in digests)
    except ValueError:
        return ""
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(digests)}"
