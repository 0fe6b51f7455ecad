"""The job `replicate-objects` between real buckets: incremental, resumable, proven, and it deletes only when told."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from demo.processes import private_directory
from demo.s3 import s3_server
from jobs import replicate_objects
from jobs.replicate_objects import JOB, Params, Result
from opslib import storage_copy
from opslib.errors import CancelledError, JobError, StorageError
from opslib.storage import Place, Storage
from tests.service import s3_kit
from tests.service.job_kit import a_run


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Place]:
    """A bucket on another server, under another account."""
    with private_directory() as directory, s3_server(directory, ("second",)) as server:
        env = {"R2_ACCESS_KEY_ID": server.access_key_id, "R2_SECRET_ACCESS_KEY": server.secret_access_key}
        place = s3_kit.place_of({**env, "R2_ENDPOINT": server.endpoint, "R2_BUCKET": "second"})
        yield place


@pytest.fixture
def storage(s3: Place) -> Storage:
    """The originals: twenty keys of customers, and something that is none."""
    storage = Storage(s3)
    for n in range(20):
        storage.put(f"orders/{n:02}/key.txt", f"KEY-{n}".encode())
    storage.put("backups/db/2026-01-01.sql.gz", b"a backup")
    return storage


def replicate(s3: Place, *, delete: bool = False, run: dict[str, Any] | None = None, **env: str) -> Result:
    """One run."""
    return replicate_objects.run(a_run(JOB.name, **(run or {}), **s3_kit.env_at(s3), **env), Params(delete=delete))


def content(storage: Storage, below: str) -> dict[str, bytes]:
    """What is there."""
    return {one.key.removeprefix(below): storage.get(one.key) for one in storage.list(below)}


def to(place: Place) -> dict[str, str]:
    """The settings of another bucket as the target."""
    return {
        "REPLICA_ENDPOINT": place.endpoint,
        "REPLICA_BUCKET": place.bucket,
        "REPLICA_ACCESS_KEY_ID": place.access_key_id.get_secret_value(),
        "REPLICA_SECRET_ACCESS_KEY": place.secret_access_key.get_secret_value(),
    }


def test_copies_what_is_missing_or_differs(s3: Place, storage: Storage) -> None:
    """All at first, then nothing, then the changed, the damaged and the new one; what is no key is not copied."""
    assert replicate(s3) == Result(objects=20, copied=20, bytes=110)
    assert content(storage, "keys-backup/orders/") == content(storage, "orders/")
    assert replicate(s3).copied == 0
    storage.put("orders/03/key.txt", b"CHANGED")
    storage.put("keys-backup/orders/04/key.txt", b"BIT-4")  # as long as the original
    storage.put("orders/99/key.txt", b"NEW")
    assert replicate(s3).copied == 3
    assert content(storage, "keys-backup/orders/") == content(storage, "orders/")
    assert {one.key.split("/")[0] for one in storage.list("")} == {"orders", "backups", "keys-backup"}


def test_to_another_account(s3: Place, storage: Storage, elsewhere: Place) -> None:
    """Through us, with the same bytes; the second run copies nothing, the originals are untouched."""
    other = Storage(elsewhere)
    other.delete_many(one.key for one in other.list(""))
    before = content(storage, "")
    assert replicate(s3, **to(elsewhere)).copied == 20
    assert content(other, "keys-backup/") == {key: body for key, body in before.items() if key.startswith("orders/")}
    assert replicate(s3, **to(elsewhere)).copied == 0
    assert content(storage, "") == before


def test_deletes_only_when_told(s3: Place, storage: Storage) -> None:
    """Replicas outlive their originals until somebody says so; and not all at once."""
    replicate(s3)
    storage.delete("orders/07/key.txt")
    assert replicate(s3).extra == 1
    assert "07/key.txt" in content(storage, "keys-backup/orders/")
    assert replicate(s3, delete=True).deleted == 1
    assert content(storage, "keys-backup/orders/") == content(storage, "orders/")
    storage.delete_many(one.key for one in storage.list("orders/"))
    with pytest.raises(JobError, match="19 of 19 replicas have no original: none was deleted"):
        replicate(s3, delete=True)
    assert len(storage.list("keys-backup/")) == 19


def test_one_object_that_fails(s3: Place, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are copied, the run fails with its name, the next copies that one alone; vanished is no failure."""
    real = storage_copy.copy

    def copy(source: Storage, source_key: str, target: Storage, key: str) -> Any:
        if "/05/" in key:
            raise StorageError(f"copy {source_key}: it is cursed")
        if "/06/" in key:
            source.delete(source_key)
        return real(source, source_key, target, key)

    monkeypatch.setattr(storage_copy, "copy", copy)
    with pytest.raises(
        JobError, match=r"1 of 20 objects could not be copied, 18 were; the first: copy orders/05/key\.txt"
    ):
        replicate(s3)
    monkeypatch.undo()
    assert replicate(s3).copied == 1
    assert content(storage, "keys-backup/orders/") == content(storage, "orders/")


@pytest.mark.usefixtures("storage")
def test_other_bytes_are_no_copy(s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that says it copied and holds something else of that length is found out."""
    real = storage_copy.copy

    def copy(source: Storage, source_key: str, target: Storage, key: str) -> Any:
        copied = real(source, source_key, target, key)
        if "/05/" in key:
            target.put(key, b"x" * copied.size)
            return target.head(key)
        return copied

    monkeypatch.setattr(storage_copy, "copy", copy)
    with pytest.raises(JobError, match="the replica holds other bytes"):
        replicate(s3)


def test_cancelled_and_hung(s3: Place, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled run stops at once and leaves whole objects only; the next does the rest."""
    with pytest.raises(CancelledError):
        replicate(s3, run={"is_cancelled": lambda: True})
    monkeypatch.setattr(replicate_objects, "FAILURES", 3)
    monkeypatch.setattr(storage_copy, "copy", lambda *_: (_ for _ in ()).throw(StorageError("no answer")))
    with pytest.raises(JobError, match="could not be copied"):
        replicate(s3)
    monkeypatch.undo()
    replicate(s3)
    assert content(storage, "keys-backup/orders/") == content(storage, "orders/")


CHILD = """
from jobs import replicate_objects
from opslib import settings
from opslib.run import Run
run = Run(1, "x", settings.load(), None, 1, "schedule", lambda _: None, lambda: False)
replicate_objects.run(run, replicate_objects.Params())
"""


def test_killed_it_goes_on(rclone_s3: Place) -> None:
    """Kill -9 in the middle: what was copied is whole and is not copied again."""
    storage = Storage(rclone_s3)
    storage.delete_many(one.key for one in storage.list(""))
    for n in range(300):
        storage.put(f"orders/{n:03}/key.txt", f"KEY-{n}".encode())
    child = subprocess.Popen([sys.executable, "-c", CHILD], env=s3_kit.env_at(rclone_s3))
    while not 20 < len(storage.list("keys-backup/")) < 300:
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    there = content(storage, "keys-backup/orders/")
    originals = content(storage, "orders/")
    assert 20 < len(there) < 300
    assert there.items() <= originals.items()
    assert replicate(rclone_s3).copied == 300 - len(there)
    assert content(storage, "keys-backup/orders/") == originals
