"""Audit & flags: who did what, is the trail whole, and do the flags stand as declared?"""

from exporters.signals import flags
from exporters.signals.audit import ALERTS, ANCHORED, EVENTS, GROWTH, INTACT, OLDEST, REFUSED, UNFINISHED, VERIFIED
from opsctl.boards import sql
from opsctl.boards.sql import PAGE_NUMBER, TIMES, Text
from opsctl.render.board import Board, Colour, Look, Panel, Pick, Row, Source, Sql, TextBox
from opsctl.render.signals import panel
from opslib.alerting import Unit

WHOLE = {"0": ("damaged", Colour.BAD), "1": ("whole", Colour.GOOD)}
USABLE = {"0": ("unusable", Colour.BAD), "1": ("usable", Colour.GOOD)}
DRIFT = {"0": ("as declared", Colour.GOOD), "1": ("changed by hand", Colour.WATCH)}

TRAIL = f"""\
SELECT at, who, role, action, target, reason, outcome, error, intent,
       duration_ms / 1000.0 AS duration, seq FROM (
{sql.asking("audit_export", status=Text("outcome"), **TIMES)}
) trail WHERE strpos(lower(concat_ws(' ', who, action, target)), lower(${{has:sqlstring}})) > 0
ORDER BY seq DESC LIMIT 100 OFFSET 100 * ({PAGE_NUMBER} - 1)"""

BOARD = Board(
    uid="bitloot-audit",
    title="Audit & flags",
    means="Who did what, is the trail whole, and do the flags stand as declared?",
    span="7d",  # people act rarely
    refresh="5m",
    variables=(
        Pick(
            "outcome",
            "Outcome",
            "How an action ended; an intent is one begun.",
            ("intent", "allowed", "refused", "failed"),
            any="''",
        ),
        TextBox("has", "Who, action or target has", "A part of any of them."),
        Pick("page", "Page", "100 events each, newest first.", tuple(str(n + 1) for n in range(sql.PAGES))),
    ),
    rows=(
        Row(
            "Is the trail whole?",
            (
                panel(INTACT, ALERTS, look=Look.STAT, width=4, height=5, words=WHOLE, empty="never proved"),
                panel(VERIFIED, ALERTS, look=Look.STAT, width=5, height=5, empty="never proved"),
                panel(ANCHORED, ALERTS, look=Look.STAT, width=5, height=5, empty="never noted"),
                panel(UNFINISHED, ALERTS, look=Look.STAT, width=5, height=5, empty="not known"),
                panel(OLDEST, ALERTS, look=Look.STAT, width=5, height=5),
            ),
        ),
        Row(
            "Who did what?",
            (
                Panel(
                    title="Trail",
                    means="What was done and refused, newest first. `opsctl audit show` adds what was asked for.",
                    unit=Unit.MONEY,
                    look=Look.TABLE,
                    queries=(Sql(Source.OPS, TRAIL),),
                    width=24,
                    height=10,
                    empty="nothing in this span of time, with these filters",
                    units={"duration": Unit.SECONDS},
                ),
                panel(EVENTS, ALERTS, width=8, colours={"refused": Colour.WATCH, "failed": Colour.BAD}),
                panel(REFUSED, ALERTS, width=8),
                panel(GROWTH, ALERTS, width=8, empty="not known within the first hour"),
            ),
        ),
        Row(
            "Flags",
            (
                panel(flags.DRIFT, flags.ALERTS, look=Look.BARS, width=8, words=DRIFT, empty="no flag was synced yet"),
                panel(flags.STATES, flags.ALERTS, width=8, empty="no flag was synced yet"),
                panel(flags.VALID, flags.ALERTS, look=Look.STAT, width=4, height=8, words=USABLE, empty="never read"),
                panel(flags.STALE, flags.ALERTS, look=Look.STAT, width=4, height=8, empty="never synced"),
                panel(flags.EXPIRED, flags.ALERTS, width=12, height=5, only_above_zero=True, empty="none"),
                panel(flags.OVERRIDDEN, flags.ALERTS, width=12, height=5, only_above_zero=True, empty="none"),
            ),
        ),
    ),
)
