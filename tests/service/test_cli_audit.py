"""`opsctl audit` as a person and as a script use it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from opslib import audit, audit_chain
from opslib.audit import Event, Outcome
from opslib.audit_store import anchor
from opslib.storage import Place, Storage
from tests.service import s3_kit
from tests.service.audit_kit import DAMAGE, unlocked

OPSCTL = Path(sys.executable).parent / "opsctl"
Opsctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def opsctl(database: str) -> Opsctl:
    """The installed command on this database, without a terminal."""

    def run(*arguments: str, dsn: str = database, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [OPSCTL, "audit", *arguments],
            env={"PATH": os.environ["PATH"], "DATABASE_URL": dsn, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def nine(database: str) -> str:
    """A chain of nine events: eight done, one begun."""
    with audit.connect(database) as connection:
        for number in range(8):
            event = Event(
                "OPS_TEST", "mail.send" if number % 2 else "queues.retry", f"mail:{number}", {"n": number}, "=x"
            )
            audit.append(connection, event, Outcome.REFUSED if number == 3 else Outcome.ALLOWED)
        audit.append(connection, Event("OPS_TEST", "mail.send"), Outcome.INTENT)
    return database


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ((), [9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (("--limit", "2"), [9, 8]),
        (("--limit", "2", "--before", "8"), [7, 6]),
        (("--action", "queues"), [7, 5, 3, 1]),
        (("--action", "mail.send", "--outcome", "refused"), [4]),
        (("--target", "mail:4"), [5]),
        (("--unfinished",), [9]),
        (("--who", "nobody"), []),
        (("--from", "1h"), [9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (("--to", "1h"), []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_list(nine: str, opsctl: Opsctl, filters: tuple[str, ...], found: list[int]) -> None:
    """Newest first, by any filter."""
    del nine
    assert [row["seq"] for row in json.loads(opsctl("list", "--json", *filters).stdout)] == found


def test_show(nine: str, opsctl: Opsctl) -> None:
    """One event with its other half; one that is not there is exit code 4."""
    with audit.connect(nine) as connection:
        audit.append(connection, Event("OPS_TEST", "mail.send"), Outcome.FAILED, intent=9, error="no")
    for seq in ("9", "10"):
        assert [row["seq"] for row in json.loads(opsctl("show", seq, "--json").stdout)] == [9, 10]
    assert "mail:2" in opsctl("show", "3").stdout
    assert opsctl("show", "99").returncode == 4


def test_verify(nine: str, opsctl: Opsctl) -> None:
    """Intact is 0, damaged is 1, each is an event; a head from a log line can be held against it."""
    ended = opsctl("verify")
    assert (ended.returncode, ended.stdout.startswith("intact: 9 events")) == (0, True)
    told = json.loads(opsctl("verify", "--json").stdout)
    assert (told["ok"], told["events"]) == (True, 10)
    assert opsctl("verify", "--head", f"{told['head']['seq']}:{told['head']['hash']}").returncode == 0
    assert opsctl("verify", "--head", f"5:{'ab' * 32}").returncode == 1
    assert opsctl("verify", "--head", "nonsense").returncode == 2
    with psycopg.connect(nine, autocommit=True) as owner:
        unlocked(owner, DAMAGE["edited: who"])
    ended = opsctl("verify")
    assert (ended.returncode, "broken at event 5" in ended.stdout) == (1, True)
    verdicts = json.loads(opsctl("list", "--action", "audit.verify", "--json").stdout)
    assert [row["outcome"] for row in verdicts] == ["failed", "failed", "allowed", "allowed", "allowed"]


def test_a_cut_and_a_restore(nine: str, opsctl: Opsctl, s3: Place) -> None:
    """The bucket's head finds the cut; only after a typed confirmation is it a restore; then verify is content."""
    settings = s3_kit.env_at(s3)
    with audit.connect(nine) as connection:
        head = audit.head(connection)
    anchor(Storage(s3), head, head.at)
    with psycopg.connect(nine, autocommit=True) as owner:
        unlocked(
            owner,
            """DELETE FROM ops.audit_events WHERE seq > 6; DELETE FROM ops.audit_open; DELETE FROM ops.audit_totals;
               INSERT INTO ops.audit_totals VALUES ('x', 'allowed', 6, now());
               UPDATE ops.audit_head SET seq = e.seq, hash = e.hash FROM ops.audit_events e WHERE e.seq = 6""",
        )
    assert opsctl("verify", "--no-store").returncode == 0
    ended = opsctl("verify", **settings)
    assert (ended.returncode, "the tail was cut" in ended.stdout) == (1, True)
    accept = ("accept-restore", "--reason", "restored last night's dump")
    for given in ((), ("--confirm", "8")):
        ended = opsctl(*accept, *given, **settings)
        assert ended.returncode == 3, ended.stderr
    assert opsctl(*accept, "--confirm", "9", **settings).returncode == 0
    ended = opsctl("verify", **settings)
    assert (ended.returncode, "last night's dump" in ended.stdout) == (0, True)
    assert opsctl(*accept, "--confirm", "9", **settings).returncode == 4
    refused = json.loads(opsctl("list", "--outcome", "refused", "--json").stdout)
    assert len([row for row in refused if row["action"] == "audit.accept-restore"]) == 2


def test_export(nine: str, opsctl: Opsctl, tmp_path: Path) -> None:
    """All of it or what is filtered, as NDJSON and as CSV that no spreadsheet runs."""
    del nine
    lines = [json.loads(line) for line in opsctl("export").stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(9, 0, -1))
    target = tmp_path / "audit.csv"
    assert opsctl("export", "--format", "csv", "--outcome", "allowed", "-o", str(target)).returncode == 0
    rows = list(csv.DictReader(target.read_text("utf-8").splitlines()))
    assert len(rows) == 7
    assert {row["reason"] for row in rows} == {"'=x"}


def test_staff_reads_and_grafana_does_not(nine: str, opsctl: Opsctl) -> None:
    """Whoever is no operator is refused with exit code 3."""
    with psycopg.connect(nine, autocommit=True) as owner:
        for role, code in (("staff", 0), ("grafana", 3)):
            owner.execute(f"CREATE ROLE t_cli_{role} LOGIN IN ROLE ops_{role}")
            try:
                dsn = make_conninfo(nine, user=f"t_cli_{role}")
                assert opsctl("list", dsn=dsn).returncode == code
                assert opsctl("verify", dsn=dsn).returncode == code
            finally:
                owner.execute(f"DROP ROLE t_cli_{role}")
    assert audit_chain.verify(nine).ok
