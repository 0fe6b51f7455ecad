"""From a subject's signal to its panel: the lines are the thresholds of its alerts, written nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from opsctl.render.board import Colour, Look, Panel, Prom
from opslib.alerting import Above, Alert, Below, Severity, Signal, Unit


def panel(signal: Signal, alerts: Sequence[Alert], /, **changed: Any) -> Panel:
    """The panel of a signal.

    Args:
        signal: What it shows.
        alerts: Of its subject; those of this signal draw its lines.
        changed: Fields of the panel that are to differ.
    """
    made = Panel(
        title=signal.title,
        means=signal.means + _calls(signal, alerts),
        unit=signal.unit,
        look=Look.SERIES,
        queries=(Prom(signal.expr, " ".join(f"{{{{{label}}}}}" for label in signal.by)),),
        steps=_steps(signal, alerts),
        empty="none",
    )
    return replace(made, **changed)


def _of(signal: Signal, alerts: Sequence[Alert]) -> list[tuple[Alert, Above | Below]]:
    return [
        (alert, alert.when) for alert in alerts if isinstance(alert.when, Above | Below) and alert.when.signal is signal
    ]


def _calls(signal: Signal, alerts: Sequence[Alert]) -> str:
    names = [alert.name for alert, _ in _of(signal, alerts)]
    return f" Alert: {', '.join(names)}." if names else ""


def _steps(signal: Signal, alerts: Sequence[Alert]) -> tuple[tuple[float, Colour], ...]:
    """Red where somebody is woken, orange where a ticket is written."""
    steps: dict[float, Colour] = {}
    for alert, when in _of(signal, alerts):
        colour = Colour.BAD if alert.severity is Severity.PAGE else Colour.WATCH
        if isinstance(when, Above):
            # What calls above 0 of a count begins with the first.
            steps[when.threshold if when.threshold or signal.unit is not Unit.COUNT else 1] = colour
            steps.setdefault(0, Colour.GOOD)
        else:
            steps[0] = colour  # what may be too low is never negative
            steps[when.threshold] = Colour.GOOD
    return tuple(sorted(steps.items()))
