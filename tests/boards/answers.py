"""What every panel gets when it asks: series of Prometheus, frames of Postgres."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.boards.databases import Frame, ask
from tests.boards.live import Live
from tests.boards.model import Json, filled, panels

ABOVE_ZERO = re.compile(r"\((.*)\) > 0$", re.DOTALL)

EMPTY: Mapping[str, str] = {
    "Overview: Days of stock money left": "needs a day of balances",
    "Overview: E-mails that came back": "the demo's mails arrive, mostly",
    "Payments & fulfilment: Newly fulfilled without a payment": "needs an hour",
    "Payments & fulfilment: Underpaid orders, when they spike": "needs a day",
    "Payments & fulfilment: Invalid payment notifications, and not one valid": "valid ones arrive",
    "Queues: Oldest job ready for a worker": "a moment's matter: jobs are taken at once",
    "Queues: Jobs ready and no worker": "every queue is worked",
    "Queues: Jobs in queues nobody ever worked": "every queue is worked",
    "Queues: Delayed job overdue": "delayed jobs are moved in time",
    "Queues: Share of jobs that fail for good": "fewer than three failures",
    "Queues: Retries per job that ended": "fewer than twenty retries",
    "Providers and balances: Days of stock money left": "needs a day of balances",
    "Jobs: Job exporter without jobs": "jobs are reported",
    "Audit & flags: Flags past their day": "none has a day",
    "Audit & flags: Oldest action without an outcome": "every action ended",
    "Audit & flags: Growth of the chain within an hour": "needs an hour",
    "Audit & flags: Actions refused": "nobody was refused",
    "Audit & flags: Overrides past their time": "no override",
}
"""Panels that have nothing to show in the demo, and why. Each other one must."""


@dataclass(slots=True)
class Answer:
    """What one panel got.

    Attributes:
        panel: Its JSON.
        series: For each query, the name of a series with its points.
        frames: For each statement, its answer.
        error: Of the server.
    """

    panel: Json
    series: list[tuple[str, list[tuple[float, float]]]] = field(default_factory=list)
    labels: list[dict[str, str]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    error: str = ""

    @property
    def empty(self) -> bool:
        """Nothing to show."""
        return not self.series and not any(frame.rows for frame in self.frames)


def answers(board: Json, live: Live, chosen: Mapping[str, str] | None = None) -> Iterator[Answer]:
    """Ask what every panel asks."""
    with psycopg.connect(live.dsn, autocommit=True) as connection:
        for panel in panels(board):
            answer = Answer(panel)
            for target in panel["targets"]:
                try:
                    if "expr" in target:
                        _series(answer, target, filled(target["expr"], board, chosen), live)
                    else:
                        answer.frames.append(ask(connection, filled(target["rawSql"], board, chosen)))
                except (ValueError, psycopg.Error) as exc:
                    answer.error = str(exc).splitlines()[0]
            yield answer


def problems(board: Json, live: Live, chosen: Mapping[str, str] | None = None) -> Iterator[str]:
    """Panels that get an error, that get nothing, or whose heat map has no buckets."""
    for answer in answers(board, live, chosen):
        place = f"{board['title']}: {answer.panel['title']}"
        if answer.error:
            yield f"{place}: {answer.error}"
        elif answer.empty and place not in EMPTY and not _none_above_zero(answer.panel, live):
            yield f"{place}: nothing, though the demo has it"
        names = [name for name, _ in answer.series]
        if len(set(names)) != len(names):
            yield f"{place}: two series of one name: {sorted(names)[:4]}"
        if answer.panel["type"] == "heatmap" and "+Inf" not in names:
            yield f"{place}: no buckets: {names}"


def _none_above_zero(panel: Json, live: Live) -> bool:
    """Whether the panel leaves out what is 0, and all is."""
    found = [ABOVE_ZERO.match(target.get("expr", "")) for target in panel["targets"]]
    return all(one is not None and live.instant(one[1]) for one in found)


def _series(answer: Answer, target: Json, expr: str, live: Live) -> None:
    for row in live.instant(expr) if target["instant"] else live.range(expr):
        labels = row["metric"]
        points = [row["value"]] if target["instant"] else row["values"]
        kept = [(float(at), float(value)) for at, value in points if not math.isnan(float(value))]
        if kept:
            name = _legend(target["legendFormat"], labels)
            answer.series.append((f"{target['refId']} {name}" if answer.panel["type"] == "table" else name, kept))
            answer.labels.append({"": target["refId"], **labels})


def _legend(text: str, labels: Mapping[str, Any]) -> str:
    if text == "__auto":
        shown = {name: value for name, value in labels.items() if name not in ("job", "instance")}
        return "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(shown.items())) + "}"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: str(labels.get(found[1], "")), text).strip()
