"""`opsctl flags`: compare, explain, switch for a while or for good, delete; as staff, as super, under the guard."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from opsctl.actions.flags import Span
from opsctl.commands.flags import group
from opslib.areas import flag_sync
from opslib.areas.flag_eval import position
from opslib.errors import ConfigError, NotFoundError, RefusedError, SourceError
from tests.service.shop_kit import an_app, minted

OPSCTL = Path(sys.executable).parent / "opsctl"
FIELDS = "description: d, category: c, owner: o"
BY_HAND = ("--reason", "incident 7", "--yes")
Owner = psycopg.Connection[dict[str, Any]]
As = Callable[[str], None]


@pytest.fixture
def owner(database: str) -> Iterator[Owner]:
    """The owner's connection; the application has two flags, both on."""
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("DELETE FROM feature_flags WHERE name NOT IN ('kinguin_enabled', 'captcha_enabled')")
        yield connection


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The flag file: one plain flag, one partial rollout the application has as well, one the application has not."""
    file = tmp_path / "flags.yaml"
    file.write_text(
        f"flags:\n  kinguin_enabled: {{enabled: true, {FIELDS}}}\n"
        f"  captcha_enabled: {{enabled: true, {FIELDS}, scope: user, rollout: 20}}\n"
        f"  new_checkout: {{enabled: true, {FIELDS}, scope: vendor, rollout: 50}}\n"
    )
    monkeypatch.setenv("OPS_FLAGS_FILE", str(file))
    monkeypatch.setenv("OPS_FLAGS_VIA", "table")
    return file


@pytest.fixture
def login(database: str, owner: Owner, file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[As]:
    """From here on `opsctl` runs as a new login of that role; at first of staff."""
    del file
    names: list[str] = []

    def become(role: str) -> None:
        name = f"t_{role}_{uuid4().hex[:8]}"
        owner.execute(f"CREATE ROLE {name} LOGIN IN ROLE ops_{role}")
        names.append(name)
        monkeypatch.setenv("DATABASE_URL", make_conninfo(database, user=name))

    become("staff")
    yield become
    for name in names:
        owner.execute(f"DROP OWNED BY {name}")
        owner.execute(f"DROP ROLE {name}")


def opsctl(*arguments: str, code: int = 0) -> str:
    """What `opsctl flags …` prints."""
    ended = CliRunner().invoke(group, arguments)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == code, ended.output
    return ended.stdout


def told(*arguments: str, code: int = 0) -> Any:
    """The same as a program reads it."""
    return json.loads(opsctl(*arguments, "--json", code=code))


def live(owner: Owner, name: str) -> bool:
    """What the application's table says."""
    (row,) = owner.execute("SELECT enabled FROM feature_flags WHERE name = %s", (name,)).fetchall()
    return bool(row["enabled"])


@pytest.mark.usefixtures("login")
def test_list_show_and_diff(owner: Owner) -> None:
    """Each flag in its state; what differs with who and when, and exit code 1; nothing that differs, 0."""
    assert {row["key"]: row["state"] for row in told("list")} == {
        "kinguin_enabled": "in_sync",
        "captcha_enabled": "document_only",
        "new_checkout": "document_only",
    }
    assert told("diff") == []
    assert "every flag is as the file wants it" in opsctl("diff")
    opsctl("sync", "--reason", "first")
    owner.execute("UPDATE feature_flags SET enabled = false WHERE name = 'kinguin_enabled'")
    owner.execute("INSERT INTO feature_flags (name) VALUES ('leftover')")
    drift, leftover = told("diff", code=1)
    assert (drift["key"], drift["state"], drift["wanted"], drift["live"]) == ("kinguin_enabled", "drift", "on", "off")
    assert (leftover["key"], leftover["state"]) == ("leftover", "undeclared")
    shown = told("show", "kinguin_enabled")
    assert (shown["applied"], shown["owner"], shown["rollout"], shown["expired"]) == ("on", "o", 100, False)
    assert "kinguin_enabled" in opsctl("show", "kinguin_enabled")
    with pytest.raises(NotFoundError, match="there is no flag nonsense"):
        opsctl("show", "nonsense")


