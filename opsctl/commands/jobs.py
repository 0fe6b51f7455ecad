"""`opsctl jobs`: what is declared, what runs, what ran."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from opsctl import catalog
from opsctl.actions.jobs import cancel, enqueue, exec_, job_of
from opsctl.commands.jobs_run import run as run_
from opsctl.commands.jobs_stats import stats
from opsctl.commands.jobs_watch import watch
from opsctl.follow import progress
from opsctl.kinds import reads
from opsctl.moment import MOMENT
from opsctl.output import Column, Output, console, printed, printed_json, tint, to_json, words
from opsctl.parameters import fields
from opslib import settings
from opslib.areas import history as past
from opslib.areas import runs
from opslib.areas.history import PAGE, Filter
from opslib.areas.queries import NAMED
from opslib.areas.runs import State
from opslib.session import Connection, session

STATE = Column("state", state=True)
_SECONDS = ("queue_delay", "duration")
_EVERY = "every "


@click.group()
def jobs() -> None:
    """Jobs and their runs."""


for command in (enqueue, exec_, cancel, stats, watch, run_):
    jobs.add_command(command)


def _connect(name: str) -> Any:
    return session(settings.load().require_ops(), f"jobs {name}")


@jobs.command("list")
@printed
@reads
def list_(output: Output) -> None:
    """List every job: when it is due, how it last ended, whether it is overdue."""
    with _connect("list") as connection:
        rows = _declared(connection)
    declared = {row["job"] for row in rows}
    if output.for_people:
        rows = [{**row, "schedule": _schedule(row["schedule"])} for row in rows]
    rows += [{"job": name, "state": "not declared"} for name in sorted(catalog.JOBS.keys() - declared)]
    output.rows(
        rows,
        (
            *("job", "title", "schedule", "queue", STATE, Column("last_outcome", state=True)),
            *(Column("last_success_at", "Last success (UTC)"), "queued", "running"),
        ),
        nothing="no job is declared: start `opsctl jobs run`",
    )


def _declared(connection: Connection) -> list[dict[str, Any]]:
    gauges = {row["job"]: row for row in connection.execute(NAMED["job_gauges"].sql).fetchall()}
    rows = []
    for row in runs.declared(connection):
        now = gauges.get(row["job"], {})
        state = "overdue" if now.get("overdue") else "ok"
        if row["missing"]:
            state = f"lacks {', '.join(row['missing'])}"
        counts = {name: now.get(name) for name in ("queued", "running")}
        # Of a run that fell silent only the gauge knows.
        rows.append({**row, "last_outcome": now.get("last_outcome"), "state": state, **counts})
    return rows


@jobs.command()
@click.argument("job")
@printed_json
@reads
def show(job: str, output: Output) -> None:
    """Show one job: its settings, its parameters, when it is due next, its last runs."""
    spec = job_of(job)
    with _connect("show") as connection:
        declared: dict[str, Any] = next((row for row in _declared(connection) if row["job"] == job), {})
        last = past.page(connection, Filter(job=job), 5).rows
    parameters = fields(spec.params)
    facts: dict[str, Any] = {
        "job": spec.name,
        "title": spec.title,
        "schedule": _schedule(declared.get("schedule")),
        "next": None if declared.get("missing") else _next(job),
        "state": declared.get("state", "not declared: no `opsctl jobs run` was started with it"),
        "queue": spec.queue,
        "timeout": timedelta(seconds=spec.timeout),
        "max_age": None if spec.max_age is None else timedelta(seconds=spec.max_age),
        "retries": spec.retries,
        "retry_after": timedelta(seconds=spec.retry_after),
        "catch_up": str(spec.catch_up),
        "needs": list(spec.needs),
        "last_success": declared.get("last_success_at"),
        "last_result": next((run["result"] for run in last if run["result"]), None),
        "declared": declared.get("declared_at"),
        "declared_by": declared.get("declared_by"),
    }
    if not output.for_people:
        output.value({**facts, "parameters": parameters, "runs": last})
        return
    _facts(facts)
    click.echo("\nParameters")
    output.rows(
        [
            {**each, "default": to_json(each["default"], indent=None) if "default" in each else "-"}
            for each in parameters
        ],
        ("name", "type", "default", "meaning"),
        nothing="none",
    )
    click.echo("\nLast runs")
    output.rows(map(_spoken, last), ("id", STATE, "triggered_by", "queued", "duration", "error"), nothing="none")


def _schedule(told: str | None) -> str:
    """As declared, a period in words: `cron 30 1 * * *`, `every 1 min`."""
    if told is None:
        return "on demand"
    if told.startswith(_EVERY):
        return _EVERY + words(timedelta(seconds=int(told.removeprefix(_EVERY))))
    return told


def _next(job: str) -> datetime | None:
    from opslib.jobs import schedule  # noqa: PLC0415 - APScheduler, which only this one needs

    spec = job_of(job).schedule
    now = datetime.now(UTC)
    if spec is None:
        return None
    return next(schedule.slots(spec, now, now + timedelta(days=366)), None)


def _facts(facts: dict[str, Any]) -> None:
    width = max(map(len, facts))
    screen = console()
    from rich.text import Text  # noqa: PLC0415 - console() has loaded it

    for name, value in facts.items():
        style = tint(value) if name == "state" else ""
        text = to_json(value, indent=None) if isinstance(value, dict) else words(value)
        screen.print(Text(name.replace("_", " ").ljust(width + 2)).append(text, style=style))


@jobs.command()
@printed
@reads
def active(output: Output) -> None:
    """List runs that are queued or running, the oldest first."""
    with _connect("active") as connection:
        rows = runs.active(connection)
    output.rows(
        [{**row, "far": progress(row["progress"])} for row in rows],
        (
            *("id", "job", STATE, "priority", "triggered_by", Column("queued", "Queued (UTC)"), "due", "started"),
            *("attempt", "node", Column("far", "Progress")),
        ),
        nothing="nothing is queued or running",
    )


@jobs.command()
@click.option("--job", metavar="JOB", help="Of this job.")
@click.option("--state", type=click.Choice([*State], case_sensitive=False), help="In this state.")
@click.option("--by", metavar="WHO", help="Triggered by this login, or by `schedule`.")
@click.option("--from", "since", type=MOMENT, metavar="TIME", help="Queued not before: a date, a time, or 24h (ago).")
@click.option("--to", "until", type=MOMENT, metavar="TIME", help="Queued before.")
@click.option("--limit", type=click.IntRange(1, PAGE), default=20, show_default=True, help="Runs at most.")
@click.option("--after", "before", type=click.IntRange(min=1), metavar="RUN", help="Go on where a page ended.")
@printed
@reads
def history(output: Output, limit: int, state: str | None, **wanted: Any) -> None:
    """List runs, newest first, a page at a time."""
    with _connect("history") as connection:
        page = past.page(connection, Filter(**wanted, state=State(state) if state else None), limit)
    columns: tuple[Column | str, ...] = past.COLUMNS
    if output.for_people:
        columns = (
            *("id", "job", STATE, "triggered_by", Column("slot", "Slot (UTC)"), Column("queued", "Queued (UTC)")),
            *("queue_delay", "duration", "attempt", "error"),
        )
        page_rows = list(map(_spoken, page.rows))
    else:
        page_rows = list(page.rows)
    output.rows(page_rows, columns, nothing="no run like that")
    if page.next and output.for_people:
        click.echo(f"more: --after {page.next}", err=True)


def _spoken(row: dict[str, Any]) -> dict[str, Any]:
    """A run whose spans are in words."""
    return row | {name: timedelta(seconds=row[name]) for name in _SECONDS if row[name] is not None}


@jobs.command("run-details")
@click.argument("run", type=click.IntRange(min=1))
@printed_json
@reads
def run_details(run: int, output: Output) -> None:
    """Show everything about one run, and each attempt at it."""
    with _connect("run-details") as connection:
        row = runs.run(connection, run)
        attempts = runs.attempts(connection, run)
    facts = {name: row[name] for name in past.COLUMNS}
    if not output.for_people:
        output.value({**facts, "attempts": attempts})
        return
    _facts(_spoken(facts) | {"progress": progress(facts["progress"]) or None})
    click.echo("\nAttempts")
    output.rows(
        attempts,
        (
            *("number", "node", "started_at", "heartbeat_at", "finished_at"),
            *(Column("outcome", state=True), "lost", "error", "refused"),
        ),
        nothing="none yet",
    )
