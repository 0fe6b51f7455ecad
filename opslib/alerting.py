"""What a signal, an objective and an alert ARE: frozen data, no I/O, nothing of ours imported.

A threshold is written once, in its subject's module; the rule, the panel's line, the runbook's header and the
reference page follow from it. PromQL is literal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MINUTE = 60
HOUR = 3600
DAY = 86400


class Unit(StrEnum):
    """What a signal's number is; the values are Grafana's ids of units."""

    COUNT = "short"
    SECONDS = "s"
    DAYS = "d"
    BYTES = "bytes"
    RATIO = "percentunit"
    PER_SECOND = "ops"
    PER_MINUTE = "opm"
    EUR = "currencyEUR"
    MONEY = "none"
    YES_NO = "bool"
    TIME = "dateTimeAsIso"


class Severity(StrEnum):
    """Whom an alert calls."""

    PAGE = "page"
    """Somebody is woken: customers are losing money or goods now."""
    TICKET = "ticket"
    """It waits for working hours."""
    HEARTBEAT = "heartbeat"
    """Always firing; its silence is the message."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One question worth a panel.

    Attributes:
        title: For people.
        expr: PromQL.
        unit: What its number is.
        means: What it shows and what to do about it, for the panel's description.
        by: Labels that tell its series apart.
        no_alert: Why nobody is called for it; a signal without an alert says so.
    """

    title: str
    expr: str
    unit: Unit
    means: str
    by: tuple[str, ...] = ()
    no_alert: str = ""


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise about a share of events, over 30 days.

    Attributes:
        name: Part of the recording rules' names: `fulfilment` gives `slo:fulfilment:error_ratio_5m`.
        title: For people.
        errors: PromQL of events that broke the promise within `$window`.
        total: PromQL of all events within `$window`.
        target: The share promised: 0.99.
        min_events: Below this many events in the longer window nobody is called: one of two is no outage.
        by: Labels that tell its series apart.
    """

    name: str
    title: str
    errors: str
    total: str
    target: float
    min_events: int
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Above:
    """Too much."""

    signal: Signal
    threshold: float


@dataclass(frozen=True, slots=True)
class Below:
    """Too little."""

    signal: Signal
    threshold: float


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing at all, where there must be something.

    Attributes:
        signal: Whose expression gives no series.
    """

    signal: Signal


@dataclass(frozen=True, slots=True)
class Always:
    """Fires as long as Prometheus evaluates rules: the dead man's switch."""


class Speed(StrEnum):
    """How fast an error budget burns: pairs of windows and factors of the SRE workbook, chapter 5."""

    FAST = "fast"
    """2 % of the month's budget in one hour, or 5 % in six."""
    SLOW = "slow"
    """10 % in three days."""


@dataclass(frozen=True, slots=True)
class BurnRate:
    """An objective's error budget burns, in a long window and still in a short one."""

    objective: Objective
    speed: Speed


When = Above | Below | Absent | BurnRate | Always


@dataclass(frozen=True, slots=True)
class Alert:
    """A reason to call somebody.

    Attributes:
        name: CamelCase; also the name of its runbook.
        when: The condition.
        because: Why this condition and this number.
        for_: Seconds it must hold.
        severity: Whom it calls.
        summary: One sentence with `{{ $labels.… }}` and `{{ $value … }}`, for the notification.
        keep_firing_for: Seconds it goes on after the condition has passed. While an exporter or a database restarts its
            gauges are gone from the page for a moment: without this, whatever fires then would resolve and call again.
        board: The board that shows what it is about; empty: its subject's.
    """

    name: str
    when: When
    because: str
    for_: int
    severity: Severity
    summary: str
    keep_firing_for: int = 5 * MINUTE
    board: str = ""
