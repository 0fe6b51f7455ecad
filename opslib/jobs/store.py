"""What a process of ours asks of the ops database, each one call of a function of migration 0005."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from opslib.errors import OpsError, SourceError
from opslib.postgres import Database

_GIVEN_UP = "OPS02"


class GivenUpError(OpsError):
    """This process was silent for so long that its work was given to others."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One attempt this process holds.

    Attributes:
        attempt: Its fencing token.
        number: From 1.
        run: The run.
        job: The job's name.
        queue: Where it came from.
        slot: When it was due; None: asked for by a person.
        params: As they were queued.
        triggered_by: `schedule`, or who asked.
        timeout_seconds: How long it may take.
    """

    attempt: int
    number: int
    run: int
    job: str
    queue: str
    slot: datetime | None
    params: Mapping[str, Any]
    triggered_by: str
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Reaped:
    """A run whose attempt was ended for it.

    Attributes:
        run: Which.
        job: Of which job.
        slot: When it was due.
        state: Where it stands now: QUEUED, FAILED or CANCELLED.
        error: What happened.
    """

    run: int
    job: str
    slot: datetime | None
    state: str
    error: str


class Store:
    """Calls; each raises `SourceError` when the database is away, hung or refuses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def declare(self, jobs: Sequence[Mapping[str, Any]], node: str, *, complete: bool) -> None:
        """Write the declared jobs; if `complete`, every other one is retired."""
        await self._one("SELECT ops.job_declare(%s, %s, %s)", Jsonb(list(jobs)), node, complete)

    async def last_slots(self) -> dict[str, tuple[datetime, datetime]]:
        """Per scheduled job the slot decided last, and the database's time."""
        rows = await self._database.rows("SELECT job, last_slot, clock FROM ops.job_last_slots()")
        return {row["job"]: (row["last_slot"], row["clock"]) for row in rows}

    async def decide(self, job: str, due: Sequence[datetime], skipped: Sequence[bool]) -> int:
        """Record slots, each with its run unless skipped; returns the runs made. Repeating it changes nothing."""
        return int(await self._one("SELECT ops.job_decide(%s, %s, %s) AS x", job, list(due), list(skipped)))

    async def count(self, job: str, event: str, count: int) -> None:
        """Add to a counter only a process can see."""
        await self._one("SELECT ops.job_count(%s, %s, %s)", job, event, count)

    async def start(self, node: str, queues: Mapping[str, int], *, scheduler: bool) -> int:
        """Register this process; returns its number."""
        return int(
            await self._one("SELECT ops.job_worker_start(%s, %s, %s) AS x", node, Jsonb(dict(queues)), scheduler)
        )

    async def stop(self, worker: int) -> None:
        """Leave."""
        await self._one("SELECT ops.job_worker_stop(%s)", worker)

    async def take(self, worker: int, queues: Sequence[str], silent_after: timedelta) -> Taken | float | None:
        """The next run of these queues, or seconds until one is due, or None: none is in sight.

        Raises:
            GivenUpError: This process counts as dead.
        """
        try:
            row = await self._row("SELECT * FROM ops.job_take(%s, %s, %s)", worker, list(queues), silent_after)
        except SourceError as exc:
            raise _given_up(exc) from exc
        if row["attempt"] is None:
            wait: float | None = row["wait_seconds"]
            return wait
        row.pop("wait_seconds")
        return Taken(**row)

    async def claim(self, worker: int, run: int, silent_after: timedelta) -> tuple[int, int] | None:
        """Begin the attempt at a foreground run: its token and number; None: it is not there to be begun.

        Raises:
            GivenUpError: This process counts as dead.
        """
        try:
            row = await self._row("SELECT * FROM ops.job_claim(%s, %s, %s)", worker, run, silent_after)
        except SourceError as exc:
            raise _given_up(exc) from exc
        return None if row["attempt"] is None else (row["attempt"], row["number"])

    async def beat(self, worker: int, attempts: Sequence[int]) -> bool:
        """Say that this process and these attempts live; False: it was given up as dead."""
        return bool(await self._one("SELECT ops.job_beat(%s, %s) AS x", worker, list(attempts)))

    async def watch(self, attempts: Sequence[int]) -> dict[int, tuple[bool, bool]]:
        """Per attempt: does it still count, and is it asked to stop?"""
        rows = await self._database.rows("SELECT * FROM ops.job_watch(%s)", (list(attempts),))
        return {row["attempt"]: (row["live"], row["cancel"]) for row in rows}

    async def progress(self, attempt: int, progress: Mapping[str, Any]) -> None:
        """How far it is."""
        await self._one("SELECT ops.job_progress(%s, %s)", attempt, Jsonb(dict(progress)))

    async def acknowledge(self, attempt: int) -> None:
        """The job knows that it is to stop."""
        await self._one("SELECT ops.job_acknowledge(%s)", attempt)

    async def finish(self, attempt: int, outcome: str, result: Any, error: str | None) -> str | None:
        """How it ended: the run's state now (QUEUED: to be retried), or None: refused, it came too late."""
        written = None if result is None else Jsonb(result)
        state = await self._one("SELECT ops.job_finish(%s, %s, %s, %s) AS x", attempt, outcome, written, error)
        return None if state is None else str(state)

    async def cancel(self, run: int, by: str) -> None:
        """Ask a run to stop."""
        await self._one("SELECT ops.job_cancel(%s, %s)", run, by)

    async def release(self, attempt: int, why: str) -> None:
        """Give it back to the queue."""
        await self._one("SELECT ops.job_release(%s, %s)", attempt, why)

    async def reap(self, worker: int, known: Sequence[int], silent: float) -> Reaped | None:
        """End one attempt of the dead; None: there is none."""
        row = await self._row("SELECT * FROM ops.job_reap(%s, %s, %s)", worker, list(known), timedelta(seconds=silent))
        return None if row["run"] is None else Reaped(**row)

    async def prune(self, before: datetime, limit: int) -> int:
        """Forget runs that ended before; returns how many, at most `limit`."""
        return int(await self._one("SELECT ops.job_prune(%s, %s) AS x", before, limit))

    async def _row(self, sql: str, *params: Any) -> DictRow:
        (row,) = await self._database.rows(sql, params)
        return row

    async def _one(self, sql: str, *params: Any) -> Any:
        (value,) = (await self._row(sql, *params)).values()
        return value


def _given_up(exc: SourceError) -> OpsError:
    if isinstance(exc.__cause__, psycopg.Error) and exc.__cause__.sqlstate == _GIVEN_UP:
        return GivenUpError(str(exc))
    return exc
