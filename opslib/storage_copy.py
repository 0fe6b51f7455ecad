"""Copying one object between two places."""

from __future__ import annotations

from opslib.errors import StorageError
from opslib.storage import Object, Storage
from opslib.storage_errors import MissingObjectError
from opslib.storage_upload import Upload

COPY_BYTES = 512 * 1024 * 1024
"""Above this a copy goes through us: the store would be silent for longer than a request may be."""


def copy(source: Storage, source_key: str, target: Storage, key: str) -> Object:
    """Copy one object: by the store itself within one account, else through us; what it is at the target.

    Raises:
        MissingObjectError: The source is not there.
        StorageError: The copy did not come about, or has another size.
    """
    before = source.head(source_key)
    if before is None:
        raise MissingObjectError(f"copy {source_key}: bucket {source.bucket} holds no such object")
    ours, theirs = target.place, source.place
    same = (ours.endpoint, ours.access_key_id) == (theirs.endpoint, theirs.access_key_id)
    if same and before.size <= COPY_BYTES:
        with target.calling("copy", key):
            target.client.copy_object(
                Bucket=target.bucket,
                Key=key,
                CopySource={"Bucket": source.bucket, "Key": source_key},
                CopySourceIfMatch=f'"{before.etag}"',
            )
    else:
        with Upload(target, key, expected=before.size) as upload:
            for chunk in source.read(source_key):
                upload.write(chunk)
            upload.commit(overwrite=True)
    after = target.head(key)
    if after is None or after.size != before.size:
        raise StorageError(f"copy {key}: bucket {target.bucket} does not hold what was copied; try again")
    return after
