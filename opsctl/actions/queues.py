"""What an operator may do to a queue: retry, remove, requeue, pause, resume, drain, clean, promote, add.

Writes go through the official package only (`opslib.areas.queue_writes`), which refuses a queue kept by a BullMQ it was
not proven against. Of many jobs each has an audit event of its own; one that fails does not stop the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from opsctl.actions import Role, Severity, action
from opsctl.queue_session import opened
from opslib.areas import queue_jobs
from opslib.areas.queue_jobs import JobView
from opslib.areas.queue_overview import COUNTS, overviews
from opslib.errors import ConfigError, NotFoundError, OpsError, RefusedError

if TYPE_CHECKING:
    from opslib.areas.queue_writes import Writer
    from opslib.guard import Act

EVENT = "OPS_QUEUE_ACTION"
RUNBOOK = "Queues"
LOOKED_AT = 100_000
"""Failed jobs looked through for those a filter names."""
PRIORITIES = {"high": 1, "normal": 10, "low": 100}
"""BullMQ's numbers: the smaller goes first, and 0 (none) before all."""

_QUEUE = click.argument("queue")
_IDS = click.argument("ids", nargs=-1, metavar="[ID]...")
_FORCE = click.option(
    "--force",
    is_flag=True,
    help="Even if the queue's BullMQ is not one this was proven against, or no worker is there.",
)


def _chosen(function: Callable[..., None]) -> Callable[..., None]:
    """The ways to name failed jobs."""
    for option in (
        click.option("--limit", type=click.IntRange(1), metavar="N", help="Of those, exactly the N oldest."),
        click.option("--where", multiple=True, metavar="FIELD~TEXT", help="Only with TEXT in its reason or name."),
        click.option("--all", "every", is_flag=True, help="Every failed job, or every one --where leaves."),
    ):
        function = option(function)
    return function


Change = Callable[..., None]


def _action(verb: str, severity: Severity, touches: str, role: Role = Role.STAFF) -> Callable[[Change], Change]:
    return action(f"queues.{verb}", role=role, severity=severity, event=EVENT, touches=touches, runbook=RUNBOOK)


async def _failed(
    act: Act, queue: str, ids: Sequence[str], *, every: bool, where: Sequence[str], limit: int | None
) -> list[JobView]:
    """The failed jobs that were named, oldest first."""
    if bool(ids) == every:
        raise ConfigError("name the jobs by id, or say --all (with --where, --limit): one of the two")
    if ids and (where or limit):
        raise ConfigError("--where and --limit choose among all: say --all, and no ids")
    tests = [_test(text) for text in where]
    async with opened(act.settings) as here:
        chosen = here.queue(queue)
        known = (await queue_jobs.ids(here.client, chosen, "failed", LOOKED_AT))[::-1]
        if ids:
            missing = [id_ for id_ in ids if id_.encode() not in set(known)]
            if missing:
                raise NotFoundError(f"not among the failed jobs of {queue}: {', '.join(missing)}")
            known = [id_.encode() for id_ in dict.fromkeys(ids)]
        elif limit and not tests:
            known = known[:limit]
        found = await queue_jobs.jobs(here.client, chosen, "failed", known)
    kept = [job for job in found if all(test(job) for test in tests)][:limit]
    if not kept:
        raise NotFoundError(f"{queue} has no failed job like that")
    return kept


def _test(text: str) -> Callable[[JobView], bool]:
    field, tilde, part = text.partition("~")
    if not tilde or field not in ("reason", "name") or not part:
        raise ConfigError(f"--where {text!r}: write reason~TEXT or name~TEXT")
    return lambda job: part.lower() in (getattr(job, field) or "").lower()


@asynccontextmanager
async def _writer(act: Act, queue: str, *, force: bool, unserved: bool) -> AsyncIterator[Writer]:
    from opslib.areas.queue_writes import writer  # noqa: PLC0415 - brings BullMQ, which a reading command does not need

    url, prefix = act.settings.reveal("REDIS_URL"), act.settings.bullmq_prefix
    async with AsyncExitStack() as exits:
        try:
            to = await exits.enter_async_context(writer(url, queue, prefix=prefix, force=force, unserved=unserved))
        except RefusedError as exc:
            raise RefusedError(f"{exc}; --force does it all the same") from exc
        yield to


async def _each(
    act: Act,
    queue: str,
    jobs: Sequence[JobView],
    change: Callable[[Writer, JobView], Awaitable[Any]],
    *,
    force: bool,
    unserved: bool = False,
) -> int:
    """Change one after the other, each with its own intent and outcome; how many it was done to."""
    act.allow()
    failures: list[str] = []
    async with AsyncExitStack() as exits:
        try:
            to = await exits.enter_async_context(_writer(act, queue, force=force, unserved=unserved))
        except OpsError:
            with act.each(queue):  # so that it is remembered
                raise
        for job in jobs:
            try:
                with act.each(f"{job.queue}/{job.id}", {"job": job.name}):
                    await change(to, job)
            except OpsError as exc:
                failures.append(f"{job.id}: {exc}")
    if failures:
        raise OpsError(f"{len(jobs) - len(failures)} of {len(jobs)} done; not done: " + "; ".join(failures[:5]))
    return len(jobs)


