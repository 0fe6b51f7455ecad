"""The functions exporters write through: exactly once, whatever is retried, repeated, reordered or done at once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors

CUT = datetime(2026, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """One row handed to the ledger; `minute` is its age above the cut."""

    id: str
    outcome: str = "ok"
    subject: str = "shop"
    minute: int = 0
    amount: float | None = 1.0


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to a migrated database."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def family(connection: psycopg.Connection) -> str:
    """A family that has started and has no history."""
    return started(connection)


def started(connection: psycopg.Connection) -> str:
    """A new family, its back-fill done."""
    name = uuid4().hex
    connection.execute("SELECT ops.ledger_start(%s, %s)", (name, CUT))
    assert backfill(connection, name, "-infinity", CUT, done=True) is True
    return name


def scalar(connection: psycopg.Connection, sql: str, parameters: Sequence[Any]) -> Any:
    """The one value of a query."""
    row = connection.execute(sql, parameters).fetchone()
    assert row is not None
    return row[0]


def advance(connection: psycopg.Connection, family: str, *rows: Row) -> int:
    """Hand rows to the ledger; how many were counted."""
    return int(
        scalar(
            connection,
            "SELECT ops.ledger_advance(%s, %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::float8[])",
            (
                family,
                [row.id for row in rows],
                [row.subject for row in rows],
                [row.outcome for row in rows],
                [CUT + timedelta(minutes=row.minute) for row in rows],
                [row.amount for row in rows],
            ),
        )
    )


def backfill(
    connection: psycopg.Connection, family: str, start: Any, end: Any, *slices: tuple[str, int], done: bool = False
) -> bool:
    """Hand a slice of history, outcome and events, to the ledger."""
    return bool(
        scalar(
            connection,
            "SELECT ops.ledger_backfill(%s, %s, %s, %s, %s::text[], %s::text[], %s::bigint[], %s::float8[])",
            (
                *(family, start, end, done, ["shop"] * len(slices)),
                *([outcome for outcome, _ in slices], [events for _, events in slices], [0.5] * len(slices)),
            ),
        )
    )


def totals(connection: psycopg.Connection, family: str) -> dict[tuple[str, str], tuple[int, float]]:
    """Events and amount by subject and outcome."""
    found = connection.execute(
        "SELECT subject, outcome, events, amount FROM ops.ledger_totals WHERE family = %s", (family,)
    )
    return {(subject, outcome): (events, amount) for subject, outcome, events, amount in found}


def changes(connection: psycopg.Connection, family: str) -> dict[tuple[str, str], int]:
    """Reclassified events by old and new outcome."""
    found = connection.execute(
        "SELECT from_outcome, to_outcome, events FROM ops.ledger_reclassified WHERE family = %s", (family,)
    )
    return {(before, after): events for before, after, events in found}


def test_same_call_twice(connection: psycopg.Connection, family: str) -> None:
    """A call repeated after a lost answer counts nothing."""
    rows = [Row("a"), Row("b", "invalid"), Row("c", amount=2.5)]
    assert advance(connection, family, *rows) == 3
    assert advance(connection, family, *rows) == 0
    assert totals(connection, family) == {("shop", "ok"): (2, 3.5), ("shop", "invalid"): (1, 1.0)}
    assert changes(connection, family) == {}


def test_duplicates_in_one_call(connection: psycopg.Connection, family: str) -> None:
    """An id given twice in one call is counted once, as it was given last."""
    assert advance(connection, family, Row("a", "error"), Row("b"), Row("a", "ok")) == 2
    assert totals(connection, family) == {("shop", "ok"): (2, 2.0)}
    assert changes(connection, family) == {}


def test_changed_outcome(connection: psycopg.Connection, family: str) -> None:
    """A later outcome is reclassified once; the total it was counted in stays, the new one does not grow."""
    advance(connection, family, Row("a", "duplicate"))
    assert advance(connection, family, Row("a", "ok"), Row("b", "ok")) == 1
    assert advance(connection, family, Row("a", "ok")) == 0
    assert totals(connection, family) == {("shop", "duplicate"): (1, 1.0), ("shop", "ok"): (1, 1.0)}
    assert changes(connection, family) == {("duplicate", "ok"): 1}


def test_empty_and_absent_amounts(connection: psycopg.Connection, family: str) -> None:
    """No rows is fine; a row without an amount adds none."""
    assert advance(connection, family) == 0
    advance(connection, family, Row("a", amount=None))
    assert totals(connection, family) == {("shop", "ok"): (1, 0.0)}


def test_purge_never_uncounts(connection: psycopg.Connection, family: str) -> None:
    """What is forgotten stays counted, and is not counted again when it is read again."""
    rows = [Row("old", minute=1), Row("new", minute=9)]
    advance(connection, family, *rows)
    before = totals(connection, family)
    five = CUT + timedelta(minutes=5)
    assert scalar(connection, "SELECT ops.ledger_purge(%s, %s)", (family, five)) == 1
    assert scalar(connection, "SELECT ops.ledger_purge(%s, %s)", (family, CUT)) == 0, "the mark never goes back"
    assert advance(connection, family, *rows, Row("late", minute=2)) == 0
    assert totals(connection, family) == before
    assert scalar(connection, "SELECT low_water FROM ops.ledger_marks WHERE family = %s", (family,)) == five


def test_purge_waits_for_the_backfill(connection: psycopg.Connection) -> None:
    """The mark is the back-fill's upper end: it does not move before that is done."""
    family = uuid4().hex
    connection.execute("SELECT ops.ledger_start(%s, %s)", (family, CUT))
    advance(connection, family, Row("a", minute=1))
    later = CUT + timedelta(hours=1)
    assert scalar(connection, "SELECT ops.ledger_purge(%s, %s)", (family, later)) == 0
    assert scalar(connection, "SELECT low_water FROM ops.ledger_marks WHERE family = %s", (family,)) == CUT


