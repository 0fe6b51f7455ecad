"""What a metric, a subject and a job ARE: frozen data, no I/O.

A metric is declared once, in its subject's module, and called to make a sample::

    BALANCE = Gauge("bitloot_provider_balance", "Funds held, in units of `currency`.", ("provider", "currency"))
    yield BALANCE(12.45, provider="kinguin", currency="EUR")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from opslib.alerting import Alert, Objective, Signal

LabelValues = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A metric family, declared once: it is equal to nothing but itself.

    Attributes:
        name: Exposition name in base units; counters end in `_total`.
        help: One sentence, with the unit.
        labels: Label names, in exposition order.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def values(self, labels: dict[str, str]) -> LabelValues:
        """Order `labels` as declared.

        Raises:
            ValueError: A label is missing or not declared.
        """
        if labels.keys() != set(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {tuple(labels)}")
        return tuple(labels[name] for name in self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Gauge(Metric):
    """A value that goes up and down; absent when its source is."""

    def __call__(self, value: float, **labels: str) -> Sample:
        """One reading."""
        return Sample(self, self.values(labels), (float(value),))


@dataclass(frozen=True, slots=True, eq=False)
class Counter(Metric):
    """A count of things that happened: it never goes down and survives restarts."""

    def __post_init__(self) -> None:
        if not self.name.endswith("_total"):
            raise ValueError(f"a counter's name ends in _total: {self.name}")

    def __call__(self, value: float, **labels: str) -> Sample:
        """The count so far."""
        return Sample(self, self.values(labels), (float(value),))


@dataclass(frozen=True, slots=True, eq=False)
class Histogram(Metric):
    """Counts by upper bound, with their sum.

    Attributes:
        buckets: Upper bounds in ascending order, without +Inf.
    """

    buckets: tuple[float, ...] = ()

    def __call__(self, value: tuple[float, ...], **labels: str) -> Sample:
        """The state so far: one count per bucket (not cumulative), the count above the last bound, then the sum."""
        if len(value) != self.width:
            raise ValueError(f"{self.name} takes {self.width} numbers, not {len(value)}")
        return Sample(self, self.values(labels), value)

    @property
    def width(self) -> int:
        """How many numbers make up one state: the buckets, +Inf, the sum."""
        return len(self.buckets) + 2


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a metric with its value.

    Attributes:
        value: One number for a gauge or counter; a histogram's state (see `Histogram.__call__`).
    """

    metric: Metric
    labels: LabelValues
    value: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing watched: an exporter module's identity.

    Attributes:
        name: What `opsctl exporter run NAME` takes.
        title: For people.
        needs: Settings without which it cannot run, by environment name.
        needs_one: Of these it needs at least one.
        metrics: Every family it owns. A family has exactly one owner.
        collectors: `callable(settings)` giving its collectors, as "module:function".
        signals: The questions worth a panel.
        objectives: What it promises.
        alerts: When somebody is called.
        board: The subject whose board shows what an alert is about; none: its own.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    metrics: tuple[Metric, ...]
    collectors: str
    needs_one: tuple[str, ...] = ()
    signals: tuple[Signal, ...] = ()
    objectives: tuple[Objective, ...] = ()
    alerts: tuple[Alert, ...] = ()
    board: str = ""

    def board_of(self, alert: Alert) -> str:
        """The board a notification leads to."""
        return alert.board or self.board or self.name

    def missing(self, is_set: Callable[[str], bool]) -> tuple[str, ...]:
        """What must still be set before it can run, in words."""
        missing = [name for name in self.needs if not is_set(name)]
        if self.needs_one and not any(map(is_set, self.needs_one)):
            missing.append(" or ".join(self.needs_one))
        return tuple(missing)


@dataclass(frozen=True, slots=True)
class Cron:
    """Due at the times of a crontab line.

    Attributes:
        expression: Five fields, read in UTC: `0 2 * * *`.
    """

    expression: str


@dataclass(frozen=True, slots=True)
class Every:
    """Due at each whole multiple of a period since the Unix epoch, so that every scheduler means the same slots.

    Attributes:
        seconds: The period.
    """

    seconds: int


class CatchUp(StrEnum):
    """What becomes of slots that passed while no scheduler was alive. Those left out are recorded as skipped."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


class NoParams(BaseModel):
    """The parameters of a job that takes none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One job: beside it, in its module, stands `run(run: Run, params: P) -> BaseModel | None`.

    Attributes:
        name: What `opsctl jobs enqueue NAME` takes; also the value of the label `job_name`.
        title: For people.
        schedule: When it is due; None: on demand only.
        timeout: Seconds an attempt may take before its process group is killed.
        max_age: Seconds since the last success above which it is overdue; None: never overdue.
        params: Its parameters, with a default for each if it is scheduled.
        retries: Attempts after the first, for a run that failed.
        retry_after: Seconds before the first of them; each further wait is twice the one before.
        catch_up: What becomes of slots missed.
        queue: Which workers take it (`opsctl jobs run --concurrency QUEUE=N`).
        needs: Settings without which it cannot run, by environment name; it is not scheduled then.
        plan: `plan(settings, params)` says in words what `run` would do now, touching nothing; None: the title says it.
    """

    name: str
    title: str
    schedule: Cron | Every | None
    timeout: float
    max_age: float | None = None
    params: type[BaseModel] = NoParams
    retries: int = 0
    retry_after: float = 2.0
    catch_up: CatchUp = CatchUp.LATEST
    queue: str = "default"
    needs: tuple[str, ...] = ()
    plan: Callable[[Any, Any], Sequence[str]] | None = None
