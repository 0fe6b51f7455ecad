"""The guard and the audit, through the installed command and real logins."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

OPSCTL = Path(sys.executable).parent / "opsctl"
Login = Callable[[str], str]


@pytest.fixture
def login(database: str) -> Iterator[Login]:
    """Makes a login that is a member of a role (or of none), and gives its DSN."""
    names: list[str] = []
    with psycopg.connect(database, autocommit=True) as owner:

        def make(role: str) -> str:
            name = f"t_{role or 'nobody'}_{uuid4().hex[:8]}"
            owner.execute(f"CREATE ROLE {name} LOGIN {f'IN ROLE ops_{role}' if role else ''}")
            names.append(name)
            return make_conninfo(database, user=name)

        yield make
        rows = owner.execute("SELECT name FROM ops.operators").fetchall()
        for name in (*names, *(name for (name,) in rows)):
            owner.execute(f"DROP ROLE IF EXISTS {name}")


def opsctl(dsn: str, *arguments: str, stdin: Any = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    """Run the installed command, without a terminal unless `stdin` is one."""
    return subprocess.run(
        [OPSCTL, *arguments],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": dsn},
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def trail(dsn: str) -> list[dict[str, Any]]:
    """Every audit event, in order."""
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM ops.audit_events ORDER BY seq").fetchall()


def name() -> str:
    """A login's name nobody has: roles belong to the whole cluster."""
    return f"t_{uuid4().hex[:10]}"


def test_an_action_leaves_intent_and_outcome(database: str, login: Login) -> None:
    """Who, as what, to what, why, how long; the password it printed is in neither."""
    super_, anna = login("super"), name()
    ended = opsctl(super_, "operators", "add", anna, "--role", "staff", "--reason", "first day; token=abc123", "--yes")
    assert ended.returncode == 0, ended.stderr
    password = ended.stdout.strip()
    intent, outcome = trail(database)
    assert (intent["outcome"], outcome["outcome"], outcome["intent"]) == ("intent", "allowed", intent["seq"])
    for event in (intent, outcome):
        assert (event["action"], event["target"], event["role"]) == ("operators.add", anna, "super")
        assert event["who"].startswith("t_super_")
        assert event["reason"] == "first day; token=***"
        assert event["payload"] == {"name": anna, "role": "staff"}
        assert event["event"] == "OPS_OPERATOR_ADD"
        assert event["host"]
    assert outcome["duration_ms"] >= 0
    assert password not in str(trail(database))
    with psycopg.connect(make_conninfo(database, user=anna, password=password)) as connection:
        assert connection.execute("SELECT ops.operator_role()").fetchone() == ("staff",)


def test_refused_without_a_terminal(database: str, login: Login) -> None:
    """Neither --yes nor somebody to ask: no, exit code 3, without waiting for anybody, and it is remembered."""
    super_, anna = login("super"), name()
    started = time.monotonic()
    ended = opsctl(super_, "operators", "add", anna, "--role", "staff", "--reason", "because")
    took = time.monotonic() - started
    assert ended.returncode == 3
    assert "confirm with --yes" in ended.stderr
    assert took < 10, "the bench holds it to a second"
    (event,) = trail(database)
    assert (event["outcome"], event["target"], event["reason"]) == ("refused", anna, "because")
    assert "nobody to ask" in event["error"]


@pytest.mark.parametrize(
    ("role", "arguments", "says"),
    [
        ("staff", ("--reason", "x", "--yes"), "takes the role super"),
        ("super", ("--yes",), "say why with --reason"),
        ("super", ("--yes", "--reason", "  "), "say why with --reason"),
    ],
)
def test_role_and_reason(database: str, login: Login, role: str, arguments: tuple[str, ...], says: str) -> None:
    """Each missing one is a refusal that is written down."""
    anna = name()
    ended = opsctl(login(role), "operators", "add", anna, "--role", "super", *arguments)
    assert ended.returncode == 3
    assert says in ended.stderr
    (event,) = trail(database)
    assert (event["outcome"], event["role"]) == ("refused", role)


def test_no_operator_at_all(database: str, login: Login) -> None:
    """A login without a role may not even write that it was refused."""
    for dsn in (login(""), login("grafana"), login("exporter")):
        ended = opsctl(dsn, "operators", "add", name(), "--role", "staff", "--yes", "--reason", "x")
        assert ended.returncode == 3, ended.stderr
        assert "no operator" in ended.stderr
    assert trail(database) == []


def test_dry_run_changes_nothing(database: str, login: Login) -> None:
    """The plan, exit code 0, no event."""
    anna = name()
    ended = opsctl(login("super"), "operators", "add", anna, "--role", "staff", "--dry-run")
    assert ended.returncode == 0
    assert f"create the login {anna}" in ended.stderr
    assert "nothing was changed" in ended.stderr
    assert trail(database) == []


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("\n", 3), ("n\n", 3), ("\x04", 1)])
def test_asked_at_a_terminal(database: str, login: Login, typed: str, code: int) -> None:
    """Only yes is yes; Enter is no."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed.encode())
        ended = opsctl(login("super"), "operators", "add", name(), "--role", "staff", "--reason", "x", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == code, ended.stderr
    assert trail(database)[-1]["outcome"] == ("refused" if code else "allowed")


def test_a_failure_is_an_outcome(database: str, login: Login) -> None:
    """What the database refuses in the middle is `failed`, with its reason, and left nothing behind."""
    super_, anna = login("super"), name()
    add = ("operators", "add", anna, "--role", "staff", "--reason", "x", "--yes")
    assert opsctl(super_, *add).returncode == 0
    ended = opsctl(super_, *add)
    assert ended.returncode == 1
    assert "exists already" in ended.stderr
    *_, intent, outcome = trail(database)
    assert (outcome["outcome"], outcome["intent"]) == ("failed", intent["seq"])
    assert "exists already" in outcome["error"]


def test_disable_takes_rights_at_once_and_add_gives_them_back(database: str, login: Login) -> None:
    """Also from a session that is open; nobody disables themselves; list shows it."""
    super_, anna = login("super"), name()
    add = ("operators", "add", anna, "--role", "super", "--reason", "x", "--yes")
    password = opsctl(super_, *add).stdout.strip()
    as_anna = make_conninfo(database, user=anna, password=password)
    assert opsctl(as_anna, "operators", "disable", anna, "--reason", "x", "--yes").returncode == 1
    with psycopg.connect(as_anna, autocommit=True) as session:
        assert opsctl(super_, "operators", "disable", anna, "--reason", "left", "--yes").returncode == 0
        with pytest.raises(psycopg.Error):
            session.execute("SELECT ops.operator_role()")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(as_anna)
    assert opsctl(super_, "operators", "disable", anna, "--reason", "again", "--yes").returncode == 4
    assert f"{anna},super,disabled" in opsctl(super_, "operators", "list", "--csv").stdout
    assert opsctl(super_, *add).returncode == 0
    assert f"{anna},super,active" in opsctl(super_, "operators", "list", "--csv").stdout


def test_whoami(database: str, login: Login) -> None:
    """The login and what the database says it is."""
    assert " is staff of " in opsctl(login("staff"), "operators", "whoami").stdout
    assert " is superuser of " in opsctl(database, "operators", "whoami").stdout