def test_start_keeps_the_first_cut(connection: psycopg.Connection) -> None:
    """Starting again returns the mark made the first time."""
    family = uuid4().hex
    for cut in (CUT, CUT + timedelta(days=1)):
        row = connection.execute("SELECT low_water, backfilled_at FROM ops.ledger_start(%s, %s)", (family, cut))
        assert row.fetchone() == (CUT, None)


def test_backfill_by_position(connection: psycopg.Connection) -> None:
    """A slice counts only where the last one ended: repeated, stale or too late it does nothing."""
    family = uuid4().hex
    connection.execute("SELECT ops.ledger_start(%s, %s)", (family, CUT))
    half = CUT - timedelta(hours=1)
    assert backfill(connection, family, "-infinity", half, ("ok", 3), ("ok", 4), ("invalid", 1)) is True
    assert backfill(connection, family, "-infinity", half, ("ok", 3)) is False
    assert backfill(connection, family, CUT, CUT, ("ok", 100), done=True) is False
    assert backfill(connection, family, half, CUT, ("ok", 5), done=True) is True
    assert backfill(connection, family, CUT, CUT, ("ok", 100), done=True) is False, "it has ended"
    assert totals(connection, family) == {("shop", "ok"): (12, 1.5), ("shop", "invalid"): (1, 0.5)}


@pytest.mark.parametrize(
    ("start", "end", "events"), [("-infinity", CUT, -1), (CUT, CUT, 1), (CUT, CUT - timedelta(seconds=1), 1)]
)
def test_backfill_refuses_what_could_lie(connection: psycopg.Connection, start: Any, end: Any, events: int) -> None:
    """A negative count, or a slice that does not move forward, is an error and changes nothing."""
    family = uuid4().hex
    connection.execute("SELECT ops.ledger_start(%s, %s)", (family, CUT))
    with pytest.raises(errors.InvalidParameterValue):
        backfill(connection, family, start, end, ("ok", events))
    assert totals(connection, family) == {}


def test_unstarted_family_is_refused(connection: psycopg.Connection) -> None:
    """Counting without a mark could not be exact, so it is an error."""
    with pytest.raises(psycopg.Error, match="was never started") as caught:
        advance(connection, uuid4().hex, Row("a"))
    assert caught.value.sqlstate == "OPS02"


def test_ragged_arrays_are_refused(connection: psycopg.Connection, family: str) -> None:
    """Arrays of different length would pair the wrong values."""
    with pytest.raises(errors.InvalidParameterValue, match="differ in length"):
        connection.execute(
            "SELECT ops.ledger_advance(%s, '{a,b}', '{s}', '{ok}', ARRAY[now()], '{1}')",
            (family,),
        )


def test_two_at_once(database: str, connection: psycopg.Connection, family: str) -> None:
    """Four callers with overlapping ids, shuffled: every id in exactly one count, nobody deadlocks."""
    rows = [Row(f"{number:03}", random.choice("xyz"), minute=number % 7) for number in range(300)]
    barrier = threading.Barrier(4)

    def caller(seed: int) -> int:
        chance = random.Random(seed)
        with psycopg.connect(database, autocommit=True) as own:
            barrier.wait(10)
            return sum(advance(own, family, *chance.sample(rows, 120)) for _ in range(25))

    with ThreadPoolExecutor(4) as pool:
        counted = sum(pool.map(caller, range(4)))
    assert advance(connection, family, *rows) + counted == 300
    assert {outcome: events for (_, outcome), (events, _) in totals(connection, family).items()} == Counter(
        row.outcome for row in rows
    )
    assert changes(connection, family) == {}


