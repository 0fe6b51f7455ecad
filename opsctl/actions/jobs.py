"""Jobs: queue one, run one here, cancel a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from opsctl import catalog
from opsctl.actions import Role, Severity, action
from opsctl.follow import Beside, describe, wait
from opsctl.moment import MOMENT
from opsctl.output import words
from opsctl.parameters import parse
from opslib.areas import runs
from opslib.areas.run_changes import Change
from opslib.areas.runs import State
from opslib.errors import JobError, NotFoundError, RefusedError
from opslib.redact import redact
from opslib.session import session

if TYPE_CHECKING:
    from pydantic import BaseModel

    from opslib.guard import Act
    from opslib.spec import Job

RUNBOOK = "Jobs"
_PARAMS = click.option(
    "--params", metavar="JSON", default="{}", help="Its parameters; `opsctl jobs show JOB` names them."
)


def job_of(name: str) -> Job:
    """A job of the catalog, loading its module only.

    Raises:
        NotFoundError: There is none of that name.
    """
    target = catalog.JOBS.get(name)
    if target is None:
        raise NotFoundError(f"there is no job {name}; there are {', '.join(sorted(catalog.JOBS))}")
    job: Job = catalog.load(target)
    return job


def _shown(params: BaseModel) -> str:
    plain = redact(params.model_dump(mode="json"))
    return f"with {words(plain)}" if plain else "without parameters"


def _result(row: Mapping[str, Any]) -> str:
    """What the job says it did, in one line."""
    return f": {words(row['result'])}" if row["result"] else ""


@click.command()
@click.argument("job")
@_PARAMS
@click.option("--priority", type=click.IntRange(-100, 100), default=0, show_default=True, help="The higher goes first.")
@click.option("--at", type=MOMENT, metavar="TIME", help="Not before: a date or a time, UTC.")
@click.option("--wait", "waiting", is_flag=True, help="Stay until it has ended; exit 0 if it succeeded, else 1.")
@action(
    "jobs.enqueue",
    role=Role.STAFF,
    severity=Severity.RISKY,
    event="OPS_JOB_ACTION",
    touches="what runs",
    runbook=RUNBOOK,
)
def enqueue(act: Act, job: str, params: str, priority: int, at: datetime | None, *, waiting: bool) -> None:
    """Queue a run of JOB for whichever worker is free. Prints its number."""
    checked = parse(job_of(job).params, params)
    _can_run(act, job)
    when = f", not before {words(at)} UTC" if at else ""
    act.plan(job, f"queue a run of {job} {_shown(checked)}, priority {priority}{when}")
    with act.transaction() as connection:
        run = runs.enqueue(connection, job, checked, priority=priority, at=at, triggered_by=_who(connection))
    click.echo(run)
    if waiting:
        try:
            row = wait(act.settings.require_ops(), run)
        except KeyboardInterrupt:
            click.echo(f"run {run} goes on; `opsctl jobs cancel {run}` stops it", err=True)
            sys.exit(130)
        click.echo(f"run {run}: {describe(Change('completed', dict(row)))}{_result(row)}", err=True)
        sys.exit(0 if row["state"] == State.SUCCESS else 1)


def _can_run(act: Act, job: str) -> None:
    """What no worker has the settings for would only fail, retried until nobody waits any more.

    Raises:
        RefusedError: It lacks settings where jobs run.
    """
    with session(act.settings.require_ops(), "jobs enqueue") as connection:
        for row in runs.declared(connection):
            if row["job"] == job and row["missing"]:
                lacks = ", ".join(row["missing"])
                raise RefusedError(
                    f"{job} lacks {lacks} where jobs run ({row['declared_by']}): set that there and restart it, or run "
                    f"the job here: `opsctl jobs exec {job}`"
                )


@click.command("exec")
@click.argument("job")
@_PARAMS
@action(
    "jobs.exec",
    role=Role.STAFF,
    severity=Severity.RISKY,
    event="OPS_JOB_ACTION",
    touches="what runs",
    runbook=RUNBOOK,
)
def exec_(act: Act, job: str, params: str) -> None:
    """Run JOB here, in the foreground, recorded like any run. Ctrl-C cancels it. Exit 0 if it succeeded, else 1.

    The login needs what a worker has: membership of ops_jobs.
    """
    here(act, job, parse(job_of(job).params, params))


def here(act: Act, job: str, checked: BaseModel) -> None:
    """Run a job in this process, recorded like any run and shown while it goes on.

    Raises:
        JobError: It did not end in success.
        RefusedError: The login is no member of ops_jobs.
    """
    spec = job_of(job)
    act.settings.require(*spec.needs)
    act.plan(job, f"run {job} here, {_shown(checked)}", *(spec.plan(act.settings, checked) if spec.plan else ()))
    from opslib import runner  # noqa: PLC0415 - the engine, which nobody needs who only queues

    dsn = act.settings.require_ops()
    with session(dsn, "jobs exec") as connection:
        who = _who(connection)
        rows = connection.execute("SELECT pg_has_role('ops_jobs', 'USAGE') AS may")
        if not rows.fetchall()[0]["may"]:
            raise RefusedError(
                f"{who} is no member of ops_jobs, as who runs jobs must be; `opsctl jobs enqueue` needs not"
            )
    beside = Beside(dsn)
    number: list[int] = []

    def started(run: int) -> None:
        number.append(run)
        beside.start(run)

    with act.go():
        try:
            state = runner.execute(act.settings, catalog.JOBS[job], checked, triggered_by=who, started=started)
        finally:
            beside.stop()
        with session(dsn, "jobs exec") as connection:
            ended = runs.run(connection, number[0])
        if state is not State.SUCCESS:
            why = f": {ended['error']}" if ended["error"] else ""
            raise JobError(f"run {number[0]} of {job} ended {state}{why}")
    click.echo(f"run {number[0]}: {state}{_result(ended)}")


@click.command()
@click.argument("run", type=click.IntRange(min=1))
@action(
    "jobs.cancel",
    role=Role.STAFF,
    severity=Severity.RISKY,
    event="OPS_JOB_ACTION",
    touches="what runs",
    runbook=RUNBOOK,
)
def cancel(act: Act, run: int) -> None:
    """Cancel RUN: at once while it is queued; a running one is asked to stop, and stops where that breaks nothing."""
    with session(act.settings.require_ops(), "jobs cancel") as connection:
        row = runs.run(connection, run)
    if row["state"] not in {State.QUEUED, State.RUNNING}:
        click.echo(f"run {run} has ended: {row['state']}")
        return
    act.plan(str(run), f"cancel run {run} of {row['job']}, {row['state']}, triggered by {row['triggered_by']}")
    with act.transaction() as connection:
        state = runs.cancel(connection, run, _who(connection))
    if state is State.RUNNING:
        click.echo(f"run {run} was asked to stop; `opsctl jobs run-details {run}` shows when it has")
    else:
        click.echo(f"run {run} is {state}")


def _who(connection: Any) -> str:
    """The login, as the database knows it."""
    row = connection.execute("SELECT session_user AS who").fetchone()
    return str(row["who"] if isinstance(row, dict) else row[0])
