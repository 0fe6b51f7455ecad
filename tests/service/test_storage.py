"""A bucket, on three servers: what is listed is all, what is uploaded is whole or absent, what is read is complete."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from typing import Any

import pytest
from pydantic import SecretStr

from opslib import storage_copy
from opslib.errors import StorageError
from opslib.storage import Place, Storage
from opslib.storage_errors import IncompleteListingError, MissingObjectError, ObjectExistsError
from opslib.storage_upload import PART_BYTES, Upload
from tests.service.faulty_proxy import faulty_proxy

NOISE = random.Random(4).randbytes(2 * PART_BYTES + 12_345)


@pytest.fixture
def storage(s3: Place) -> Storage:
    """The bucket."""
    return Storage(s3, timeout=5, attempts=2)


def test_small_objects(storage: Storage) -> None:
    """Written, read, described, deleted; twice is as good; empty ones, too."""
    for _ in range(2):
        storage.put("a/one", b"hello")
        storage.put("a/empty", b"")
    assert storage.get("a/one") == b"hello"
    assert storage.get("a/empty") == b""
    found = storage.head("a/one")
    assert found is not None
    assert found.size == 5
    assert found.modified.utcoffset() is not None
    for _ in range(2):
        storage.delete("a/one")
    assert storage.head("a/one") is None
    with pytest.raises(MissingObjectError, match="no such object"):
        storage.get("a/one")


def test_nothing_is_overwritten_unasked(storage: Storage) -> None:
    """An existing key is refused, small or large, and keeps its content."""
    storage.put("a", b"first", overwrite=False)
    with pytest.raises(ObjectExistsError):
        storage.put("a", b"second", overwrite=False)
    with pytest.raises(ObjectExistsError), Upload(storage, "a") as upload:  # noqa: PT012 - a block is what it takes
        upload.write(b"second")
        upload.commit()
    assert storage.get("a") == b"first"


def test_large_upload_whole_or_absent(storage: Storage) -> None:
    """Committed: there with its digest. Not committed, or failed: neither object nor parts."""
    with Upload(storage, "big") as upload:
        for at in range(0, len(NOISE), 700_001):
            upload.write(NOISE[at : at + 700_001])
        assert storage.head("big") is None
        upload.commit()
    assert upload.sha256 == hashlib.sha256(NOISE).hexdigest()
    assert upload.size == len(NOISE)
    assert upload.confirmed
    assert hashlib.sha256(storage.get("big")).hexdigest() == upload.sha256
    with Upload(storage, "left") as upload:
        upload.write(NOISE)
    with pytest.raises(RuntimeError), Upload(storage, "failed") as upload:  # noqa: PT012 - a block is what it takes
        upload.write(NOISE)
        raise RuntimeError
    assert [one.key for one in storage.list("")] == ["big"]
    assert storage.pending("") == ()


@pytest.mark.parametrize("said", [{}, {"ETag": ""}, {"ETag": '"0123456789abcdef0123456789abcdef-3"'}])
def test_an_upload_is_not_confirmed_by_another_etag(storage: Storage, said: dict[str, str]) -> None:
    """A store that completes and does not name the digest of the parts' digests has confirmed nothing."""
    complete = storage.client.complete_multipart_upload

    def answer(**asked: Any) -> Any:
        complete(**asked)
        return said

    storage.client.complete_multipart_upload = answer  # type: ignore[method-assign]
    with Upload(storage, "big") as upload:
        upload.write(NOISE)
        upload.commit()
    assert not upload.confirmed
    assert storage.get("big") == NOISE


def test_listing_is_complete(storage: Storage) -> None:
    """More than a page; a prefix that is also the beginning of another; then all of it deleted at once."""
    keys = sorted([f"many/{n:04}" for n in range(1_050)] + ["many/ä &<+ %"])
    for key in [*keys, "manyfold", "other/x"]:
        storage.put(key, b"z")
    assert [one.key for one in storage.list("many/")] == sorted(keys, key=str.encode)
    assert storage.delete_many(keys) == len(keys)
    assert storage.list("many/") == ()
    assert [one.key for one in storage.list("")] == ["manyfold", "other/x"]


def test_page_lost_is_no_listing(storage: Storage) -> None:
    """A second page that cannot be had is an error, not a short listing; nor is one that says nothing of its end."""
    for n in range(1_001):
        storage.put(f"x/{n:04}", b"")
    with faulty_proxy(storage.place.endpoint) as proxy:
        proxy.rule = lambda _, target: 503 if "continuation-token" in target else None
        with pytest.raises(StorageError, match="status page"):
            Storage(dataclasses.replace(storage.place, endpoint=proxy.endpoint), attempts=2).list("x/")
    client = storage.client
    whole = client.list_objects_v2
    client.list_objects_v2 = lambda **asked: {  # type: ignore[method-assign, assignment, return-value]
        name: value for name, value in whole(**asked).items() if name != "IsTruncated"
    }
    with pytest.raises(IncompleteListingError):
        storage.list("x/")


def test_broken_read_is_resumed(storage: Storage) -> None:
    """A connection that breaks in the middle: the read goes on where it was."""
    storage.put("big", NOISE)
    read = storage.read("big")
    first = next(read)
    real = storage.client.get_object
    asked = []
    storage.client.get_object = lambda **more: asked.append(more) or real(**more)  # type: ignore[method-assign, func-returns-value, return-value]
    frame = read.gi_frame.f_locals  # type: ignore[attr-defined]
    frame["body"]._raw_stream.close()
    rest = b"".join(read)
    assert first + rest == NOISE
    assert [one["Range"] for one in asked] == [f"bytes={len(first)}-"]


def test_copy(storage: Storage, strict_r2: Place) -> None:
    """Within the store and from another account; what is missing is said."""
    storage.put("a", b"content")
    assert storage_copy.copy(storage, "a", storage, "b").size == 7
    elsewhere = Storage(strict_r2)
    elsewhere.put("far", NOISE)
    assert storage_copy.copy(elsewhere, "far", storage, "near").size == len(NOISE)
    assert storage.get("near") == NOISE
    with pytest.raises(MissingObjectError):
        storage_copy.copy(elsewhere, "nothing", storage, "near")


def test_wrong_secret_and_no_server(strict_r2: Place, rclone_s3: Place) -> None:
    """The message says what to check, and holds no secret."""
    for place in (strict_r2, rclone_s3):
        with pytest.raises(StorageError, match="check the access key") as failed:
            Storage(dataclasses.replace(place, secret_access_key=SecretStr("hunter2hunter2"))).list("")
        assert "hunter2" not in str(failed.value)
    with pytest.raises(StorageError, match="check the endpoint"):
        Storage(dataclasses.replace(strict_r2, endpoint="http://127.0.0.1:9"), attempts=1).list("")
