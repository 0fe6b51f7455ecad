"""Payments, webhooks, e-mail and reconciliation: does money turn into goods, and are we told of it?"""

from opslib.alerting import (
    HOUR,
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

FULFILMENT = Objective(
    name="fulfilment",
    title="Paid orders fulfilled within five minutes",
    errors='sum(increase(bitloot_paid_to_fulfilled_seconds_bucket{le="+Inf"}[$window])) '
    '- sum(increase(bitloot_paid_to_fulfilled_seconds_bucket{le="300"}[$window]))',
    total='sum(increase(bitloot_paid_to_fulfilled_seconds_bucket{le="+Inf"}[$window]))',
    target=0.99,
    min_events=20,
)
IPN = Objective(
    name="ipn",
    title="Genuine payment notifications accepted",
    # Forged ones are no errors of ours: whoever forges must not be able to call us out of bed.
    errors='sum(increase(bitloot_webhook_total{provider="nowpayments",outcome="error"}[$window]))',
    total='sum(increase(bitloot_webhook_total{provider="nowpayments",outcome=~"ok|error"}[$window]))',
    target=0.995,
    min_events=20,
)

INVALID_IPN = Signal(
    title="Invalid payment notifications",
    expr='increase(bitloot_ipn_total{status="invalid"}[15m])',
    unit=Unit.COUNT,
    means="Notifications with a bad or missing signature within 15 minutes: forged, or our secret is not theirs.",
    by=("status",),
)
NONE_VALID = Signal(
    title="Invalid payment notifications, and not one valid",
    expr='increase(bitloot_ipn_total{status="invalid"}[30m]) '
    'unless on () increase(bitloot_ipn_total{status="ok"}[30m]) > 0',
    unit=Unit.COUNT,
    means="Invalid notifications of half an hour in which none was valid: then it is our secret that is wrong.",
)
INVALID_WEBHOOK = Signal(
    title="Invalid webhooks",
    expr='sum by (provider) (increase(bitloot_webhook_total{provider!="nowpayments",outcome="invalid"}[15m]))',
    unit=Unit.COUNT,
    means="Webhooks with a wrong secret within 15 minutes, by provider; NOWPayments has a signal of its own.",
    by=("provider",),
)
WEBHOOK_ERRORS = Signal(
    title="Webhooks that ended in an error",
    expr='sum by (provider) (increase(bitloot_webhook_total{outcome="error"}[30m]))',
    unit=Unit.COUNT,
    means="Genuine webhooks the application could not process within half an hour.",
    by=("provider",),
)
WEBHOOKS = Signal(
    title="Webhooks",
    expr="sum by (provider, outcome) (rate(bitloot_webhook_total[5m])) * 60",
    unit=Unit.PER_MINUTE,
    means="Webhooks per minute, by provider and outcome. Duplicates are the provider's repeats, mostly harmless.",
    by=("provider", "outcome"),
    no_alert="traffic follows sales; its bad outcomes have alerts of their own",
)
EMAIL = Signal(
    title="E-mails that failed",
    expr="increase(bitloot_email_fail_total[30m])",
    unit=Unit.COUNT,
    means="E-mails the application could not hand over within half an hour: receipts and one-time codes among them.",
)
BOUNCES = Signal(
    title="E-mails that came back",
    expr="sum by (type) (increase(bitloot_email_bounce_total[1h]))",
    unit=Unit.COUNT,
    means="Bounces within an hour by type. Complaints cost the sender's name.",
    by=("type",),
    no_alert="customers mistype addresses every day; Resend itself warns of a falling reputation",
)
RECLASSIFIED = Signal(
    title="Webhooks decided after they were counted",
    expr="sum by (provider) (increase(bitloot_webhook_reclassified_total[1d]))",
    unit=Unit.COUNT,
    means="Calls whose outcome changed later than OPS_LEDGER_SETTLE_SECONDS: the application, or its Redis, hung.",
    by=("provider",),
    no_alert="the hang has its own alerts by the time a late outcome shows it",
)
UNDERPAID = Signal(
    title="Underpaid orders, when they spike",
    expr="increase(bitloot_underpaid_total[1h]) "
    "and increase(bitloot_underpaid_total[1h]) > 3 * increase(bitloot_underpaid_total[1d] offset 1h) / 24 "
    "and last_over_time(bitloot_underpaid_total[1h] offset 1d)",  # before that there is no day to compare with
    unit=Unit.COUNT,
    means="Orders that became underpaid within an hour, shown at three times the day's average: a wrong price or fee.",
)
STUCK = Signal(
    title="Orders in disagreement: age of the oldest",
    expr="bitloot_reconciliation_oldest_age_seconds",
    unit=Unit.SECONDS,
    means="For each problem, how long the oldest order has been in it. Absent: there is none.",
    by=("problem",),
    no_alert="each problem has an alert of its own",
)
PAID = Signal(
    title="Paid and not fulfilled: age of the oldest",
    expr='bitloot_reconciliation_oldest_age_seconds{problem="paid_unfulfilled"}',
    unit=Unit.SECONDS,
    means="A customer has paid and waits for a key. `opsctl orders list --status paid` names them.",
    by=("problem",),
)
UNMOVED = Signal(
    title="Payment finished, order unmoved: age of the oldest",
    expr='bitloot_reconciliation_oldest_age_seconds{problem="payment_finished_order_unmoved"}',
    unit=Unit.SECONDS,
    means="The payment is finished and the order still waits: it will expire with the customer's money.",
    by=("problem",),
)
DROPPED = Signal(
    title="Notifications dropped as duplicates: orders",
    expr='bitloot_reconciliation_orders{problem="ipn_dropped"}',
    unit=Unit.COUNT,
    means="Orders of seven days whose payment status was dropped as a duplicate: paid, perhaps, and unmoved.",
    by=("problem",),
)
LEAKED = Signal(
    title="Leaked reservations: age of the oldest",
    expr='bitloot_reconciliation_oldest_age_seconds{problem="reservation_leaked"}',
    unit=Unit.SECONDS,
    means="Stock still reserved for an order that is over; it can be sold to nobody.",
    by=("problem",),
)
UNPAID = Signal(
    title="Newly fulfilled without a payment",
    expr='bitloot_reconciliation_orders{problem="fulfilled_without_payment"} '
    '- (bitloot_reconciliation_orders{problem="fulfilled_without_payment"} offset 1h)',
    unit=Unit.COUNT,
    means="Orders fulfilled within the last hour though no payment row exists: goods given away.",
    by=("problem",),
)
VALUE = Signal(
    title="Value in disagreement",
    expr="bitloot_reconciliation_value_eur",
    unit=Unit.EUR,
    means="What the orders of each problem are worth, in EUR.",
    by=("problem",),
    no_alert="one customer's order matters as much as its price; ages and counts call",
)
MISSED = Signal(
    title="Rows only the recount found",
    expr="sum by (family) (increase(ops_ledger_missed_total[1d]))",
    unit=Unit.COUNT,
    means="Rows that appeared later than the ledger looks back: raise OPS_LEDGER_HORIZON_SECONDS.",
    by=("family",),
)
CONTRACT = Signal(
    title="Contract with the application's database",
    expr="ops_contract_ok",
    unit=Unit.YES_NO,
    means="0 while a view or a column is missing: nothing can be counted. `opsctl contract check` names it.",
)
INDEXES = Signal(
    title="Missing indexes",
    expr="ops_contract_missing_indexes",
    unit=Unit.COUNT,
    means="Indexes our queries rely on that are gone. `opsctl contract tune` prints the statements that make them.",
)

SIGNALS = (
    INVALID_IPN,
    NONE_VALID,
    INVALID_WEBHOOK,
    WEBHOOK_ERRORS,
    WEBHOOKS,
    EMAIL,
    BOUNCES,
    RECLASSIFIED,
    UNDERPAID,
    STUCK,
    PAID,
    UNMOVED,
    DROPPED,
    LEAKED,
    UNPAID,
    VALUE,
    MISSED,
    CONTRACT,
    INDEXES,
)
OBJECTIVES = (FULFILMENT, IPN)

ALERTS = (
    Alert(
        name="PaidNotFulfilled",
        when=Above(PAID, 15 * MINUTE),
        because="three times the promise of five minutes; retries of the queue are over by then",
        for_=2 * MINUTE,
        severity=Severity.PAGE,
        summary="a paid order has waited {{ $value | humanizeDuration }} for its key",
    ),
    Alert(
        name="PaymentFinishedOrderUnmoved",
        when=Above(UNMOVED, 15 * MINUTE),
        because="payment and order change in one transaction, seconds apart at most; an order expires after an hour",
        for_=2 * MINUTE,
        severity=Severity.PAGE,
        summary="a payment finished {{ $value | humanizeDuration }} ago and its order still waits",
    ),
    Alert(
        name="IpnDropped",
        when=Above(DROPPED, 0),
        because="the application drops each later status of a payment as a duplicate; each such order needs a person",
        for_=15 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value }} orders have a payment status that was dropped as a duplicate",
    ),
    Alert(
        name="IpnAllInvalid",
        when=Above(NONE_VALID, 3),
        because="forgers come beside genuine traffic; half an hour without a valid one is a secret changed on one side",
        for_=5 * MINUTE,
        severity=Severity.PAGE,
        summary="{{ $value | humanize }} payment notifications in half an hour, and every one invalid",
    ),
    Alert(
        name="IpnInvalid",
        when=Above(INVALID_IPN, 5),
        because="one is a stray; more than five in a quarter of an hour is somebody trying",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value | humanize }} payment notifications with a bad signature in 15 minutes",
    ),
    Alert(
        name="WebhookInvalid",
        when=Above(INVALID_WEBHOOK, 5),
        because="one is a stray; more than five in a quarter of an hour is somebody trying, or a secret changed",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.provider }}: {{ $value | humanize }} webhooks with a wrong secret in 15 minutes",
    ),
    Alert(
        name="WebhookErrors",
        when=Above(WEBHOOK_ERRORS, 3),
        because="the application answers a genuine webhook without an error; single ones are stray ids",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.provider }}: {{ $value | humanize }} webhooks ended in an error in half an hour",
    ),
    Alert(
        name="EmailFailures",
        when=Above(EMAIL, 5),
        because="one is a bad address; more than five in half an hour and customers get no code to log in",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value | humanize }} e-mails failed in half an hour",
        board="overview",
    ),
    Alert(
        name="UnderpaidSpike",
        when=Above(UNDERPAID, 5),
        because="customers underpay every day; thrice the average and more than five an hour is a price or fee of ours",
        for_=10 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value | humanize }} orders became underpaid within an hour",
    ),
    Alert(
        name="ReservationLeaked",
        when=Above(LEAKED, 24 * HOUR),
        because="a crash in the middle of a job leaks stock; a day leaves time for the order to be repeated by hand",
        for_=HOUR,
        severity=Severity.TICKET,
        summary="stock has been reserved for {{ $value | humanizeDuration }} by an order that is over",
    ),
    Alert(
        name="FulfilledWithoutPayment",
        when=Above(UNPAID, 0),
        because="each one is a key given away; it counts new ones only, for the old ones stay visible for seven days",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value }} orders were fulfilled without a payment within the last hour",
    ),
    Alert(
        name="LedgerMissed",
        when=Above(MISSED, 0),
        because="any row the recount adds was missing from the counters for up to a day",
        for_=0,
        severity=Severity.TICKET,
        summary="{{ $labels.family }}: the recount found {{ $value | humanize }} rows the ledger had missed",
        board="exporters",
    ),
    Alert(
        name="ContractBroken",
        when=Below(CONTRACT, 1),
        because="a deployment suspends the contract for minutes; after fifteen its `contract apply` did not happen",
        for_=15 * MINUTE,
        severity=Severity.PAGE,
        summary="the views over the application's database are broken: payments and webhooks are not watched",
        board="exporters",
    ),
    Alert(
        name="IndexMissing",
        when=Above(INDEXES, 0),
        because="queries turn into scans of whole tables, on the application's own database",
        for_=HOUR,
        severity=Severity.TICKET,
        summary="{{ $value }} indexes our queries rely on are missing",
        board="exporters",
    ),
    Alert(
        name="FulfilmentBudgetFast",
        when=BurnRate(FULFILMENT, Speed.FAST),
        because="at this speed the month's budget of late deliveries is gone within days",
        for_=2 * MINUTE,
        severity=Severity.PAGE,
        summary="{{ $value | humanizePercentage }} of paid orders are fulfilled late",
    ),
    Alert(
        name="FulfilmentBudgetSlow",
        when=BurnRate(FULFILMENT, Speed.SLOW),
        because="a tenth of the month's budget within three days: look before it is gone",
        for_=15 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value | humanizePercentage }} of paid orders are fulfilled late, for days",
    ),
    Alert(
        name="IpnBudgetFast",
        when=BurnRate(IPN, Speed.FAST),
        because="genuine notifications are refused so often that the month's budget is gone within days",
        for_=2 * MINUTE,
        severity=Severity.PAGE,
        summary="{{ $value | humanizePercentage }} of genuine payment notifications end in an error",
    ),
    Alert(
        name="IpnBudgetSlow",
        when=BurnRate(IPN, Speed.SLOW),
        because="a tenth of the month's budget within three days: look before it is gone",
        for_=15 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value | humanizePercentage }} of genuine payment notifications end in an error, for days",
    ),
)
