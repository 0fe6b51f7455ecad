"""The job `flag-sync` on a real database and a running application: file to live, drift, overrides, broken files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from demo.app import App
from jobs import flag_sync
from jobs.flag_sync import JOB, Result
from opslib.areas import flag_sync as area
from opslib.errors import ConfigError, JobError, SourceError
from opslib.spec import NoParams
from tests.service.job_kit import a_run
from tests.service.shop_kit import ADMIN, an_app, minted

NAMES = (
    "auto_fulfill_enabled",
    "captcha_enabled",
    "custom_products_enabled",
    "email_notifications_enabled",
    "fulfillment_enabled",
    "kinguin_enabled",
    "payment_processing_enabled",
    "maintenance_mode",
)


class File:
    """A flag file that declares the application's own flags, each as it is seeded unless said otherwise.

    Args:
        path: Where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write()

    def write(self, **changed: str) -> None:
        """Write it; `changed` gives a flag its own fields, in YAML."""
        lines = ["flags:"]
        for name in dict.fromkeys([*NAMES, *changed]):
            fields = changed.get(name, f"enabled: {str(name != 'maintenance_mode').lower()}")
            lines.append(f"  {name}: {{{fields}, description: d, category: c, owner: o}}")
        self.path.write_text("\n".join(lines))


@pytest.fixture
def file(tmp_path: Path) -> File:
    """The flag file."""
    return File(tmp_path / "flags.yaml")


@pytest.fixture
async def app(database: str, tmp_path: Path) -> AsyncIterator[App]:
    """The running application."""
    async with an_app(database, tmp_path) as app:
        yield app


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """The owner's connection."""
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("INSERT INTO users (id, email, role) VALUES (%s, 'olga@admin.example', 'admin')", (ADMIN,))
        yield connection


@pytest.fixture
def env(database: str, owner: psycopg.Connection, file: File) -> dict[str, str]:
    """The job's settings through the table, logged in as a member of `ops_jobs` and of nothing else."""
    owner.execute("DROP ROLE IF EXISTS flag_job")
    owner.execute("CREATE ROLE flag_job LOGIN IN ROLE ops_jobs")
    dsn = make_conninfo(database, user="flag_job")
    return {"DATABASE_URL": dsn, "OPS_FLAGS_FILE": str(file.path), "OPS_FLAGS_VIA": "table"}


def through_api(env: dict[str, str], app: App) -> dict[str, str]:
    """The same through the admin API."""
    return {**env, "OPS_FLAGS_VIA": "api", **minted(app)}


async def sync(env: dict[str, str]) -> Result:
    """Run the job beside the loop that serves the application."""
    return await asyncio.to_thread(flag_sync.run, a_run(JOB.name, **env), NoParams())


def live(owner: psycopg.Connection[dict[str, Any]], name: str) -> bool:
    """What the application's table says."""
    (row,) = owner.execute("SELECT enabled FROM feature_flags WHERE name = %s", (name,)).fetchall()
    return bool(row["enabled"])


def state(owner: psycopg.Connection[dict[str, Any]], name: str) -> dict[str, Any]:
    """What is remembered of a flag."""
    (row,) = owner.execute("SELECT * FROM ops.flag_states WHERE key = %s", (name,)).fetchall()
    return row


def by_hand(owner: psycopg.Connection[Any], name: str, *, enabled: bool) -> None:
    """An administrator switches it in the application."""
    owner.execute(
        """UPDATE feature_flags SET enabled = %s, "updatedAt" = clock_timestamp(), "updatedById" = %s
           WHERE name = %s""",
        (enabled, ADMIN, name),
    )


@pytest.mark.parametrize("via", ["api", "table"])
async def test_file_to_live(
    owner: psycopg.Connection[dict[str, Any]], app: App, env: dict[str, str], file: File, via: str
) -> None:
    """The first sync adopts what is there; then the file changes and the application follows, once."""
    if via == "api":
        env = through_api(env, app)
    result = await sync(env)
    assert (result.in_sync, result.applied, result.drift, result.undeclared) == (8, [], [], [])
    file.write(maintenance_mode="enabled: true")
    result = await sync(env)
    assert [(each.key, each.wanted, each.why) for each in result.applied] == [
        ("maintenance_mode", True, "the file wants it on")
    ]
    assert live(owner, "maintenance_mode")
    # The admin API reaches the running application; its table is read when it next starts.
    assert app.admin.flags["maintenance_mode"] is (via == "api")
    applied_at = state(owner, "maintenance_mode")["applied_at"]
    assert (await sync(env)).applied == []
    assert state(owner, "maintenance_mode")["applied_at"] == applied_at
    (row,) = owner.execute("SELECT synced_at = tried_at AS whole, errors FROM ops.flag_syncs").fetchall()
    assert row == {"whole": True, "errors": []}


