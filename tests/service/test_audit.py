"""The audit's chain: it does not fork, every way to change it is found, and a restore can be told from a cut."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from exporters import audit as exporter
from jobs import audit_anchor
from opslib import audit, audit_chain, audit_store, settings
from opslib.audit import Event, Head, Outcome
from opslib.errors import JobError, NotFoundError, OpsError
from opslib.postgres import Database
from opslib.run import Run
from opslib.spec import NoParams, Sample
from opslib.storage import Place, Storage
from tests.service import s3_kit
from tests.service.audit_kit import DAMAGE, unlocked

LATER = datetime.now(UTC) + timedelta(days=2)


@pytest.fixture
def bucket(s3: Place) -> Storage:
    """An empty bucket for what is noted outside."""
    return Storage(s3)


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    """The owner, a superuser."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def write(database: str, count: int, **but: Any) -> Head:
    """That many events; the head behind them."""
    with audit.connect(database) as connection:
        for number in range(count):
            text = {"target": f"mail:{number}", "payload": {"n": number, "ü": "é\n"}, "reason": "why\tnot — \\x1f"}
            head = audit.append(connection, Event("OPS_TEST", "test.do", **{**text, **but}), Outcome.ALLOWED)
    return head


def test_a_chain_is_whole_and_goes_on(database: str) -> None:
    """Empty, with events, and with more: intact; each step the same in SQL and in Python."""
    assert audit_chain.verify(database).ok
    head = write(database, 7)
    report = audit_chain.verify(database, [head])
    assert (report.ok, report.events, report.head, report.anchors) == (True, 7, head, 1)
    write(database, 3, payload={"deep": {"a": [1, 2.50, None]}})
    assert audit_chain.verify(database, [head]).events == 10


def test_what_a_caller_says_is_cleaned(database: str) -> None:
    """Secrets, addresses, control characters and far too much of anything never get in."""
    with audit.connect(database) as connection:
        event = Event(
            "OPS_TEST",
            "test.do",
            target="postgres://u:hunter22@h/db",
            payload={"password": "hunter22", "mail": "anna@mail.example", "nul": "a\0b", "long": "x" * 99_999},
            reason="for anna@mail.example\x1f\n" + "y" * 9999,
        )
        audit.append(connection, event, Outcome.FAILED, error="token=hunter22")
        row = connection.execute("SELECT target || payload::text || reason || error FROM ops.audit_events").fetchone()
    assert row is not None
    assert not {"hunter22", "anna@"} & {word for word in ("hunter22", "anna@") if word in row[0]}
    assert audit_chain.verify(database).ok


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE)
def test_any_change_is_found(database: str, owner: psycopg.Connection, statement: str) -> None:
    """Whoever owns the database can switch the trigger off; the chain tells all the same."""
    write(database, 8)
    with audit.connect(database) as connection:
        audit.append(connection, Event("OPS_TEST", "test.do"), Outcome.INTENT)
    assert audit_chain.verify(database).ok
    unlocked(owner, statement)
    assert audit_chain.verify(database).findings
    assert audit_chain.verify(database).findings, "and it is found again"


def test_a_tail_cut_with_everything_that_counts_it(database: str, owner: psycopg.Connection) -> None:
    """Head and totals made to fit: the chain itself is whole, a head noted outside is not to be found in it."""
    write(database, 6)
    noted = write(database, 3)
    cut = """DELETE FROM ops.audit_events WHERE seq > 6; UPDATE ops.audit_totals SET events = 6;
             UPDATE ops.audit_head SET seq = e.seq, hash = e.hash FROM ops.audit_events e WHERE e.seq = 6"""
    unlocked(owner, cut)
    assert audit_chain.verify(database).ok, "nothing inside the database shows it"
    (finding,) = audit_chain.verify(database, [noted]).findings
    assert "the tail was cut" in finding
    write(database, 9)
    (finding,) = audit_chain.verify(database, [noted]).findings
    assert "rewritten" in finding