@pytest.mark.usefixtures("login")
def test_set_for_a_while_holds_and_ends(owner: Owner) -> None:
    """Live at once, no drift meanwhile, put back by the sync after its time; the audit knows why."""
    opsctl("sync", "--reason", "first")
    assert "kinguin_enabled is off, until" in opsctl("set", "kinguin_enabled", "off", "--for", "2h", *BY_HAND)
    assert not live(owner, "kinguin_enabled")
    assert told("diff") == []
    shown = told("show", "kinguin_enabled")
    assert (shown["override"], shown["override_reason"], shown["wanted"]) == ("off", "incident 7", "off")
    assert shown["override_by"].startswith("t_staff_")
    until = datetime.fromisoformat(shown["override_until"])
    assert timedelta(minutes=119) < until - datetime.now(UTC) < timedelta(minutes=121)
    assert opsctl("sync", "--reason", "again") == "set: 0\n"
    owner.execute("UPDATE ops.flag_overrides SET until = now()")
    assert "kinguin_enabled: off to on: the file wants it on" in opsctl("sync", "--reason", "over")
    assert live(owner, "kinguin_enabled")
    events = owner.execute(
        "SELECT action, target, reason FROM ops.audit_events WHERE outcome = 'allowed' ORDER BY seq"
    ).fetchall()
    assert [(event["action"], event["target"], event["reason"]) for event in events] == [
        ("flags.sync", "flags", "first"),
        ("flags.set", "kinguin_enabled", "incident 7"),
        ("flags.sync", "flags", "again"),
        ("flags.sync", "flags", "over"),
    ]


@pytest.mark.usefixtures("login")
def test_an_override_that_no_sync_ever_saw_is_put_back(owner: Owner) -> None:
    """Its time was over before the job ran once: still ours, no hand's."""
    opsctl("sync", "--reason", "first")
    opsctl("set", "kinguin_enabled", "off", "--for", "1m", *BY_HAND)
    owner.execute("UPDATE ops.flag_overrides SET until = now()")
    assert opsctl("sync", "--reason", "over").endswith("set: 1\n")
    assert live(owner, "kinguin_enabled")


@pytest.mark.usefixtures("login")
def test_set_for_good_is_drift_until_the_file_says_so(owner: Owner, file: Path) -> None:
    """No sync takes it back; the file's own value ends an override at once."""
    opsctl("sync", "--reason", "first")
    assert "flag-sync reports it as drift" in opsctl("set", "kinguin_enabled", "off", *BY_HAND)
    assert opsctl("sync", "--reason", "again") == "set: 0\n"
    assert not live(owner, "kinguin_enabled")
    assert [row["state"] for row in told("diff", code=1)] == ["drift"]
    text = file.read_text()
    file.write_text(text.replace("kinguin_enabled: {enabled: true", "kinguin_enabled: {enabled: false"))
    assert told("diff") == []
    opsctl("sync", "--reason", "agreed")
    opsctl("set", "kinguin_enabled", "on", "--for", "1d", *BY_HAND)
    assert live(owner, "kinguin_enabled")
    assert "as the file wants it" in opsctl("set", "kinguin_enabled", "off", *BY_HAND)
    assert not live(owner, "kinguin_enabled")
    assert told("diff") == []
    assert owner.execute("SELECT FROM ops.flag_overrides").fetchall() == []


