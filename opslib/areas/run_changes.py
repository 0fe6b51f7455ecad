"""What happens to runs, as it happens: started, progress, completed.

A notification only says where to look; what is told is what the table says then. So nothing is missed when the line was
down or a word was lost, nothing is told twice, and a run that fell silent is told although nobody lived to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from opslib.areas.queries import NAMED
from opslib.areas.runs import CHANNEL, State
from opslib.errors import SourceError
from opslib.postgres import CONNECT_TIMEOUT, Database, conninfo, explain, within

Row = dict[str, Any]

QUIET_SECONDS = 2.0
"""After that long without a word the line is tried, and the table read."""
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 2.0
ENDED = frozenset({State.SUCCESS, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to a run.

    Attributes:
        event: `queued`, `started`, `progress`, `cancelling` or `completed`.
        run: The run, as `ops_view.job_runs` shows it.
    """

    event: str
    run: Row


@dataclass(frozen=True, slots=True)
class Line:
    """What became of our connection.

    Attributes:
        lost: Why it is gone; None: it is back, and what happened meanwhile follows.
    """

    lost: str | None


class Changes:
    """Looks at runs again and again, and tells what is different.

    Args:
        dsn: The ops database.
        only: This run alone; None: all of them, from those open now on.
    """

    def __init__(self, dsn: str, only: int | None = None) -> None:
        self._dsn = dsn
        self._only = only
        self._database = Database(dsn, application_name="opsctl jobs watch", read_only=True, size=2)
        self._known: dict[int, tuple[Any, ...]] = {}
        self._last: int | None = None

    async def follow(self) -> AsyncGenerator[Change | Line]:
        """Everything from now on, for ever; first each run that is open now, as it stands."""
        await self._database.open()
        away = False
        try:
            while True:
                try:
                    async with contextlib.aclosing(self._words()) as words:
                        async for _ in words:
                            changes = await self._look()
                            if away:
                                away = False
                                yield Line(None)
                            for change in changes:
                                yield change
                except SourceError as exc:
                    if not away:
                        away = True
                        yield Line(str(exc))
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            await self._database.close()

    async def _words(self) -> AsyncGenerator[None]:
        """Each time it is worth looking: at once, at every word about a run, and when it was quiet for a while."""
        try:
            connection: psycopg.AsyncConnection[DictRow] = await asyncio.wait_for(
                psycopg.AsyncConnection.connect(
                    conninfo(self._dsn, application_name="opsctl jobs watch"), autocommit=True, row_factory=dict_row
                ),
                CONNECT_TIMEOUT + 1,
            )
            async with connection:
                await within(ANSWER_SECONDS, connection, connection.execute(f"LISTEN {CHANNEL}"))
                yield
                while True:
                    told = [word async for word in connection.notifies(timeout=QUIET_SECONDS, stop_after=1)]
                    if not told:
                        await within(ANSWER_SECONDS, connection, connection.execute("SELECT 1"))
                    if not told or any(self._ours(word.payload) for word in told):
                        yield
        except TimeoutError as exc:
            raise SourceError("Postgres does not let us in; is it hung?") from exc
        except psycopg.Error as exc:
            raise SourceError(f"Postgres: {explain(exc)}") from exc

    def _ours(self, payload: str) -> bool:
        return self._only is None or bool(json.loads(payload)["run"] == self._only)

    async def _look(self) -> list[Change]:
        """What is different from the last look."""
        if self._only is not None:
            rows = await self._database.rows(NAMED["run"].sql, {"run": self._only}, seconds=ANSWER_SECONDS)
        else:
            if self._last is None:
                rows = await self._database.rows(NAMED["runs_active"].sql, seconds=ANSWER_SECONDS)
                newest = await self._database.rows(NAMED["runs_newest"].sql, seconds=ANSWER_SECONDS)
                self._last = max(newest[0]["id"], *(row["id"] for row in rows), 0)
            else:
                asked = {"open": list(self._known), "last": self._last}
                rows = await self._database.rows(NAMED["runs_changed"].sql, asked, seconds=ANSWER_SECONDS)
            self._last = max([self._last, *(row["id"] for row in rows)])
        return [change for row in rows for change in self._compare(row)]

    def _compare(self, row: Row) -> Collection[Change]:
        before = self._known.get(row["id"])
        state, attempt, progress, asked = row["state"], row["attempt"], row["progress"], row["cancel_requested"]
        self._known[row["id"]] = (state, attempt, progress, asked)
        if before is None:
            first = "queued" if state == State.QUEUED else "started" if state == State.RUNNING else "completed"
            events = [first]
        else:
            events = []
            if state == State.QUEUED and before[0] != State.QUEUED:
                events.append("queued")  # again: it will be retried, or its worker died
            if attempt != before[1]:
                events.append("started")
            if asked and not before[3]:
                events.append("cancelling")
            if progress != before[2] and progress is not None and state == State.RUNNING:
                events.append("progress")
            if state in ENDED and before[0] not in ENDED:
                events.append("completed")
        if state in ENDED and self._only is None:
            self._known.pop(row["id"])
        return [Change(event, row) for event in events]
