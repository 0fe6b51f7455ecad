"""Copy the objects of some prefixes elsewhere: the keys customers bought lie in one bucket, and a bucket can be lost.

Invariant: after a run each object listed at its start is at the target, with the same bytes; nothing is deleted there
unless told. Both sides are listed in the order of their keys and compared side by side, a page of each in memory, so a
million objects cost what a thousand do; what is there already is not copied again, so a run that died costs what it had
left. Sources: the listing order is S3's (UTF-8 bytes), which `Storage.pages` checks.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from opslib import storage_copy
from opslib.errors import ConfigError, JobError, StorageError
from opslib.run import Run
from opslib.settings import Settings
from opslib.spec import Cron, Job
from opslib.storage import DELETE_BATCH, Object, Place, Storage
from opslib.storage_errors import MissingObjectError

COPIES = 8
"""Objects copied at a time."""
FAILURES = 20
"""So many failed copies are not the objects' fault: the run ends."""
DELETED_SHARE = 0.5
"""If more of the replicas than this have no original, it is the originals that are missing."""


class Params(BaseModel):
    """How."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delete: bool = Field(default=False, description="Afterwards delete replicas whose original is gone.")


JOB = Job(
    name="replicate-objects",
    title="Objects copied to a second place",
    schedule=Cron("17 * * * *"),  # off the full hour, when everybody asks
    max_age=3 * 3600,
    timeout=12 * 3600,  # a first run copies everything
    retries=2,
    retry_after=300,
    params=Params,
    needs=("R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
)


class Result(BaseModel):
    """What was found and done.

    Attributes:
        objects: Originals listed.
        copied: Copied, and found to be the same afterwards.
        bytes: Of those.
        vanished: Deleted by the application between the listing and the copy.
        extra: Replicas without an original.
        deleted: Those of them deleted.
    """

    objects: int = 0
    copied: int = 0
    bytes: int = 0
    vanished: int = 0
    extra: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """An original and its replica; one of them may be missing."""

    original: Object | None
    replica: Object | None

    @property
    def differs(self) -> bool:
        """Must it be copied?"""
        if self.original is None or self.replica is None:
            return self.original is not None
        return not _same(self.original, self.replica)


def pairs(originals: Iterable[Object], replicas: Iterable[Object], prefix: str) -> Iterator[Pair]:
    """Both listings side by side, in the order of their keys.

    Args:
        originals: In order.
        replicas: In order; each key is `prefix` and the original's.
        prefix: Of the replicas.
    """
    left, right = iter(originals), iter(replicas)
    original, replica = next(left, None), next(right, None)
    while original or replica:
        # By bytes, as S3 lists them.
        ours = original.key.encode() if original else None
        theirs = replica.key.removeprefix(prefix).encode() if replica else None
        take_left = ours is not None and (theirs is None or ours <= theirs)
        take_right = theirs is not None and (ours is None or theirs <= ours)
        yield Pair(original if take_left else None, replica if take_right else None)
        original = next(left, None) if take_left else original
        replica = next(right, None) if take_right else replica


def _same(original: Object, replica: Object) -> bool:
    if original.size != replica.size:
        return False
    # A mark with a dash is of parts and says nothing about another store's: a newer copy of that size is taken for it.
    return original.etag == replica.etag or (
        ("-" in original.etag or "-" in replica.etag) and replica.modified >= original.modified
    )


class Replication:
    """One run.

    Args:
        source: The originals' bucket.
        target: The replicas' bucket.
        prefix: Put before each replica's key.
        run: For progress and cancellation.
    """

    def __init__(self, source: Storage, target: Storage, prefix: str, run: Run) -> None:
        self.result = Result()
        self._source = source
        self._target = target
        self._prefix = prefix
        self._run = run
        self._replicas = 0
        self._failures: list[str] = []
        self._lock = threading.Lock()

    def copy(self, below: str) -> None:
        """Copy what is missing or differs below one prefix.

        Raises:
            StorageError: A listing could not be had in full.
            JobError: Too many copies failed.
        """
        under_way: set[Future[None]] = set()
        with ThreadPoolExecutor(COPIES, "copy") as threads:
            try:
                for pair in self._pairs(below):
                    self._count(pair)
                    if not pair.differs:
                        continue
                    assert pair.original is not None  # noqa: S101 - or it would not differ
                    under_way.add(threads.submit(self._copy, pair.original))
                    if len(under_way) >= 2 * COPIES:  # no more wait than there is work for
                        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                        self._look_at(done)
                self._look_at(wait(under_way).done)
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise

    def delete(self, below: str) -> None:
        """Delete replicas below one prefix whose original is gone; listed anew, so that what came back stays.

        Raises:
            JobError: So many originals are gone that it must be a mistake; nothing was deleted.
            StorageError: A listing could not be had in full, or a deletion failed.
        """
        if self.result.extra > DELETED_SHARE * self._replicas:
            raise JobError(
                f"{self.result.extra} of {self._replicas} replicas have no original: none was deleted; look whether "
                "OBJECT_PREFIXES and R2_BUCKET still name the originals"
            )
        gone: list[str] = []
        for pair in self._pairs(below):
            if self.result.deleted + len(gone) == self.result.extra:
                break  # never more than were counted above: the originals may have been lost since
            if pair.original is None and pair.replica is not None:
                gone.append(pair.replica.key)
            if len(gone) == DELETE_BATCH:
                self.result.deleted += self._target.delete_many(gone)
                gone.clear()
                self._run.check_cancelled()
        self.result.deleted += self._target.delete_many(gone)

    def finish(self) -> Result:
        """What came of it.

        Raises:
            JobError: Some objects could not be copied; the next run tries those again.
        """
        if self._failures:
            raise JobError(
                f"{len(self._failures)} of {self.result.objects} objects could not be copied, {self.result.copied} "
                f"were; the first: {self._failures[0]}"
            )
        return self.result

    def _pairs(self, below: str) -> Iterator[Pair]:
        originals = (one for page in self._source.pages(below) for one in page)
        replicas = (one for page in self._target.pages(self._prefix + below) for one in page)
        return pairs(originals, replicas, self._prefix)

    def _count(self, pair: Pair) -> None:
        self.result.objects += pair.original is not None
        self.result.extra += pair.original is None
        self._replicas += pair.replica is not None
        if pair.differs or self.result.objects % 100 == 0:
            self._run.progress(self.result.objects, unit="objects", note=f"{self.result.copied} copied")
            self._run.check_cancelled()

    def _copy(self, original: Object) -> None:
        try:
            copy = storage_copy.copy(self._source, original.key, self._target, self._prefix + original.key)
            self._verify(original, copy)
        except MissingObjectError:
            with self._lock:
                self.result.vanished += 1
        except StorageError as exc:
            with self._lock:
                self._failures.append(str(exc))
        else:
            with self._lock:
                self.result.copied += 1
                self.result.bytes += copy.size

    def _verify(self, original: Object, copy: Object) -> None:
        """Does the copy hold what the original holds? By the stores' marks, else by reading both."""
        now = self._source.head(original.key)
        if now is None or now.etag != original.etag:
            return  # it changed since it was listed: the next run's business
        if copy.etag != now.etag and _digest(self._target, copy.key) != _digest(self._source, original.key):
            raise StorageError(
                f"copy {original.key}: the replica holds other bytes; look at both, the next run tries again"
            )

    def _look_at(self, done: Iterable[Future[None]]) -> None:
        for future in done:
            future.result()
        if len(self._failures) >= FAILURES:
            self.finish()


