"""Slots are the same for every scheduler, and what is left out follows the job's policy."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.errors import ConfigError
from opslib.jobs import schedule
from opslib.spec import CatchUp, Cron, Every

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def between(when: Cron | Every, days: float, start: datetime = MONDAY) -> list[datetime]:
    """The slots of some days."""
    return list(schedule.slots(when, start, start + timedelta(days=days)))


def test_every_counts_from_the_epoch() -> None:
    """Each scheduler means the same slots, whenever it started."""
    assert between(Every(3600), 0.1, MONDAY + timedelta(minutes=7)) == [MONDAY + timedelta(hours=n) for n in (1, 2)]
    assert between(Every(7), 30 / 86400)[0].timestamp() % 7 == 0


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("1", ["Mon"]),
        ("0", ["Sun"]),
        ("7", ["Sun"]),
        ("mon", ["Mon"]),
        ("1-5", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("*/3", ["Wed", "Sat", "Sun"]),
        ("0,6", ["Sat", "Sun"]),
        ("5-7", ["Fri", "Sat", "Sun"]),
    ],
)
def test_weekdays_are_crontabs(field: str, names: list[str]) -> None:
    """0 and 7 are Sunday, whatever APScheduler counts from."""
    assert [f"{slot:%a}" for slot in between(Cron(f"0 9 * * {field}"), 6.9)] == names


@pytest.mark.parametrize(
    "expression", ["* * * *", "61 * * * *", "0 9 1 * 1", "0 9 * * 8", "0 9 * * fri-mon", "0 9 * * x", "0 9 * * 1/x"]
)
def test_no_schedule(expression: str) -> None:
    """What crontab and APScheduler would read differently is refused, as is what neither can read."""
    with pytest.raises(ConfigError, match="Cron"):
        schedule.trigger(Cron(expression))


def test_a_period_is_at_least_a_second() -> None:
    """Every(0) would never end."""
    with pytest.raises(ConfigError, match="whole number"):
        schedule.trigger(Every(0))


def test_the_texts() -> None:
    """As the database shows them."""
    assert schedule.text(Cron("0 2 * * *")) == "cron 0 2 * * *"
    assert schedule.text(Every(60)) == "every 60"


SCHEDULES = st.one_of(
    st.integers(1, 5000).map(Every),
    st.sampled_from(["*/5 * * * *", "0 2 * * *", "30 3 * * 1-5", "15 4 1 * *"]).map(Cron),
)


@given(SCHEDULES, st.lists(st.integers(0, 86_400_000), min_size=1, max_size=5))
def test_looking_more_often_finds_the_same(when: Cron | Every, looks: list[int]) -> None:
    """However the looks fall, each slot is found once, in order."""
    times = [MONDAY, *(MONDAY + timedelta(milliseconds=look) for look in sorted(looks))]
    pieces = [slot for a, b in itertools.pairwise(times) for slot in schedule.slots(when, a, b)]
    assert pieces == list(schedule.slots(when, times[0], times[-1]))


@pytest.mark.parametrize(
    ("policy", "late", "expected"),
    [
        (CatchUp.ALL, 600, [False, False, False]),
        (CatchUp.LATEST, 600, [True, True, False]),
        (CatchUp.NONE, 600, [True, True, True]),
        (CatchUp.NONE, 30, [True, True, False]),
    ],
)
def test_what_is_left_out(policy: CatchUp, late: int, expected: list[bool]) -> None:
    """All, the latest, or only one that is due right now."""
    due = [MONDAY, MONDAY + MINUTE, MONDAY + 2 * MINUTE]
    assert schedule.skipped(due, policy, due[-1] + timedelta(seconds=late), MINUTE) == expected


def test_nothing_due_is_nothing_left_out() -> None:
    """No slots, no decisions."""
    assert [schedule.skipped([], policy, MONDAY, MINUTE) for policy in CatchUp] == [[], [], []]
