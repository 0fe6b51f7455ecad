"""`opsctl jobs run`: the process that schedules and works."""

from __future__ import annotations

import asyncio

import click

from opsctl import catalog
from opsctl.kinds import serves
from opslib.errors import ConfigError


def _concurrency(_: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, int]:
    parsed = {}
    for each in given:
        queue, _sign, number = each.partition("=")
        if not queue or not number.isdecimal():
            raise click.BadParameter(f"{each!r} is not QUEUE=N")
        parsed[queue] = int(number)
    return parsed


def _catalog(_: click.Context, _option: click.Parameter, given: str | None) -> dict[str, str]:
    if given is None:
        return catalog.JOBS
    jobs: dict[str, str] = catalog.load(given)
    return jobs


@click.command()
@click.option("--no-worker", is_flag=True, help="Only schedule: make runs of what is due.")
@click.option("--no-scheduler", is_flag=True, help="Only work: take what others made due.")
@click.option(
    "--concurrency",
    metavar="QUEUE=N",
    multiple=True,
    callback=_concurrency,
    help="Runs at once from a queue, 4 if not said; 0: none of it. As often as there are queues.",
)
@click.option(
    "--catalog", "targets", metavar="MODULE:NAME", callback=_catalog, hidden=True
)  # other jobs than ours: tests
@serves
def run(*, no_worker: bool, no_scheduler: bool, concurrency: dict[str, int], targets: dict[str, str]) -> None:
    """Schedule jobs and work on them until SIGTERM; start as many, on as many hosts, as you like.

    Each slot of a schedule happens once, however many schedule it; what a process leaves unfinished the others take
    over. Told to leave, it waits half a minute for what runs; the rest goes back to the queue.
    """
    from opslib import log, runner, sentry, settings  # noqa: PLC0415 - `opsctl jobs list` does without

    if no_worker and no_scheduler:
        raise ConfigError("--no-worker and --no-scheduler together leave nothing to do: drop one")
    known = {job.queue for job in runner.load(targets).values()}
    if unknown := concurrency.keys() - known:
        raise ConfigError(f"no job uses the queue {min(unknown)}: the queues are {', '.join(sorted(known))}")
    loaded = settings.load()
    log.configure(loaded)
    sentry.init(loaded)
    asyncio.run(
        runner.serve(loaded, targets, concurrency=concurrency, worker=not no_worker, scheduler=not no_scheduler)
    )