def _digest(storage: Storage, key: str) -> str:
    digest = hashlib.sha256()
    for chunk in storage.read(key):
        digest.update(chunk)
    return digest.hexdigest()


def target_of(settings: Settings) -> Storage:
    """The replicas' bucket.

    Raises:
        ConfigError: The replicas would lie among the originals, or a setting is missing.
    """
    source = Storage.of(settings).place
    endpoint = settings.replica_endpoint or source.endpoint
    bucket = settings.replica_bucket or source.bucket
    key, secret = source.access_key_id, source.secret_access_key
    if settings.has("REPLICA_ACCESS_KEY_ID"):
        key = SecretStr(settings.reveal("REPLICA_ACCESS_KEY_ID"))
        secret = SecretStr(settings.reveal("REPLICA_SECRET_ACCESS_KEY"))
    if (endpoint, bucket) == (source.endpoint, source.bucket):
        for below in settings.object_prefixes.split(","):
            replicas = settings.replica_prefix + below
            if any(replicas.startswith(one) or one.startswith(replicas) for one in settings.object_prefixes.split(",")):
                raise ConfigError(
                    f"replicas of {below} would lie among the originals: set REPLICA_PREFIX or REPLICA_BUCKET"
                )
    return Storage(Place(endpoint, bucket, key, secret, source.region))


def run(run: Run, params: Params) -> Result:
    """Copy, and only if told delete.

    Raises:
        ConfigError: See `target_of`.
        JobError: Some objects could not be copied; the others are there.
        StorageError: A listing could not be had in full; what was copied stays.
    """
    settings = run.settings.require(*JOB.needs)
    replication = Replication(Storage.of(settings), target_of(settings), settings.replica_prefix, run)
    prefixes = settings.object_prefixes.split(",")
    for below in prefixes:
        replication.copy(below)
    result = replication.finish()
    if params.delete and result.extra:
        for below in prefixes:
            replication.delete(below)
    return result
