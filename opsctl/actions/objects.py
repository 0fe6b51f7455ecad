"""Objects: put originals back that are gone, from their replicas."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import click

from jobs.replicate_objects import COPIES, pairs, target_of
from opsctl.actions import Role, Severity, action
from opslib import storage_copy
from opslib.guard import Act
from opslib.storage import Object, Storage

SHOWN = 20


@click.command()
@action(
    "objects.restore",
    role=Role.SUPER,
    severity=Severity.RISKY,
    event="OPS_OBJECTS_RESTORE",
    touches="objects of the bucket",
    runbook="RestoreObjects",
)
def restore(act: Act) -> None:
    """Copy each replica whose original is gone back to its place, under OBJECT_PREFIXES.

    What is there is left as it is, whatever the replica holds; so it may be run again, and goes on where it stopped.
    """
    source, replicas = Storage.of(act.settings), target_of(act.settings)
    prefix = act.settings.replica_prefix
    lost = [one for below in act.settings.object_prefixes.split(",") for one in _lost(source, replicas, prefix, below)]
    size = sum(one.size for one in lost)
    more = [f"and {len(lost) - SHOWN} more"] if len(lost) > SHOWN else []
    shown = [one.key.removeprefix(prefix) for one in lost[:SHOWN]]
    act.plan(source.place.bucket, f"put {len(lost)} objects back ({size / 1e6:.1f} MB)", *shown, *more)

    def put_back(replica: Object) -> int:
        return storage_copy.copy(replicas, replica.key, source, replica.key.removeprefix(prefix)).size

    with act.go(), ThreadPoolExecutor(COPIES) as threads:
        done = sum(threads.map(put_back, lost))
    click.echo(f"objects put back: {len(lost)}, {done} bytes")


def _lost(source: Storage, replicas: Storage, prefix: str, below: str) -> Iterator[Object]:
    originals = (one for page in source.pages(below) for one in page)
    copies = (one for page in replicas.pages(prefix + below) for one in page)
    for pair in pairs(originals, copies, prefix):
        if pair.original is None and pair.replica is not None:
            yield pair.replica
