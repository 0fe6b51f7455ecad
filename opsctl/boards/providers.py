"""Providers and balances: is there money to sell with, and does the provider answer?"""

from exporters.signals.providers import AGE, ALERTS, BALANCE, LATENCY, LOW, QUOTA, RUNWAY, UP
from opsctl.render.board import Board, Colour, Look, Panel, Prom, Row
from opsctl.render.signals import panel
from opslib.alerting import Unit

ANSWERS = {"0": ("does not answer", Colour.BAD), "1": ("answers", Colour.GOOD)}

BOARD = Board(
    uid="bitloot-providers",
    title="Providers and balances",
    means="Is there money to sell with, and does the provider answer?",
    rows=(
        Row(
            "Can we buy?",
            (
                panel(UP, ALERTS, look=Look.TIMELINE, width=12, words=ANSWERS, empty="no provider is configured"),
                panel(RUNWAY, ALERTS, width=12, empty="not known before a day of history and some spend"),
                panel(BALANCE, ALERTS, width=12),
                panel(LOW, ALERTS, width=12),
            ),
        ),
        Row(
            "How does it answer?",
            (
                panel(LATENCY, ALERTS, width=8),
                panel(AGE, ALERTS, width=8),
                panel(QUOTA, ALERTS, width=8),
                Panel(
                    title="Calls left",
                    means="Calls left in the provider's current window, as it says itself. Ours are one a minute.",
                    unit=Unit.COUNT,
                    look=Look.SERIES,
                    queries=(Prom("bitloot_provider_rate_limit_remaining", "{{provider}}"),),
                    width=12,
                    empty="the provider does not say",
                ),
                Panel(
                    title="Share of time answered",
                    means="Of each hour, the share in which the provider answered all we asked; 99 % is promised.",
                    unit=Unit.RATIO,
                    look=Look.SERIES,
                    queries=(Prom("avg_over_time(bitloot_provider_up[1h])", "{{provider}}"),),
                    width=12,
                    steps=((0, Colour.WATCH), (0.99, Colour.GOOD)),
                ),
            ),
        ),
    ),
)
