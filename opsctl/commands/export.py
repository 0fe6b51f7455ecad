"""`opsctl export`: records as CSV or NDJSON, of any size."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click
import psycopg

from opsctl.actions.records import unmasking
from opsctl.moment import MOMENT
from opslib import settings
from opslib.areas import export as exports
from opslib.areas import records
from opslib.areas.export import EXPORTS, Copy, Progress, Style
from opslib.errors import ConfigError, OpsError


@click.command()
@click.argument("what", type=click.Choice(list(EXPORTS)))
@click.option("--from", type=MOMENT, metavar="TIME", help="Not before: a date, a time, or 24h (ago). UTC.")
@click.option("--to", type=MOMENT, metavar="TIME", help="Before.")
@click.option("--status", metavar="STATUS", help="In this state (of webhooks and the audit: with this outcome).")
@click.option("--email", metavar="ADDRESS", help="Of exactly this address.")
@click.option("--provider", metavar="NAME", help="Of this provider.")
@click.option("--type", metavar="TYPE", help="Of this event type.")
@click.option("--format", "style", type=click.Choice(["csv", "ndjson"]), default="csv", show_default=True)
@click.option("--gzip", "packed", is_flag=True, help="Compressed.")
@click.option("-o", "--output", "target", default="-", metavar="FILE", help="Where to; - is standard output.")
@click.option("--after", metavar="KEY", help="Go on behind this key; an export that breaks off says it.")
@unmasking("an export")
def export(
    *, what: str, style: Style, packed: bool, target: str, after: str | None, unmask: bool, **filters: Any
) -> None:
    """Write records oldest first, e-mails masked, at constant memory.

    A file gets its name when it is whole; until then it is FILE.part. Text cells like a formula get an apostrophe.
    """
    _run(what, filters, style, Target(target, packed=packed, after=after), unmask=unmask)


class Target:
    """Where an export goes, and how.

    Args:
        to: A path, or `-`.
        packed: Through gzip.
        after: The key behind which it goes on.
    """

    def __init__(self, to: str, *, packed: bool, after: str | None) -> None:
        if packed and to == "-" and sys.stdout.isatty():
            raise ConfigError("compressed data is nothing for a terminal: give -o FILE or a pipe")
        self.path = None if to == "-" else Path(to)
        self.packed = packed
        self.after = after
        # Going on in the file that broke off: it has its head already.
        self.continues = bool(after and self.path and self.path.with_name(f"{self.path.name}.part").exists())

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Where the bytes go."""
        with contextlib.ExitStack() as exits:
            sink: IO[bytes] = sys.stdout.buffer
            if self.path is not None:
                sink = exits.enter_context(exports.kept(self.path, resume=self.continues))
            if self.packed:
                from isal import igzip  # noqa: PLC0415 - only when asked

                packer: Any = igzip.IGzipFile(fileobj=sink, mode="wb", compresslevel=1)  # type: ignore[no-untyped-call]
                sink = exits.enter_context(io.BufferedWriter(packer, exports.BUFFER))
            yield sink
            sink.flush()


def _run(what: str, filters: dict[str, Any], style: Style, target: Target, *, unmask: bool) -> None:
    chosen = EXPORTS[what]
    loaded = settings.load()
    dsn = loaded.reveal("DATABASE_URL") if chosen.database == "app" else loaded.require_ops()
    bar = Bar(what)
    copy: Copy | None = None
    try:
        with records.connect(dsn) as connection:
            copy = Copy(connection, chosen, filters, style=style, after=target.after, unmask=unmask)
            with target.opened() as sink:
                if style == "csv" and not target.continues:
                    sink.write(copy.head)
                try:
                    copy.run(sink, bar)
                except (psycopg.Error, KeyboardInterrupt) as exc:
                    raise _Broken from exc
    except _Broken as exc:
        bar.end()
        raise OpsError(_broken(copy, target, exc.__cause__)) from exc.__cause__
    bar.end()
    if target.path is not None:
        click.echo(f"{copy.progress.rows:,} {what} in {target.path}", err=True)


class _Broken(Exception):  # noqa: N818 - on its way to become an error of ours
    """It broke off; the file stays as it is."""


def _broken(copy: Copy | None, target: Target, why: BaseException | None) -> str:
    reason = "it was interrupted" if isinstance(why, KeyboardInterrupt) else f"Postgres: {str(why).splitlines()[0]}"
    key = copy.key if copy else None
    if key is None:
        return f"nothing was exported: {reason}"
    where = f"in {target.path}.part" if target.path else "on standard output"
    assert copy is not None  # noqa: S101 - it has a key
    return f"{copy.progress.rows:,} rows are {where}, then {reason}; go on with the same command and --after {key}"


class Bar:
    """Progress on a terminal, twice a second; silent elsewhere.

    Args:
        what: Is exported.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()
        self._began = self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Show it."""
        now = time.monotonic()
        if self._shown and now - self._last > 0.5:  # noqa: PLR2004 - often enough for an eye
            self._last = now
            rate = progress.rows / (now - self._began)
            click.echo(f"\r{progress.rows:,} {self._what}, {rate:,.0f}/s", nl=False, err=True)

    def end(self) -> None:
        """Leave the line to what comes."""
        if self._shown and self._last > self._began:
            click.echo(f"\r{'':60}\r", nl=False, err=True)