def test_waiting_caller_sees_what_was_committed(database: str, connection: psycopg.Connection, family: str) -> None:
    """A caller that waited for another one's transaction does not count its rows again."""
    with psycopg.connect(database) as first, ThreadPoolExecutor(1) as pool:
        assert advance(first, family, Row("a"), Row("b")) == 2
        second = pool.submit(advance, connection, family, Row("b"), Row("a", "error"), Row("c"))
        first.commit()
        assert second.result(10) == 1
    assert totals(connection, family) == {("shop", "ok"): (3, 3.0)}
    assert changes(connection, family) == {("ok", "error"): 1}


def test_rolled_back_counts_nothing(database: str, connection: psycopg.Connection, family: str) -> None:
    """A caller killed before its commit leaves the rows to the next."""
    with psycopg.connect(database) as first:
        advance(first, family, Row("a"))
        first.rollback()
    assert totals(connection, family) == {}
    assert advance(connection, family, Row("a")) == 1


BATCH = st.lists(
    st.builds(
        Row,
        id=st.sampled_from("abcdef"),
        outcome=st.sampled_from(["ok", "error", "duplicate"]),
        subject=st.just("shop"),
        minute=st.integers(0, 6),
        amount=st.integers(0, 5).map(float),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(BATCH, st.integers(0, 6)), max_size=6))
def test_against_a_model(connection: psycopg.Connection, steps: list[tuple[list[Row], int]]) -> None:
    """Any sequence of calls and purges gives what a plain model of the rule gives, and no total ever falls."""
    family = started(connection)
    seen: dict[str, tuple[str, int]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    moved: Counter[tuple[str, str]] = Counter()
    mark = 0
    for batch, purge in steps:
        before = totals(connection, family)
        for row in {row.id: row for row in batch if row.minute >= mark}.values():
            known = seen.get(row.id)
            if known is None:
                counts[row.subject, row.outcome] += 1
                seen[row.id] = (row.outcome, row.minute)
            elif known[0] != row.outcome:
                moved[known[0], row.outcome] += 1
                seen[row.id] = (row.outcome, known[1])
        advance(connection, family, *batch)
        mark = max(mark, purge)
        connection.execute("SELECT ops.ledger_purge(%s, %s)", (family, CUT + timedelta(minutes=purge)))
        seen = {id_: (outcome, minute) for id_, (outcome, minute) in seen.items() if minute >= mark}
        after = totals(connection, family)
        assert {key: events for key, (events, _) in after.items()} == counts
        assert changes(connection, family) == moved
        assert all(after[key] >= value for key, value in before.items())


def save(connection: psycopg.Connection, epoch: int, position: str, series: list[str], values: list[str]) -> Any:
    """Save the checkpoint `queues`."""
    return scalar(
        connection,
        "SELECT ops.checkpoint_save('queues', %s, %s::jsonb, %s::text[], %s::jsonb[])",
        (epoch, position, series, values),
    )


def test_checkpoint_merges_and_fences(connection: psycopg.Connection) -> None:
    """Positions merge, series are set; after another claim the older epoch can save nothing."""
    assert scalar(connection, "SELECT ops.checkpoint_claim('queues', %s)", ("one",)) == 1
    save(connection, 1, '{"a": "1", "b": "1"}', ["x"], ["[1]"])
    save(connection, 1, '{"b": "2"}', ["x", "y", "x"], ["[2]", "[1]", "[3]"])
    assert scalar(connection, "SELECT ops.checkpoint_claim('queues', %s)", ("two",)) == 2
    with pytest.raises(psycopg.Error) as caught:
        save(connection, 1, '{"a": "9"}', ["x"], ["[9]"])
    assert caught.value.sqlstate == "OPS01"
    stored = connection.execute("SELECT position, owner FROM ops.exporter_checkpoints").fetchone()
    assert stored == ({"a": "1", "b": "2"}, "two")
    series = connection.execute("SELECT series, value FROM ops.exporter_series ORDER BY 1").fetchall()
    assert series == [("x", [3]), ("y", [1])]


def test_balance_kept_about_hourly(connection: psycopg.Connection) -> None:
    """A second reading within 55 minutes is not kept; one after them is; currencies are apart."""
    keep = "SELECT ops.balance_snapshot('kinguin', %s, 12.45)"
    assert [scalar(connection, keep, (currency,)) for currency in ("EUR", "EUR", "USD")] == [True, False, True]
    connection.execute("UPDATE ops.balances SET taken_at = taken_at - interval '56 minutes'")
    assert scalar(connection, keep, ("EUR",)) is True
