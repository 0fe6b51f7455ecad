"""When a job is due, and what becomes of slots nobody was there for: pure, so that every scheduler decides the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import assert_never

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from opslib.errors import ConfigError
from opslib.spec import CatchUp, Cron, Every

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")  # crontab's 0 to 7; APScheduler counts from Monday
_FIELDS = 5


def text(schedule: Cron | Every) -> str:
    """As `ops.jobs` shows it: `cron 0 2 * * *`, `every 3600`."""
    match schedule:
        case Cron(expression):
            return f"cron {expression}"
        case Every(seconds):
            return f"every {seconds}"
    assert_never(schedule)


def trigger(schedule: Cron | Every) -> CronTrigger | IntervalTrigger:
    """What APScheduler ticks by.

    Raises:
        ConfigError: It is no schedule.
    """
    match schedule:
        case Cron(expression):
            return _cron(expression)
        case Every(seconds):
            if seconds < 1:
                raise ConfigError(f"Every({seconds}): a period is a whole number of seconds from 1")
            return IntervalTrigger(seconds=seconds, start_date=_EPOCH, timezone=UTC)
    assert_never(schedule)


def slots(schedule: Cron | Every, after: datetime, until: datetime) -> Iterator[datetime]:
    """Every slot in (after, until], the oldest first, in UTC."""
    match schedule:
        case Every(seconds):
            number = math.floor((after - _EPOCH) / timedelta(seconds=seconds)) + 1
            while (slot := _EPOCH + number * timedelta(seconds=seconds)) <= until:
                yield slot
                number += 1
        case Cron(expression):
            cron = _cron(expression)
            slot = cron.get_next_fire_time(None, after + timedelta(microseconds=1))
            while slot is not None and slot <= until:
                yield slot.astimezone(UTC)
                slot = cron.get_next_fire_time(slot, slot + timedelta(microseconds=1))


def skipped(due: Sequence[datetime], catch_up: CatchUp, now: datetime, grace: timedelta) -> list[bool]:
    """Of slots that are due, in order: is each left out?

    Args:
        due: Slots since the last one decided, up to now; the newest last.
        catch_up: The job's policy.
        now: When that is.
        grace: How late a slot may be and still be no missed one.
    """
    newest = len(due) - 1
    match catch_up:
        case CatchUp.ALL:
            return [False] * len(due)
        case CatchUp.LATEST:
            return [n < newest for n in range(len(due))]
        case CatchUp.NONE:
            return [n < newest or slot < now - grace for n, slot in enumerate(due)]
    assert_never(catch_up)


def _cron(expression: str) -> CronTrigger:
    fields = expression.split()
    if len(fields) != _FIELDS:
        raise ConfigError(f"Cron({expression!r}): write five fields: minute, hour, day, month, weekday")
    minute, hour, day, month, weekday = fields
    if day != "*" and weekday != "*":
        # crontab means either, APScheduler both: nobody should have to know.
        raise ConfigError(f"Cron({expression!r}): give the day or the weekday, not both")
    try:
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), timezone=UTC)
    except ValueError as exc:
        raise ConfigError(f"Cron({expression!r}): {exc}") from exc


def _weekdays(field: str) -> str:
    """Crontab's weekdays, where 0 and 7 are Sunday, as names: numbers mean other days to APScheduler."""
    if field == "*":
        return field
    days = []
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        low, high = (0, 6) if span == "*" else (_weekday(first), _weekday(last or first))
        if high < low or (step and not step.isdecimal()):
            raise ValueError(f"{part!r} is no weekday")
        days += [_DAYS[n] for n in range(low, high + 1, int(step or 1))]
    return ",".join(dict.fromkeys(days))


def _weekday(text: str) -> int:
    if text.isdecimal() and int(text) < len(_DAYS):
        return int(text)
    if text in _DAYS:
        return _DAYS.index(text)
    raise ValueError(f"{text!r} is no weekday")
