"""Everything the page must show once all is quiet: the truth's counters, and the gauges of the models."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus

from demo.backups import Kept
from demo.compare import Bounds
from demo.jobs import Jobs
from demo.truth import Series, series
from demo.world import YESTERDAY_SECONDS, World

Say = Callable[[str], None]

SLACK_SECONDS = 20.0
"""By how much an age may be off: the page's own refresh, and the time it took to tell a story."""

BALANCE_SECONDS = 90.0
"""The exporter asks the providers once a minute."""


def exact(world: World, jobs: Jobs, backups: Kept) -> dict[Series, float]:
    """Every series of `compare.EXACT`."""
    expected = {
        **dict(world.truth),
        **world.gauges(),
        **jobs.gauges(),
        **backups.exact(),
        series("ops_contract_ok"): 1.0,
        series("ops_contract_missing_indexes"): 0.0,
    }
    for name, provider in (("nowpayments", world.nowpayments), ("kinguin", world.kinguin)):
        if refused := provider.answered[HTTPStatus.TOO_MANY_REQUESTS]:
            expected[series("bitloot_provider_quota_errors_total", provider=name)] = refused
    return expected


def between(world: World, backups: Kept) -> dict[Series, Bounds]:
    """Every series of `compare.BETWEEN`."""
    expected: dict[Series, Bounds] = dict(backups.times())
    for provider in ("nowpayments", "kinguin"):
        expected[series("bitloot_provider_balance_age_seconds", provider=provider)] = (0, BALANCE_SECONDS)
    for queue, since in world.queues.waiting_since().items():
        age = time.time() - since
        of = series("bitloot_queue_oldest_waiting_age_seconds", queue=queue)
        expected[of] = (age - SLACK_SECONDS, age + SLACK_SECONDS)
    old = {problem: False for order in world.shop.orders.values() for problem, _ in order.problems()}
    for order in world.yesterdays:
        old |= dict.fromkeys((problem for problem, _ in world.shop.orders[order].problems()), True)
    open_for = time.time() - world.opened
    for problem, yesterdays in old.items():
        of = series("bitloot_reconciliation_oldest_age_seconds", problem=problem)
        # On a busy machine a story of yesterday may have ended otherwise, and the oldest be today's.
        age = YESTERDAY_SECONDS + open_for
        expected[of] = (age - SLACK_SECONDS if yesterdays else 0, (age if yesterdays else open_for) + SLACK_SECONDS)
    return expected
