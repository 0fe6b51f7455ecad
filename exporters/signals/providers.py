"""Providers and balances: is there money to sell with, and does the provider answer?"""

from opslib.alerting import (
    MINUTE,
    Above,
    Alert,
    Below,
    BurnRate,
    Objective,
    Severity,
    Signal,
    Speed,
    Unit,
)
from opslib.areas.balances import RUNWAY_SHORT_DAYS

AVAILABLE = Objective(
    name="provider",
    title="Provider answers",
    errors="sum by (provider) (count_over_time(bitloot_provider_up[$window])"
    " - sum_over_time(bitloot_provider_up[$window]))",
    total="sum by (provider) (count_over_time(bitloot_provider_up[$window]))",
    target=0.99,
    min_events=2160,  # six hours of readings: the one that fails at each restart must not weigh
    by=("provider",),
)
UP = Signal(
    title="Providers answering",
    expr="bitloot_provider_up",
    unit=Unit.YES_NO,
    means="1 if the provider last answered all we asked. A wrong key is 0 too: the exporter's log names the setting.",
    by=("provider",),
)
RUNWAY = Signal(
    title="Days of stock money left",
    expr="bitloot_provider_runway_days",
    unit=Unit.DAYS,
    means="Days the balance lasts at the spend of the last seven days. At zero, orders are paid and not fulfilled.",
    by=("provider", "currency"),
)
BALANCE = Signal(
    title="Balances",
    expr="bitloot_provider_balance",
    unit=Unit.MONEY,
    means="Funds held at the provider, in units of the currency.",
    by=("provider", "currency"),
    no_alert="how much is little depends on the spend: the runway calls, and for the wallet that buys its own floor",
)
LOW = Signal(
    title="Balance we buy from",
    expr='bitloot_provider_balance{provider="kinguin",currency="EUR"}',
    unit=Unit.EUR,
    means="What is left to buy keys with, in EUR.",
    by=("provider", "currency"),
)
AGE = Signal(
    title="Age of the balance",
    expr="bitloot_provider_balance_age_seconds",
    unit=Unit.SECONDS,
    means="Seconds since the balance was last read; one minute is usual.",
    by=("provider",),
)
LATENCY = Signal(
    title="Provider latency",
    expr="bitloot_provider_latency_seconds",
    unit=Unit.SECONDS,
    means="How long the provider's last answer took.",
    by=("provider",),
)
QUOTA = Signal(
    title="Calls refused for the rate limit",
    expr="increase(bitloot_provider_quota_errors_total[30m])",
    unit=Unit.COUNT,
    means="Calls the provider refused within half an hour because its limit was used. Ours are one a minute.",
    by=("provider",),
)

SIGNALS = (UP, RUNWAY, BALANCE, LOW, AGE, LATENCY, QUOTA)
OBJECTIVES = (AVAILABLE,)

ALERTS = (
    Alert(
        name="ProviderDown",
        when=Below(UP, 1),
        because="asked once a minute with retries in between: five minutes are five refusals in a row",
        for_=5 * MINUTE,
        severity=Severity.PAGE,
        summary="{{ $labels.provider }} has not answered for five minutes",
    ),
    Alert(
        name="ProviderRunwayShort",
        when=Below(RUNWAY, RUNWAY_SHORT_DAYS),
        because="a bank transfer to Kinguin takes up to two working days",
        for_=30 * MINUTE,
        severity=Severity.PAGE,
        summary="{{ $labels.provider }}: {{ $labels.currency }} lasts {{ $value | humanize }} days",
    ),
    Alert(
        name="ProviderBalanceLow",
        when=Below(LOW, 100),
        because="one expensive game costs 70 EUR; with less than 100 the next order may fail whatever the average says",
        for_=10 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.provider }}: {{ $value | humanize }} EUR left to buy keys with",
    ),
    Alert(
        name="ProviderBalanceStale",
        when=Above(AGE, 15 * MINUTE),
        because="read once a minute; ProviderDown speaks first, this one when the provider answers nonsense",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.provider }}: the balance was last read {{ $value | humanizeDuration }} ago",
    ),
    Alert(
        name="ProviderSlow",
        when=Above(LATENCY, 5),
        because="the application gives a provider ten seconds; half of it for a quarter of an hour is no hiccup",
        for_=15 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.provider }} takes {{ $value | humanizeDuration }} to answer",
    ),
    Alert(
        name="ProviderQuota",
        when=Above(QUOTA, 3),
        because="one call a minute of ours cannot use the limit: somebody else does, and will be refused too",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.provider }} refused {{ $value | humanize }} calls for its rate limit in half an hour",
    ),
    Alert(
        name="ProviderBudgetSlow",
        when=BurnRate(AVAILABLE, Speed.SLOW),
        because="short outages add up: a tenth of the month's budget within three days is worth a mail to the provider",
        for_=15 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.provider }} failed to answer {{ $value | humanizePercentage }} of the time, for days",
    ),
)
