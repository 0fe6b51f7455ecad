"""The functions that change the application's data do what they are for, and refuse what nobody should ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors

ROW = """INSERT INTO webhook_logs ("externalId", "webhookType", payload, processed, signature, "createdAt")
         VALUES (%(id)s, %(type)s, %(payload)s, %(done)s, 'zażółć "x" \\ ', %(day)s::timestamp + %(at)s::interval)"""


@pytest.fixture
def app(database: str) -> Iterator[psycopg.Connection]:
    """The application's own connection."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def old(app: psycopg.Connection) -> date:
    """A day 40 days ago with 60 rows of three types, some in the same microsecond; the days around it have one each."""
    row = app.execute("SELECT (now() AT TIME ZONE 'UTC')::date - 40").fetchone()
    assert row
    day: date = row[0]
    for n in range(60):
        write(app, day, n, f"{n % 7} hours")
    write(app, day, 100, "-1 microsecond")
    write(app, day, 101, "24 hours")
    return day


def write(app: psycopg.Connection, day: date, n: int, at: str) -> None:
    """One row."""
    kind = ("nowpayments_ipn", "kinguin_order_status", "stripe_event")[n % 3]
    payload = json.dumps({"n": n, "text": "line\nbreak\u2028 ünïcode", "price": 0.1, "big": 12345678901234567890})
    app.execute(ROW, {"id": f"e{n}", "type": kind, "payload": payload, "done": n % 2 == 0, "day": day, "at": at})


def lines(app: psycopg.Connection, day: date, batch: int) -> list[str]:
    """Every line of a day, read page by page."""
    found: list[str] = []
    after: str | None = None
    while True:
        page = app.execute(
            "SELECT place, line FROM ops_app.webhook_log_lines(%s, %s, %s)", (day, after, batch)
        ).fetchall()
        found += [line for _, line in page]
        if len(page) < batch:
            return found
        after = page[-1][0]


def count(app: psycopg.Connection, sql: str = "SELECT count(*) FROM webhook_logs") -> int:
    """The one number of a query."""
    row = app.execute(sql).fetchone()
    assert row
    return int(row[0])


@pytest.mark.parametrize("batch", [1, 7, 60, 1000])
def test_pages_make_up_the_day(app: psycopg.Connection, old: date, batch: int) -> None:
    """Whatever the page, each row of the day comes once, whole, in the order of time; no neighbour does."""
    found = [json.loads(line) for line in lines(app, old, batch)]
    assert sorted(row["externalId"] for row in found) == sorted(f"e{n}" for n in range(60))
    assert [(row["createdAt"], row["id"]) for row in found] == sorted((row["createdAt"], row["id"]) for row in found)
    assert found[0]["signature"] == 'zażółć "x" \\ '
    assert found[0]["payload"]["big"] == 12345678901234567890
    columns = app.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'webhook_logs'::regclass AND attnum > 0")
    assert set(found[0]) == {name for (name,) in columns}


def test_deletes_exactly_what_was_read(app: psycopg.Connection, old: date) -> None:
    """A row that changed since, a line that was tampered with, a neighbour's line: none goes; the rest does, once."""
    read = lines(app, old, 1000)
    app.execute("UPDATE webhook_logs SET error = 'looked at' WHERE \"externalId\" = 'e5'")
    tampered = [line.replace("e7", "e8") if '"e7"' in line else line for line in read]
    neighbour = lines(app, old + timedelta(days=1), 10)
    assert len(neighbour) == 1
    purge = "SELECT ops_app.purge_webhook_logs(%s, %s)"
    assert app.execute(purge, (old, [*tampered, *neighbour])).fetchone() == (58,)
    assert app.execute(purge, (old, [*tampered, *neighbour])).fetchone() == (0,)
    left = {row[0] for row in app.execute('SELECT "externalId" FROM webhook_logs').fetchall()}
    assert left == {"e5", "e7", "e100", "e101"}


def test_same_line_whatever_the_session(app: psycopg.Connection, old: date) -> None:
    """A caller's time zone, number and date formats change no line: what was archived is what is compared."""
    before = lines(app, old, 1000)
    app.execute("SET timezone = 'Asia/Kolkata'; SET extra_float_digits = -15; SET DateStyle = 'German'")
    assert lines(app, old, 13) == before
    assert app.execute("SELECT ops_app.purge_webhook_logs(%s, %s)", (old, before)).fetchone() == (60,)


def test_young_days_are_refused(app: psycopg.Connection) -> None:
    """A week's rows are out of reach, whoever asks: the ledger's recount and the facts still read them."""
    today = app.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()
    assert today
    for age, reachable in ((0, False), (7, False), (8, True)):
        day = today[0] - timedelta(days=age)
        write(app, day, 200 + age, "0 hours")
        assert bool(lines(app, day, 10)) is reachable
    with pytest.raises(errors.InvalidParameterValue, match="younger than 8 days"):
        app.execute("SELECT ops_app.purge_webhook_logs(%s, '{}')", (today[0] - timedelta(days=7),))


def test_sessions(app: psycopg.Connection) -> None:
    """Expired sessions go, oldest first and no more than asked; live and locked ones stay."""
    app.execute(
        """INSERT INTO user_sessions ("userId", "refreshTokenHash", "expiresAt")
           SELECT gen_random_uuid(), n::text, now() - n * interval '1 hour'
           FROM generate_series(-5, 20) n WHERE n <> 0"""
    )
    purge = "SELECT ops_app.purge_sessions(%s)"
    assert app.execute(purge, (8,)).fetchone() == (8,)
    assert count(app, "SELECT max(now() - \"expiresAt\") < interval '12.5 hours' AS ok FROM user_sessions") == 1
    for nothing in (0, -3, None):
        assert app.execute(purge, (nothing,)).fetchone() == (0,)
    with psycopg.connect(app.info.dsn) as other:
        other.execute("SELECT FROM user_sessions WHERE \"refreshTokenHash\" = '3' FOR UPDATE")
        assert app.execute(purge, (100,)).fetchone() == (11,)
    assert app.execute(purge, (100,)).fetchone() == (1,)
    assert count(app, "SELECT count(*) FROM user_sessions") == 5


def test_page_is_read_by_the_index(app: psycopg.Connection, old: date) -> None:
    """A page of a day costs an index range, not the table: few pages of a table of 40,000 rows are touched."""
    app.execute(
        """INSERT INTO webhook_logs ("externalId", "webhookType", payload, "createdAt")
           SELECT n::text, 'nowpayments_ipn', '{}', now() AT TIME ZONE 'UTC' - n * interval '3 minutes'
           FROM generate_series(1, 40000) n"""
    )
    app.execute("ANALYZE webhook_logs")
    lines(app, old, 50)  # the first call reads the catalog, too
    row = app.execute(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM ops_app.webhook_log_lines(%s, NULL, 50)", (old,)
    ).fetchone()
    assert row
    plan: Any = row[0][0]["Plan"]
    assert plan["Actual Rows"] == 50
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200
