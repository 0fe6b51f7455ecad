"""Two listings side by side: every key once, in bounded memory; and replicas never among the originals."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.replicate_objects import pairs, target_of
from opslib import settings
from opslib.errors import ConfigError
from opslib.storage import Object

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.dictionaries(st.text(max_size=4), st.tuples(st.integers(0, 1), st.sampled_from("ab")), max_size=30)


def listing(objects: dict[str, tuple[int, str]], prefix: str = "") -> list[Object]:
    """As a store lists them."""
    named = {prefix + key: value for key, value in objects.items()}
    return [Object(key, *named[key], THEN) for key in sorted(named, key=str.encode)]


@given(NAMES, NAMES)
def test_every_key_once(ours: dict[str, tuple[int, str]], theirs: dict[str, tuple[int, str]]) -> None:
    """What differs or is missing is copied, what is extra is seen, in order, whatever the keys are made of."""
    found = list(pairs(listing(ours), listing(theirs, "to/"), "to/"))
    names = [
        pair.original.key if pair.original else pair.replica.key[3:] for pair in found if pair.original or pair.replica
    ]
    assert names == sorted(ours.keys() | theirs.keys(), key=str.encode)
    assert {p.original.key for p in found if p.original and p.differs} == {k for k in ours if theirs.get(k) != ours[k]}
    assert {p.replica.key[3:] for p in found if p.replica and not p.original} == theirs.keys() - ours.keys()


@pytest.mark.parametrize(
    ("etag", "hours", "copied"), [("a", -5, False), ("b", 5, True), ("b-2", 5, False), ("b-2", -5, True)]
)
def test_marks_of_parts_say_nothing(etag: str, hours: int, copied: bool) -> None:  # noqa: FBT001 - a parameter
    """Marks differ between stores for objects of parts: then a copy that is newer and as long counts as one."""
    replica = Object("to/x", 1, etag, THEN + timedelta(hours=hours))
    (pair,) = pairs([Object("x", 1, "a", THEN)], [replica], "to/")
    assert pair.differs is copied


@pytest.mark.parametrize(
    ("env", "ok"),
    [
        ({}, True),
        ({"REPLICA_PREFIX": "orders/"}, False),
        ({"REPLICA_PREFIX": "orders/copy/"}, False),
        ({"OBJECT_PREFIXES": "keys,orders/"}, False),  # keys-backup/ begins with keys
        ({"OBJECT_PREFIXES": "keys/,orders/"}, True),
        ({"REPLICA_PREFIX": "orders/", "REPLICA_BUCKET": "other"}, True),
        ({"REPLICA_PREFIX": "orders/", "REPLICA_ENDPOINT": "http://127.0.0.2:1"}, True),
    ],
)
def test_never_among_the_originals(env: dict[str, str], ok: bool) -> None:  # noqa: FBT001 - a parameter
    """In one bucket, replicas of replicas would be made for ever: refused before anything is copied."""
    place = {
        "R2_ENDPOINT": "http://127.0.0.1:1",
        "R2_BUCKET": "b",
        "R2_ACCESS_KEY_ID": "k",
        "R2_SECRET_ACCESS_KEY": "s",
    }
    loaded = settings.load({**place, **env})
    if ok:
        assert target_of(loaded).bucket == env.get("REPLICA_BUCKET", "b")
    else:
        with pytest.raises(ConfigError, match="would lie among the originals"):
            target_of(loaded)


@pytest.mark.parametrize(
    ("text", "why"), [("a/,,b/", "write prefixes"), ("/a", "write prefixes"), ("a/,a/b/", "within")]
)
def test_prefixes_are_checked(text: str, why: str) -> None:
    """A prefix that would list nothing, everything, or the same twice is refused when the settings are read."""
    with pytest.raises(ConfigError, match=why):
        settings.load({"OBJECT_PREFIXES": text})


CHILD = """
import resource, sys
from datetime import UTC, datetime
from jobs.replicate_objects import Replication
from opslib import settings, storage_copy
from opslib.run import Run
from opslib.storage import Object
THEN = datetime(2026, 1, 1, tzinfo=UTC)
class Fake:
    def __init__(self, prefix, step): self.prefix, self.step = prefix, step
    def pages(self, below):
        for at in range(0, int(sys.argv[1]), 1000):
            yield tuple(Object(f"{self.prefix}orders/{n:08}/key.txt", 40, f"{n:032x}", THEN)
                        for n in range(at, at + 1000) if n % self.step)
    def head(self, key):
        return Object(key, 40, f"{int(key.split('/')[1]):032x}", THEN)
storage_copy.copy = lambda source, source_key, target, key: Object(
    key, 40, f"{int(source_key.split('/')[1]):032x}", THEN)
run = Run(1, "x", settings.load({}), None, 1, "schedule", lambda _: None, lambda: False)
replication = Replication(Fake("", 10**9), Fake("to/", 100), "to/", run)
replication.copy("orders/")
result = replication.finish()
print(result.objects, result.copied, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_bucket() -> None:
    """A million objects, ten thousand of them to copy, take the memory of a hundred thousand."""

    def measured(objects: int) -> int:
        done = subprocess.run([sys.executable, "-c", CHILD, str(objects)], check=True, capture_output=True, text=True)
        listed, copied, kilobytes = map(int, done.stdout.split())
        assert (listed, copied) == (objects - 1, objects // 100 - 1)
        return kilobytes

    few, many = measured(100_000), measured(1_000_000)
    assert many - few < 4096, f"{few} kB, then {many} kB"
