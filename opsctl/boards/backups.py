"""Backups: is there one, is it whole, and has anybody proved it?"""

from exporters.signals.backups import (
    AGE,
    ALERTS,
    BYTES,
    COUNT,
    DRILLED,
    NEWEST_PROVEN,
    PARTIAL,
    PASSED,
    PENDING,
    SECONDS,
    SHRINK,
    VERIFIED,
)
from exporters.signals.runs import ALERTS as RUN_ALERTS
from exporters.signals.runs import REPLICATION
from opsctl.boards import sql
from opsctl.boards.sql import FROM, TO, Given
from opsctl.render.board import Board, Colour, Look, Panel, Row, Source, Sql
from opsctl.render.signals import panel
from opslib.alerting import Unit

NEWEST = {"0": ("not proven", Colour.WATCH), "1": ("proven", Colour.GOOD)}
WHOLE = {"0": ("failed", Colour.BAD), "1": ("passed", Colour.GOOD)}
JOBS = ("backup-database", "verify-backup", "restore-drill", "retention", "replicate-objects")

RUNS = "\nUNION ALL\n".join(
    f"SELECT job, state, started, duration, coalesce(result ->> 'key', result -> 'verified' ->> -1) AS key, "
    f"(result ->> 'size')::bigint AS size, error "
    f"FROM (\n{runs}\n) {job.replace('-', '_')}"
    for job in JOBS
    for runs in [
        sql.asking("runs_history", job=Given(f"'{job}'"), limit=Given("20"), since=Given(FROM), until=Given(TO))
    ]
)

BOARD = Board(
    uid="bitloot-backups",
    title="Backups",
    means="Is there a backup, is it whole, and has anybody proved it? `opsctl backups list` names each.",
    span="7d",  # one a night
    refresh="5m",
    rows=(
        Row(
            "Could we restore?",
            (
                panel(AGE, ALERTS, look=Look.STAT, width=4, height=5, empty="no backup is known"),
                panel(NEWEST_PROVEN, ALERTS, look=Look.STAT, width=4, height=5, words=NEWEST, empty="not known"),
                panel(PASSED, ALERTS, look=Look.STAT, width=6, height=5, words=WHOLE, empty="nothing was proved yet"),
                panel(VERIFIED, ALERTS, look=Look.STAT, width=5, height=5, empty="never verified"),
                panel(DRILLED, ALERTS, look=Look.STAT, width=5, height=5, empty="never restored"),
            ),
        ),
        Row(
            "Are they whole?",
            (
                panel(BYTES, ALERTS, width=8, empty="no backup is known"),
                panel(SHRINK, ALERTS, width=8, empty="fewer than two backups"),
                panel(COUNT, ALERTS, width=8, empty="the bucket was not read"),
                panel(PARTIAL, ALERTS, width=6, empty="none"),
                panel(PENDING, ALERTS, width=6, empty="none"),
                panel(SECONDS, ALERTS, width=6, empty="nothing was proved yet"),
                panel(REPLICATION, RUN_ALERTS, width=6, empty="never ran, or is not set up"),
            ),
        ),
        Row(
            "What was done",
            (
                Panel(
                    title="Runs about backups",
                    means="The last twenty runs of each job about backups: the key it wrote or read, and its size.",
                    unit=Unit.MONEY,
                    look=Look.TABLE,
                    queries=(Sql(Source.OPS, f"SELECT * FROM (\n{RUNS}\n) runs ORDER BY started DESC NULLS FIRST"),),
                    width=24,
                    height=10,
                    empty="none in this span of time",
                    units={"duration": Unit.SECONDS, "size": Unit.BYTES},
                ),
            ),
        ),
    ),
)
