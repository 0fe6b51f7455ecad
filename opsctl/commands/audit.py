"""`opsctl audit`: what was done and refused, and the proof that nothing of it was changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
from psycopg.rows import dict_row

from opsctl.actions.audit import accept_restore
from opsctl.kinds import reads
from opsctl.moment import MOMENT
from opsctl.output import Column, Output, printed, printed_json, to_json
from opslib import audit, audit_chain, audit_store, settings
from opslib.areas.queries import NAMED
from opslib.audit import Head, Outcome
from opslib.errors import NotFoundError, OpsError, RefusedError
from opslib.settings import Settings
from opslib.storage import Storage

PAGE = 100
EXPORT_BATCH = 2000

_FILTERS = (
    click.option("--who", metavar="LOGIN", help="By this login."),
    click.option("--action", metavar="NAME", help="This action (queues.retry), or all of an area (queues)."),
    click.option("--target", metavar="NAME", help="On exactly this."),
    click.option("--outcome", type=click.Choice([outcome.value for outcome in Outcome]), help="That ended so."),
    click.option("--from", type=MOMENT, metavar="TIME", help="Not before: a date, a time, or 24h (ago). UTC."),
    click.option("--to", type=MOMENT, metavar="TIME", help="Before."),
)


@click.group(name="audit")
def group() -> None:
    """Every action, allowed or refused: list it, show it, prove it."""


group.add_command(accept_restore)


def _filtered(command: Any) -> Any:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@group.command("list")
@_filtered
@click.option("--unfinished", is_flag=True, help="Intents whose outcome is not (yet) written.")
@click.option("--limit", type=click.IntRange(1, PAGE), default=20, show_default=True, help="Events at most.")
@click.option("--before", type=click.IntRange(1), metavar="SEQ", help="Go on where a page ended.")
@printed
@reads
def list_(output: Output, **filters: Any) -> None:
    """Show what was done and refused, newest first."""
    rows = _rows("audit_events", filters)
    columns: list[Column | str] = ["seq", Column("at", "At (UTC)"), "who", "role", "action", "target"]
    output.rows(rows, [*columns, Column("outcome", state=True), "reason", "error"], nothing="no event like that")
    if len(rows) == filters["limit"] and output.for_people:
        click.echo(f"more: --before {rows[-1]['seq']}", err=True)


@group.command()
@click.argument("seq", type=click.IntRange(1))
@printed_json
@reads
def show(seq: int, output: Output) -> None:
    """Show one event whole, with the intent before it or the outcome after it."""
    rows = _rows("audit_event", {"before": seq})
    if not rows:
        raise NotFoundError(f"there is no audit event {seq}; `opsctl audit list` shows the newest")
    if not output.for_people:
        output.value(rows)
        return
    for row in rows:
        for key, value in row.items():
            if value not in (None, "", {}):
                click.echo(f"{key:<12}{to_json(value, indent=None) if isinstance(value, dict) else _plain(value)}")
        click.echo()


@group.command()
@click.option("--head", "heads", multiple=True, metavar="SEQ:HASH", help="Hold it against this head, from a log line.")
@click.option("--sealed", is_flag=True, help="Read every sealed segment, and prove it, too.")
@click.option("--no-store", is_flag=True, help="Do not ask the bucket: proves less, and says so.")
@printed_json
@reads
def verify(heads: tuple[str, ...], *, sealed: bool, no_store: bool, output: Output) -> None:
    """Prove the chain: each hash anew, the head, and the heads noted outside the database.

    Exit code 1: something was changed, and what. That it was verified is itself an event.
    """
    loaded = settings.load()
    storage = Storage.of(loaded) if loaded.has("R2_BUCKET") and not no_store else None
    noted = [*map(_head, heads), *(audit_store.noted(storage) if storage else ())]
    report = audit_chain.verify(loaded.require_ops(), noted)
    findings = [*report.findings, *(_sealed(storage) if sealed and storage else ())]
    _remember(loaded, findings, report)
    if output.for_people:
        for finding in findings:
            click.secho(finding, fg="red")
        for restore in report.restores:
            click.secho(str(restore), fg="yellow")
        speed = f"{report.events:,} events in {report.seconds:.2f} s, {report.anchors} heads noted outside"
        click.echo(f"{'DAMAGED' if findings else 'intact'}: {speed}; head {report.head.seq}:{report.head.hash.hex()}")
        if not report.anchors:
            click.echo("no head was noted outside: a tail cut off with its head would not be seen", err=True)
    else:
        output.value(
            {
                "ok": not findings,
                "findings": findings,
                "restores": [str(restore) for restore in report.restores],
                "events": report.events,
                "seconds": report.seconds,
                "anchors": report.anchors,
                "head": {"seq": report.head.seq, "hash": report.head.hash.hex(), "at": report.head.at},
            }
        )
    if findings:
        sys.exit(1)


@group.command()
@_filtered
@click.option("--format", "style", type=click.Choice(["ndjson", "csv"]), default="ndjson", show_default=True)
@click.option("-o", "--output", "path", type=click.File("w", "utf-8", lazy=True), default="-", help="A file, or -.")
@reads
def export(path: Any, style: str, **filters: Any) -> None:
    """Write every matching event, newest first, a page at a time: constant memory at any size."""
    from opsctl.output import to_csv  # noqa: PLC0415 - only here

    keys: list[str] = []
    for row in _pages(filters):
        if style == "ndjson":
            path.write(to_json(row, indent=None) + "\n")
            continue
        text = to_csv([row], keys or list(row))
        path.write(text.partition("\n")[2] if keys else text)
        keys = keys or list(row)


def _pages(filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    before: int | None = None
    while rows := _rows("audit_events", {**filters, "unfinished": False, "limit": EXPORT_BATCH, "before": before}):
        yield from rows
        before = rows[-1]["seq"]


def _rows(query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with (
        audit.connect(settings.load().require_ops(), append=False) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(NAMED[query].sql.encode(), parameters).fetchall()


def _head(text: str) -> Head:
    seq, _, digest = text.partition(":")
    try:
        return Head(int(seq), bytes.fromhex(digest), datetime.now().astimezone())
    except ValueError:
        raise click.BadParameter(f"{text!r} is no head: write it like 1500:9f86d0…", param_hint="--head") from None


def _sealed(storage: Storage) -> Iterator[str]:
    """Each segment anew, behind the one that ends before it begins."""
    ends = {0: {audit_chain.GENESIS}}
    for segment in audit_store.segments(storage):
        before = ends.get(segment.first - 1, set())
        told = [audit_store.prove(storage, segment, prior)[1] for prior in before]
        if not before:
            yield f"{segment.key}: no segment ends before event {segment.first}"
        elif all(told):
            yield from min(told, key=len)
        ends.setdefault(segment.last, set()).add(segment.hash)


def _remember(loaded: Settings, findings: list[str], report: audit_chain.Report) -> None:
    """Note that it was looked at. A reader without the right to is no finding."""
    try:
        with audit.connect(loaded.require_ops()) as connection:
            audit.verified(connection, findings, report.events, report.anchors)
    except RefusedError:
        click.echo("this login may not note in the audit that it was verified", err=True)
    except OpsError as exc:
        click.echo(f"that it was verified could not be noted: {exc}", err=True)


def _plain(value: Any) -> str:
    from opsctl.output import words  # noqa: PLC0415 - only here

    return words(value)
