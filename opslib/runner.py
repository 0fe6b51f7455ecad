"""`opsctl jobs run`: one process that schedules, works or both; as many of them as one likes, on as many hosts.

Who does what, in `opslib/jobs`: `schedule` when a job is due, `scheduler` the tick, `worker` takes and sees through,
`attempt` and `child` the two ends of one attempt, `nursery` where its process comes from, `keeper` the heart-beat and
what hangs on it, `store` the database's functions (migration 0005), `report` Sentry.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any

import psycopg
import structlog
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from opslib import systemd
from opslib.areas import runs
from opslib.areas.runs import State
from opslib.contract.session import connect
from opslib.errors import ConfigError, JobError, SourceError
from opslib.jobs import schedule
from opslib.jobs.attempt import Seat
from opslib.jobs.keeper import Keeper
from opslib.jobs.listener import listen
from opslib.jobs.report import Report
from opslib.jobs.scheduler import Scheduler
from opslib.jobs.store import Store, Taken
from opslib.jobs.timing import Timing
from opslib.jobs.worker import Worker
from opslib.postgres import Database
from opslib.settings import Settings
from opslib.spec import Job

log = structlog.get_logger()

CONCURRENCY = 4
"""Runs at once of a queue nobody said otherwise about."""
APPLICATION = "opsctl jobs"
_CONNECTIONS = 6
_CANCEL_AGAIN = 2.0  # seconds; longer than anything tidies up
_ARCHIVED = timedelta(days=30)  # beyond their age limit, in which the job `cleanup` archives runs before they go
_NO_REMEDY = ("42", "3F")  # SQLSTATE classes: no such function, schema or right; waiting does not help


def load(targets: Mapping[str, str]) -> dict[str, Job]:
    """The jobs of a catalog, by name.

    Raises:
        ConfigError: One does not carry the name it is listed under, is due at no time one could tell, or is scheduled
            and yet wants parameters.
    """
    jobs = {}
    for name, target in targets.items():
        module, _, attribute = target.partition(":")
        job: Job = getattr(import_module(module), attribute)
        if job.name != name:
            raise ConfigError(f"{target} is listed as {name} and calls itself {job.name}: give it one name")
        if job.schedule is not None:
            schedule.trigger(job.schedule)
            if required := [field for field, info in job.params.model_fields.items() if info.is_required()]:
                raise ConfigError(f"{name} is scheduled: its parameter {required[0]} needs a default")
        jobs[name] = job
    return jobs


async def serve(
    settings: Settings,
    targets: Mapping[str, str],
    *,
    concurrency: Mapping[str, int] | None = None,
    worker: bool = True,
    scheduler: bool = True,
    timing: Timing | None = None,
) -> None:
    """Schedule and work until SIGTERM or SIGINT, then finish what runs or give it back.

    Args:
        settings: Every setting.
        targets: The catalog: each job's name and where it is, "module:JOB".
        concurrency: How many runs at once, by queue; 0: none of it. Queues not named: `CONCURRENCY`.
        worker: Take runs.
        scheduler: Make runs of what is due.
        timing: Every period; a test's are shorter.

    Raises:
        ConfigError: The catalog is wrong, or OPS_DATABASE_URL is missing.
        SourceError: The ops database is there, and without our schema or rights.
    """
    jobs = load(targets)
    timing = timing or Timing()
    missing = {name: [need for need in job.needs if not settings.has(need)] for name, job in jobs.items()}
    for name, needs in missing.items():
        if needs and jobs[name].schedule is not None:
            log.warning("job_not_scheduled", job=name, missing=needs)
    wanted = {job.queue: CONCURRENCY for job in jobs.values()} | dict(concurrency or {})
    queues = {queue: most for queue, most in wanted.items() if worker and most > 0}
    stop = asyncio.Event()
    # Running from here on, also while the database is away: systemd is not to give up on us because of that.
    async with _database(settings) as (dsn, store), _signals(stop.set), systemd.running():
        report = Report(jobs, store, settings.sentry_environment)
        work = Worker(settings, targets, store, report, timing, queues=queues)
        keep = timedelta(days=settings.ops_keep_job_run_days) + _ARCHIVED
        keeper = Keeper(node(), work, store, report, timing, queues=queues, scheduler=scheduler, keep=keep)
        declaring = asyncio.create_task(
            _declare(store, [_declared(job, missing[name]) for name, job in jobs.items()], timing)
        )
        await _until(stop, [declaring])
        if stop.is_set():
            return await _cancel([declaring])
        staying = [
            *(asyncio.create_task(loop()) for loop in keeper.loops()),
            asyncio.create_task(report.write(timing.reap)),
            asyncio.create_task(listen(dsn, APPLICATION, work.wake.set, keeper.look.set, timing.retry)),
        ]
        leaving = [asyncio.create_task(work.pull())] if queues else []
        if scheduler:
            ready = {name: job for name, job in jobs.items() if job.schedule is not None and not missing[name]}
            leaving.append(asyncio.create_task(Scheduler(ready, store, report, timing).run()))
        log.info("jobs_started", node=node(), queues=queues, scheduler=scheduler, jobs=len(jobs))
        try:
            await _until(stop, [*staying, *leaving])
        finally:
            await _cancel(leaving)
            log.info("jobs_stopping", running=len(work.running))
            await work.drain(timing.drain)
            await _cancel(staying)
            await report.flush()
            if work.seat is not None:
                with contextlib.suppress(SourceError):
                    await store.stop(work.seat.number)


def execute(
    settings: Settings,
    target: str,
    params: BaseModel | None,
    *,
    triggered_by: str,
    started: Callable[[int], None],
    timing: Timing | None = None,
) -> State:
    """Run a job here and now, in the foreground, recorded like any run; Ctrl-C asks it to stop.

    Args:
        settings: Every setting.
        target: The job, as "module:JOB".
        params: Checked parameters; None: its defaults.
        triggered_by: Who asked.
        started: Told the run's number.
        timing: Every period.

    Returns:
        How it ended.

    Raises:
        JobError: It was cancelled before it began, or taken for dead.
        SourceError: The ops database is away.
    """
    ((name, job),) = load({_name(target): target}).items()
    missing = [need for need in job.needs if not settings.has(need)]
    settings.require(*missing)
    with connect(settings.require_ops(), APPLICATION) as connection:
        connection.execute("SELECT ops.job_declare(%s, %s, false)", (Jsonb([_declared(job, [])]), node()))
        run = runs.enqueue(connection, name, params, triggered_by=triggered_by, foreground=True)
    started(run)
    plain = params.model_dump(mode="json") if params else {}
    taken = Taken(0, 0, run, name, job.queue, None, plain, triggered_by, job.timeout)
    return asyncio.run(_execute(settings, target, job, taken, timing or Timing()))


async def _execute(settings: Settings, target: str, job: Job, taken: Taken, timing: Timing) -> State:
    async with _database(settings) as (dsn, store):
        report = Report({}, store, settings.sentry_environment)
        work = Worker(settings, {job.name: target}, store, report, timing, queues={})
        keeper = Keeper(node(), work, store, report, timing, queues={}, scheduler=False, keep=timedelta.max)
        lease = time.monotonic() + timing.worker_silent
        work.seat = seat = Seat(await store.start(node(), {}, scheduler=False), lease)
        loops = [asyncio.create_task(loop()) for loop in (keeper.beat, keeper.watch)]
        loops.append(asyncio.create_task(listen(dsn, APPLICATION, work.wake.set, keeper.look.set, timing.retry)))

        def cancel() -> None:
            loops.append(asyncio.create_task(store.cancel(taken.run, taken.triggered_by)))

        try:
            async with _signals(cancel):
                begun = await store.claim(seat.number, taken.run, timing.silent_after)
                if begun is None:
                    raise JobError(f"run {taken.run} was cancelled before it began")
                state = await work.see_through(dataclasses.replace(taken, attempt=begun[0], number=begun[1]), seat)
        finally:
            await work.drain(0)
            await _cancel(loops)
            await report.flush()
            with contextlib.suppress(SourceError):
                await store.stop(seat.number)
        if state is None:
            raise JobError(
                f"run {taken.run} was taken for dead while it ran; see `opsctl jobs run-details {taken.run}`"
            )
        return State(state)


def node() -> str:
    """This process, for people: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _declared(job: Job, missing: list[str]) -> dict[str, Any]:
    return {
        "job": job.name,
        "title": job.title,
        "queue": job.queue,
        "schedule": None if job.schedule is None else schedule.text(job.schedule),
        "timeout_seconds": job.timeout,
        "max_age_seconds": job.max_age,
        "retries": job.retries,
        "retry_seconds": job.retry_after,
        "catch_up": str(job.catch_up),
        "missing": missing,
    }


async def _declare(store: Store, declared: list[dict[str, Any]], timing: Timing) -> None:
    """Write them down, as soon as the database is there."""
    while True:
        try:
            return await store.declare(declared, node(), complete=True)
        except SourceError as exc:
            state = exc.__cause__.sqlstate if isinstance(exc.__cause__, psycopg.Error) else None
            if state is not None and state.startswith(_NO_REMEDY):
                raise
            log.error("jobs_database_away", error=str(exc))  # noqa: TRY400 - the message says it all
            await asyncio.sleep(timing.poll)


def _name(target: str) -> str:
    module, _, attribute = target.partition(":")
    name: str = getattr(import_module(module), attribute).name
    return name


@contextlib.asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[tuple[str, Store]]:
    dsn = settings.require_ops()
    database = Database(dsn, application_name=APPLICATION, size=_CONNECTIONS)
    await database.open()
    try:
        yield dsn, Store(database)
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def _signals(heard: Callable[[], None]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, heard)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _until(stop: asyncio.Event, tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Until told to stop; a loop that ends by itself is a fault, and is raised."""
    told = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({told, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {told}:
            task.result()
    finally:
        await _cancel([told])


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End them; told again if need be: `wait_for` of Python 3.11, which the pool uses, may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN)
