"""The boards' statements on a real Postgres, as Grafana's login; twenty ways to spoil them, each noticed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.boards import checks, databases, spoiled
from tests.boards.model import boards, filled, sql_of, variables
from tests.boards.spoiled import MUTANTS, InDatabase, InRegistry

CHOSEN = (
    {},
    {"order": str(uuid.uuid4())},
    {"email": "anna@example.com"},
    {"status": "paid", "payment_status": "finished", "provider": "kinguin", "outcome": "ok", "place": "kinguin"},
    {"external": "4711", "error": "signature", "page": "2"},
    {"job": "retention", "state": "FAILED"},
    {"state": "RUNNING", "page": "20", "has": "queues", "outcome": "refused"},
)
"""What people choose."""


@pytest.fixture
def shop(database: str) -> str:
    """A database with a few orders, payments and notifications, as its owner."""
    with psycopg.connect(database) as owner:
        owner.execute(
            """INSERT INTO orders (id, email, status, "totalCrypto", "createdAt")
               SELECT gen_random_uuid(), 'anna' || n || '@example.com', 'paid', n,
                      now() AT TIME ZONE 'UTC' - n * interval '1 minute'
               FROM generate_series(1, 250) n"""
        )
        owner.execute(
            """INSERT INTO payments (id, "orderId", "externalId", provider, status, "createdAt")
               SELECT gen_random_uuid(), id, left(id::text, 8), 'nowpayments', 'finished', "createdAt" FROM orders"""
        )
    return database


@pytest.mark.parametrize("name", boards())
def test_every_statement_answers_whatever_is_chosen(name: str, shop: str) -> None:
    """Each panel and variable gets its frame, with the columns it counts on and no more than 100 rows."""
    board = boards()[name]
    assert list(databases.problems(board, databases.viewer(shop), [_known(board, one) for one in CHOSEN])) == []


@pytest.mark.parametrize("name", boards())
def test_a_hostile_value_finds_nothing(name: str, shop: str) -> None:
    """Quotes, comments, dollars and very long values are values: no rows, no error but "that is no uuid"."""
    assert list(databases.hostile(boards()[name], databases.viewer(shop))) == []


@pytest.mark.parametrize("name", boards())
def test_no_statement_reads_a_whole_table(name: str, shop: str) -> None:
    """An index leads to what is asked for, whatever is chosen."""
    board = boards()[name]
    assert list(databases.scans(board, shop, [_known(board, one) for one in CHOSEN])) == []


def test_pages_follow_each_other(shop: str) -> None:
    """Three pages of 100, 100 and 50 orders hold each order once, newest first; a filter leaves only what fits."""
    board = boards()["records"]
    text = next(text for title, _, text in sql_of(board) if title == "Orders")
    with psycopg.connect(databases.viewer(shop), autocommit=True) as viewer:
        pages = [databases.ask(viewer, filled(text, board, {"page": str(n)})).rows for n in (1, 2, 3, 4)]
        assert [len(page) for page in pages] == [100, 100, 50, 0]
        rows = [row for page in pages for row in page]
        assert len({row[0] for row in rows}) == 250
        totals = [row[3] for row in rows]
        assert totals == sorted(totals)  # one more euro for each minute of age
        (found,) = databases.ask(viewer, filled(text, board, {"email": "anna7@example.com"})).rows
        assert found[1] == "a***@example.com"
        (found,) = databases.ask(viewer, filled(text, board, {"order": str(found[0])})).rows
        assert found[3] == 7
        assert not databases.ask(viewer, filled(text, board, {"status": "refunded"})).rows


def test_the_login_reads_views_alone(shop: str) -> None:
    """What a viewer may send besides a board's statements: nothing of the application's tables, no writing."""
    with psycopg.connect(databases.viewer(shop), autocommit=True) as viewer:
        for statement in (
            "SELECT email FROM orders",
            "SELECT * FROM ops.operators",
            "SELECT ops_view.order_email('x')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                viewer.execute(statement.encode())
        viewer.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            viewer.execute("DELETE FROM ops_view.orders")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_caught(mutant: spoiled.InJson | InRegistry | InDatabase, shop: str) -> None:
    """What is spoiled is named by a check that found nothing wrong before."""
    found, names, dsn = boards(), checks.known(), databases.viewer(shop)
    assert list(_all(found, names, dsn)) == []
    if isinstance(mutant, InDatabase):
        spoiled.changed(shop, mutant)
    elif isinstance(mutant, InRegistry):
        names = spoiled.without(names, mutant)
    else:
        mutant.spoil(found)
    assert spoiled.caught(_all(found, names, dsn), mutant.says)


def test_there_are_mutants_enough() -> None:
    """At least ten, of each kind, and no two of one name."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 10
    assert {type(mutant) for mutant in MUTANTS} == {spoiled.InJson, InRegistry, InDatabase}


def _all(found: spoiled.Boards, names: checks.Known, dsn: str) -> Iterator[str]:
    problems = checks.all_problems(found, names)
    yield from problems
    if problems:
        return  # a statement without its variables cannot be filled in
    for board in found.values():
        yield from databases.problems(board, dsn)


def _known(board: checks.Json, chosen: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in chosen.items() if name in variables(board)}