async def _once(
    act: Act, queue: str, change: Callable[[Writer], Coroutine[Any, Any, Any]], *, force: bool, unserved: bool = True
) -> Any:
    """One change to the queue as a whole."""
    with act.go():
        async with _writer(act, queue, force=force, unserved=unserved) as to:
            return await change(to)


async def _counts(act: Act, queue: str) -> Mapping[str, int]:
    """How many jobs of the queue are in each state; one that waits behind a pause is waiting.

    Raises:
        NotFoundError: There is no such queue.
    """
    async with opened(act.settings) as here:
        found = await overviews(here.client, [here.queue(queue)], None)
    counts = found[0].counts if found else dict.fromkeys(COUNTS, 0)
    return {**counts, "waiting": counts["waiting"] + counts["paused"]}


def _lines(what: str, jobs: Sequence[JobView]) -> list[str]:
    shown = [f"{job.id} {job.name}: {job.reason or '-'}" for job in jobs[:20]]
    more = [f"and {len(jobs) - len(shown)} more"] if len(jobs) > len(shown) else []
    return [what, *shown, *more]


@click.command()
@_QUEUE
@_IDS
@_chosen
@_FORCE
@_action("retry", Severity.RISKY, "failed jobs of a queue")
def retry(
    act: Act, queue: str, ids: Sequence[str], *, every: bool, where: Sequence[str], limit: int | None, force: bool
) -> None:
    """Put failed jobs back in line: those named, or with --all those --where and --limit leave, exactly so many."""

    async def run() -> int:
        jobs = await _failed(act, queue, ids, every=every, where=where, limit=limit)
        act.plan(queue, *_lines(f"retry {len(jobs)} of {queue}", jobs))
        return await _each(act, queue, jobs, lambda to, job: to.retry(job.id), force=force)

    click.echo(f"retried: {asyncio.run(run())}")


@click.command()
@_QUEUE
@_IDS
@_chosen
@_FORCE
@_action("remove", Severity.DESTRUCTIVE, "failed jobs of a queue, for good")
def remove(
    act: Act, queue: str, ids: Sequence[str], *, every: bool, where: Sequence[str], limit: int | None, force: bool
) -> None:
    """Remove failed jobs for good; named as for retry."""

    async def run() -> int:
        jobs = await _failed(act, queue, ids, every=every, where=where, limit=limit)
        act.plan(queue, *_lines(f"remove {len(jobs)} of {queue}", jobs))
        return await _each(act, queue, jobs, lambda to, job: to.remove(job.id), force=force, unserved=True)

    click.echo(f"removed: {asyncio.run(run())}")


@click.command("requeue-dead")
@click.argument("dead", metavar="DEAD_QUEUE")
@_QUEUE
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Jobs at most, the oldest.")
@_FORCE
@_action("requeue-dead", Severity.RISKY, "jobs of a dead-letter queue and the queue they go back to")
def requeue_dead(act: Act, dead: str, queue: str, *, limit: int, force: bool) -> None:
    """Add the waiting jobs of DEAD_QUEUE to QUEUE again, and take each from DEAD_QUEUE once that is done.

    Broken off in between, a second run adds none twice: while a job is known, its new id is taken.
    """

    async def run() -> int:
        async with opened(act.settings) as here:
            source, _ = here.queue(dead), here.queue(queue)
            of = (await queue_jobs.ids(here.client, source, "waiting", LOOKED_AT))[::-1][:limit]
            jobs = await queue_jobs.jobs(here.client, source, "waiting", of, whole=True)
        if not jobs:
            raise NotFoundError(f"no job waits in {dead}")
        act.plan(queue, *_lines(f"requeue {len(jobs)} of {dead} to {queue}", jobs))
        async with _writer(act, dead, force=force, unserved=True) as grave:

            async def move(to: Writer, job: JobView) -> None:
                options = {"jobId": f"requeued-{dead}-{job.id}", "attempts": job.attempts}
                await to.put(job.name, job.data, options)
                await grave.remove(job.id)

            return await _each(act, queue, jobs, move, force=force)

    click.echo(f"requeued: {asyncio.run(run())}")


@click.command()
@_QUEUE
@_FORCE
@_action("pause", Severity.RISKY, "a queue: its workers take no more jobs")
def pause(act: Act, queue: str, *, force: bool) -> None:
    """Let workers take no more jobs of a queue; those at one finish it."""
    act.plan(queue, f"pause {queue}, in which {asyncio.run(_counts(act, queue))['waiting']} jobs wait")
    asyncio.run(_once(act, queue, lambda to: to.pause(), force=force))
    click.echo(f"paused: {queue}")


@click.command()
@_QUEUE
@_FORCE
@_action("resume", Severity.SAFE, "a queue: its workers take jobs again")
def resume(act: Act, queue: str, *, force: bool) -> None:
    """Let workers take jobs of a queue again."""
    act.plan(queue, f"resume {queue}, in which {asyncio.run(_counts(act, queue))['waiting']} jobs wait")
    asyncio.run(_once(act, queue, lambda to: to.resume(), force=force))
    click.echo(f"resumed: {queue}")