async def test_a_hand_edit_is_drift_with_who_and_when_and_stays(
    owner: psycopg.Connection[dict[str, Any]], app: App, env: dict[str, str]
) -> None:
    """Reported each time, never overwritten; put back by hand it is in sync again."""
    env = through_api(env, app)
    await sync(env)
    before = datetime.now(UTC)
    by_hand(owner, "kinguin_enabled", enabled=False)
    for _ in range(2):
        (drift,) = (await sync(env)).drift
        assert (drift.key, drift.wanted, drift.live) == ("kinguin_enabled", True, False)
        assert drift.changed_by == "o***@admin.example"
        assert drift.changed_at is not None
        assert before <= drift.changed_at <= datetime.now(UTC)
        assert not live(owner, "kinguin_enabled")
    kept = state(owner, "kinguin_enabled")
    assert (kept["state"], kept["changed_by"], kept["applied"]) == ("drift", "o***@admin.example", True)
    by_hand(owner, "kinguin_enabled", enabled=True)
    assert (await sync(env)).in_sync == 8
    assert state(owner, "kinguin_enabled")["changed_by"] is None


async def test_an_edit_behind_the_applications_back_names_nobody(
    owner: psycopg.Connection[dict[str, Any]], env: dict[str, str]
) -> None:
    """A bare UPDATE leaves no time and no name; the name of the change before is not taken for it."""
    by_hand(owner, "kinguin_enabled", enabled=True)
    await sync(env)
    owner.execute("UPDATE feature_flags SET enabled = false WHERE name = 'kinguin_enabled'")
    (drift,) = (await sync(env)).drift
    assert (drift.changed_by, drift.changed_at) == (None, None)


async def test_before_the_first_sync_nobody_can_tell_who_moved(
    owner: psycopg.Connection[dict[str, Any]], env: dict[str, str], file: File
) -> None:
    """What differs then is reported and left, unless the file enforces it."""
    file.write(captcha_enabled="enabled: false", maintenance_mode="enabled: true, enforce: true")
    result = await sync(env)
    assert [each.key for each in result.drift] == ["captcha_enabled"]
    assert [each.key for each in result.applied] == ["maintenance_mode"]
    assert live(owner, "captcha_enabled")
    assert live(owner, "maintenance_mode")


async def test_enforced_is_undone_and_reported(
    owner: psycopg.Connection[dict[str, Any]], env: dict[str, str], file: File
) -> None:
    """The hand edit is gone within one sync, and the run's result says whose it was."""
    file.write(kinguin_enabled="enabled: true, enforce: true")
    await sync(env)
    by_hand(owner, "kinguin_enabled", enabled=False)
    (undone,) = (await sync(env)).applied
    assert (undone.key, undone.changed_by) == ("kinguin_enabled", "o***@admin.example")
    assert live(owner, "kinguin_enabled")
    assert (await sync(env)).applied == []


async def test_a_broken_file_changes_nothing_and_is_remembered(
    owner: psycopg.Connection[dict[str, Any]], env: dict[str, str], file: File
) -> None:
    """Not even its valid part; the errors stand with their lines until the file is whole again."""
    await sync(env)
    (before,) = owner.execute("SELECT synced_at FROM ops.flag_syncs").fetchall()
    file.write(maintenance_mode="enabled: true", kinguin_enabled="enabled: perhaps")
    with pytest.raises(JobError, match=r"nothing was changed:\n.*:7: kinguin_enabled.enabled: "):
        await sync(env)
    assert not live(owner, "maintenance_mode")
    (row,) = owner.execute("SELECT synced_at, tried_at > synced_at AS later, errors FROM ops.flag_syncs").fetchall()
    assert (row["synced_at"], row["later"], len(row["errors"])) == (before["synced_at"], True, 1)
    file.path.unlink()
    with pytest.raises(JobError, match="check OPS_FLAGS_FILE"):
        await sync(env)
    file.write(maintenance_mode="enabled: true")
    assert len((await sync(env)).applied) == 1
    (row,) = owner.execute("SELECT errors FROM ops.flag_syncs").fetchall()
    assert row["errors"] == []


async def test_an_override_is_put_back_when_its_time_is_over(
    owner: psycopg.Connection[dict[str, Any]], app: App, env: dict[str, str]
) -> None:
    """It holds through syncs, ends by itself, and leaves nothing behind."""
    env = through_api(env, app)
    await sync(env)
    until = datetime.now(UTC) + timedelta(hours=2)
    owner.execute("SELECT ops.flag_override('kinguin_enabled', false, %s, 'runway')", (until,))
    (given,) = (await sync(env)).applied
    assert given.why == "postgres's override wants it off"
    assert app.admin.flags["kinguin_enabled"] is False
    assert (await sync(env)).applied == []
    owner.execute("UPDATE ops.flag_overrides SET until = now()")
    (back,) = (await sync(env)).applied
    assert (back.wanted, back.why) == (True, "the file wants it on")
    assert app.admin.flags["kinguin_enabled"] is True
    assert owner.execute("SELECT FROM ops.flag_overrides").fetchall() == []
    assert (await sync(env)).in_sync == 8


