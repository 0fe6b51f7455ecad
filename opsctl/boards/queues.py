"""Queues: is work stuck, is nobody at it, does it fail? The oldest job's age stands before any depth."""

from exporters.signals.queues import (
    ABANDONED,
    ALERTS,
    DURATION,
    FAILURES,
    GAPS,
    OLDEST,
    OVERDUE,
    PAUSED,
    RETRIES,
    STALLED,
    THROUGHPUT,
    UNATTENDED,
)
from opsctl.render.board import Board, Colour, Look, Panel, Prom, Row
from opsctl.render.signals import panel
from opslib.alerting import Unit

BOARD = Board(
    uid="bitloot-queues",
    title="Queues",
    means="Is work stuck, is nobody at it, does it fail?",
    rows=(
        Row(
            "Is anybody waiting?",
            (
                panel(OLDEST, ALERTS, width=12, empty="nobody waits"),
                panel(UNATTENDED, ALERTS, width=6, empty="every queue with work has a worker"),
                panel(OVERDUE, ALERTS, width=6, only_above_zero=True, empty="none"),
            ),
        ),
        Row(
            "Does it move?",
            (
                panel(
                    THROUGHPUT,
                    ALERTS,
                    width=12,
                    colours={"failed$": Colour.BAD},
                    empty="nothing ended within five minutes",
                ),
                panel(DURATION, ALERTS, width=12, empty="nothing ended within a quarter of an hour"),
                panel(FAILURES, ALERTS, width=8, empty="fewer than three failures"),
                panel(RETRIES, ALERTS, width=8, empty="fewer than twenty retries"),
                panel(STALLED, ALERTS, width=8, only_above_zero=True),
            ),
        ),
        Row(
            "What is in them",
            (
                Panel(
                    title="Every queue now",
                    means="Jobs by state as kept in Redis. Depth says little: look at the oldest job's age first.",
                    unit=Unit.COUNT,
                    look=Look.TABLE,
                    queries=(
                        Prom("sum by (queue) (bitloot_queue_waiting + bitloot_queue_prioritized)"),
                        Prom("sum by (queue) (bitloot_queue_active)"),
                        Prom("sum by (queue) (bitloot_queue_delayed)"),
                        Prom("sum by (queue) (bitloot_queue_paused)"),
                        Prom("sum by (queue) (bitloot_queue_failed)"),
                        Prom("sum by (queue) (bitloot_queue_worker_present)"),
                    ),
                    width=16,
                    height=9,
                    names={
                        "Value #A": "ready",
                        "Value #B": "active",
                        "Value #C": "delayed",
                        "Value #D": "paused",
                        "Value #E": "failed",
                        "Value #F": "worker",
                    },
                ),
                panel(
                    PAUSED,
                    ALERTS,
                    width=8,
                    height=9,
                    look=Look.BARS,
                    words={"0": ("running", Colour.GOOD), "1": ("paused", Colour.WATCH)},
                ),
                panel(ABANDONED, ALERTS, width=12),
                panel(GAPS, ALERTS, width=12, only_above_zero=True),
            ),
        ),
    ),
)