@click.command()
@_QUEUE
@click.option("--delayed", is_flag=True, help="Those not due yet, too.")
@_FORCE
@_action("drain", Severity.DESTRUCTIVE, "every waiting job of a queue, for good", Role.SUPER)
def drain(act: Act, queue: str, *, delayed: bool, force: bool) -> None:
    """Remove every job of a queue that waits, for good; not those active, completed or failed."""
    counts = asyncio.run(_counts(act, queue))
    gone = {state: counts[state] for state in ("waiting", "prioritized", *(("delayed",) if delayed else ()))}
    told = ", ".join(f"{count} {state}" for state, count in gone.items())
    act.plan(queue, f"drain {queue}: {told} jobs now are gone for good")
    asyncio.run(_once(act, queue, lambda to: to.drain(delayed=delayed), force=force))
    click.echo(f"drained: {queue}")


@click.command()
@_QUEUE
@click.option("--state", type=click.Choice(["failed", "completed"]), required=True, help="Of jobs in this state.")
@click.option("--older", type=click.FloatRange(0), default=24, show_default=True, metavar="HOURS", help="Ended before.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Jobs at most.")
@_FORCE
@_action("clean", Severity.DESTRUCTIVE, "ended jobs of a queue, for good", Role.SUPER)
def clean(act: Act, queue: str, *, state: str, older: float, limit: int, force: bool) -> None:
    """Remove jobs that failed or completed so long ago, for good."""
    there = asyncio.run(_counts(act, queue))[state]
    act.plan(
        queue, f"remove up to {limit} of the {there} jobs of {queue} that {state}, those of more than {older:g} h ago"
    )
    gone = asyncio.run(
        _once(act, queue, lambda to: to.clean(state, older_seconds=older * 3600, limit=limit), force=force)
    )
    click.echo(f"removed: {gone}")


@click.command()
@_QUEUE
@click.argument("id_", metavar="ID")
@_FORCE
@_action("promote", Severity.SAFE, "a delayed job: it runs now")
def promote(act: Act, queue: str, id_: str, *, force: bool) -> None:
    """Let a delayed job run now."""

    async def run() -> None:
        async with opened(act.settings) as here:
            job, _ = await queue_jobs.job(here.client, here.queue(queue), id_)
        if job.state != "delayed":
            raise NotFoundError(f"job {id_} of {queue} is {job.state}, not delayed")
        act.plan(f"{queue}/{id_}", f"let {job.name} {id_} of {queue} run now")
        await _once(act, queue, lambda to: to.promote(id_), force=force, unserved=False)

    asyncio.run(run())
    click.echo(f"promoted: {id_}")


@click.command()
@_QUEUE
@click.argument("name")
@click.option("--data", default="{}", metavar="JSON", help="Its payload.")
@click.option(
    "--priority", type=click.Choice(list(PRIORITIES)), help="Among jobs that have one; those without go first."
)
@click.option("--attempts", type=click.IntRange(1, 100), default=3, show_default=True, help="Attempts in all.")
@click.option(
    "--backoff", type=click.IntRange(0), default=2000, show_default=True, metavar="MS", help="Doubled each time."
)
@click.option("--delay", type=click.IntRange(0), default=0, metavar="MS", help="Not before.")
@click.option("--job-id", metavar="ID", help="While a job of that id is known, none is added.")
@_FORCE
@_action("add", Severity.RISKY, "a queue: a job made by hand")
def add(
    act: Act,
    queue: str,
    name: str,
    *,
    data: str,
    priority: str | None,
    attempts: int,
    backoff: int,
    delay: int,
    job_id: str | None,
    force: bool,
) -> None:
    """Add a job NAME to a queue by hand."""
    try:
        payload = json.loads(data)
    except ValueError as exc:
        raise ConfigError(f"--data is no JSON: {exc}") from exc
    options: dict[str, Any] = {"attempts": attempts, "removeOnComplete": True, "removeOnFail": False, "delay": delay}
    if backoff:
        options["backoff"] = {"type": "exponential", "delay": backoff}
    if priority:
        options["priority"] = PRIORITIES[priority]
    if job_id:
        options["jobId"] = job_id
    if state := asyncio.run(_known(act, queue, job_id)):
        click.echo(f"known: {job_id} is {state}; nothing was added")
        return
    act.plan(queue, f"add {name} to {queue}", f"data {data}", f"options {json.dumps(options)}")
    id_ = asyncio.run(_once(act, queue, lambda to: to.put(name, payload, options), force=force, unserved=False))
    click.echo(f"added: {id_}")


async def _known(act: Act, queue: str, job_id: str | None) -> str | None:
    """The state of the queue's job of that id; None if it has none.

    Raises:
        NotFoundError: There is no such queue.
    """
    async with opened(act.settings) as here:
        chosen = here.queue(queue)
        with contextlib.suppress(NotFoundError):
            return (await queue_jobs.job(here.client, chosen, job_id))[0].state if job_id else None
    return None


COMMANDS = (retry, remove, requeue_dead, pause, resume, drain, clean, promote, add)