def test_an_override_is_for_a_while(owner: psycopg.Connection[dict[str, Any]]) -> None:
    """Not for the past and not for good: what shall last belongs into the file."""
    for until in (timedelta(seconds=-1), timedelta(days=32)):
        with pytest.raises(psycopg.Error, match="belongs into the file"):
            owner.execute("SELECT ops.flag_override('f', true, now() + %s, 'r')", (until,))


async def test_dead_between_setting_and_remembering(
    owner: psycopg.Connection[dict[str, Any]], env: dict[str, str], file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after the application was told: the next sync finds it as wanted, not as a hand edit."""
    await sync(env)
    file.write(maintenance_mode="enabled: true")

    def dies(self: area.Table, name: str, *, enabled: bool) -> None:
        real(self, name, enabled=enabled)
        raise KeyboardInterrupt

    real = area.Table.set_flag
    with monkeypatch.context() as patched:
        patched.setattr(area.Table, "set_flag", dies)
        with pytest.raises(KeyboardInterrupt):
            flag_sync.run(a_run(JOB.name, **env), NoParams())
    assert live(owner, "maintenance_mode")
    result = await sync(env)
    assert (result.drift, result.applied, result.in_sync) == ([], [], 8)
    assert state(owner, "maintenance_mode")["applied"] is True


async def test_several_at_once(owner: psycopg.Connection[dict[str, Any]], env: dict[str, str], file: File) -> None:
    """A job, its taken-over twin and a person: nobody fails, and all is as wanted."""
    await sync(env)
    for _ in range(2):
        for value in ("true", "false"):
            file.write(maintenance_mode=f"enabled: {value}", kinguin_enabled=f"enabled: {value}")
            results = await asyncio.gather(*(sync(env) for _ in range(4)))
            assert all(result.drift == [] for result in results)
            assert live(owner, "maintenance_mode") is (value == "true")
    assert (await sync(env)).in_sync == 8


async def test_an_application_that_refuses(
    owner: psycopg.Connection[dict[str, Any]], app: App, env: dict[str, str], file: File
) -> None:
    """The run fails and says why, the sync does not count as gone through, and the next one mends it."""
    env = through_api(env, app)
    await sync(env)
    file.write(maintenance_mode="enabled: true", kinguin_enabled="enabled: false")
    with pytest.raises(
        JobError, match=r"maintenance_mode: answered 401.*kinguin_enabled: answered 401|kinguin_enabled"
    ):
        await sync({**env, "APP_JWT_SECRET": "another-secret-of-thirty-two-bytes"})
    (row,) = owner.execute("SELECT count(*) FROM ops.flag_states WHERE state = 'in_sync'").fetchall()
    assert row["count"] == 8
    assert len((await sync(env)).applied) == 2


async def test_what_the_other_side_does_not_have(
    owner: psycopg.Connection[dict[str, Any]], env: dict[str, str], file: File
) -> None:
    """Declared and not live, live and not declared, and partial rollouts, which a table of on and off cannot hold."""
    file.write(nonsense="enabled: true", captcha_enabled="enabled: true, scope: user, rollout: 20")
    owner.execute("INSERT INTO feature_flags (name) VALUES ('leftover')")
    result = await sync(env)
    assert (result.unknown, result.undeclared, result.in_sync) == (["nonsense"], ["leftover"], 7)
    assert live(owner, "captcha_enabled")
    rows = owner.execute("SELECT state, count(*) FROM ops.flag_states GROUP BY 1 ORDER BY 1").fetchall()
    assert {row["state"]: row["count"] for row in rows} == {
        "document_only": 1, "in_sync": 7, "undeclared": 1, "unknown": 1
    }  # fmt: skip
    file.write()
    owner.execute("DELETE FROM feature_flags WHERE name = 'leftover'")
    assert (await sync(env)).in_sync == 8
    assert owner.execute("SELECT FROM ops.flag_states WHERE state <> 'in_sync'").fetchall() == []


async def test_settings_and_servers_that_are_missing(env: dict[str, str], app: App) -> None:
    """Each says what to do, before anything is changed."""
    with pytest.raises(ConfigError, match="APP_BASE_URL is not set"):
        await sync({**env, "OPS_FLAGS_VIA": "api"})
    with pytest.raises(SourceError, match="check the DSN"):
        await sync({**env, "DATABASE_URL": "host=/nowhere dbname=x"})
    del app
