"""Payments & fulfilment: the nine panels the shop asked for, and whether paid orders become goods."""

from exporters.signals.ledger import (
    ALERTS,
    DROPPED,
    INVALID_IPN,
    INVALID_WEBHOOK,
    LEAKED,
    NONE_VALID,
    PAID,
    UNDERPAID,
    UNMOVED,
    UNPAID,
    WEBHOOK_ERRORS,
    WEBHOOKS,
)
from opsctl.render.board import Board, Choice, Colour, Look, Panel, Prom, Row
from opsctl.render.signals import panel
from opslib.alerting import Unit

OUTCOMES = {"ok$": Colour.GOOD, "duplicate$": Colour.QUIET, "invalid$": Colour.WATCH, "error$": Colour.BAD}
"""What was declined is no error of ours."""
CHOSEN = 'queue=~"$queue"'


def _depth(title: str, metric: str, means: str, *steps: tuple[float, Colour]) -> Panel:
    return Panel(
        title=title,
        means=means,
        unit=Unit.COUNT,
        look=Look.GAUGE,
        queries=(Prom(f"sum by (queue) ({metric}{{{CHOSEN}}})", "{{queue}}"),),
        width=8,
        height=5,
        steps=steps,
    )


BOARD = Board(
    uid="bitloot-ledger",
    title="Payments & fulfilment",
    means="Are we told of payments, and do paid orders become goods?",
    variables=(
        Choice(
            "queue",
            "Queue",
            "Of the queue panels.",
            Prom("label_values(bitloot_queue_waiting, queue)"),
            any=".*",
        ),
    ),
    rows=(
        Row(
            "Orders in disagreement",
            (
                panel(PAID, ALERTS, empty="none"),
                panel(UNMOVED, ALERTS, empty="none"),
                panel(DROPPED, ALERTS),
                panel(LEAKED, ALERTS, empty="none"),
                panel(UNPAID, ALERTS, empty="not known within the first hour"),
                panel(UNDERPAID, ALERTS, empty="no spike"),
            ),
        ),
        Row(
            "Payments and fulfilment",
            (
                Panel(
                    title="IPN OK / Invalid (5m)",
                    means="Payment notifications of five minutes, and of these the ones with a bad signature.",
                    unit=Unit.COUNT,
                    look=Look.STAT,
                    queries=(
                        Prom('sum(increase(bitloot_ipn_total{status="ok"}[5m]))', "ok"),
                        Prom('sum(increase(bitloot_ipn_total{status="invalid"}[5m]))', "invalid"),
                    ),
                    height=7,
                    colours={"^ok$": Colour.GOOD, "^invalid$": Colour.WATCH},
                    empty="no notification yet",
                ),
                Panel(
                    title="Webhook outcomes (5m)",
                    means="Webhooks of five minutes. Duplicates repeat, invalid ones are declined: only error is ours.",
                    unit=Unit.COUNT,
                    look=Look.BARS,
                    queries=(
                        Prom(
                            "sum by (provider, outcome) (increase(bitloot_webhook_total[5m]))",
                            "{{provider}} {{outcome}}",
                        ),
                    ),
                    height=7,
                    colours=OUTCOMES,
                    empty="no webhook yet",
                ),
                Panel(
                    title="Jobs Completed vs Failed (rate)",
                    means="Jobs that ended per second, by name.",
                    unit=Unit.PER_SECOND,
                    look=Look.SERIES,
                    queries=(
                        Prom(
                            f'sum by (queue, name) (rate(bitloot_queue_jobs_total{{result="completed",{CHOSEN}}}[5m]))',
                            "{{queue}} {{name}} completed",
                        ),
                        Prom(
                            f'sum by (queue, name) (rate(bitloot_queue_jobs_total{{result="failed",{CHOSEN}}}[5m]))',
                            "{{queue}} {{name}} failed",
                        ),
                    ),
                    height=7,
                    colours={"failed$": Colour.BAD},
                    empty="no job ended",
                ),
                _depth(
                    "Queue Waiting",
                    "bitloot_queue_waiting",
                    "Jobs ready for a worker. Their age tells more: see Queues.",
                ),
                _depth("Queue Active", "bitloot_queue_active", "Jobs a worker is at."),
                _depth(
                    "Queue Failed",
                    "bitloot_queue_failed",
                    "Failed jobs kept, attempts used up. `opsctl queues failed` names them.",
                    (0, Colour.GOOD),
                    (1, Colour.WATCH),
                ),
                Panel(
                    title="Job Duration",
                    means="How long jobs took: how many fell into each span of time.",
                    unit=Unit.SECONDS,
                    look=Look.HEATMAP,
                    queries=(
                        Prom(f"sum by (le) (increase(bitloot_job_duration_seconds_bucket{{{CHOSEN}}}[5m]))", "{{le}}"),
                    ),
                    width=12,
                    height=7,
                    empty="no job ended",
                ),
                Panel(
                    title="Underpaid (today)",
                    means="Orders that became underpaid within 24 hours.",
                    unit=Unit.COUNT,
                    look=Look.STAT,
                    queries=(Prom("sum(increase(bitloot_underpaid_total[24h]))"),),
                    width=6,
                    height=7,
                ),
                Panel(
                    title="Email Failures (24h)",
                    means="E-mails the application could not hand over within 24 hours: receipts, one-time codes.",
                    unit=Unit.COUNT,
                    look=Look.STAT,
                    queries=(Prom("sum(increase(bitloot_email_fail_total[24h]))"),),
                    width=6,
                    height=7,
                    steps=((0, Colour.GOOD), (1, Colour.WATCH)),
                ),
            ),
        ),
        Row(
            "Notifications",
            (
                panel(WEBHOOKS, ALERTS, width=12, colours=OUTCOMES),
                panel(INVALID_IPN, ALERTS, width=12, empty="no notification yet"),
                panel(NONE_VALID, ALERTS, empty="valid ones arrive"),
                panel(INVALID_WEBHOOK, ALERTS),
                panel(WEBHOOK_ERRORS, ALERTS),
            ),
        ),
    ),
)
