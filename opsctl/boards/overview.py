"""Overview: is the shop all right? Six lamps, each asking Prometheus alone, so that they may ask every 15 s."""

from exporters.signals import app, ledger, providers, queues
from opsctl.render.board import Board, Colour, Look, Panel, Prom, Row
from opsctl.render.signals import panel
from opslib.alerting import Objective, Unit

LAMP = {"0": ("down", Colour.BAD), "1": ("up", Colour.GOOD)}


def _lamp(title: str, means: str, expr: str) -> Panel:
    return Panel(
        title=title,
        means=means,
        unit=Unit.YES_NO,
        look=Look.STAT,
        queries=(Prom(expr),),
        width=4,
        height=4,
        words=LAMP,
    )


def _burning(objective: Objective) -> Prom:
    legend = " ".join((objective.name, *(f"{{{{{label}}}}}" for label in objective.by)))
    return Prom(f"slo:{objective.name}:error_ratio_6h / {1 - objective.target:g}", legend)


BOARD = Board(
    uid="bitloot-overview",
    title="Overview",
    means="Is the shop all right? What is not leads to the board that says why.",
    refresh="15s",
    rows=(
        Row(
            "Now",
            (
                _lamp(
                    "API",
                    "Whether the application answers; no data where APP_METRICS_URL is not set.",
                    'min(ops_collector_up{collector="app"})',
                ),
                Panel(
                    title="Queue",
                    means="Seconds the oldest ready job of all queues has waited; five minutes are the promise.",
                    unit=Unit.SECONDS,
                    look=Look.STAT,
                    # An empty queue has no oldest job: with Redis answering, nobody waits.
                    queries=(
                        Prom(f'max({queues.OLDEST.expr}) or min(ops_collector_up{{collector="queues"}} == 1) - 1'),
                    ),
                    width=4,
                    height=4,
                    steps=((0, Colour.GOOD), (300, Colour.BAD)),
                ),
                _lamp(
                    "DB",
                    "Whether the application's database answers every question we ask.",
                    'min(ops_collector_up{collector=~"ledger/.*"})',
                ),
                _lamp("Cache", "Whether Redis answers.", 'min(ops_collector_up{collector="queues"})'),
                Panel(
                    title="E-mail",
                    means="E-mails that could not be handed over within half an hour.",
                    unit=Unit.COUNT,
                    look=Look.STAT,
                    queries=(Prom(f"sum({ledger.EMAIL.expr})"),),
                    width=4,
                    height=4,
                    steps=panel(ledger.EMAIL, ledger.ALERTS).steps,
                ),
                Panel(
                    title="Incidents",
                    means="Alerts that wake somebody, firing now. No data: nobody evaluates the rules.",
                    unit=Unit.COUNT,
                    look=Look.STAT,
                    queries=(
                        Prom(
                            '(count(ALERTS{alertstate="firing",severity="page"}) or vector(0)) '
                            'and on () ALERTS{alertname="Watchdog"}'
                        ),
                    ),
                    width=4,
                    height=4,
                    steps=((0, Colour.GOOD), (1, Colour.BAD)),
                ),
            ),
        ),
        Row(
            "Does money become goods?",
            (
                panel(ledger.STUCK, ledger.ALERTS, width=12, empty="all orders agree with their payments"),
                panel(ledger.VALUE, ledger.ALERTS, width=12, empty="all orders agree with their payments"),
                Panel(
                    title="Orders by status",
                    means="Orders in each status, ever. A status that grows alone is where they stay.",
                    unit=Unit.COUNT,
                    look=Look.BARS,
                    queries=(Prom("max by (status) (bitloot_orders)", "{{status}}"),),
                    width=12,
                ),
                panel(queues.THROUGHPUT, queues.ALERTS, width=12, colours={"failed$": Colour.BAD}),
            ),
        ),
        Row(
            "What calls us now",
            (
                Panel(
                    title="Alerts",
                    means="Everything pending or firing, with its severity; each has a runbook of its name.",
                    unit=Unit.COUNT,
                    look=Look.TABLE,
                    queries=(
                        Prom('count by (alertname, severity, alertstate, subject) (ALERTS{severity!="heartbeat"})'),
                    ),
                    width=12,
                    empty="nothing",
                    hidden=("Value",),
                ),
                Panel(
                    title="Error budgets burning",
                    means="How many times faster than allowed each promise is broken, over six hours; above 1, "
                    "it will be broken by the end of the month.",
                    unit=Unit.COUNT,
                    look=Look.SERIES,
                    queries=tuple(_burning(one) for one in (*ledger.OBJECTIVES, *providers.OBJECTIVES)),
                    width=12,
                    steps=((0, Colour.GOOD), (1, Colour.WATCH), (14.4, Colour.BAD)),
                    empty="nothing happened yet that could break one",
                ),
                panel(providers.RUNWAY, providers.ALERTS, width=8, empty="not known yet"),
                panel(app.RESTARTS, app.ALERTS, width=8),
                panel(ledger.BOUNCES, ledger.ALERTS, width=8),
            ),
        ),
    ),
)