@pytest.mark.usefixtures("login")
def test_what_cannot_be_set(owner: Owner, file: Path) -> None:
    """Unknown, partly rolled out, enforced, not declared: each refusal says what to do, and nothing changes."""
    owner.execute("INSERT INTO feature_flags (name, enabled) VALUES ('leftover', true)")
    file.write_text(file.read_text() + f"  strict: {{enabled: false, {FIELDS}, enforce: true}}\n")
    with pytest.raises(NotFoundError):
        opsctl("set", "nonsense", "on", *BY_HAND)
    with pytest.raises(RefusedError, match="captcha_enabled is on for 20 % of users: the application's own table"):
        opsctl("set", "captcha_enabled", "off", *BY_HAND)
    with pytest.raises(RefusedError, match="the application has no flag strict"):
        opsctl("set", "strict", "on", *BY_HAND)
    owner.execute("INSERT INTO feature_flags (name) VALUES ('strict')")
    with pytest.raises(RefusedError, match="the file enforces strict"):
        opsctl("set", "strict", "on", *BY_HAND)
    with pytest.raises(RefusedError, match="leftover is not in the file"):
        opsctl("set", "leftover", "off", "--for", "1h", *BY_HAND)
    with pytest.raises(RefusedError, match="say why with --reason"):
        opsctl("set", "kinguin_enabled", "off", "--yes")
    with pytest.raises(RefusedError, match="confirm with --yes"):
        opsctl("set", "kinguin_enabled", "off", "--reason", "r")
    opsctl("set", "kinguin_enabled", "off", "--dry-run")
    assert live(owner, "kinguin_enabled")
    for key, unit in (("captcha_enabled", "--user"), ("new_checkout", "--vendor")):
        assert "in the flagd document alone" in opsctl("set", key, "off", "--for", "1h", *BY_HAND)
        assert told("eval", key, unit, "v")["value"] is False
    refused = owner.execute(
        "SELECT target, error FROM ops.audit_events WHERE outcome = 'refused' ORDER BY seq"
    ).fetchall()
    assert [row["target"] for row in refused] == [
        *("captcha_enabled", "strict", "strict", "leftover", "kinguin_enabled", "kinguin_enabled"),
    ]
    assert "only on and off" in refused[0]["error"]
    assert live(owner, "captcha_enabled")  # what would be put back into a table of on and off?
    assert "for good" in opsctl("set", "leftover", "off", *BY_HAND)


@pytest.mark.parametrize("span", ["0m", "2", "h", "2w", "32d", "1.5h", "-1h"])
def test_no_such_time(span: str) -> None:
    """A month at most, in one unit."""
    with pytest.raises(Exception, match="write 30m, 2h or 7d"):
        Span().convert(span, None, None)


@pytest.mark.usefixtures("file")
def test_eval_explains_and_export_is_what_flagd_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file alone; what only the document can serve is said."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    text = opsctl("eval", "captcha_enabled", "--user", "u1")
    inside = position("captcha_enabled", "u1") < 20
    assert text.startswith(f"captcha_enabled is {'on' if inside else 'off'}\n  on in the file, for 20 % of users\n")
    assert f"user u1 stands at {position('captcha_enabled', 'u1')} of 100" in text
    assert "the flagd document serves this" in text
    assert told("eval", "kinguin_enabled") == {
        "key": "kinguin_enabled", "value": True, "because": ["on in the file, for everybody"], "note": None
    }  # fmt: skip
    assert "no vendor given" in opsctl("eval", "new_checkout", "--user", "u1")
    document = json.loads(opsctl("export", "--flagd"))
    assert list(document["flags"]) == ["kinguin_enabled", "captcha_enabled", "new_checkout"]
    with pytest.raises(NotFoundError, match="declares no flag nonsense"):
        opsctl("eval", "nonsense")
    monkeypatch.delenv("OPS_FLAGS_FILE")
    with pytest.raises(ConfigError, match="OPS_FLAGS_FILE is not set"):
        opsctl("export", "--flagd")