@pytest.mark.parametrize("statement", ["UPDATE {} SET target = ''", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_owner_cannot_by_mistake(database: str, owner: psycopg.Connection, statement: str) -> None:
    """The trigger refuses, in a replication session too."""
    write(database, 1)
    for replication in ("origin", "replica"):
        owner.execute(f"SET session_replication_role = {replication}")
        with pytest.raises(psycopg.Error, match="append-only"):
            owner.execute(sql.SQL(statement).format(sql.SQL("ops.audit_events")))


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_concurrent_writers_do_not_fork(database: str, isolation: str) -> None:
    """Sixteen at once, in any isolation, some rolled back: one chain without a gap."""
    written: list[int] = []

    def some() -> None:
        with audit.connect(database) as connection:
            connection.execute(f"SET default_transaction_isolation = '{isolation.lower()}'")
            for number in range(12):
                try:
                    with connection.transaction():
                        head = audit.append(connection, Event("OPS_TEST", "test.do", str(number)), Outcome.ALLOWED)
                        if number % 4 == 3:
                            raise psycopg.Rollback
                    if number % 4 != 3:
                        written.append(head.seq)
                except errors.SerializationFailure:
                    continue

    threads = [threading.Thread(target=some) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = audit_chain.verify(database)
    assert report.ok, report.findings
    assert sorted(written) == list(range(1, report.head.seq + 1))
    assert isolation != "READ COMMITTED" or report.events == 16 * 9


def test_an_intent_is_ended_once_and_by_its_own(database: str, owner: psycopg.Connection) -> None:
    """Not by another login, not for another action, not twice."""
    owner.execute("CREATE ROLE t_other LOGIN IN ROLE ops_staff")
    try:
        event = Event("OPS_TEST", "test.do")
        with ExitStack() as stack:
            mine = stack.enter_context(audit.connect(database))
            other = stack.enter_context(audit.connect(make_conninfo(database, user="t_other")))
            intent = audit.append(mine, event, Outcome.INTENT).seq
            for connection, said in ((other, event), (mine, Event("OPS_TEST", "test.undo"))):
                with pytest.raises(psycopg.Error, match="is not open"):
                    audit.append(connection, said, Outcome.ALLOWED, intent=intent)
            audit.append(mine, event, Outcome.ALLOWED, intent=intent)
            with pytest.raises(psycopg.Error, match="is not open"):
                audit.append(mine, event, Outcome.FAILED, intent=intent)
        assert audit_chain.verify(database).ok
    finally:
        owner.execute("DROP ROLE t_other")


def job_run(database: str, s3: Place | None) -> Run:
    """A run of the job, as a login of `ops_jobs`."""
    env = {"DATABASE_URL": s3_kit.as_job(database), **(s3_kit.env_at(s3) if s3 else {})}
    return Run(1, "audit-anchor", settings.load(env), None, 1, "schedule", lambda _: None, lambda: False)


def test_the_job_proves_seals_and_notes(
    database: str, owner: psycopg.Connection, s3: Place, bucket: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old events are sealed once, in segments that prove themselves offline; the head is noted each time."""
    monkeypatch.setattr(audit_store, "SEGMENT_EVENTS", 4)
    monkeypatch.setattr(audit_store, "SEAL_AFTER", timedelta(0))
    write(database, 9)
    result = audit_anchor.run(job_run(database, s3), NoParams())
    assert [(s.first, s.last) for s in audit_store.segments(bucket)] == [(1, 4), (5, 8), (9, 10)]
    assert result.anchor
    again = audit_anchor.run(job_run(database, s3), NoParams())
    assert len(again.segments) == 2, "seal and anchor of the first run, and the second's verification"
    prior = audit_chain.GENESIS
    for segment in audit_store.segments(bucket):
        prior, wrong = audit_store.prove(bucket, segment, prior)
        assert wrong == []
    assert audit_chain.verify(database, audit_store.noted(bucket)).anchors == 7
    assert audit_anchor.run(job_run(database, None), NoParams()).anchor is None
    row = owner.execute("SELECT count(*) FROM ops.audit_events WHERE seq <= 9").fetchone()
    assert row == (9,), "sealed is not deleted"


def test_a_segment_that_was_changed(database: str, bucket: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One field of one line, or half of it: said."""
    monkeypatch.setattr(audit_store, "SEAL_AFTER", timedelta(0))
    write(database, 5)
    with audit.connect(database) as connection:
        (segment,) = audit_store.seal(connection, bucket, LATER)
    whole = gzip.decompress(bucket.get(segment.key))
    for body in (gzip.compress(whole.replace(b"mail:3", b"mail:4")), gzip.compress(whole[:-9]), b"nonsense"):
        bucket.put(segment.key, body)
        assert audit_store.prove(bucket, segment, audit_chain.GENESIS)[1]
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [line["target"] for line in lines] == [f"mail:{n}" for n in range(5)]


def test_the_job_notes_no_damaged_chain(database: str, owner: psycopg.Connection, s3: Place, bucket: Storage) -> None:
    """It fails with what is wrong, writes that down, and leaves the bucket as it was."""
    write(database, 5)
    unlocked(owner, DAMAGE["edited: who"])
    with pytest.raises(JobError, match="event 5"):
        audit_anchor.run(job_run(database, s3), NoParams())
    assert bucket.list("") == ()
    last = owner.execute("SELECT action, outcome FROM ops.audit_events ORDER BY seq DESC LIMIT 1").fetchone()
    assert last == ("audit.verify", "failed")


def restored(owner: psycopg.Connection, to: int) -> None:
    """As a restore of an older dump leaves it: the tables of then."""
    unlocked(
        owner,
        f"""DELETE FROM ops.audit_events WHERE seq > {to}; UPDATE ops.audit_totals SET events = {to};
            UPDATE ops.audit_head SET seq = e.seq, hash = e.hash FROM ops.audit_events e WHERE e.seq = {to}""",
    )


def test_a_restore_is_accepted_by_a_super_alone(database: str, owner: psycopg.Connection, bucket: Storage) -> None:
    """Then `verify` tells of it and is content; a later cut is a cut again."""
    noted = [write(database, 4), write(database, 4), write(database, 4)]
    for head in noted:
        audit_store.anchor(bucket, head, head.at)
    restored(owner, 6)
    write(database, 1)
    report = audit_chain.verify(database, audit_store.noted(bucket))
    assert [head.seq for head in report.unexplained] == [8, 12]
    owner.execute("CREATE ROLE t_staff LOGIN IN ROLE ops_staff")
    try:
        with audit.connect(make_conninfo(database, user="t_staff")) as staff:
            audit_store.accept(staff, report, "I say so")
    finally:
        owner.execute("DROP ROLE t_staff")
    assert not audit_chain.verify(database, audit_store.noted(bucket)).ok, "staff's word is not enough"
    with audit.connect(database) as connection:
        audit_store.accept(connection, report, "disk died, restored last night's dump")
    write(database, 9)
    after = audit_chain.verify(database, audit_store.noted(bucket))
    assert after.ok, after.findings
    assert "disk died" in str(after.restores[0])
    with audit.connect(database) as connection, pytest.raises(NotFoundError):
        audit_store.accept(connection, after, "once more")
    audit_store.anchor(bucket, write(database, 1), datetime.now(UTC))
    restored(owner, 10)
    later = audit_chain.verify(database, audit_store.noted(bucket))
    assert [head.seq for head in later.unexplained] == [19], "what was accepted explains no other cut"


def test_no_restore_explains_an_edit(database: str, owner: psycopg.Connection) -> None:
    """A chain that is broken in itself is never accepted."""
    noted = write(database, 9)
    restored(owner, 6)
    unlocked(owner, DAMAGE["edited: who"])
    with audit.connect(database) as connection, pytest.raises(OpsError, match="no restore does this"):
        audit_store.accept(connection, audit_chain.verify(database, [noted]), "try")


async def test_the_exporter_shows_it(
    database: str, login: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, length, what is unfinished, the last proof; as a login of ops_exporter."""

    def shown(samples: list[Sample]) -> dict[tuple[str, ...], float]:
        return {(sample.metric.name, *sample.labels): sample.value[0] for sample in samples}

    collector = exporter.Audit(Database(login("exporter"), application_name="test", read_only=True))
    await collector.start()
    empty = shown([*await collector.collect(), *collector.counts()])
    assert empty == {("ops_audit_chain_events",): 0, ("ops_audit_unfinished_intents",): 0}
    write(database, 3)
    monkeypatch.setattr(exporter, "RUNNING", timedelta(0))
    with audit.connect(database) as connection:
        audit.append(connection, Event("OPS_TEST", "test.do"), Outcome.INTENT)
        audit.verified(connection, [], 4, 0)
    page = shown([*await collector.collect(), *collector.counts()])
    assert page["ops_audit_events_total", "test.do", "allowed"] == 3
    assert page["ops_audit_events_total", "test.do", "intent"] == 1
    assert page["ops_audit_chain_events",] == 5
    assert page["ops_audit_unfinished_intents",] == 1
    assert 0 <= page["ops_audit_oldest_unfinished_age_seconds",] < 60
    assert page["ops_audit_intact",] == 1
    assert page["ops_audit_verified_timestamp_seconds", "intact"] > 1.7e9
    with audit.connect(database) as connection:
        audit.verified(connection, ["event 3"], 4, 0)
    assert shown([*await collector.collect()])["ops_audit_intact",] == 0
    await collector.stop()


@pytest.fixture
def login(database: str, owner: psycopg.Connection) -> Iterator[Callable[[str], str]]:
    """A login of a role, gone afterwards."""
    made: list[str] = []

    def make(role: str) -> str:
        made.append(f"t_audit_{role}")
        owner.execute(f"CREATE ROLE {made[-1]} LOGIN IN ROLE ops_{role}")
        return make_conninfo(database, user=made[-1])

    yield make
    for name in made:
        owner.execute(f"DROP ROLE {name}")
