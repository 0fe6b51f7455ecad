"""From a subject's signal to its panel: the lines are the thresholds of its alerts, written nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from opsctl.render.board import Colour, Look, Panel, Prom
from opslib.alerting import Above, Alert, Below, Severity, Signal, Unit


def panel(
    signal: Signal,
    alerts: Sequence[Alert],
    /,
    *,
    look: Look = Look.SERIES,
    only_above_zero: bool = False,
    **changed: Any,
) -> Panel:
    """The panel of a signal.

    Args:
        signal: What it shows.
        alerts: Of its subject; those of this signal draw its lines.
        look: How it draws.
        only_above_zero: Leave out the many series of which there is nothing to tell.
        changed: Other fields of the panel that are to differ.
    """
    made = Panel(
        title=signal.title,
        means=signal.means + _calls(signal, alerts),
        unit=signal.unit,
        look=look,
        queries=(
            Prom(
                f"({signal.expr}) > 0" if only_above_zero else signal.expr,
                " ".join(f"{{{{{label}}}}}" for label in signal.by) or signal.title,
            ),
        ),
        steps=_lines(signal, alerts) if look is Look.SERIES else _steps(signal, alerts),
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
    """Of a number: good on one side of the threshold, the alert's colour on the other."""
    steps: dict[float, Colour] = {}
    for alert, when in _of(signal, alerts):
        if isinstance(when, Above):
            steps[_line(signal, when)] = _COLOURS[alert.severity]
            steps.setdefault(0, Colour.GOOD)
        else:
            steps[0] = _COLOURS[alert.severity]  # what may be too low is never negative
            steps[when.threshold] = Colour.GOOD
    return tuple(sorted(steps.items()))


def _lines(signal: Signal, alerts: Sequence[Alert]) -> tuple[tuple[float, Colour], ...]:
    """Of a graph: a line where somebody is called."""
    return tuple(sorted((_line(signal, when), _COLOURS[alert.severity]) for alert, when in _of(signal, alerts)))


def _line(signal: Signal, when: Above | Below) -> float:
    # What calls above 0 of a count begins with the first.
    return when.threshold if when.threshold or signal.unit is not Unit.COUNT else 1


_COLOURS = {Severity.PAGE: Colour.BAD, Severity.TICKET: Colour.WATCH}
"""Red where somebody is woken, orange where a ticket is written."""