def test_delete_is_for_super_typed_and_for_left_overs(owner: Owner, login: As) -> None:
    """Staff may not; a declared flag is refused; the name is the confirmation; a second time there is none."""
    owner.execute("INSERT INTO feature_flags (name) VALUES ('leftover')")
    sure = ("--reason", "gone from the code", "--confirm", "leftover")
    with pytest.raises(RefusedError, match="takes the role super"):
        opsctl("delete", "leftover", *sure)
    login("super")
    with pytest.raises(RefusedError, match="take it out there first"):
        opsctl("delete", "kinguin_enabled", *sure)
    with pytest.raises(RefusedError, match="that is not leftover"):
        opsctl("delete", "leftover", "--reason", "r", "--confirm", "kinguin_enabled")
    assert owner.execute("SELECT FROM feature_flags WHERE name = 'leftover'").fetchall()
    assert opsctl("delete", "leftover", *sure) == "leftover is deleted\n"
    with pytest.raises(NotFoundError):
        opsctl("delete", "leftover", *sure)


@pytest.mark.usefixtures("file")
def test_the_name_is_typed_at_a_terminal(owner: Owner, login: As) -> None:
    """Neither yes nor Enter nor another's name will do; the name itself does, once."""
    login("super")
    owner.execute("INSERT INTO feature_flags (name) VALUES ('leftover')")
    for typed, code in (("y\n", 3), ("\n", 3), ("Leftover\n", 3), ("\x04", 1), ("leftover\n", 0), ("leftover\n", 4)):
        ours, theirs = pty.openpty()
        try:
            os.write(ours, typed.encode())
            ended = subprocess.run(
                [OPSCTL, "flags", "delete", "leftover", "--reason", "gone from the code"],
                env=dict(os.environ),
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            os.close(ours)
            os.close(theirs)
        assert ended.returncode == code, (typed, ended.stderr)
        assert code == 4 or "Type leftover to go on" in ended.stderr
    outcomes = owner.execute("SELECT outcome FROM ops.audit_events WHERE target = 'leftover' ORDER BY seq").fetchall()
    assert [row["outcome"] for row in outcomes] == [*["refused"] * 4, "intent", "allowed"]


def test_no_role_may_delete_but_super(owner: Owner, login: As, database: str) -> None:
    """Nor by SQL: the guard is politeness, the grant is the law."""
    del owner
    for role in ("staff", "jobs", "exporter", "grafana"):
        login(role)
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            """SELECT role
               FROM unnest(ARRAY['ops_staff', 'ops_jobs', 'ops_exporter', 'ops_grafana', 'ops_super']) AS role
               WHERE has_function_privilege(role, 'ops_app.delete_flag(text)', 'EXECUTE')"""
        ).fetchall()
    assert rows == [("ops_super",)]


@pytest.mark.usefixtures("login")
async def test_through_the_admin_api(
    owner: Owner, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running application hears it; one that is away fails the action, and the audit says so."""
    async with an_app(database, tmp_path) as app:
        for name, value in {"OPS_FLAGS_VIA": "api", **minted(app)}.items():
            monkeypatch.setenv(name, value)
        await asyncio.to_thread(opsctl, "set", "kinguin_enabled", "off", "--for", "30m", *BY_HAND)
        assert app.admin.flags["kinguin_enabled"] is False
    for span in ((), ("--for", "1h")):
        with pytest.raises(SourceError, match="cannot be reached"):
            await asyncio.to_thread(opsctl, "set", "kinguin_enabled", "on", *span, *BY_HAND)
    (override,) = owner.execute("SELECT value FROM ops.flag_overrides").fetchall()
    assert override == {"value": False}, "what was refused changed nothing"
    outcomes = owner.execute("SELECT outcome FROM ops.audit_events ORDER BY seq").fetchall()
    assert [event["outcome"] for event in outcomes] == ["intent", "allowed", *["intent", "failed"] * 2]


@pytest.mark.usefixtures("login")
def test_what_reads_cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """`list` runs in a session the server lets write nothing."""
    real = flag_sync.overrides

    def writes(connection: Any) -> Any:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("SELECT ops.flag_override_end('x')")
        return real(connection)

    monkeypatch.setattr(flag_sync, "overrides", writes)
    opsctl("list")
