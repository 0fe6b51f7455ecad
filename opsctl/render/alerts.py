"""What people read of an alert: its line on the reference page, and the head of its runbook."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from opsctl.render.markdown import GENERATED, table
from opsctl.render.rules import BURNS, window
from opslib.alerting import Above, Absent, Alert, Always, Below, BurnRate, Objective, Unit, When
from opslib.spec import Subject

INTRODUCTION = """\
A *page* wakes somebody: customers are losing money or goods now, or could not get them back tomorrow. A *ticket* waits
for working hours. Each alert goes on for five minutes after its condition has passed, so that a restart of an exporter
or a database neither ends it nor calls again. Rules: `prometheus/rules/`; their tests: `prometheus/tests/`; who is
called: `alertmanager/`. Source: `exporters/signals/`.
"""
SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "It is over when")
"""Of every runbook, in this order."""

_HEAD = re.compile(r"^<!-- generated: .*? -->$", re.MULTILINE)


def page(subjects: Sequence[Subject]) -> str:
    """The reference page of all alerts, all promises, and all signals nobody is called for."""
    parts = ["# Alerts\n", GENERATED, INTRODUCTION]
    for subject in subjects:
        if subject.alerts:
            parts += [f"## {subject.title}\n", table(("Alert", "Calls", "When", "Because"), map(_row, subject.alerts))]
    parts += ["## Promises\n", table(("Promise", "Of all, within 30 days", "Judged from"), _promises(subjects))]
    parts += ["## No alert\n", table(("Signal", "Because"), _silent(subjects))]
    return "\n".join(parts)


def runbook(alert: Alert, subject: Subject, text: str | None) -> str:
    """A runbook with its head as it should be; `text` is what people wrote, None where nobody did yet.

    Without its head's line it is given one under its title.
    """
    head = (
        f"<!-- generated: severity {alert.severity}, {condition(alert)}, "
        f"board {subject.board_of(alert)}; because {alert.because.replace('--', '-')} -->"
    )
    if text is None:
        return "\n".join([f"# {alert.name}", head, *(f"## {section}\n" for section in SECTIONS)])
    if _HEAD.search(text):
        return _HEAD.sub(lambda _: head, text, count=1)
    title, _, rest = text.partition("\n")
    return f"{title}\n{head}\n{rest}"


def condition(alert: Alert) -> str:
    """When it fires, in words."""
    held = f" for {window(alert.for_)}" if alert.for_ else ""
    return _when(alert.when) + held


def _row(alert: Alert) -> Sequence[str]:
    link = f"[{alert.name}](../runbooks/{alert.name}.md)"
    return link, alert.severity, condition(alert), alert.because


def _when(when: When) -> str:  # noqa: PLR0911 - one for each kind of condition
    match when:
        case Below(signal, 1) if signal.unit is Unit.YES_NO:
            return f"{_small(signal.title)}: no"
        case Above(signal, 0) if signal.unit is Unit.YES_NO:
            return f"{_small(signal.title)}: yes"
        case Above(signal, threshold):
            return f"{_small(signal.title)} above {amount(threshold, signal.unit)}"
        case Below(signal, threshold):
            return f"{_small(signal.title)} below {amount(threshold, signal.unit)}"
        case Absent(signal):
            return f"{_small(signal.title)} absent"
        case Always():
            return "always"
        case BurnRate(objective, speed):
            pairs = (f"{factor:g} times too fast in {window(long)}" for long, _, factor in BURNS[speed])
            return f"{_small(objective.title)}: the budget burns {' or '.join(pairs)}"


def amount(number: float, unit: Unit) -> str:
    """A threshold with its unit."""
    match unit:
        case Unit.SECONDS if number >= 60:  # noqa: PLR2004 - a minute
            return window(int(number))
        case Unit.SECONDS:
            return f"{number:g} s"
        case Unit.DAYS:
            return f"{number:g} days"
        case Unit.RATIO:
            return f"{number:.0%}"
        case Unit.EUR:
            return f"{number:g} EUR"
        case _:
            return f"{number:g}"


def _small(title: str) -> str:
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def _promises(subjects: Iterable[Subject]) -> Iterator[Sequence[str]]:
    for subject in subjects:
        for objective in subject.objectives:
            yield objective.title, f"{objective.target:.4g}", _guard(objective)


def _guard(objective: Objective) -> str:
    return f"{objective.min_events} events in the longer window"


def _silent(subjects: Iterable[Subject]) -> Iterator[Sequence[str]]:
    for subject in subjects:
        for signal in subject.signals:
            if signal.no_alert:
                yield signal.title, signal.no_alert
