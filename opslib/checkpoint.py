"""Where an exporter got to, and the counts it had then, committed together.

Position and counts are saved in one statement, so that after a crash the exporter goes on from the last position with
exactly the counts that belong to it. An advisory lock keeps two exporters of one name apart; the epoch in every save
refuses a late write of one that lost the lock.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import psycopg
import structlog
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from opslib.errors import CheckpointHeldError, OpsError, SourceError
from opslib.postgres import Connection, conninfo, explain, within
from opslib.tally import Tally, series_name

log = structlog.get_logger()

DEADLINE = 3.0  # seconds for one statement; a save is some kilobytes
STALE_EPOCH = "OPS01"


class Checkpoint:
    """One exporter's place in `ops.exporter_checkpoints` and `ops.exporter_series`.

    Args:
        name: The exporter's name, unique per place that counts: `queues/default`.
        dsn: The ops database, or None: then nothing is kept and every count is exposed as it is made.
        tally: The counts that belong to it.

    Attributes:
        position: JSON values by key, as last loaded or set; set them through `move`.
        loaded: Counting may begin.
    """

    def __init__(self, name: str, dsn: str | None, tally: Tally) -> None:
        self.name = name
        self.position: dict[str, Any] = {}
        self.loaded = dsn is None
        self._dsn = dsn
        self._tally = tally
        self._moved: dict[str, Any] = {}
        self._connection: Connection | None = None
        self._epoch = 0
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        # Before it is loaded nothing is counted here, but things happen: that is a lag, too.
        self._behind_since: float | None = None if dsn is None else time.monotonic()

    @property
    def kept(self) -> bool:
        """Is there a store at all?"""
        return self._dsn is not None

    def move(self, key: str, value: Any) -> None:
        """Now at `value`, a JSON value; saved together with the counts made up to now."""
        self.position[key] = value
        self._moved[key] = value
        if self._behind_since is None:
            self._behind_since = time.monotonic()

    def lag(self) -> float:
        """Seconds since the oldest count that is not saved yet was made, or since we wait to load; 0 when all are."""
        return 0.0 if self._behind_since is None else time.monotonic() - self._behind_since

    async def load(self) -> None:
        """Take the name, and the position and counts saved under it.

        After a lost connection the counts in memory go on, unless somebody else had the name in between: then
        what they saved is the truth.

        Raises:
            CheckpointHeldError: Another exporter holds the name.
            SourceError: The ops database is unreachable, hung, or not migrated.
        """
        if self._dsn is None or (self.loaded and self._connection is not None and not self._connection.closed):
            return
        try:
            await self._take()
        except (OpsError, psycopg.Error) as exc:
            await self.close()
            if isinstance(exc, psycopg.Error):
                raise SourceError(f"checkpoint store: {explain(exc)}") from exc
            raise

    async def _take(self) -> None:
        assert self._dsn is not None  # noqa: S101 - load() asked
        await self.close()
        connection = await psycopg.AsyncConnection.connect(
            conninfo(self._dsn, application_name=f"opsctl {self.name}"), autocommit=True, row_factory=dict_row
        )
        self._connection = connection
        locked = await self._one("SELECT pg_try_advisory_lock(hashtextextended('ops.exporter:' || %(name)s, 0)) AS ok")
        if not locked["ok"]:
            raise CheckpointHeldError(
                f"another exporter holds the checkpoint {self.name!r}; stop it, or set another OPS_EXPORTER_NAME"
            )
        stored = await self._one(
            "SELECT coalesce((SELECT epoch FROM ops.exporter_checkpoints WHERE exporter = %(name)s), 0) AS epoch"
        )
        mine = self.loaded and stored["epoch"] == self._epoch
        claimed = await self._one("SELECT ops.checkpoint_claim(%(name)s, %(owner)s) AS epoch", owner=self._owner)
        if not mine:
            await self._restore()
        self._epoch = claimed["epoch"]
        self.loaded = True
        log.info("checkpoint_taken", checkpoint=self.name, epoch=self._epoch, resumed=mine)

    async def _restore(self) -> None:
        saved = await self._one(
            """SELECT position,
                      (SELECT coalesce(jsonb_object_agg(series, value), '{}') FROM ops.exporter_series s
                       WHERE s.exporter = c.exporter) AS series
               FROM ops.exporter_checkpoints c WHERE exporter = %(name)s"""
        )
        self.position = saved["position"]
        self._moved.clear()
        self._behind_since = None
        self._tally.restore(saved["series"])

    async def _one(self, sql: str, **params: Any) -> Mapping[str, Any]:
        connection = self._connection
        if connection is None or connection.closed:
            raise SourceError("the checkpoint store is not connected")

        async def fetch() -> Mapping[str, Any]:
            cursor = await connection.execute(sql, {"name": self.name, **params})
            row = await cursor.fetchone()
            if row is None:
                raise SourceError(f"checkpoint {self.name!r} vanished from the ops database")
            return row

        return await within(DEADLINE, connection, fetch())

    async def save(self) -> None:
        """Commit the position and the counts made up to now, then show them.

        Raises:
            CheckpointHeldError: Another exporter took the name; what was counted since the last save is theirs.
            SourceError: The store is away; everything is kept for the next call.
        """
        if not self.kept:
            self._moved.clear()
            self._behind_since = None
            return
        await self.load()
        values, moved, since = self._tally.take(), self._moved, self._behind_since
        if not values and not moved:
            return
        self._moved, self._behind_since = {}, None
        try:
            await self._one(
                """SELECT ops.checkpoint_save(%(name)s, %(epoch)s, %(position)s,
                                              %(series)s::text[], %(values)s::jsonb[]) AS saved_at""",
                epoch=self._epoch,
                position=Jsonb(moved),
                series=[series_name(key) for key in values],
                values=[json.dumps(value) for value in values.values()],
            )
        except (SourceError, psycopg.Error) as exc:
            self._tally.put_back(values)
            self._moved = {**moved, **self._moved}
            self._behind_since = since
            await self.close()
            if isinstance(exc, psycopg.Error):
                if exc.sqlstate == STALE_EPOCH:
                    self.loaded = False
                    raise CheckpointHeldError(f"another exporter took the checkpoint {self.name!r}") from exc
                raise SourceError(f"checkpoint store: {explain(exc)}") from exc
            raise
        self._tally.commit(values)

    async def close(self) -> None:
        """Let go of the name."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
