"""Jobs: did each succeed in time, what is running, and how did the last ones end?"""

from collections.abc import Mapping

from exporters.signals.runs import (
    ALERTS,
    DURATION,
    FAILING,
    LOST,
    OVERDUE,
    QUEUED,
    REFUSED,
    REPLICATION,
    RUNNING,
    SILENT,
    SKIPPED,
    TICKS,
    TIMEOUTS,
    UNFIT,
)
from opsctl.boards import sql
from opsctl.boards.sql import FROM, LIMIT, TO, Given, Text, Value
from opsctl.render.board import Board, Choice, Colour, Look, Panel, Pick, Prom, Row, Source, Sql
from opsctl.render.signals import panel
from opslib.alerting import Unit

STATES = {
    "1": ("succeeded", Colour.GOOD),
    "2": ("cancelled", Colour.QUIET),
    "3": ("failed", Colour.BAD),
    "4": ("running", Colour.BUSY),
}
STATE = (
    "max by (job_name) ((ops_job_running > 0) * 0 + 4) "
    'or max by (job_name) ((ops_job_last_outcome{outcome="FAILED"} == 1) * 3) '
    'or max by (job_name) ((ops_job_last_outcome{outcome="CANCELLED"} == 1) * 2) '
    'or max by (job_name) (ops_job_last_outcome{outcome="SUCCESS"} == 1)'
)
"""Running stands before how the one before ended."""

COLUMNS = "id AS run, job, state, slot, queued, started, finished, duration, attempt, node, triggered_by, error"
CHOSEN: Mapping[str, Value] = {"job": Text("job"), "limit": LIMIT, "since": Given(FROM), "until": Given(TO)}
RUNS = sql.page(
    f"""\
SELECT {COLUMNS} FROM (
{sql.asking("runs_history", **CHOSEN)}
) every WHERE ${{state:sqlstring}} = ''
UNION ALL
SELECT {COLUMNS} FROM (
{sql.asking("runs_history_of_state", state=Text("state"), **CHOSEN)}
) of_state WHERE ${{state:sqlstring}} <> ''""",
    "run DESC",
)

BOARD = Board(
    uid="bitloot-runs",
    title="Jobs",
    means="Did each job succeed in time, what is running, and how did the last ones end?",
    span="2d",  # most are due once a day
    variables=(
        Choice(
            "job",
            "Job",
            "Of the history.",
            Sql(Source.OPS, f"SELECT job FROM (\n{sql.asking('runs_stats')}\n) stats"),
            any="''",
        ),
        Pick("state", "State", "Of the history.", ("QUEUED", "RUNNING", "SUCCESS", "FAILED", "CANCELLED"), any="''"),
        Pick("page", "Page", "100 runs each, newest first.", tuple(str(n + 1) for n in range(sql.PAGES))),
    ),
    rows=(
        Row(
            "Is anything late?",
            (
                panel(
                    OVERDUE,
                    ALERTS,
                    look=Look.TABLE,
                    queries=(
                        Prom("max by (job_name) (ops_job_overdue)"),
                        Prom("max by (job_name) (time() - ops_job_last_success_timestamp_seconds)"),
                        Prom("max by (job_name) (ops_job_queued)"),
                        Prom("max by (job_name) (ops_job_missing_settings)"),
                    ),
                    names={
                        "Value #A": "overdue",
                        "Value #B": "since success",
                        "Value #C": "waiting",
                        "Value #D": "settings missing",
                    },
                    units={"since success": Unit.SECONDS, "waiting": Unit.COUNT, "settings missing": Unit.COUNT},
                    width=10,
                    height=10,
                    empty="no job is declared",
                ),
                Panel(
                    title="How each job stands",
                    means="The last outcome of each job, and when it ran. Cancelled is somebody's wish, no failure.",
                    unit=Unit.COUNT,
                    look=Look.TIMELINE,
                    queries=(Prom(STATE, "{{job_name}}"),),
                    width=14,
                    height=10,
                    words=STATES,
                    empty="no job has run yet",
                ),
            ),
        ),
        Row(
            "History",
            (
                Panel(
                    title="Runs",
                    means="Runs, newest first. `opsctl jobs show` tells the attempts of one.",
                    unit=Unit.MONEY,
                    look=Look.TABLE,
                    queries=(Sql(Source.OPS, RUNS),),
                    width=24,
                    height=10,
                    empty="none in this span of time, with these filters",
                    units={"duration": Unit.SECONDS},
                ),
                Panel(
                    title="Runs ended",
                    means="Runs that ended within the hour, by outcome.",
                    unit=Unit.COUNT,
                    look=Look.SERIES,
                    queries=(Prom("sum by (outcome) (increase(ops_job_runs_total[1h]))", "{{outcome}}"),),
                    colours={"SUCCESS": Colour.GOOD, "FAILED": Colour.BAD, "CANCELLED": Colour.QUIET},
                    empty="none",
                ),
                panel(DURATION, ALERTS),
                panel(FAILING, ALERTS, only_above_zero=True),
            ),
        ),
        Row(
            "Does the engine run?",
            (
                panel(RUNNING, ALERTS, width=6, height=6, only_above_zero=True),
                panel(QUEUED, ALERTS, width=6, height=6, only_above_zero=True),
                panel(LOST, ALERTS, width=6, height=6, only_above_zero=True),
                panel(TIMEOUTS, ALERTS, width=6, height=6, only_above_zero=True),
                panel(TICKS, ALERTS, width=6, height=6, only_above_zero=True),
                panel(SKIPPED, ALERTS, width=6, height=6, only_above_zero=True),
                panel(REFUSED, ALERTS, width=6, height=6, only_above_zero=True),
                panel(UNFIT, ALERTS, width=6, height=6, only_above_zero=True),
                panel(SILENT, ALERTS, width=12, height=5, empty="jobs are reported"),
                panel(REPLICATION, ALERTS, width=12, height=5, empty="never ran, or is not set up"),
            ),
        ),
    ),
)
